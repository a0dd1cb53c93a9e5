"""How far q is from the true posterior: a KL that forgives what no data could tell.

p(x) stays the same when the latent axes are flipped (z ∈ R¹) or, in a linear model, turned (z ∈ R²). So q is
flipped or turned to where it fits best before it is measured. For a curved model of z ∈ R² the symmetries are
too many to align (any map that keeps N(0, I) is one): there is no number to give.
"""

import numpy as np

from ..checks import Array
from ..datasets import Generator
from ..exact import Target, terms_under
from ..gaussian import Gaussian
from .linear import Linear

ANGLES = 720  # tried before the best of them is refined


class TrueMeter:
    """KL(q ‖ true posterior), mean over x (N, D), nats; the truth is computed once.

    Raises ValueError for a truth that cannot be aligned to.
    """

    def __init__(self, truth: Generator, x: Array):
        self.x, self.linear = x, as_linear(truth)
        if truth.latent_dim > 1 and self.linear is None:
            raise ValueError("TrueMeter: expected z in R^1 or a linear truth, got a curved one of z in R^2")
        self.target = Target(truth, None, x)

    def kl(self, q: Gaussian) -> float:
        """Of q as it is best aligned."""
        if self.target.joint.latent_dim == 1:
            return min(self._kl(q), self._kl(Gaussian(-q.mean, q.log_diag, q.lower)))
        assert self.linear is not None
        P, m = self.linear.posterior_precision, self.linear.posterior_mean(self.x)
        second = (q.cov + q.mean[:, :, None] * q.mean[:, None, :]).mean(axis=0)
        cross = q.mean.T @ m / len(m)
        constant = np.einsum("ni,ij,nj->n", m, P, m).mean() - len(P) - np.linalg.slogdet(P)[1]
        constant -= 2 * q.log_diag.sum(axis=1).mean()

        def kl(angle: Array, flip: float) -> Array:  # of N(R mean, R cov Rᵀ): its mean over the data
            c, s = np.cos(angle), np.sin(angle)
            R = np.stack([np.stack([c, -flip * s], -1), np.stack([s, flip * c], -1)], axis=-2)
            squares = np.einsum("ij,ajk,kl,ail->a", P, R, second, R)
            return np.asarray(0.5 * (squares - 2 * np.einsum("ij,ajk,ki->a", P, R, cross) + constant))

        best = np.inf
        for flip in (1.0, -1.0):
            centre, width = np.pi, np.pi
            for _ in range(4):
                angle = np.linspace(centre - width, centre + width, ANGLES + 1)
                values = kl(angle, flip)
                centre, width = angle[np.argmin(values)], 4 * width / ANGLES
                best = min(best, float(values.min()))
        return best

    def _kl(self, q: Gaussian) -> float:
        return float(terms_under(q, self.target).kl_posterior.mean())


def as_linear(truth: Generator) -> Linear | None:
    """A generator as a linear model, if it is one."""
    if truth.noise_std is None:
        return None
    z = np.concatenate([np.zeros((1, truth.latent_dim)), np.eye(truth.latent_dim)])
    b, *columns = truth.outputs(z)
    W = np.stack(columns, axis=1) - b[:, None]
    z = np.random.default_rng(0).standard_normal((16, truth.latent_dim))
    if not np.allclose(truth.outputs(z), z @ W.T + b, rtol=0, atol=1e-9 * (1 + np.abs(W).max())):
        return None
    return Linear(W, b, np.broadcast_to(truth.noise_std, b.shape))
