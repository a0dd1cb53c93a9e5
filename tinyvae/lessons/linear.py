"""The linear Gaussian model in closed form: what every number of a linear VAE can be held against.

    x = W z + b + noise,   z ~ N(0, I),   noise ~ N(0, diag(noise_std²))

One noise_std for all dimensions is probabilistic PCA (Tipping & Bishop 1999); one for each is factor analysis
(Rubin & Thayer 1982). Shapes: x (N, D), W (D, L). Unit: nats per data point.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import Array
from ..fused import FusedGradient
from ..gaussian import Gaussian
from ..model import VAE
from ..ops import LOG_2PI
from ..optimizers import Adam


@dataclass(frozen=True)
class Linear:
    """The model at one θ."""

    W: Array  # (D, L)
    b: Array  # (D,)
    noise_std: Array  # (D,)

    @classmethod
    def of(cls, model: VAE, theta: Array) -> "Linear":
        """A VAE with hidden=() as what it is."""
        ((W, b),) = model.unpack_theta(theta).layers
        return cls(W.T, b, np.exp(np.broadcast_to(model.log_noise_std(theta), b.shape)))

    def put_into(self, model: VAE, theta: Array) -> None:
        """Write this W, b and noise into the θ of a linear VAE."""
        parts = model.unpack_theta(theta)
        parts.layers[0][0][:], parts.layers[0][1][:] = self.W.T, self.b
        if parts.log_noise_std is not None:
            parts.log_noise_std[:] = np.log(self.noise_std[: parts.log_noise_std.size])

    @property
    def posterior_precision(self) -> Array:
        """I + Wᵀ Ψ⁻¹ W, (L, L), the same for every x."""
        return np.eye(self.W.shape[1]) + (self.W.T / self.noise_std**2) @ self.W

    def posterior_mean(self, x: Array) -> Array:
        """(N, L)."""
        return (x - self.b) @ np.linalg.solve(self.posterior_precision, self.W.T / self.noise_std**2).T

    def log_px(self, x: Array) -> Array:
        """log N(x; b, W Wᵀ + Ψ), (N,)."""
        return log_normal(x - self.b, self.W @ self.W.T + np.diag(self.noise_std**2))

    def kl_posterior(self, x: Array, q: Gaussian) -> Array:
        """KL(q ‖ p(z|x)) of two Gaussians, (N,)."""
        P, r = self.posterior_precision, q.mean - self.posterior_mean(x)
        trace = np.einsum("ij,nij->n", P, q.cov)
        log_det = np.linalg.slogdet(P)[1] + 2 * q.log_diag.sum(axis=1)
        return 0.5 * (trace + np.einsum("ni,ij,nj->n", r, P, r) - P.shape[0] - log_det)

    def kl_posterior_floor(self) -> float:
        """The least KL(q ‖ p(z|x)) of a diagonal q: ½ [Σ log diag(Λ) − log |Λ|], Λ the posterior precision."""
        P = self.posterior_precision
        return float(0.5 * (np.log(np.diag(P)).sum() - np.linalg.slogdet(P)[1]))

    def turned(self, R: Array) -> "Linear":
        """The same p(x) with the latent axes turned: z' = R z, R orthogonal (L, L)."""
        return Linear(self.W @ R.T, self.b, self.noise_std)

    def aligned_to(self, other: "Linear") -> "Linear":
        """Turned to be as close to `other` as it can be: no data can tell the two apart.

        The R that minimises |W Rᵀ − W'| comes from the SVD of W'ᵀ W (orthogonal Procrustes, Schönemann 1966).
        """
        U, _, V = np.linalg.svd(other.W.T @ self.W)
        return self.turned(U @ V)

    def posterior_as_q(self, x: Array) -> Gaussian:
        """p(z|x) as a q."""
        C = np.linalg.cholesky(np.linalg.inv(self.posterior_precision))
        log_diag, lower = np.log(np.diag(C)), C[np.tril_indices(len(C), -1)]
        n = len(x)
        return Gaussian(self.posterior_mean(x), np.tile(log_diag, (n, 1)), np.tile(lower, (n, 1)))


def log_normal(r: Array, cov: Array) -> Array:
    """log N(r; 0, cov), (N,)."""
    squares = np.einsum("ni,ni->n", r, np.linalg.solve(cov, r.T).T)
    return np.asarray(-0.5 * (squares + np.linalg.slogdet(cov)[1] + r.shape[1] * LOG_2PI))


# ----- maximum likelihood -----


def ppca(x: Array, latent_dim: int) -> Linear:
    """Probabilistic PCA at its maximum likelihood (Tipping & Bishop 1999, eqs. 7 and 8)."""
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False, bias=True))
    values, vectors = values[::-1], vectors[:, ::-1]
    variance = values[latent_dim:].mean()
    W = vectors[:, :latent_dim] * np.sqrt(np.maximum(values[:latent_dim] - variance, 0))
    return Linear(W, x.mean(axis=0), np.full(x.shape[1], np.sqrt(variance)))


def factor_analysis(x: Array, latent_dim: int, steps: int = 5000) -> Linear:
    """Factor analysis by EM (Rubin & Thayer 1982), started at probabilistic PCA."""
    start, S = ppca(x, latent_dim), np.cov(x, rowvar=False, bias=True)
    W, variance = start.W, start.noise_std**2
    for _ in range(steps):
        cov_z = np.linalg.inv(np.eye(latent_dim) + (W.T / variance) @ W)
        B = cov_z @ (W.T / variance)  # E[z|x] = B (x − b)
        W = S @ B.T @ np.linalg.inv(cov_z + B @ S @ B.T)
        variance = np.diag(S - W @ B @ S)
    return Linear(W, x.mean(axis=0), np.sqrt(variance))


# ----- training without noise -----


class Exact:
    """Full-batch training of a linear VAE with exact expectations.

    With linear networks log p(x|z) is quadratic in the noise ε of z = mean + C ε, and the 2L points
    ±√L e_i have the mean and the covariance of N(0, I): averaged over them, a quadratic is exact.
    """

    def __init__(self, model: VAE, x: Array, theta: Array, phi: Array):
        if model.hidden or model.likelihood != "gaussian":
            raise ValueError("Exact: expected a linear Gaussian VAE (hidden=())")
        L, self.x = model.latent_dim, x
        points = np.sqrt(L) * np.concatenate([np.eye(L), -np.eye(L)])
        self.eps = np.repeat(points[:, None], len(x), axis=1)  # (2L, N, L)
        self.gradient: Any = FusedGradient(model, len(x), 2 * L)
        self.model, self.theta, self.phi, self.adam = model, theta.copy(), phi.copy(), Adam()
        self.states = self.adam.init(theta), self.adam.init(phi)

    def train(
        self, steps: int, rate: float, theta: bool = True, phi: bool = True, last: float = 1.0
    ) -> "Exact":
        """Adam on the exact gradient; `last`: the rate falls evenly, in the log, to this part of itself."""
        for k in range(steps):
            at = self.theta, self.phi, self.x, self.eps
            *_, g_theta, g_phi = self.gradient(*at, want_theta=theta, want_phi=phi)
            now = rate * last ** (k / steps)
            if theta:
                self.adam.update(self.theta, g_theta, self.states[0], now)
            if phi:
                self.adam.update(self.phi, g_phi, self.states[1], now)
        return self

    def terms(self) -> tuple[float, float, float]:
        """Means of log_px and kl_posterior in closed form, and kl_prior."""
        q, linear = self.model.encode(self.phi, self.x), Linear.of(self.model, self.theta)
        means = linear.log_px(self.x), linear.kl_posterior(self.x, q), q.kl_prior
        return tuple(float(term.mean()) for term in means)  # type: ignore[return-value]
