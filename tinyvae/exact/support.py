"""Where a density has its mass: what an integral needs to know before it can choose its nodes.

`Ellipsoids` knows it for Gaussians, in closed form; `scan.py` finds it for any density.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..checks import Array, Bools, Ints
from .quadrature import EPS, SIDE, Tiles, spacing, tile_up

LOG_ZERO = -1e100  # stands for log 0, so that differences stay finite


def drop_for(tolerance: float) -> float:
    """How many nats below its peak a density may be left out: all that together is far below tolerance."""
    return float(np.log(1 / tolerance)) + 12.0


def to_support(t: Array, support: tuple[float, float]) -> tuple[Array, Array]:
    """z(t) (..., L) and log |dz/dt| (...) for lattice values t (..., L).

    On all of R, z = t. On an interval the double-exponential map z = lo + (hi − lo) σ(π sinh t), σ the
    logistic function, makes any integrand decay at both ends (Takahasi & Mori 1974). The ends themselves, where a
    density may be infinite, are left out.
    """
    lo, hi = support
    if math.isinf(lo) and math.isinf(hi):
        return t, np.zeros(t.shape[:-1])
    u = np.pi * np.sinh(t)
    log_slope = np.log((hi - lo) * np.pi * np.cosh(t)) - np.logaddexp(0, u) - np.logaddexp(0, -u)
    z = lo + (hi - lo) * np.exp(-np.logaddexp(0, -u))
    inside = max(lo + 1e-300, np.nextafter(lo, hi)), min(hi - 1e-300, np.nextafter(hi, lo))
    return np.clip(z, *inside), log_slope.sum(axis=-1)


def uncertainty(z: Array, support: tuple[float, float]) -> Array:
    """By which part of itself a density may be wrong at z (..., L) on an interval, (...).

    Numbers near 1 are 1e-16 apart: a density like (1 − z)^(−½) holds 1e-8 of its mass where they cannot tell. What
    is averaged under it may grow like the logarithm of the way to the nearer end.
    """
    lo, hi = support
    way = np.minimum(z - lo, hi - z)
    return (EPS * np.abs(z) / way * (1 - np.log(way / (hi - lo)))).sum(axis=-1)


def inverse_of(C: Array) -> Array:
    """C⁻¹ of lower triangular matrices (N, L, L), L = 1 or 2."""
    inverse = np.zeros_like(C)
    for k in range(C.shape[1]):
        inverse[:, k, k] = 1 / C[:, k, k]
    if C.shape[1] == 2:
        inverse[:, 1, 0] = -C[:, 1, 0] * inverse[:, 0, 0] * inverse[:, 1, 1]
    return inverse


@dataclass(frozen=True)
class Ellipsoids:
    """The support of N(mean, C Cᵀ): |C⁻¹(z − mean)|² <= radius². mean (N, L), C (N, L, L) lower triangular."""

    mean: Array
    cholesky: Array
    radius: float

    @cached_property
    def std(self) -> Array:
        """The smallest standard deviation in any direction, (N,)."""
        if self.mean.shape[1] == 1:
            return np.abs(self.cholesky[:, 0, 0])
        return np.linalg.svd(self.cholesky, compute_uv=False)[:, -1]

    @cached_property
    def width(self) -> Array:
        """`std`, within what a lattice in floating point can resolve, (N,)."""
        return np.clip(self.std, 16 * EPS * np.abs(self.mean).max(axis=1) + 1e-30, 1e30)

    @property
    def resolved(self) -> Bools:
        return self.std == self.width

    @cached_property
    def half_sides(self) -> Array:
        """Of the box around each ellipsoid, (N, L)."""
        return self.radius * np.sqrt((self.cholesky**2).sum(axis=2))

    def count(self, level: Ints) -> Array:
        dim, h = self.mean.shape[1], spacing(level)[:, None]
        sides = 2 * self.half_sides / h + 1
        if dim == 1:
            return sides[:, 0]
        box = np.prod(sides, axis=1)
        axes = self.radius * np.diagonal(self.cholesky, axis1=1, axis2=2) / h
        ellipse = np.pi * np.prod(axes + 0.5, axis=1)
        return np.maximum(ellipse, box / SIDE[dim] ** dim)  # `chosen` looks at the tiles of the box

    def tiles(self, points: Ints, level: int) -> Iterator[tuple[Ints, Tiles]]:
        return tile_up(self, points, level, self.mean.shape[1])

    def _box(self, points: Ints, side: float) -> tuple[Ints, Ints]:
        mean, half = self.mean[points], self.half_sides[points]
        return np.floor((mean - half) / side).astype(int), np.floor((mean + half) / side).astype(int)

    def hull(self, points: Ints, side: float) -> list[tuple[int, int]]:
        first, last = self._box(points, side)
        return list(zip(first.min(axis=0).tolist(), last.max(axis=0).tolist()))

    def chosen(self, points: Ints, side: float, hull: list[tuple[int, int]]) -> Bools:
        first, last = self._box(points, side)
        ticks = [np.arange(low, high + 1) for low, high in hull]
        inside = [(first[:, [k]] <= t) & (t <= last[:, [k]]) for k, t in enumerate(ticks)]
        if len(ticks) == 1:
            return inside[0]
        # C⁻¹ of the way from the mean to each tile's middle: (u, v) ...
        inverse = inverse_of(self.cholesky[points])
        r = [(t + 0.5) * side - self.mean[points][:, [k]] for k, t in enumerate(ticks)]
        u = inverse[:, 0, :1] * r[0]
        v = (inverse[:, 1, :1] * r[0])[:, :, None] + (inverse[:, 1, 1:] * r[1])[:, None, :]
        # ... and of the way from a tile's middle to its corners: no node of it is farther.
        corner = inverse @ (0.5 * side * np.array([[1.0, 1.0], [1.0, -1.0]]))
        far = self.radius + np.sqrt((corner**2).sum(axis=1).max(axis=1))[:, None, None]
        near = u[:, :, None] ** 2 + v**2 <= far**2
        near |= ~near.any(axis=(1, 2), keepdims=True)  # numbers that overflowed: the whole box
        return inside[0][:, :, None] & inside[1][:, None, :] & near
