"""Where densities have their mass: a search by branch and bound over the cells of dyadic lattices.

A source gives for each cell an upper bound and an estimate of what a density holds there. What cannot matter is
dropped, and counted; the rest is split, until the bound is near the estimate and the cells are small beside the
density. Then data points with similar cells go together.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..checks import Array, Bools, Ints
from .decoder import offsets, packed

REACH, MOST_REACH = (
    16.0,
    2.0**14,
)  # the search is in |z_i| <= REACH, or twice as far, four times …, as it must be
FIRST = {1: 32, 2: 8}  # cells on either side of 0 at the first look
TOLD = {1: 20.0, 2: 50.0}  # how far the bound on all mass may be above its estimate
PER_STD = 0.93  # spacing of a lattice on which a Gaussian of std 1 is summed to 1e-10
ACROSS = 6.0  # a cell is at most so many spacings wide, and more than half of that
DEEPER = 2.0**-5  # cells smaller than that beside a density need not be split to tell more
FINER = 2.0  # times, at most, are cells split on that the search could afford no further look at
MOST, MOST_CELLS = 2**22, 2**16  # numbers in one table of the search, and cells
MOST_IN_ALL = 2**18  # cells that one search may look at
WORTH = {1: 2**16, 2: 2**17}  # numbers that another lattice must save
SPLIT = 2**13  # and that another piece of a lattice must


class Source(Protocol):
    """A density for each of N data points, as the search needs it."""

    dim: int

    def look(self, rows: Ints, index: Ints, side: float) -> tuple[Array, Array, Array]:
        """log of what a density holds in a cell: upper bound and estimate (n, C); precision, (C,) or (n, C)."""

    def beyond(self, reach: float, found: "Found") -> Array:
        """log of what it holds at most where some |z_i| > reach, (n,)."""


class Found(NamedTuple):
    """Where some data points have their mass: cells [index, index + 1) · side."""

    rows: Ints  # (n,)
    side: float
    index: Ints  # type: ignore[assignment]  # (C, L), in order; a tuple's own `index` is not needed
    active: Bools  # which of them each data point needs, (n, C)
    log_p: Array  # log of the mass, about, (n,)
    std: Array  # the smallest in any direction, about, (n,)
    left_out: Array  # log of what other cells hold at most, (n,)

    def of(self, some: Any) -> "Found":
        rows, active, *rest = (part[some] for part in (self.rows, self.active, *self[4:]))
        used = active.any(axis=0)
        return Found(rows, self.side, self.index[used], active[:, used], *rest)

    def at(self, side: float) -> "Found":
        """The same with cells of another side: whatever covers these."""
        if side < self.side:
            k = round(self.side / side)
            index = (self.index[:, None] * k + offsets(self.index.shape[1], np.arange(k))).reshape(
                -1, self.index.shape[1]
            )
            active = np.repeat(self.active, k ** self.index.shape[1], axis=1)
        else:
            index, active = self.index // round(side / self.side), self.active
        _, first, same = np.unique(packed(index), return_index=True, return_inverse=True)
        order = np.argsort(same, kind="stable")
        starts = np.searchsorted(same[order], np.arange(len(first)))
        active = np.logical_or.reduceat(active[:, order], starts, axis=1)
        return self._replace(side=side, index=index[first], active=active)


def dyadic(size: Array) -> Array:
    """The largest power of 2 below each size."""
    return np.asarray(np.exp2(np.floor(np.log2(np.clip(size, 2.0**-40, 2.0**20)))))


def cell_side(std: Array) -> Array:
    """Of the cells for a density of that std."""
    return dyadic(ACROSS * PER_STD * std)


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def search(source: Source, n: int, log_share: float) -> list[Found]:
    """The cells where n densities have their mass, but for e^log_share of it; each at the side of its `cell_side`."""
    done, todo, room = [], [(np.arange(n), REACH)], [MOST_IN_ALL]
    while todo:
        rows, reach = todo.pop()
        for found in _branch(source, rows, reach, log_share, room):
            far = source.beyond(reach, found) > found.log_p + log_share
            if far.any() and reach < MOST_REACH and room[0] > 0:
                todo.append((found.rows[far], 2 * reach))
                found = found.of(~far)
            if len(found.rows):
                beyond = np.logaddexp(found.left_out, source.beyond(reach, found))
                done.append(found._replace(left_out=beyond))
    return list(_together(done))


def _branch(source: Source, rows: Ints, reach: float, log_share: float, room: list[int]) -> Iterator[Found]:
    """`room`: how many cells may still be looked at; counted down."""
    L, many = source.dim, FIRST[source.dim]
    side, index = reach / many, offsets(L, np.arange(-many, many))
    active, left_out = np.ones((len(rows), len(index)), dtype=bool), np.full(len(rows), -np.inf)
    while len(rows):
        upper, estimate, precision = source.look(rows, index, side)
        room[0] -= len(index)
        upper = np.where(np.isnan(upper), np.inf, upper)
        estimate = np.where(active, estimate, -np.inf)
        log_p = log_sum(estimate)
        matters = active & ~(upper <= (log_p + log_share - np.log(len(index)))[:, None])
        left_out = np.logaddexp(left_out, log_sum(np.where(active & ~matters, upper, -np.inf)))
        active = matters
        held = np.exp(np.clip(upper - log_p[:, None], -80, 80)) * active
        whole = held.sum(axis=1)
        std = np.sqrt(whole / (held * precision).sum(axis=1))
        small = dyadic(side / cell_side(std) * 1.5)  # 1 where the cells are as they should be
        told = (small <= 1) & ((whole < TOLD[L]) | (small <= DEEPER)) | ~np.isfinite(log_p)
        split = int(active[~told].any(axis=0).sum()) * 2**L
        if split > min(MOST_CELLS, room[0]) or (~told).sum() * split > MOST:
            told[:] = True
        found = Found(rows, side, index, active, log_p, std, left_out)
        if told.any():
            yield found.of(told)
        rest = found.of(~told)
        rows, left_out = rest.rows, rest.left_out
        index = (2 * rest.index[:, None] + offsets(L, np.arange(2))).reshape(-1, L)
        active, side = np.repeat(rest.active, 2**L, axis=1), side / 2


def log_sum(table: Array) -> Array:
    """log Σ exp over the last axis."""
    peak = table.max(axis=-1, initial=-np.inf)
    return np.asarray(
        peak + np.log(np.exp(table - np.where(np.isfinite(peak), peak, 0.0)[..., None]).sum(axis=-1))
    )


def _together(founds: list[Found]) -> Iterator[Found]:
    """The same by the sides of their cells; a few data points share the finer cells of the many."""
    if not founds:
        return
    L = founds[0].index.shape[1]
    wanted = [np.maximum(cell_side(f.std), f.side / FINER) for f in founds]
    sides = np.concatenate(wanted)
    kinds = np.unique(sides[np.isfinite(sides)]).tolist() or [1.0]
    while kinds:
        side = upto = kinds.pop(0)
        while kinds and (sides == kinds[0]).sum() * (32 * kinds[0] / side) ** L < WORTH[L]:
            upto = kinds.pop(0)
        parts = [f.of(mine).at(side) for f, w in zip(founds, wanted) if (mine := _between(w, side, upto)).any()]
        yield joined(parts)


def _between(sides: Array, low: float, high: float) -> Bools:
    sides = np.where(np.isfinite(sides), sides, low)
    return np.asarray((low <= sides) & (sides <= high))


def joined(parts: list[Found]) -> Found:
    """Parts with cells of one side as one."""
    if len(parts) == 1:
        return parts[0]
    index, ends = np.concatenate([p.index for p in parts]), np.cumsum([len(p.index) for p in parts])
    active = np.zeros((sum(len(p.rows) for p in parts), len(index)), dtype=bool)
    first = 0
    for p, end in zip(parts, ends):
        active[first : first + len(p.rows), end - len(p.index) : end] = p.active
        first += len(p.rows)
    rows, *rest = (np.concatenate([p[k] for p in parts]) for k in (0, 4, 5, 6))
    return Found(rows, parts[0].side, index, active, *rest).at(parts[0].side)


def in_places(active: Bools, index: Ints, per_cell: int) -> Iterator[Ints]:
    """Data points with cells active (n, C), in parts that share all of their cells: apart where that saves a lot."""
    weight = active / np.maximum(active.sum(axis=1), 1)[:, None]
    centre = weight @ index
    todo = [np.arange(len(active))]
    while todo:
        some = todo.pop()
        cost = len(some) * per_cell * int(active[some].any(axis=0).sum())
        if cost > SPLIT and len(some) > 1:
            axis = np.ptp(centre[some], axis=0).argmax()
            order = some[np.argsort(centre[some, axis], kind="stable")]
            halves = np.array_split(order, 2)
            apart = sum(len(h) * per_cell * int(active[h].any(axis=0).sum()) for h in halves)
            if cost > MOST or apart < 0.9 * cost - SPLIT:
                todo += halves
                continue
        yield np.sort(some)
