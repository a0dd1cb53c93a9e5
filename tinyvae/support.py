"""Where a density has its mass: what an integral needs to know before it can choose its nodes.

`Ellipsoids` knows it for Gaussians in closed form. `scan` finds it for any density, from its logarithm on
a coarse grid. The logarithm does not hide: a peak of width 0.01 between nodes 0.1 apart is invisible in
the density, but its logarithm slopes steeply up towards it on both sides.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .quadrature import Array, Ints, Nodes, distinct

FIRST_LEVEL = {1: 4, 2: 2}  # spacing of the first look: 1/16 on a line, 1/4 on a plane
FINEST_LEVEL = {1: 10, 2: 4}  # how fine a look may become
REACH = {1: 256, 2: 32}  # how far from 0 a look may go, after beginning with |z| <= 8
BLOCK = 2**21  # values in one table; more data points than that allows take turns
LOG_ZERO = -1e100  # stands for log 0, so that differences stay finite

Bools = NDArray[np.bool_]
LogTable = Callable[[Ints, Array], Array]  # points (n,), t (M, L) -> log density (n, M)


def drop_for(tolerance: float) -> float:
    """How many nats below its peak a density may be left out: all that together is far below tolerance."""
    return float(np.log(1 / tolerance)) + 14.0


def to_support(t: Array, support: tuple[float, float]) -> tuple[Array, Array]:
    """z(t) (M, L) and log |dz/dt| (M,) for grid values t (M, L).

    On all of R, z = t. On an interval the double-exponential map z = lo + (hi − lo) σ(π sinh t), σ the
    logistic function, makes any integrand decay at both ends (Takahasi & Mori 1974).
    """
    lo, hi = support
    if np.isinf(lo) and np.isinf(hi):
        return t, np.zeros(len(t))
    u = np.pi * np.sinh(t)
    log_slope = np.log((hi - lo) * np.pi * np.cosh(t)) - np.logaddexp(0, u) - np.logaddexp(0, -u)
    return lo + (hi - lo) * np.exp(-np.logaddexp(0, -u)), log_slope.sum(axis=-1)


# ----- Gaussians: in closed form -----


@dataclass(frozen=True)
class Ellipsoids:
    """The support of N(mean, C Cᵀ): |C⁻¹(z − mean)|² <= radius². mean (N, L), C (N, L, L) lower triangular."""

    mean: Array
    cholesky: Array
    radius: float

    @property
    def width(self) -> Array:
        """The smallest standard deviation in any direction, (N,)."""
        return np.linalg.svd(self.cholesky, compute_uv=False)[:, -1]

    @property
    def resolved(self) -> Bools:
        return np.ones(len(self.mean), dtype=bool)

    @property
    def half_sides(self) -> Array:
        """Of the box around each ellipsoid, (N, L)."""
        return self.radius * np.sqrt(np.einsum("nij,nij->ni", self.cholesky, self.cholesky))

    def count(self, level: int) -> Array:
        """How many nodes of spacing 2^-level each box holds, (N,)."""
        return np.prod(2.0 * self.half_sides * 2.0**level + 1, axis=1)

    def nodes(self, points: Ints, level: int, shift: float) -> Nodes:
        h, centre, half = 0.5**level, self.mean[points], self.half_sides[points]
        first = np.ceil((centre - half) / h - shift).astype(np.int64)
        counts = np.maximum(np.floor((centre + half) / h - shift).astype(np.int64) - first + 1, 1)
        total = counts.prod(axis=1)
        local = np.arange(total.sum()) - np.repeat(np.cumsum(total) - total, total)
        index = np.empty((len(local), centre.shape[1]), dtype=np.int64)
        for axis in reversed(range(centre.shape[1])):
            count = np.repeat(counts[:, axis], total)
            index[:, axis] = local % count + np.repeat(first[:, axis], total)
            local = local // count
        nodes = Nodes(np.repeat(points, total), index, h, shift)
        if centre.shape[1] == 1:
            return nodes
        C, r = self.cholesky[nodes.rows], (index + shift) * h - self.mean[nodes.rows]
        u = r[:, 0] / C[:, 0, 0]
        v = (r[:, 1] - C[:, 1, 0] * u) / C[:, 1, 1]
        return nodes.select(u * u + v * v <= (self.radius + h / self.width[nodes.rows]) ** 2)


# ----- any density: by looking at its logarithm -----


@dataclass(frozen=True)
class Cells:
    """The support of N densities as cells of side 2^-scan_level around grid nodes `index` (K, L).

    `width` (N,) is that of the narrowest feature seen. `resolved` (N,) is False where even the finest look
    met values that the look before it had excluded: mass may then have been missed.
    """

    rows: Ints  # (K,), sorted
    index: Ints
    scan_level: Ints  # (N,)
    width: Array
    resolved: Bools

    def count(self, level: int) -> Array:
        """How many nodes of spacing 2^-level each point would use, (N,) (an upper bound if coarser)."""
        cells = np.bincount(self.rows, minlength=len(self.width))
        return np.maximum(cells * 2.0 ** ((level - self.scan_level) * self.index.shape[1]), 1)

    def nodes(self, points: Ints, level: int, shift: float = 0.0) -> Nodes:
        dim, chosen = self.index.shape[1], np.zeros(len(self.width), dtype=bool)
        chosen[points] = True
        parts = []
        for scan_level in np.unique(self.scan_level[points]):
            mine = chosen[self.rows] & (self.scan_level[self.rows] == scan_level)
            rows, index, finer = self.rows[mine], self.index[mine], int(level - scan_level)
            if finer >= 0:  # half-open cells: neighbours share no node
                inside = _grid(np.arange(2**finer) - 2**finer // 2, dim)
                index = (index[:, None] * 2**finer + inside).reshape(-1, dim)
                rows = np.repeat(rows, len(inside))
            else:
                nearest = (index + 2 ** (-finer - 1)) >> -finer
                both, _ = distinct(np.column_stack([rows, nearest]))
                rows, index = both[:, 0], both[:, 1:]
            parts.append((rows, index))
        rows, index = (np.concatenate(arrays) for arrays in zip(*parts))
        order = np.argsort(rows, kind="stable") if len(parts) > 1 else slice(None)
        return Nodes(rows[order], index[order], 0.5**level, shift)


def _grid(ticks: Ints, dim: int) -> Ints:
    """All L-tuples of the ticks, (len(ticks)^L, L)."""
    return np.stack(np.meshgrid(*[ticks] * dim, indexing="ij"), axis=-1).reshape(-1, dim)


def scan(log_table: LogTable, n_points: int, dim: int, drop: float, bounded: bool = False) -> Cells:
    """Find the cells where N densities, given by their logarithms, come within `drop` nats of their peak.

    Half a spacing away from a node the log density can exceed its value there by about half the largest
    difference to a neighbour; a cell whose ceiling, so drawn, lies too low is left out. The look is
    repeated for the points that need it: wider when mass touches the border (unless the grid covers a
    bounded support), and finer when the values rise above the ceilings drawn from every second node.
    """
    width, resolved = np.ones(n_points), np.zeros(n_points, dtype=bool)
    scan_level, found = np.full(n_points, FIRST_LEVEL[dim]), []
    todo = [(np.arange(n_points), FIRST_LEVEL[dim], 4 if bounded else 8)]
    while todo:
        points, level, reach = todo.pop()
        ticks = np.arange(-reach * 2**level, reach * 2**level + 1)
        block = max(1, BLOCK // len(ticks) ** dim)
        if len(points) > block:
            todo += [(points[k : k + block], level, reach) for k in range(0, len(points), block)]
            continue
        table = np.maximum(log_table(points, _grid(ticks, dim) * 0.5**level), LOG_ZERO)
        table = table.reshape(len(points), *[len(ticks)] * dim)
        peak = table.max(axis=tuple(range(1, dim + 1)), keepdims=True)
        active = _ceiling(table) >= peak - drop
        outside = _touches_border(active) & (not bounded)
        surprised = _rises_above(
            table, _ceiling(table[(slice(None), *[slice(None, None, 2)] * dim)]), peak - drop
        )
        wider = outside & (2 * reach <= REACH[dim])
        finer = surprised & ~wider & (level < FINEST_LEVEL[dim])
        todo += [(points[wider], level, 2 * reach)] if wider.any() else []
        todo += [(points[finer], level + 1, reach)] if finer.any() else []
        done = ~(wider | finer)
        rows, (point, *at) = points[done], np.nonzero(active[done])
        found.append((rows[point], np.stack(at, axis=1) + ticks[0]))
        scan_level[rows] = level
        width[rows] = _narrowest(table[done], peak[done], 0.5**level)
        resolved[rows] = ~(surprised | outside)[done]
    rows, index = (np.concatenate(arrays) for arrays in zip(*found))
    order = np.argsort(rows, kind="stable")
    return Cells(rows[order], index[order], scan_level, width, resolved)


def _along(axis: int, ndim: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if a == axis else slice(None) for a in range(ndim))


def _ceiling(table: Array) -> Array:
    """How high each log density (n, G[, G]) may rise within half a spacing of each node."""
    ceiling = table.copy()
    for axis in range(1, table.ndim):
        half_step = 0.5 * np.abs(np.diff(table, axis=axis))
        ends = [(0, 0)] * table.ndim
        ends[axis] = (1, 1)
        padded = np.pad(half_step, ends, mode="edge")
        left = padded[_along(axis, table.ndim, slice(None, -1))]
        ceiling += np.maximum(left, padded[_along(axis, table.ndim, slice(1, None))])
    return ceiling


def _rises_above(table: Array, ceiling: Array, floor: Array) -> Bools:
    """Whether a value that matters (above `floor`) exceeds the ceilings of every second node, (n,)."""
    for axis in range(1, table.ndim):  # a node in between lies in the cells of both its neighbours
        bound = np.repeat(ceiling, 2, axis=axis)[_along(axis, table.ndim, slice(None, -1))]
        odd = _along(axis, table.ndim, slice(1, None, 2))
        bound[odd] = np.maximum(bound[odd], ceiling[_along(axis, table.ndim, slice(1, None))])
        ceiling = bound
    surprise = (table > ceiling + 1e-9 * np.abs(ceiling)) & (table > floor)
    return np.asarray(surprise.any(axis=tuple(range(1, table.ndim))))


def _touches_border(active: Bools) -> Bools:
    touches = np.zeros(len(active), dtype=bool)
    for axis in range(1, active.ndim):
        ends = active.take([0, -1], axis=axis)
        touches |= ends.any(axis=tuple(range(1, active.ndim)))
    return touches


def _narrowest(table: Array, peak: Array, h: float) -> Array:
    """1/√(largest curvature of the log density where it has mass), at most 1, (n,).

    On a plane the sharpest direction may be oblique; its curvature is at most the sum along the axes.
    """
    total = np.zeros(len(table))
    for axis in range(1, table.ndim):
        inner = _along(axis, table.ndim, slice(1, -1))
        bend = np.where(table[inner] >= peak - 8, -np.diff(table, n=2, axis=axis), 0.0)
        total += np.maximum(bend.max(axis=tuple(range(1, table.ndim)), initial=0.0) / h**2, 1.0)
    return 1 / np.sqrt(np.maximum(total - (table.ndim - 2), 1.0))
