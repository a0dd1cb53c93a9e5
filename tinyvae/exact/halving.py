"""log p_θ(x) and the posteriors by lattices that are made finer until half of their nodes say the same.

For a joint that gives no bounds this is all there is, and on a plane it is what is affordable at every step: the
numbers are checked, not proven.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..checks import Array, Ints
from .joint import Callables, Joint
from .quadrature import EPS, Estimate, Tiles, certify, keep_freed_memory
from .scan import scan
from .tables import Tables

KEEP = 2**24  # numbers in tables of the posteriors that are kept; others are computed again when needed
INTEGRALS = 4  # each integral gets this part of the tolerance, so that the identity closes to all of it


@dataclass(frozen=True)
class _Part:
    """The posteriors of some data points on their tiles."""

    points: Ints  # (n,)
    tiles: Tiles
    density: Array | None  # (P, T), not normalised; None if there was no room to keep it
    mass: Array  # its sum, (n,)


def is_normalised(joint: Callables, tolerance: float) -> bool:
    """False where the prior, summed as the joint is, does not hold 1: mass was not seen, or it has none.

    A mode that the search missed, a hard edge inside a cell, a missing constant: all show here.
    """

    def certain(x: Array, z: Array) -> Array:
        return np.zeros(len(z))

    prior = _Prior(certain, joint.log_prior_of, joint.latent_dim, joint.support)
    alone = Halving(prior, np.zeros((1, 1)), tolerance)
    return not abs(alone.log_px[0]) > 1e-6 + alone.error[0]


class _Prior(Callables):
    """A prior alone, which nobody has to ask whether it is normalised."""


class Halving:
    """log p_θ(x) and p_θ(z|x) for the data points x (N, D) at one θ, with errors from halves of the nodes.

    log_px (N,) is the sum over all nodes of the lattice; log_norm (N,), the normaliser that the posterior
    uses, only over every second node, so that whatever is computed from the posterior checks log_px.
    error (N,) is that of both, in nats: `tolerance` or less, unless the budget was spent.
    """

    def __init__(self, joint: Joint, x: Array, tolerance: float):
        keep_freed_memory()
        self.joint, self.x, self.tolerance = joint, x, tolerance
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
        self.unit_roundoff = joint.unit_roundoff(x) if isinstance(joint, Callables) else EPS
        self.error += np.where(
            self.unit_roundoff > EPS, 8 * self.unit_roundoff * (1 + np.abs(self.log_px)), 0.0
        )
        if type(joint) is Callables and not is_normalised(joint, tolerance):
            self.error[:] = np.inf

    @property
    def checked_error(self) -> Array:
        """How far halves of the nodes are apart, (N,)."""
        return self.error

    def __len__(self) -> int:
        return len(self.x)

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
    def moments(self) -> tuple[Array, Array, Array, Array]:
        """Mean (N, L) and covariance (N, L, L) of the posteriors, and how far half of the nodes are from them."""
        L = self.joint.latent_dim
        mean, cov = np.empty((len(self), L)), np.empty((len(self), L, L))
        mean_error, cov_error = np.empty_like(mean), np.empty_like(cov)
        for part in self._parts:
            z = self.tables.z(part.tiles)[part.tiles.tile]  # (P, T, L)
            f, points = self._density_of(part), part.points
            mass = part.tiles.sums(f)  # (H, n)
            means = np.stack([part.tiles.sums(f * z[..., i]) / mass for i in range(L)], axis=-1)  # (H, n, L)
            mean[points], mean_error[points] = means[0], np.abs(means - means[0]).max(axis=0)
            r = z - means[0][part.tiles.rows, None]
            for i, j in np.ndindex(L, L):
                of_sets = part.tiles.sums(f * r[..., i] * r[..., j]) / mass
                cov[points, i, j], cov_error[points, i, j] = (
                    of_sets[0],
                    np.abs(of_sets - of_sets[0]).max(axis=0),
                )
        return mean, cov, mean_error, cov_error

    def divergence_to(self, other: "Halving") -> Array:
        """KL(p_θ(z|x) ‖ p_θ'(z|x)) on the nodes of this one, and how far it is from that of half of them, (2, N)."""
        found = np.empty((2, len(self)))
        for part in self._parts:
            f = self._density_of(part)
            here, there = (
                each.tables.sums_of_log_likelihood(f, part.points, part.tiles) for each in (self, other)
            )
            values = (here - there) / part.tiles.sums(f)
            found[:, part.points] = values[0], np.abs(values - values[0]).max(axis=0)
        found[0] -= self.log_px - other.log_px
        found[1] += self.error + other.error
        return found
