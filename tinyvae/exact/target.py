"""All that θ owns: log p_θ(x) and the posterior p_θ(z|x), computed once per θ.

    log p_θ(x) = log ∫ p(z) p_θ(x|z) dz        p_θ(z|x) = p(z) p_θ(x|z) / p_θ(x)

φ has no say in here: a φ-step leaves the Target as it is, to the last bit.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..checks import Array, Ints, data_points
from .joint import joint_of
from .quadrature import EPS, Estimate, Tiles, certify, keep_freed_memory
from .scan import scan
from .tables import Tables

TOLERANCE = {1: 1e-9, 2: 1e-6}  # nats, for z ∈ R¹ and z ∈ R²
KEEP = 2**24  # numbers in tables of the posteriors that are kept; others are computed again when needed
INTEGRALS = 4  # each integral gets this part of the tolerance, so that the identity closes to all of it


@dataclass(frozen=True)
class _Part:
    """The posteriors of some data points on their tiles."""

    points: Ints  # (n,)
    tiles: Tiles
    density: Array | None  # (P, T), not normalised; None if there was no room to keep it
    mass: Array  # its sum, (n,)


class Target:
    """log p_θ(x) and p_θ(z|x) of the data points x (N, D) at one θ, with their errors.

    Args:
        model: a VAE, or a Joint such as Callables (theta is then ignored).
        theta: (P_θ,), copied.
        tolerance: nats; None for 1e-9 (z ∈ R¹) and 1e-6 (z ∈ R²).

    log_px (N,) is the sum over all nodes of the lattice; log_norm (N,), the normaliser that the posterior
    uses, only over every second node, so that whatever is computed from the posterior checks log_px.
    error (N,) bounds both, in nats: `tolerance` or less, unless the budget was spent. Raises ValueError where
    shapes do not fit, numbers are not finite, or a function does not give log densities.
    """

    def __init__(self, model: Any, theta: Any, x: Any, tolerance: float | None = None):
        keep_freed_memory()
        self.joint = joint_of(model, theta)
        self.x = data_points(x)
        self.tolerance = check_tolerance(tolerance, self.joint.latent_dim)
        self.tables = Tables(self.joint, self.x)
        dim, n = self.joint.latent_dim, len(self.x)
        each = self.tolerance / INTEGRALS
        beyond = self.tables.beyond if self.tables.factored else None
        support = scan(self.tables.survey, n, dim, each, self.tables.bounded, beyond, per_node=self.x.shape[1])
        self._peak, self._parts, self._room = support.peak, list[_Part](), KEEP
        result = certify(support, support.start, dim, each, self._integrate)
        self.level = result.level
        self.log_px, self.log_norm = result.value
        resolved = support.resolved & (result.level >= support.least)
        with np.errstate(over="ignore", invalid="ignore"):
            error = result.error.max(axis=0) + np.exp(support.left_out - self.log_px)
        self.error = np.where(resolved & ~np.isnan(error), error, np.inf)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def certified(self) -> Any:
        """Whether each data point reached the tolerance, (N,) bool."""
        return self.error <= self.tolerance

    # ----- the integral -----

    def _density(self, points: Ints, tiles: Tiles) -> tuple[Array, Array, Array]:
        """f = p(x, z) |dz/dt| e^(−shift) at the nodes of each pair, (P, T), its sums (H, n), the shift (n,)."""
        shift = self._peak[points]
        with np.errstate(over="ignore", invalid="ignore"):
            f = self.tables.log_joint(points, tiles, shift)
            sums = tiles.sums(np.exp(f, out=f))
            if not (np.isfinite(sums).all() and sums[0].all()):  # far from the peak that was seen
                shift = shift + tiles.max(self.tables.log_joint(points, tiles, shift))
                f = self.tables.log_joint(points, tiles, shift)
                sums = tiles.sums(np.exp(f, out=f))
        return f, sums, shift

    def _integrate(self, points: Ints, tiles: Tiles) -> Estimate:
        f, sums, peak = self._density(points, tiles)
        self._room -= f.size
        self._parts.append(_Part(points, tiles, f if self._room > 0 else None, sums[0]))
        with np.errstate(divide="ignore", invalid="ignore"):
            halves = np.log(2 * sums[1:] / sums[0])
            log_px = np.log(sums[0]) + peak + tiles.dim * np.log(tiles.h)
            gap, rounding = np.abs(halves).max(axis=0), 8 * EPS * (1 + np.abs(peak))
            if self.tables.bounded:
                uncertain = tiles.sums(f * self.tables.uncertainty(tiles)[tiles.tile])[0] / sums[0]
                rounding += np.where(uncertain < 1e-6, uncertain, np.inf)
        return Estimate(np.array([log_px, log_px + halves[-1]]), gap[None], rounding)

    # ----- the posterior -----

    # A data point that was refined occurs in more than one part: the last is the finest, and overwrites.

    def _density_of(self, part: _Part) -> Array:
        return self._density(part.points, part.tiles)[0] if part.density is None else part.density

    @cached_property
    def _moments(self) -> tuple[Array, Array]:
        L = self.joint.latent_dim
        mean, cov = np.empty((len(self), L)), np.empty((len(self), L, L))
        for part in self._parts:
            z = self.tables.z(part.tiles)[part.tiles.tile]  # (P, T, L)
            f = self._density_of(part)
            f = f / part.mass[part.tiles.rows, None]
            m = np.stack([part.tiles.sums(f * z[..., i])[0] for i in range(L)], axis=1)
            r = z - m[part.tiles.rows, None]
            mean[part.points] = m
            for i, j in np.ndindex(L, L):
                cov[part.points, i, j] = part.tiles.sums(f * r[..., i] * r[..., j])[0]
        return mean, cov

    @property
    def posterior_mean(self) -> Array:
        """E[z | x_n] under p_θ(z|x), (N, L)."""
        return self._moments[0]

    @property
    def posterior_cov(self) -> Array:
        """Cov[z | x_n] under p_θ(z|x), (N, L, L)."""
        return self._moments[1]

    def log_posterior(self, z: Any, points: Any = slice(None)) -> Array:
        """log p_θ(z|x_n) for all data points (or those chosen) at z (M, L) -> (n, M), nats."""
        z = np.asarray(z, dtype=float).reshape(-1, self.joint.latent_dim)
        return self.tables.at(z, points) - self.log_px[points][:, None]

    def posterior_density(self, z: Any, points: Any = slice(None)) -> Array:
        """p_θ(z|x_n) for all data points (or those chosen) at z (M, L) -> (n, M)."""
        return np.exp(self.log_posterior(z, points))

    def divergence_to(self, other: "Target") -> Array:
        """KL(p_θ(z|x) ‖ p_θ'(z|x)) with `other` the Target of θ' for the same x, (N,), nats.

        Computed on this Target's nodes: how far the target moves when θ becomes θ'.
        """
        moved = np.empty(len(self))
        for part in self._parts:
            f = self._density_of(part)
            here, there = (
                each.tables.sums_of_log_likelihood(f, part.points, part.tiles, halves=False)[0]
                for each in (self, other)
            )
            moved[part.points] = (here - there) / part.mass
        return moved - (self.log_px - other.log_px)


def check_tolerance(tolerance: float | None, dim: int) -> float:
    if dim not in TOLERANCE:
        raise ValueError(f"latent_dim: expected 1 or 2 (the exact terms exist for those), got {dim}")
    if tolerance is None:
        return TOLERANCE[dim]
    if not 1e-13 <= tolerance < 1:
        raise ValueError(f"tolerance: expected a number of nats from 1e-13 to below 1, got {tolerance!r}")
    return float(tolerance)
