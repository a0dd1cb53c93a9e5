"""Certified integrals over z ∈ R¹ or R² on grids shared by all data points. No model in here.

For an analytic integrand that decays at both ends the plain trapezoid rule on a uniform grid converges
exponentially (Trefethen, arXiv 2101.09501; Kazashi, Suzuki & Goda, arXiv 2202.11420). So every integral
is a sum over nodes of a grid with spacing h = 2^-level. The grid is shared by all data points, so that a
decoder is evaluated once per node; each point uses its own level, and only the nodes where its density
has mass (`support.py` finds them). `certify` compares the sum over all nodes with the sums over half of them; the
error of the coarser sums bounds that of the finer one. Points that do not agree to the tolerance are done
again with half the spacing, within a budget; what was achieved is returned.

Why half the nodes bound the error of all: the sum over a grid is the integral plus the integrand's Fourier
transform at every non-zero frequency v of the dual grid (Poisson summation), and transforms of analytic
functions fall off exponentially. On a plane there are three ways to take half of the nodes (every second
row, every second column, one colour of the chessboard), and for each v one of them has v/2 in its dual.

N data points, L latent dims, P pairs (data point, node), M distinct nodes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Ints = NDArray[np.int64]

MAX_NODES = {1: 2**15, 2: 2**17}  # nodes that one data point may use for one integral
MAX_PAIRS = 2**20  # pairs evaluated in one go; more data points than that allows take turns
EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Nodes:
    """For each pair the data point `rows` (P,), sorted, and its node z = (index + shift)·h, index (P, L).

    Nodes are integers so that two sets can interleave exactly: shift 0 and shift ½ share no node.
    """

    rows: Ints
    index: Ints
    h: float
    shift: float = 0.0

    def unique(self) -> tuple[Array, Ints]:
        """The distinct nodes as z (M, L), and for each pair which of them it is, (P,)."""
        found, inverse = distinct(self.index)
        return (found + self.shift) * self.h, inverse

    def select(self, keep: NDArray[np.bool_]) -> "Nodes":
        return Nodes(self.rows[keep], self.index[keep], self.h, self.shift)

    @property
    def halves(self) -> list[NDArray[np.bool_]]:
        """The ways to keep half of the nodes (P,): on a line one, on a plane three, the chessboard last."""
        even = (self.index & 1) == 0
        if even.shape[1] == 1:
            return [even[:, 0]]
        return [even[:, 0], even[:, 1], even[:, 0] == even[:, 1]]


def distinct(index: Ints) -> tuple[Ints, Ints]:
    """The distinct rows of an integer array (P, K), in lexicographic order, and where each row went (P,)."""
    if len(index) == 0:
        return index, np.zeros(0, dtype=np.int64)
    low = index.min(axis=0)
    extent = index.max(axis=0) - low + 1
    if np.prod(extent.astype(float)) > 2**24:  # too wide for a table: sort instead
        return np.unique(index, axis=0, return_inverse=True)
    key = np.ravel_multi_index(tuple((index - low).T), tuple(extent))
    number = np.zeros(int(np.prod(extent)), dtype=np.int64)
    number[key] = 1
    found = np.flatnonzero(number)
    number[found] = np.arange(len(found))
    return np.stack(np.unravel_index(found, tuple(extent)), axis=1) + low, number[key]


class RowSums:
    """Sums over the pairs of each data point; rows (P,) is sorted, and not every data point need occur."""

    def __init__(self, rows: Ints):
        self.starts = np.flatnonzero(np.diff(rows, prepend=-1))
        self.points = rows[self.starts]
        self.counts = np.diff(self.starts, append=len(rows))

    def sum(self, values: Array) -> Array:
        """(P, …) -> (points, …)."""
        return np.add.reduceat(values, self.starts, axis=0)

    def max(self, values: Array) -> Array:
        """(P,) -> (points,)."""
        return np.maximum.reduceat(values, self.starts)

    def spread(self, per_point: Array) -> Array:
        """(points, …) -> (P, …): each data point's value to all of its pairs."""
        return np.repeat(per_point, self.counts, axis=0)


@dataclass(frozen=True)
class Estimate:
    """K integrals of some data points at one level: from all nodes, and how far the halves are from that."""

    points: Ints  # (p,)
    value: Array  # (p, K)
    gap: Array  # (p, K): the largest |value − value from half of the nodes|
    rounding: Array  # (p, K): differences below this are rounding, and more nodes would not help


@dataclass(frozen=True)
class Certified:
    value: Array  # (N, K)
    error: Array  # (N, K): the gap that was left, at least the rounding
    level: Ints  # (N,): the level that was accepted


def level_for(width: Array, dim: int, tolerance: float) -> Ints:
    """The level at which a Gaussian of this width is expected to certify itself to the tolerance.

    A sum with spacing 2h misses a Gaussian of std s by 2 exp(−(π s/h)²/2) per direction.
    """
    h = np.pi * width / np.sqrt(2 * np.log(2 * dim / tolerance))
    return np.ceil(-np.log2(h)).astype(np.int64)


def certify(
    start: Ints, count: Callable[[int], Array], evaluate: Callable[[Ints, int], Estimate], dim: int, tol: float
) -> Certified:
    """Refine each data point's integrals until two refinements agree to `tol`, or the budget is spent.

    start (N,) is the level to begin with, count(level) (N,) how many nodes each point would then use, and
    evaluate(points, level) the sums. A point that is over the budget at its first level begins coarser.
    """
    level, done = start.copy(), np.zeros(len(start), dtype=bool)
    while (over := count_at(count, level) > MAX_NODES[dim]).any():
        level[over] -= 1
    value: Array | None = None
    error: Array
    while not done.all():
        now = int(level[~done].min())
        points = np.flatnonzero(~done & (level == now))
        for part in _in_turns(points, count(now)):
            got = evaluate(part, now)
            if value is None:
                value = np.zeros((len(start), got.value.shape[1]))
                error = np.full_like(value, np.inf)
            value[got.points] = got.value
            error[got.points] = np.maximum(np.where(np.isnan(got.gap), np.inf, got.gap), got.rounding)
            done[got.points] = (got.gap <= np.maximum(tol, got.rounding)).all(axis=1)
        done[points] |= count(now + 1)[points] > MAX_NODES[dim]
        level[points] += ~done[points]
    assert value is not None  # there is at least one data point
    return Certified(value, error, level)


def count_at(count: Callable[[int], Array], level: Ints) -> Array:
    """count(level[n])[n] for each point n."""
    counts = np.empty(len(level))
    for now in np.unique(level):
        counts[level == now] = count(int(now))[level == now]
    return counts


def _in_turns(points: Ints, counts: Array) -> list[Ints]:
    """Split the points so that each part has about MAX_PAIRS pairs at the most."""
    turn = (np.cumsum(counts[points]) // MAX_PAIRS).astype(np.int64)
    return np.split(points, np.flatnonzero(np.diff(turn)) + 1)
