"""All that θ owns: log p_θ(x) and the posterior p_θ(z|x), computed once per θ.

    log p_θ(x) = log ∫ p(z) p_θ(x|z) dz        p_θ(z|x) = p(z) p_θ(x|z) / p_θ(x)

φ has no say in here: a φ-step leaves the Target as it is, to the last bit.
"""

from functools import cached_property
from typing import Any

import numpy as np

from ..checks import Array, Bools, data_points
from .halving import INTEGRALS, Halving
from .joint import VAEJoint, joint_of
from .line import Evidence
from .linear import LinearEvidence
from .quadrature import keep_freed_memory

TOLERANCE = {1: 1e-9, 2: 1e-6}  # nats, for z ∈ R¹ and z ∈ R²


class Target:
    """log p_θ(x) and p_θ(z|x) for the data points x (N, D) at one θ, and what is known of their errors.

    Attributes:
        log_px: nats, (N,).
        error: of log_px, (N,), nats: `tolerance` or less, unless the budget was spent; inf where nothing is known.
        certified: whether a proven bound says so, (N,) bool: nothing hides between the nodes or beyond them, up to
            rounding, of which the error has an estimate. For a VAE with z ∈ R¹, and for a linear Gaussian one.
        checked: whether lattices of different nodes agree to the tolerance, and the search saw no mass elsewhere;
            or certified, (N,) bool.

    Raises ValueError for x that is no data, and for a tolerance out of reach.
    """

    def __init__(self, model: Any, theta: Any, x: Any, tolerance: float | None = None):
        keep_freed_memory()
        self.joint = joint_of(model, theta)
        self.x = data_points(x)
        self.tolerance = check_tolerance(tolerance, self.joint.latent_dim)
        self.proven = proven_evidence(self.joint, self.x, self.tolerance / INTEGRALS)
        by = self.halving if self.proven is None else self.proven
        self.log_px, self.error = by.log_px, by.error
        self.certified: Bools = (self.error <= self.tolerance) & (self.proven is not None)
        self.checked: Bools = self.certified | (by.checked_error <= self.tolerance)

    @cached_property
    def halving(self) -> Halving:
        """The same without a proof: for what has no bounds, and for a q that is no Gaussian."""
        return Halving(self.joint, self.x, self.tolerance)

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def _moments(self) -> tuple[Array, Array, Array, Array]:
        by = self.halving if self.proven is None else self.proven
        return by.moments

    @property
    def posterior_mean(self) -> Array:
        """E[z | x_n] under p_θ(z|x), (N, L)."""
        return self._moments[0]

    @property
    def posterior_cov(self) -> Array:
        """Cov[z | x_n] under p_θ(z|x), (N, L, L)."""
        return self._moments[1]

    @property
    def posterior_mean_error(self) -> Array:
        """The error of each posterior mean, (N, L): proven as that of log_px is, or from halves of the nodes."""
        return self._moments[2]

    @property
    def posterior_cov_error(self) -> Array:
        """The error of each posterior covariance, (N, L, L)."""
        return self._moments[3]

    def log_posterior(self, z: Any, points: Any = slice(None)) -> Array:
        """log p_θ(z|x_n) for all data points (or those chosen) at z (M, L) -> (n, M), nats."""
        z = np.asarray(z, dtype=float).reshape(-1, self.joint.latent_dim)
        log_p = self.joint.log_likelihood(
            self.x[points][:, None], self.joint.outputs(z)
        ) + self.joint.log_prior(z)
        return log_p - self.log_px[points][:, None]

    def posterior_density(self, z: Any, points: Any = slice(None)) -> Array:
        """p_θ(z|x_n) for all data points (or those chosen) at z (M, L) -> (n, M)."""
        return np.exp(self.log_posterior(z, points))

    def divergence_to(self, other: "Target") -> Array:
        """KL(p_θ(z|x) ‖ p_θ'(z|x)) with `other` the Target of θ' for the same x, (N,), nats: how far it moves."""
        return self.divergence_and_error(other)[0]

    def divergence_and_error(self, other: "Target") -> tuple[Array, Array]:
        """The same, and its error: proven where both targets are, or from halves of the nodes. (N,) each."""
        if self.proven is not None and type(self.proven) is type(other.proven):
            value, error = self.proven.divergence_to(other.proven)  # type: ignore[arg-type]
        else:
            value, error = self.halving.divergence_to(other.halving)
        return value, error


def proven_evidence(joint: Any, x: Array, tolerance: float) -> Evidence | LinearEvidence | None:
    """log p_θ(x) and the posteriors with proven errors, where there is a way to them."""
    if not isinstance(joint, VAEJoint):
        return None
    if not joint.layers[1:] and joint.model.likelihood == "gaussian":
        with np.errstate(over="ignore", invalid="ignore"):
            return LinearEvidence(joint, x)
    return Evidence(joint, x, tolerance) if joint.latent_dim == 1 else None


def check_tolerance(tolerance: float | None, dim: int) -> float:
    if dim not in TOLERANCE:
        raise ValueError(f"latent_dim: expected 1 or 2 (the exact terms exist for those), got {dim}")
    if tolerance is None:
        return TOLERANCE[dim]
    if not 1e-13 <= tolerance < 1:
        raise ValueError(f"tolerance: expected a number of nats from 1e-13 to below 1, got {tolerance!r}")
    return float(tolerance)
