"""A Gaussian model with a linear decoder in closed form, for z ∈ R¹ or R²: right up to rounding.

With B = W/σ = U s Vᵀ and a = (x − b)/σ the posterior is N(m, S), S⁻¹ = I + BᵀB, and along V (marked ~)

    m~ = s/(1 + s²) Uᵀa        log p(x) = log p(x|m) + log p(m) − log p(m|x)

The terms come from formulas of their own, so that the residual checks them: log p(x) from the posterior mean,
E_q[log p(x|z)] from the moments of q, KL(q ‖ p(z|x)) as that of two Gaussians.
"""

from typing import Any

import numpy as np

from ..checks import Array
from ..gaussian import Gaussian
from ..ops import LOG_2PI

EPS = float(np.finfo(float).eps)


class LinearEvidence:
    """log p_θ(x) and the posteriors of the data points x (N, D)."""

    def __init__(self, joint: Any, x: Array):
        ((W, _, b),), scale = joint.layers, joint.inverse_std
        self.a = (x - b) * scale  # (N, D)
        self.U, self.s, self.Vt = np.linalg.svd((W * scale).T, full_matrices=False)
        if len(self.s) < len(W):  # fewer outputs than latent dims: the other directions are not seen
            self.U, self.s, self.Vt = np.linalg.svd((W * scale).T, full_matrices=True)
            self.U = np.pad(self.U, ((0, 0), (0, len(W) - len(self.s))))
            self.s = np.pad(self.s, (0, len(W) - len(self.s)))
        self.precision = 1 + self.s**2  # of the posterior, along V, (L,)
        self.log_constant = float(np.log(scale).sum() - 0.5 * x.shape[1] * LOG_2PI)
        self.mean = (self.a @ self.U) * (self.s / self.precision)  # m~, (N, L)
        r = self.a - (self.mean * self.s) @ self.U.T
        squares = (r * r).sum(axis=1) + (self.mean**2).sum(axis=1)
        self.log_px = self.log_constant - 0.5 * (squares + np.log(self.precision).sum())
        size = np.sqrt((self.a**2).sum(axis=1))
        of_scale = 32 + abs(self.log_constant) + x.shape[1] + self.s.max() + np.log(self.precision).sum()
        self.rounding = EPS * of_scale + np.zeros(len(x))
        self.error = self.rounding + 4 * EPS * (squares + size * np.sqrt((r * r).sum(axis=1)))

    @property
    def moments(self) -> tuple[Array, Array, Array, Array]:
        """Mean (N, L) and covariance (N, L, L) of the posteriors, and their errors."""
        cov = (self.Vt.T / self.precision) @ self.Vt
        mean, cov = self.mean @ self.Vt, np.broadcast_to(cov, (len(self.a), *cov.shape)).copy()
        size = 1 + np.sqrt((self.a**2).sum(axis=1))
        return mean, cov, 32 * EPS * np.broadcast_to(size[:, None], mean.shape), np.full_like(cov, 32 * EPS)

    def terms(self, q: Gaussian) -> Array:
        """E_q[log p(x|z)], KL(q ‖ p(z|x)) and their errors, (4, N)."""
        mean, C = q.mean @ self.Vt.T, self.Vt @ q.cholesky  # along V
        r = self.a - (mean * self.s) @ self.U.T
        far = (r * r).sum(axis=1)
        spread = ((self.s[:, None] * C) ** 2).sum(axis=(1, 2))
        reconstruction = self.log_constant - 0.5 * (far + spread)
        w = np.sqrt(self.precision) * (mean - self.mean)
        trace = (self.precision[:, None] * C**2).sum(axis=(1, 2))
        logs = 2 * q.log_diag.sum(axis=1), np.log(self.precision).sum()
        kl = 0.5 * (trace + (w * w).sum(axis=1) - len(self.s) - logs[0] - logs[1])
        length = np.sqrt((self.a**2).sum(axis=1)) + np.sqrt((self.precision * mean**2).sum(axis=1))
        error = self.rounding + 4 * EPS * (far + spread + length * np.sqrt(far))
        kl_error = self.rounding + 4 * EPS * (
            trace + np.abs(logs[0]) + (w * w).sum(axis=1) + length * np.sqrt((w * w).sum(axis=1))
        )
        return np.array([reconstruction, kl, error, kl_error])

    def divergence_to(self, other: "LinearEvidence") -> Array:
        """KL of the posteriors and its error, (2, N)."""
        turn = other.Vt @ self.Vt.T
        w = np.sqrt(other.precision) * (self.mean @ turn.T - other.mean)
        trace = (other.precision[:, None] * turn**2 / self.precision).sum()
        logs = np.log(self.precision).sum() - np.log(other.precision).sum()
        squares = (w * w).sum(axis=1)
        value = 0.5 * (trace + squares - len(self.s) + logs)
        length = np.sqrt((self.a**2).sum(axis=1)) + np.sqrt((other.a**2).sum(axis=1)) * (
            1 + np.sqrt(other.precision.max() / self.precision.min())
        )
        error = self.rounding + other.rounding + 4 * EPS * (trace + squares + length * np.sqrt(squares))
        return np.array([value, error])
