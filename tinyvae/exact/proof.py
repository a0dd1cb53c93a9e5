"""Proven errors of lattice sums (Trefethen & Weideman 2014, SIAM Review 56, theorem 5.1, on finite pieces).

A sum of spacing h over the nodes in a union of cells, whose edges are half way between nodes, misses the integral
over them, one axis at a time, by at most

    2 N(a) / expm1(2π a/h)  +  Σ over the ends of 2 ∫ |f(end + iy)| / (1 + e^(2π y/h)) dy,   0 <= y <= a

where f has no singularity up to the height a of that axis, and N(a) is the integral of |f| at that height. On a plane
the first axis is summed over the lattice lines of the second, the second integrated over the first. What lies outside
of the cells is added. All of it holds up to rounding.

n data points, C cells, F pieces of the sides, L latent dims.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..checks import Array, Ints
from ..ops import LOG_2PI
from .bounds import Bounds
from .decoder import Cells, Decoder, lattice, offsets, packed

PER_OCTAVE = 8  # heights are near powers of 2^(1/8), so that similar ones are the same
ENOUGH = 0.5  # nats of slack in a cell
MOST_CELLS = {1: 2**12, 2: 2**15}
FIRST = {1: 4, 2: 2}  # pieces of the sides of cells to begin with
NEAR = 0.55  # of the way to where a pole is expected: so far up bounds are sharp
PIECES, MOST_SPLITS = 3, 8  # discs along each side at first, and how often they are split
TRIES = 24  # heights, each lower than the one before


class Strip(NamedTuple):
    """The cells at the height a of one axis, and what p(x, z) holds on them, in units of e^log_p."""

    cells: Cells
    bounds: Array  # (n, C), single precision


def rung(size: float) -> float:
    """About 2^(k/8), at most `size` or hardly more."""
    return float(2.0 ** (np.floor(PER_OCTAVE * np.log2(min(max(size, 1e-200), 1e200)) + 0.03) / PER_OCTAVE))


def height_for(std: float, nats: float) -> float:
    """About the best height for a density of this std that is to be summed to e^−nats of itself."""
    return float(0.75 * std * np.sqrt(2 * nats))


def lower(a: float, tries: int) -> float:
    """The next height to try: in small steps at first."""
    return rung(a / (1.2 if tries < 6 else 1.7))


def missed(a: float, h: float, bound: Array) -> Array:
    """By how much a sum of spacing h misses the integral of f, where that of |f| at height a is at most `bound`."""
    return 2 * bound / np.expm1(min(2 * np.pi * a / h, 700.0))


def spacing_for(a: float, bound: Array, allowed: Array | float) -> float:
    """The spacing at which `missed` is at most what is allowed, for all; 0 where nothing is known."""
    h = 2 * np.pi * a / np.log1p(2 * bound / allowed)
    return float(np.nan_to_num(h).min())


def total(bounds: Array) -> Array:
    """The sum of bounds in single precision over its last axis, rounded up; what underflowed is in it."""
    return 1.001 * bounds.astype(float).sum(axis=-1) + 1e-37 * bounds.shape[-1]


def exp32(exponents: Array) -> Array:
    """exp in single precision, for bounds: see `total`."""
    return np.exp(exponents.astype(np.float32))


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def strip_over(decoder: Decoder, found: Any, axis: int, nats: float, h: float | None = None) -> Strip | None:
    """A strip over the cells of what was found, as high as serves a sum to e^−nats; None where none is proven.

    h: the spacing, where it is given; sums are then over lattice lines as far apart in the other direction.
    """
    index, side, std = found.index, found.side, float(found.std.min())
    a = NEAR * decoder.pole((index + 0.5) * side, np.full(len(index), 0.5 * side))
    a = rung(min(height_for(std, nats), a))
    for k in range(TRIES):
        if decoder.is_free(a, axis, index, side):
            break
        a = lower(a, k)
    else:
        return None
    for _ in range(TRIES):
        strip = _strip_at(decoder, found, axis, a, h)
        if not (highest := float(np.log(total(strip.bounds).max()))) > nats:
            break
        a = rung(
            a * max(0.25, np.sqrt(0.5 * nats / highest) if np.isfinite(highest) else 0.5)
        )  # it was too high
    else:
        return None
    while h and decoder.is_free(higher := rung(1.3 * strip.cells.a), axis, index, side):
        best, other = strip, _strip_at(decoder, found, axis, higher, h)
        least, less = (missed(s.cells.a, h, total(s.bounds)).max() for s in (best, other))
        if not less < 0.5 * least:
            break
        strip = other
    return strip


def _strip_at(decoder: Decoder, found: Any, axis: int, a: float, h: float | None) -> Strip:
    left, log_p, side = decoder.left[found.rows], found.log_p, found.side
    first = FIRST[decoder.dim]
    cells = cells_at(decoder, left, log_p, a, axis, lattice(side, first, found.index), 0.5 * side / first)
    widen = 0.5 * h if h and axis == 0 else 0.0
    return Strip(cells, exp32(cells.log_mass(left, widen)[0] - log_p[:, None]))


def cells_at(
    decoder: Decoder, left: Array, log_p: Array, a: float, axis: int, middle: Array, half: float
) -> Cells:
    """Cells of half side `half` at height a, split where their bound is far above what they hold, and it matters."""
    L, r, done = decoder.dim, np.full(len(middle), half), list[Cells]()
    while True:
        cells = decoder.cells(a, axis, middle, r, sizes=False)
        table, slack = cells.log_mass(left)
        table = np.where(np.isnan(table), np.inf, table - log_p[:, None])
        held = np.nan_to_num(table - slack, nan=-np.inf, posinf=700.0)
        whole = np.log(np.exp(np.minimum(held, 700.0)).sum(axis=1) + 1e-300) - 5 - np.log(len(r))
        excess = np.where(table > whole[:, None], slack, 0.0).max(axis=0)
        finer = np.ceil(0.5 * np.log2(np.maximum(np.nan_to_num(excess, nan=np.inf), 1e-9) / ENOUGH))
        pieces = 2 ** np.clip(finer, 0, 2).astype(int)
        split = pieces > 1
        known = sum(len(part.r) for part in done)
        if not split.any() or known + (pieces**L).sum() > MOST_CELLS[L] or r.min() < 2.0**-16 * half:
            return Cells.joined([*done, cells])
        done.append(cells.of(~split))
        middle, r = cells.of(split).split(pieces[split])


def regular_cells(decoders: list[Decoder], a: float, axis: int, middle: Array, r: Array) -> list[Cells]:
    """Cells at height a on which log p(x|z) has no singularity, split where that does not show; or none.

    The same cells for each of the decoders.
    """
    done, more = list[list[Cells]](), 2
    for _ in range(20):
        every = [decoder.cells(a, axis, middle, r) for decoder in decoders]
        good = np.isfinite([cells.size[0] for cells in every]).all(axis=0)
        if good.all():
            if not done or not more:
                return [Cells.joined(list(parts)) for parts in zip(*done, every)]
            good, more = ~good, more - 1  # near a singularity bounds are loose
        if len(r) > MOST_CELLS[decoders[0].dim]:
            break
        done.append([cells.of(good) for cells in every])
        middle, r = every[0].of(~good).split(np.full(int((~good).sum()), 2))
    return []


def faces(index: Ints, axis: int) -> Array:
    """The faces (F, L) orthogonal to an axis where cells (C, L) end, in units of their side."""
    step, keys, ends = np.eye(index.shape[1], dtype=np.int64)[axis], packed(index), []
    for way in (0, 1):
        beside = packed(index + (2 * way - 1) * step)
        edge = index[keys[np.minimum(np.searchsorted(keys, beside), len(keys) - 1)] != beside] + 0.5
        edge[:, axis] += way - 0.5
        ends.append(edge)
    return np.concatenate(ends)


class Faces(NamedTuple):
    """Faces of cells over one axis, in pieces, and what bounds the integrands on each."""

    axis: int
    at: Array  # their middles, (F, L)
    half: Array  # half of their sides, (F,)
    low: Array  # from where to where each goes, (F,)
    high: Array
    bounds: Bounds  # of log |p(x|z)|
    size: Array  # of |log p(x|z)|, as columns (K, F)

    def of(self, some: Any) -> "Faces":
        at, half, low, high = (part[some] for part in (self.at, self.half, self.low, self.high))
        return Faces(self.axis, at, half, low, high, self.bounds.of(some), self.size[:, some])

    def length(self, h: float) -> Array:
        """What each counts in an integral along it, or in a sum over lattice lines, (F,)."""
        if self.at.shape[1] == 1:
            return np.ones(len(self.half))
        return 2 * self.half + (h if self.axis == 0 else 0.0)

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")
    def weight(self, left: Array, log_p: Array, h: float) -> Array:
        """What p(x, z) weighs on each in the error of a sum of spacing h or less, in units of e^log_p, (n, F)."""
        L = self.at.shape[1]
        table, rest = self.bounds.ceiling(left)
        table += rest
        for l, slope in enumerate(self.bounds.slope):
            table += np.abs(left @ slope) * (0.5 * (self.high - self.low) if l == self.axis else self.half)
        near = np.maximum(np.abs(self.at) - self.half[:, None], 0.0)
        near[:, self.axis] = self.at[:, self.axis]
        table += 0.5 * (self.high**2 - np.square(near).sum(axis=1) - L * LOG_2PI)
        weight = np.exp(table - log_p[:, None]) * (self.length(h) * piece(self.low, self.high, h))
        return np.where(np.isnan(weight), np.inf, weight)


Weigh = Callable[[int, Faces], Array]


def faces_of(
    decoder: Decoder, indices: list[Ints], side: float, a: float, axis: int, weigh: Weigh, allowed: float
) -> list[tuple[Faces, Array]]:
    """The faces over one axis of several sets of cells (C, L), and what they weigh: weigh(set, faces) (n, F).

    They are split where that is more than their share of what is allowed.
    """
    ends = [faces(index, axis) * side for index in indices]
    at = np.repeat(np.concatenate(ends), PIECES, axis=0)
    of = np.repeat(np.arange(len(ends)), [PIECES * len(part) for part in ends])
    low = np.tile(np.arange(PIECES) * (a / PIECES), len(at) // PIECES)
    high, half = low + a / PIECES, np.full(len(at), 0.5 * side)
    done: list[list[tuple[Faces, Array]]] = [[] for _ in ends]
    for level in range(MOST_SPLITS):
        every = Faces(axis, at, half, low, high, *decoder.over(axis, at, half, low, high))
        split = np.zeros(len(at), dtype=bool)
        for k in np.unique(of).tolist():
            mine = np.flatnonzero(of == k)
            weight = weigh(k, part := every.of(mine))
            heavy = weight.max(axis=0) > allowed / (4 * len(mine))
            heavy &= level < MOST_SPLITS - 1 and len(at) < MOST_CELLS[2]
            done[k].append((part.of(~heavy), weight[:, ~heavy]))
            split[mine[heavy]] = True
        if not split.any():
            break
        off = offsets(decoder.dim, np.array([-0.5, 0.5]))
        at, half, low, high, of = at[split], half[split], low[split], high[split], of[split]
        up, along = off[:, axis], off.copy()
        along[:, axis] = 0.0
        middle, quarter = 0.5 * (low + high), 0.25 * (high - low)
        at = (at[:, None] + along * half[:, None, None]).reshape(-1, decoder.dim)
        low = (middle[:, None] + (2 * up - 1) * quarter[:, None]).ravel()
        high = low + 2 * np.repeat(quarter, len(off))
        half, of = 0.5 * np.repeat(half, len(off)), np.repeat(of, len(off))
    return [joined(parts) for parts in done]


def joined(parts: list[tuple[Faces, Array]]) -> tuple[Faces, Array]:
    """Parts of the faces of one set of cells as one."""
    if len(parts) == 1:
        return parts[0]
    every, weights = zip(*parts)
    bounds = Bounds(*(np.concatenate(arrays, axis=-1) for arrays in zip(*(f.bounds for f in every))))
    at, half, low, high = (np.concatenate([f[k] for f in every]) for k in (1, 2, 3, 4))
    size = np.concatenate([f.size for f in every], axis=-1)
    return Faces(every[0].axis, at, half, low, high, bounds, size), np.concatenate(weights, axis=1)


def piece(low: Array, high: Array, h: float) -> Array:
    """∫ 2/(1 + e^(2π y/h)) dy from low to high."""
    per = 2 * np.pi / h
    return 2 / per * (np.log1p(np.exp(-per * low)) - np.log1p(np.exp(-per * high)))
