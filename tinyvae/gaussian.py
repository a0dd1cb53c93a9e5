"""q_φ(z|x): a Gaussian for each data point, diagonal or with full covariance."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from . import ops
from .checks import Array


@dataclass(frozen=True)
class Gaussian:
    """q(z|x_n) = N(mean_n, C_n C_nᵀ), one for each of N data points.

    C is lower triangular with diagonal exp(log_diag) (N, L) and strictly lower entries `lower`
    (N, L(L−1)/2); for a diagonal covariance `lower` is (N, 0).
    """

    mean: Array
    log_diag: Array
    lower: Array

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, rows: Any) -> "Gaussian":
        return Gaussian(self.mean[rows], self.log_diag[rows], self.lower[rows])

    @cached_property
    def cholesky(self) -> Array:
        """C, (N, L, L)."""
        C = np.exp(self.log_diag)[..., None] * np.eye(self.mean.shape[-1])
        for k, (i, j) in enumerate(ops.strictly_lower(self.mean.shape[-1])[: self.lower.shape[-1]]):
            C[..., i, j] = self.lower[..., k]
        return C

    @cached_property
    def cov(self) -> Array:
        """C Cᵀ, (N, L, L)."""
        return self.cholesky @ self.cholesky.swapaxes(-1, -2)

    @cached_property
    def kl_prior(self) -> Array:
        """KL(q ‖ N(0, I)) in closed form, (N,), nats."""
        return ops.gaussian_kl(self.mean, self.log_diag, self.lower)

    def whiten(self, z: Array) -> Array:
        """C⁻¹ (z − mean) by forward substitution; z (..., N, L)."""
        r = z - self.mean
        u = np.empty_like(r)
        pairs = ops.strictly_lower(r.shape[-1])[: self.lower.shape[-1]]
        for i in range(r.shape[-1]):
            u[..., i] = r[..., i]
            for k, (row, column) in enumerate(pairs):
                if row == i:
                    u[..., i] -= self.lower[..., k] * u[..., column]
            u[..., i] *= np.exp(-self.log_diag[..., i])
        return u

    def log_prob(self, z: Array, rows: Any = slice(None)) -> Array:
        """log q(z_p | x_rows[p]); z (..., N, L) or, with `rows` (P,), z (P, L). Nats."""
        q = self if isinstance(rows, slice) and rows == slice(None) else self[rows]
        u = q.whiten(z)
        squares = np.einsum("...l,...l->...", u, u)
        return -0.5 * squares - q.log_diag.sum(-1) - 0.5 * ops.LOG_2PI * z.shape[-1]

    def sample(self, eps: Array) -> Array:
        """z = mean + C eps; eps (N, L) from N(0, I)."""
        return self.mean + np.einsum("...ij,...j->...i", self.cholesky, eps)
