"""Certified integrals over z ∈ R¹ or R² on lattices shared by all data points. No model in here.

For an analytic integrand that decays at both ends the plain trapezoid rule on a uniform lattice converges
exponentially (Trefethen, arXiv 2101.09501; Kazashi, Suzuki & Goda, arXiv 2202.11420). So every integral is
a sum over the nodes z = index·h. Neighbouring nodes form tiles, 64 on a line or 16×16 on a plane, and a
data point uses the tiles where its density has mass (`support.py` finds them). A decoder is evaluated once
per tile for all data points, and every table is an array (pairs of tile and data point, nodes in the tile).

`certify` compares the sum over all nodes with the sums over half of them; the error of the coarser sums
bounds that of the finer one. Points that do not agree to the tolerance are done again with half the
spacing, within a budget; what was achieved is returned.

Why half the nodes bound the error of all: the sum over a lattice is the integral plus the integrand's
Fourier transform at every non-zero frequency v of the dual lattice (Poisson summation), and transforms of
analytic functions fall off exponentially. On a plane there are three ways to take half of the nodes (every
second row, every second column, one colour of the chessboard), and for each v one of them has v/2 in its dual.

N data points, L latent dims, P pairs (tile, data point), K tiles, T nodes in a tile, H sets of nodes.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..checks import Array, Bools, Ints

SIDE = {1: 64, 2: 16}  # nodes along the side of a tile; even, so that all tiles look alike to CLASSES
MAX_NODES = {1: 2**16, 2: 2**18}  # that one data point may use for one integral
BLOCK = 2**20  # numbers in one table; more data points than that allows take turns
OCTAVE = 4  # levels from one spacing to half of it; in between, short fractions: z = index·h is exact
FRACTIONS = np.array([1, 27 / 32, 23 / 32, 19 / 32])  # near 2^(-k/4)
SHARED = OCTAVE // 2  # levels between the lattices in use: data points are to share them
MOST_FINER = 8 * OCTAVE  # levels; what does not agree then never will, or is not a number
EPS = float(np.finfo(float).eps)


@cache
def keep_freed_memory() -> None:
    """Let glibc's malloc keep freed blocks of up to 32 MB for the next table; elsewhere this does nothing.

    Freeing one block of that size, never touched, teaches it so. Otherwise each table is fetched from the system
    and given back, page by page: half of the time.
    """
    np.empty(2**25 - 2**16, dtype=np.uint8)


def spacing(level: Any) -> Any:
    return np.ldexp(FRACTIONS[level % OCTAVE], -(level // OCTAVE))


def grid(*axes: Array | Ints) -> NDArray:
    """All tuples of one tick from each of the L axes, (…, L)."""
    if len(axes) == 1:
        return axes[0][:, None]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


# The nodes by the parity of their index, class by class; and the sets made of such classes, one in each
# row: all nodes, the ways to take half of them, the last two of which, A and B, interleave: even and odd
# on a line, the two colours of the chessboard on a plane. Integrals on A and on B share no node.
CLASSES: dict[int, list[tuple[int, ...]]] = {1: [(0,), (1,)], 2: [(0, 0), (1, 1), (0, 1), (1, 0)]}
SETS = {
    1: np.array([[1.0, 1], [1, 0], [0, 1]]),
    2: np.array([[1.0, 1, 1, 1], [1, 0, 1, 0], [1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1]]),
}


@lru_cache
def tile_nodes(dim: int) -> Ints:
    """Index of a tile's nodes from its corner, (L, T), class by class."""
    evens = grid(*[np.arange(0, SIDE[dim], 2)] * dim)
    return np.ascontiguousarray(np.concatenate([evens + odd for odd in CLASSES[dim]]).T)


@lru_cache
def tile_powers(dim: int, level: int) -> Array:
    """1, d and d dᵀ of the ways d from a tile's middle to its nodes: polynomials in d are products with these.

    (T, 1 + L + L²).
    """
    d = ((tile_nodes(dim) - SIDE[dim] // 2) * spacing(level)).T
    return np.column_stack([np.ones(len(d)), d, (d[:, :, None] * d[:, None]).reshape(len(d), -1)])


class Tiles:
    """The tiles that n data points use: P pairs of a tile and a data point, sorted by tile.

    chosen (n, K₁[, K₂]) says which tiles of a box of them each data point uses (at least one); `low` (L,)
    is the corner of that box, counted in tiles from z = 0. `rows` (P,) counts the n data points.
    """

    def __init__(self, level: int, chosen: Bools, low: Ints):
        self.level, self.h, self.n, self.dim = level, spacing(level), len(chosen), chosen.ndim - 1
        self.nodes_each = SIDE[self.dim] ** self.dim  # T
        flat = chosen.reshape(self.n, -1).T
        used = np.flatnonzero(flat.any(axis=1))
        self.tile, self.rows = np.nonzero(flat[used])  # (P,), (P,)
        self.starts = np.searchsorted(self.tile, np.arange(len(used) + 1))  # of each tile's pairs
        corner = np.array(np.unravel_index(used, chosen.shape[1:])).T + low
        self.corner = corner * SIDE[self.dim]  # (K, L), the index of each tile's first node

    @cached_property
    def keys(self) -> list[tuple[int, ...]]:
        """What tells the tiles of a level apart."""
        return [tuple(corner) for corner in self.corner.tolist()]

    @property
    def pairs(self) -> list[slice]:
        """Of each tile, among all P."""
        return [slice(a, b) for a, b in pairwise(self.starts.tolist())]

    @property
    def powers(self) -> Array:
        """See tile_powers."""
        return tile_powers(self.dim, self.level)

    @property
    def middle(self) -> Array:
        """(K, L)."""
        return (self.corner + SIDE[self.dim] // 2) * self.h

    def nodes(self, which: Any = slice(None)) -> Array:
        """(K, T, L), or those of some of the tiles; each coordinate is contiguous."""
        corner, nodes = self.corner[which].T * self.h, tile_nodes(self.dim) * self.h
        return (corner[:, :, None] + nodes[:, None]).transpose(1, 2, 0)

    def sums(self, table: Array) -> Array:
        """The sums of each data point's values over each of the SETS: (P, T) -> (H, n)."""
        classes = len(CLASSES[self.dim])
        ones = np.ones(table.shape[1] // classes)
        return self.of_points((table.reshape(-1, len(ones)) @ ones).reshape(-1, classes).T)

    def of_points(self, by_class: Array) -> Array:
        """From the sums of each pair over the nodes of each class to those of each data point over the SETS.

        (classes, P) -> (H, n).
        """
        return SETS[self.dim] @ np.array([np.bincount(self.rows, of_class, self.n) for of_class in by_class])

    def max(self, table: Array) -> Array:
        """(P, T) -> (n,)."""
        highest = np.full(self.n, -np.inf)
        np.maximum.at(highest, self.rows, table.max(axis=1))
        return highest


class Shape(Protocol):
    """Where some data points have their mass, in terms of tiles."""

    def hull(self, points: Ints, side: float) -> list[tuple[int, int]]:
        """First and last tile of this side, along each axis, that any of the points needs."""

    def chosen(self, points: Ints, side: float, hull: list[tuple[int, int]]) -> Bools:
        """Which of the tiles of the hull each point needs, (n, K₁[, K₂])."""


def tile_up(shape: Shape, points: Ints, level: int, dim: int) -> Iterator[tuple[Ints, Tiles]]:
    """The points with their tiles, in blocks that keep every table below BLOCK numbers."""
    side = SIDE[dim] * spacing(level)
    hull = shape.hull(points, side)
    fits = len(points) * math.prod(high - low + 1 for low, high in hull) <= BLOCK
    if fits or len(points) == 1:
        chosen = shape.chosen(points, side, hull)
        if chosen.sum() * SIDE[dim] ** dim <= BLOCK or len(points) == 1:
            yield points, Tiles(level, chosen, np.array([low for low, _ in hull]))
            return
    for part in np.array_split(points, 2):
        yield from tile_up(shape, part, level, dim)


class Support(Protocol):
    """Where N densities have their mass."""

    def count(self, level: Ints) -> Array:
        """About how many nodes each density needs at its level, (N,)."""

    def tiles(self, points: Ints, level: int) -> Iterable[tuple[Ints, Tiles]]: ...


@dataclass(frozen=True)
class Estimate:
    """J integrals of n data points at one level: their values, and how far other sets of nodes are from them."""

    value: Array  # (J, n)
    gap: Array  # (J, n): the largest difference to the value from another half of the nodes, or from all
    rounding: Array  # (n,): differences below this are rounding, and more nodes would not help


@dataclass(frozen=True)
class Certified:
    value: Array  # (J, N)
    error: Array  # (J, N): the gap that was left, at least the rounding
    level: Ints  # (N,): that was accepted


def level_for(width: Array, dim: int, tolerance: float) -> Ints:
    """The level at which a Gaussian of this width is expected to certify itself to the tolerance.

    A sum with spacing 2h misses a Gaussian of std s by 2 exp(−(π s/h)²/2) per direction.
    """
    h = np.pi * width / np.sqrt(2 * np.log(2 * dim / tolerance))
    return np.ceil(-OCTAVE * np.log2(h)).astype(np.int64)


def refinement(gap: Array, tolerance: float) -> Ints:
    """How many levels finer a gap should shrink to the tolerance: with tanh units it falls like exp(−const/h)."""
    log_gap = np.minimum(np.maximum(np.log(gap), -50), np.log(0.1))
    return np.ceil(OCTAVE * np.log2(np.log(tolerance) / log_gap)).astype(np.int64)


def certify(
    support: Support, start: Ints, dim: int, tol: float, evaluate: Callable[[Ints, Tiles], Estimate]
) -> Certified:
    """Refine each data point's integrals until all sets of nodes agree to `tol`, or the budget is spent.

    start (N,) is the level that each point should need. On a line all but the narrowest few share one
    lattice; on a plane, where nodes are dear, those that can do with a coarser one take it, if they are many.
    A point that is over the budget at its first level begins coarser.
    """
    # The few finest go apart only where they are more than an octave finer: then two similar models have their
    # points at the same levels, and share the tables of q.
    most = np.sort(start)[int(0.98 * (len(start) - 1))]
    common = int(start.max() if start.max() <= most + OCTAVE else most)
    level = common + SHARED * -((common - start) // SHARED)
    if dim == 1:
        level = np.maximum(level, common)
    for coarse in range(level.min(), common, SHARED):
        if (level == coarse).sum() < len(level) / 8:
            level[level == coarse] += SHARED
    while (over := support.count(level) > MAX_NODES[dim]).any():
        level[over] -= OCTAVE
    first, accepted, done = level.copy(), level.copy(), np.zeros(len(level), dtype=bool)
    value, worst = np.zeros((0, len(level))), np.zeros(len(level))
    while True:
        now = int(level[~done].min())
        for points, tiles in support.tiles(np.flatnonzero(~done & (level == now)), now):
            got = evaluate(points, tiles)
            if not value.size:
                value, error = np.zeros((2, len(got.value), len(level)))
            value[:, points] = got.value
            gap = np.where(np.isnan(got.gap), np.inf, got.gap)
            largest = worst[points] = gap.max(axis=0)
            accepted[points], done[points] = now, largest <= np.fmax(tol, got.rounding)
            error[:, points] = np.fmax(gap, got.rounding)
        again = np.flatnonzero((level == now) & ~done)
        if len(again):  # they stay together, and share their tables: as far as half of them need
            steps = np.ceil(np.median(refinement(worst[again], tol)) / SHARED)
            level[again] += SHARED * int(np.clip(steps, 1, OCTAVE // SHARED))
            over = support.count(level)[again] > MAX_NODES[dim]
            done[again] = over | (level > first + MOST_FINER)[again]
        if done.all():
            return Certified(value, error, accepted)
