"""Find where any density has its mass, by looking at its logarithm on a coarse grid.

The logarithm does not hide: a peak of width 0.01 between nodes 0.1 apart is invisible in the density, but its
logarithm slopes steeply up towards it on both sides. Where bounds on the logarithm between the nodes are known,
nothing is missed.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..checks import Array, Bools, Ints
from .quadrature import BLOCK, CLASSES, OCTAVE, SETS, Tiles, grid, level_for, refinement, spacing, tile_up
from .support import drop_for

FIRST_LOOK = {1: 3, 2: 2}  # spacing 2^-3 on a line, 2^-2 on a plane or where bounds between nodes are known
FINEST_LOOK = 40
REACH = {1: 256, 2: 32}  # how far from 0 a look may go, after beginning with about |z| <= 8
LOOK = 2**17  # nodes of one look; fewer if much is computed at each
LOOK_NUMBERS = 2**22
TABLE = 2**17  # values of one table; more data points than that allows take turns
RISE = 8.0  # nats that a log density may change within half a spacing of a lattice, where it has mass
LEFT_OUT = 1 / 8  # of the tolerance may be missing with cells on a plane that hold little

Rises = Callable[[Array], tuple[Array, Array, Array]]


@dataclass(frozen=True)
class Look:
    """For n data points, which nodes of a coarse grid stand for cells that may hold mass."""

    active: Bools  # (n, G₁[, G₂])
    first: Ints  # (L,): the first node on each axis is first·h
    h: float

    def _tiles_of(self, axis: int, nodes: Ints, side: float) -> tuple[Ints, Ints]:
        """First and last tile that the cells of these nodes along an axis touch."""
        middle, half = (self.first[axis] + nodes) * (self.h / side), 0.5 * self.h / side
        return np.floor(middle - half).astype(int), np.floor(middle + half).astype(int)

    def hull(self, points: Ints, side: float) -> list[tuple[int, int]]:
        sides = self.active.shape[1:]
        ends = [(0, nodes - 1) for nodes in sides]  # the first and the last node along each axis
        tiles = math.prod(nodes * self.h / side + 2 for nodes in sides)
        if len(points) * tiles > BLOCK:  # too many for all: only those of these points
            first, last = _reach_of(np.asarray(self.active[points].any(axis=0, keepdims=True)))
            ends = list(zip(first[0].tolist(), last[0].tolist()))
        hull = []
        for axis, nodes in enumerate(ends):
            first, last = self._tiles_of(axis, np.array(nodes), side)
            hull.append((int(first[0]), int(last[1])))
        return hull

    def chosen(self, points: Ints, side: float, hull: list[tuple[int, int]]) -> Bools:
        chosen = self.active[points]
        for axis, (low, high) in enumerate(hull, start=1):
            first, last = self._tiles_of(axis - 1, np.arange(chosen.shape[axis]), side)
            # A tile is chosen if any of its cells is active: if the count of active ones grows within it.
            ticks, shape = np.arange(low, high + 1), list(chosen.shape)
            begin, end = np.searchsorted(last, ticks, "left"), np.searchsorted(first, ticks, "right")
            shape[axis] += 1
            before = np.zeros(shape, dtype=np.int32)
            np.cumsum(chosen, axis=axis, out=before[_at(chosen.ndim, axis, slice(1, None))])
            chosen = before.take(end, axis=axis) > before.take(begin, axis=axis)
        return chosen


class _Shown(NamedTuple):
    """What one look shows of n data points."""

    active: Bools  # (n, G₁[, G₂]): cells that may hold mass
    touches_border: Bools  # (n,): whether there may be some at the border of the look
    rough: Bools  # (n,): whether the nodes are too far apart for what the density may do between them
    surprised: Bools  # (n,): whether it rose where it was not expected to
    floor: Array  # (n,): the log density below which it does not matter


@dataclass(frozen=True)
class Seen:
    """The support of N densities, as found by `scan`."""

    looks: list[Look]
    which: Ints  # (N,): which of the looks shows a data point
    row: Ints  # (N,): and at which place in it
    start: Ints  # (N,): the level at which a lattice should reach the tolerance
    least: Ints  # (N,): the one that it needs so that nothing can hide between its nodes
    peak: Array  # (N,): the largest log density seen
    left_out: Array  # (N,): the logarithm of the mass that cells on a plane that were left out may hold
    resolved: Bools  # (N,): False where mass may have been missed, since the look could not be finer or wider

    @classmethod
    def of(cls, n: int) -> "Seen":
        """Nothing seen yet."""
        which, row, start = np.zeros((3, n), dtype=int)
        least, left_out = np.full(n, -(10**6)), np.full(n, -np.inf)
        return cls([], which, row, start, least, np.zeros(n), left_out, np.ones(n, dtype=bool))

    def keep(self, points: Ints, look: Look) -> None:
        """Each row of the look is the last word on one of these points."""
        self.which[points], self.row[points] = len(self.looks), np.arange(len(points))
        self.looks.append(look)

    def inspect(
        self,
        points: Ints,
        table: Array,
        rises: Rises | None,
        sides: tuple[int, ...],
        level: int,
        tolerance: float,
        again: bool,
    ) -> _Shown:
        """Learn from the log densities (n, M) of some points at the nodes of a look.

        `again` says that the look goes only where a coarser one had active cells.
        """
        n, dim, h, drop = len(points), len(sides), 0.5**level, drop_for(tolerance)
        highest = table.argmax(axis=1)
        peak = table[np.arange(n), highest]
        floor = peak - drop
        self.peak[points] = peak
        self.start[points], log_mass = _level(table.reshape(n, *sides), highest, peak, h, tolerance)
        if rises is None:
            table, floors = table.reshape(n, *sides), floor.reshape(-1, *[1] * dim)
            surprised, active = _rises_above_every_second(table, floors), _ceiling(table) >= floors
            return _Shown(active, _touches_border(active), np.zeros(n, dtype=bool), surprised, floor)
        rise, steep, factor = rises(floor)
        rise += table
        matters = ~(rise < floor[:, None])  # also where it overflowed
        touches = _touches_border(matters.reshape(n, *sides))
        if dim == 2:  # where nodes are dear
            log_cell, allowed = dim * np.log(h), LEFT_OUT * tolerance
            out = _leave_out(matters, rise, floor, int(drop), log_mass, log_cell, allowed)
            self.left_out[points] = np.logaddexp(self.left_out[points], out) if again else out
        steepest = np.fmin((steep * matters).max(axis=1) * factor[:, 0], 1e12)
        least = np.ceil(OCTAVE * (np.log2(steepest / RISE + 1e-9) + level)).astype(int)
        rough = least > self.start[points] + OCTAVE
        self.least[points], self.start[points] = least, np.maximum(self.start[points], least)
        return _Shown(matters.reshape(n, *sides), touches, rough, np.zeros(n, dtype=bool), floor)

    @cached_property
    def _cells(self) -> tuple[Array, Array]:
        """How many cells each density has, and their side, (N,) each."""
        cells, side = np.empty((2, len(self.which)))
        for k, look in enumerate(self.looks):
            mine = self.which == k
            cells[mine] = look.active.reshape(len(look.active), -1).sum(axis=1)[self.row[mine]]
            side[mine] = look.h
        return cells, side

    def count(self, level: Ints) -> Array:
        cells, side = self._cells
        return cells * np.minimum(side / spacing(level), 1e9) ** (self.looks[0].active.ndim - 1)

    def tiles(self, points: Ints, level: int) -> Iterator[tuple[Ints, Tiles]]:
        which = self.which[points]
        for k, look in enumerate(self.looks):
            mine = points[which == k]
            if len(mine):
                back = np.empty(len(look.active), dtype=int)
                back[self.row[mine]] = mine
                for rows, tiles in tile_up(look, self.row[mine], level, look.active.ndim - 1):
                    yield back[rows], tiles


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def scan(
    survey: Callable[[Array, float], Callable[[Ints], tuple[Array, Rises | None]]],
    n: int,
    dim: int,
    tolerance: float,
    bounded: bool,
    beyond: Callable[[Ints, float, Array], Array] | None = None,
    per_node: int = 1,
) -> Seen:
    """Find the cells where n densities, given by their logarithms, are not negligible beside their peak.

    survey(t (M, L), half) is a function from points to tables (len(points), M): the log densities at the
    nodes t; and, as a function of the floor below which they do not matter, by how much they may rise within
    `half` of a node and how steep they are there (see VAEJoint.rises). A cell that cannot rise to the floor is
    left out. A density without known rises (None) is taken to exceed its value at a node by no more than half
    the largest difference to a neighbour.

    The look is repeated for the points that need it: wider when mass touches the border (which a bounded support
    does not allow: such a point is not resolved), or when there could be some beyond it: beyond(points, reach,
    floor) (n,), if given, is what the log densities cannot exceed there, if above the floor; and finer when a
    lattice fine enough for what was seen would be too coarse for what the density may do between the nodes, or
    when values rise above the ceilings drawn from every second node. A finer look goes only where a cell was
    active; per_node says how many numbers the survey of a node takes, and points whose cells are too many for one
    look part.
    """
    seen = Seen.of(n)
    most = min(LOOK, LOOK_NUMBERS // per_node)  # nodes of one look
    # To where an interval ends in numbers (1e-275 before its end), or where a prior N(0, I) has fallen off; on a
    # plane a margin of 1 is cheaper than a second look at it all.
    reach = 6.0 if bounded else float(np.ceil(np.sqrt(2 * drop_for(tolerance)))) + dim - 1
    first = FIRST_LOOK[dim] if beyond is None else FIRST_LOOK[2]
    # Points, level, the first and the last node along each axis, and whether that is the whole of the support.
    todo = [(np.arange(n), first, *_square(reach, first, dim), True)]
    while todo:
        points, level, low, high, whole = todo.pop()
        h, sides = 0.5**level, tuple(high - low + 1)
        reach = float(high.max() * h)
        nodes = grid(*[np.arange(first, last + 1) * h for first, last in zip(low, high)])
        tables_of, chunk = survey(nodes, h / 2), max(1, TABLE // len(nodes))
        active = np.empty((len(points), *sides), dtype=bool)
        (rough, surprised), needs = np.zeros((2, len(points)), dtype=bool), np.zeros(len(points))
        for k in range(0, len(points), chunk):
            part, some = slice(k, k + chunk), points[k : k + chunk]
            shown = seen.inspect(some, *tables_of(some), sides, level, tolerance, again=not whole)
            active[part], rough[part], surprised[part] = shown.active, shown.rough, shown.surprised
            if whole:
                needs[part] = np.where(shown.touches_border, 2 * reach, 0)
            if whole and beyond is not None:  # the prior falls off like −½ reach²
                above = beyond(some, reach, shown.floor) - shown.floor
                prior_needs = np.sqrt(reach**2 + 2 * np.clip(above, 0, 1e9)) + 0.5
                needs[part] = np.maximum(needs[part], np.where(above < 0, 0, prior_needs))
        outside = needs > 0
        furthest = reach if bounded else min(REACH[dim], (most ** (1 / dim) - 1) / 2 * h)
        further = float(np.floor(min(2 * reach, np.ceil(needs.max()), furthest)))
        wider: Bools = outside & (further > reach)
        seen.resolved[points[outside & ~wider]] = False
        finer = (rough | surprised) & ~wider & (level < FINEST_LOOK)
        if wider.any():
            todo.append((points[wider], level, *_square(further, level, dim), True))
        done: Bools = np.array(~wider, ndmin=1)
        for rows, box in _boxes(active, low, np.flatnonzero(finer), most):
            todo.append((points[rows], level + 1, *box, False))
            done[rows] = False
        if done.any():
            seen.resolved[points[done]] &= ~surprised[done]
            seen.keep(points[done], Look(active if done.all() else active[done], low, h))
    return seen


def _square(reach: float, level: int, dim: int) -> tuple[Ints, Ints]:
    """First and last node of a look at |z_i| <= reach, (L,) each."""
    last = np.full(dim, int(np.ceil(reach * 2**level)))
    return -last, last


def _reach_of(active: Bools) -> tuple[Ints, Ints]:
    """The first and the last active node of each point along each axis, (n, L); all of them where none is."""
    axes = range(1, active.ndim)
    ends = []
    for axis in axes:
        on: Bools = np.asarray(active.any(axis=tuple(a for a in axes if a != axis)))
        ends.append((on.argmax(axis=1), on.shape[1] - 1 - on[:, ::-1].argmax(axis=1)))
    return np.stack([first for first, _ in ends], axis=1), np.stack([last for _, last in ends], axis=1)


def _boxes(active: Bools, low: Ints, rows: Ints, most: int) -> Iterator[tuple[Ints, tuple[Ints, Ints]]]:
    """The rows of `active` in groups, with the box that a look at half the spacing needs for the group's cells.

    Rows part, at the middle of the axis along which they lie furthest apart, until a box has at most `most`
    nodes. A row that alone needs more is left out.
    """
    if not len(rows):
        return
    first, last = _reach_of(active[rows])
    box = 2 * (low + first.min(axis=0)) - 1, 2 * (low + last.max(axis=0)) + 1
    if np.prod((box[1] - box[0] + 1).astype(float)) <= most:
        yield rows, box
    elif len(rows) > 1:
        middle = first + last
        order = np.argsort(middle[:, np.argmax(np.ptp(middle, axis=0))], kind="stable")
        for half in np.array_split(rows[order], 2):
            yield from _boxes(active, low, half, most)


def _at(ndim: int, axis: int, part: slice | int) -> tuple[slice | int, ...]:
    """Index `part` of one axis and all of the others."""
    return tuple(part if a == axis else slice(None) for a in range(ndim))


def _ceiling(table: Array) -> Array:
    """How high each log density (n, G[, G]) may rise within half a spacing of each node."""
    ceiling = table.copy()
    for axis in range(1, table.ndim):
        step = np.diff(table, axis=axis)
        np.abs(step, out=step)
        step *= 0.5
        left, right = step[_at(table.ndim, axis, slice(None, -1))], step[_at(table.ndim, axis, slice(1, None))]
        ceiling[_at(table.ndim, axis, slice(1, -1))] += np.maximum(left, right)
        for end in (0, -1):
            ceiling[_at(table.ndim, axis, end)] += step[_at(table.ndim, axis, end)]
    return ceiling


def _rises_above_every_second(table: Array, floor: Array) -> Bools:
    """Whether a value that matters (above `floor`) exceeds the ceilings drawn from every second node, (n,).

    A node in between lies in the cells of both its neighbours; on a plane, of up to four.
    """
    dim, ndim = table.ndim - 1, table.ndim
    ceilings = {(0,) * dim: _ceiling(table[(slice(None), *[slice(None, None, 2)] * dim)])}
    for axis in range(1, ndim):
        for odd, c in list(ceilings.items()):
            between = np.maximum(c[_at(ndim, axis, slice(None, -1))], c[_at(ndim, axis, slice(1, None))])
            ceilings[(*odd[: axis - 1], 1, *odd[axis:])] = between
    surprised = np.zeros(len(table), dtype=bool)
    for odd, c in ceilings.items():
        if any(odd):  # at the second nodes themselves the ceiling is never below the value
            values = table[(slice(None), *[slice(o, None, 2) for o in odd])]
            above = values > np.maximum(c + 1e-9 * np.abs(c), floor)
            surprised |= above.reshape(len(table), -1).any(axis=1)
    return surprised


def _touches_border(active: Bools) -> Bools:
    touches = np.zeros(len(active), dtype=bool)
    for axis in range(1, active.ndim):
        ends = active.take([0, -1], axis=axis)
        touches |= ends.any(axis=tuple(range(1, active.ndim)))
    return touches


def _level(table: Array, highest: Ints, peak: Array, h: float, tolerance: float) -> tuple[Ints, Array]:
    """The level at which a lattice should reach the tolerance, judging by sums over this table; and the log mass.

    Both (n,). Where the table is too coarse for that, by the width of the highest peak.
    """
    dim, n = table.ndim - 1, len(table)
    in_sets = np.empty((len(SETS[dim]), *table.shape[1:]))
    for odd, sets in zip(CLASSES[dim], SETS[dim].T):
        in_sets[(slice(None), *[slice(o, None, 2) for o in odd])] = sets.reshape(-1, *[1] * dim)
    f = table.reshape(n, -1) - peak[:, None]
    sums = in_sets.reshape(-1, f.shape[1]) @ np.exp(f, out=f).T
    gap = np.abs(np.log(2 * sums[1:] / sums[0])).max(axis=0)
    level = refinement(gap, tolerance) + int(-np.log2(h)) * OCTAVE + (dim == 1)  # nodes are cheap on a line
    log_mass = np.log(sums[0]) + peak + dim * np.log(h)
    if (coarse := ~(gap < 0.01)).any():
        width = _narrowest(table[coarse], highest[coarse], h)
        level[coarse] = level_for(width, dim, tolerance) + 1
        log_mass[coarse] = np.minimum(log_mass[coarse], peak[coarse] + 0.5 * dim * np.log(2 * np.pi * width**2))
    return level, log_mass


def _leave_out(
    matters: Bools, ceiling: Array, floor: Array, bins: int, log_mass: Array, log_cell: float, allowed: float
) -> Array:
    """Take from the cells that matter (n, M) the lowest ones, which together hold at most `allowed` of the mass.

    ceiling (n, M) is what the log density cannot exceed in a cell, log_cell the logarithm of a cell's size. The
    cells are sorted into bins of one nat, from the floor (n,) up. Returns how much was taken, its logarithm (n,).
    """
    n, at = len(matters), np.flatnonzero(matters)
    row, height = at // matters.shape[1], ceiling.take(at)
    bin_of = row * bins + np.fmin(height - floor.take(row), bins - 1).astype(int)
    share = np.exp(height + log_cell - log_mass.take(row))
    held = np.bincount(bin_of, share, n * bins).reshape(n, bins).cumsum(axis=1)
    taken = (held <= allowed).sum(axis=1)
    matters &= ~(ceiling < (floor + taken)[:, None])
    return np.where(taken > 0, np.log(held[np.arange(n), taken - 1]), -np.inf) + log_mass


def _narrowest(table: Array, highest: Ints, h: float) -> Array:
    """1/√(curvature of the log density at its highest node), at most 1, (n,).

    On a plane the sharpest direction may be oblique; its curvature is at most the sum along the axes.
    """
    n, dim = len(table), table.ndim - 1
    flat, total, start = table.reshape(n, -1), np.ones(n), np.arange(n)
    for stride in (1, table.shape[-1])[:dim]:
        k = np.minimum(np.maximum(highest, stride), flat.shape[1] - 1 - stride)
        bend = 2 * flat[start, k] - flat[start, k - stride] - flat[start, k + stride]
        total += np.maximum(bend / h**2 - 1, 0.0)
    return 1 / np.sqrt(total)
