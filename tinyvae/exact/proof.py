"""Proven errors of lattice sums (Trefethen & Weideman 2014, SIAM Review 56, theorem 5.1, on finite pieces).

A sum of spacing h over the nodes in a union of cells, whose edges are half way between nodes, misses the integral over
them, one axis at a time, by at most

    2 N(a) / expm1(2π a/h)  +  Σ over the ends of 2 ∫ |f(end + iy)| / (1 + e^(2π y/h)) dy,   0 <= y <= a

where f has no singularity up to the height a of that axis, and N(a) is the integral of |f| at that height. On a plane
the first axis is summed over the lattice lines of the second, the second integrated over the first. What lies outside
of the cells is added. All of it holds up to rounding.

n data points, C cells, F pieces of the sides, L latent dims.
"""

from typing import Any, NamedTuple

import numpy as np

from ..checks import Array, Ints
from ..ops import LOG_2PI
from .decoder import Cells, Decoder, offsets, packed

PER_OCTAVE = 8  # heights are near powers of 2^(1/8), so that similar ones are the same
ENOUGH = 0.5  # nats of slack in a cell
MOST_CELLS = {1: 2**12, 2: 2**15}
NEAR = 0.55  # of the way to where a pole is expected: so far up bounds are sharp
TRIES = 12


class Side(NamedTuple):
    """The sides of the cells over one axis, in pieces: what each weighs in the error of a sum, and its place."""

    weight: Array  # (n, F)
    size: Array  # bounds of |log p(x|z)| on them, as columns (K, F)
    faces: Array  # their middles, (F, L)
    high: Array  # up to where each goes, (F,)


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
def strip_over(
    decoder: Decoder, found: Any, axis: int, nats: float, apart: float = 0.0
) -> Strip | None:
    """A strip over the cells of what was found, as high as serves a sum to e^−nats; None where none is proven.

    `apart`: it is to serve sums over lattice lines that far apart in the other direction.
    """
    left, log_p = decoder.left[found.rows], found.log_p
    index, side, std = found.index, found.side, float(found.std.min())
    a = rung(min(height_for(std, nats), NEAR * decoder.pole((index + 0.5) * side, np.full(len(index), 0.5 * side))))
    for _ in range(TRIES):
        if decoder.is_free(a, axis, index, side):
            break
        a = rung(a / 1.2)
    else:
        return None
    for _ in range(TRIES):
        cells = cells_at(decoder, left, log_p, a, axis, (index + 0.5) * side, 0.5 * side)
        bounds = exp32(cells.log_mass(left, 0.5 * apart)[0] - log_p[:, None])
        if not (highest := float(np.log(total(bounds).max()))) > nats:
            return Strip(cells, bounds)
        a = rung(a * max(0.25, np.sqrt(0.5 * nats / highest) if np.isfinite(highest) else 0.5))  # it was too high
    return None


def cells_at(
    decoder: Decoder, left: Array, log_p: Array, a: float, axis: int, middle: Array, half: float
) -> Cells:
    """Cells of half side `half` at height a, split where their bound is far above what they hold, and it matters."""
    L, r, done = decoder.dim, np.full(len(middle), half), list[tuple[Array, Array]]()
    while True:
        cells = decoder.cells(a, axis, middle, r)
        table, slack = cells.log_mass(left)
        table -= log_p[:, None]
        held = table - slack
        whole = np.log(np.exp(np.nan_to_num(held, nan=-np.inf, posinf=700)).sum(axis=1) + 1e-300)[:, None]
        least = np.where(table > whole - 5 - np.log(len(r)), slack, 0.0)
        excess = np.nan_to_num(np.broadcast_to(least, table.shape).max(axis=0), nan=np.inf)
        pieces = 2 ** np.clip(np.ceil(0.5 * np.log2(np.maximum(excess, 1e-9) / ENOUGH)), 0, 2).astype(int)
        known = sum(len(part) for _, part in done)
        if (pieces == 1).all() or known + (pieces**L).sum() > MOST_CELLS[L] or r.min() < 2.0**-5 * half:
            if not done:
                return cells
            middle, r = (np.concatenate([p[k] for p in [*done, (middle, r)]]) for k in (0, 1))
            return decoder.cells(a, axis, middle, r)
        done.append((middle[pieces == 1], r[pieces == 1]))
        finer = []
        for k in np.unique(pieces[pieces > 1]).tolist():
            off = offsets(L, 2 * (np.arange(k) + 0.5) / k - 1)
            of = pieces == k
            part = (middle[of][:, None] + off * r[of][:, None, None]).reshape(-1, L)
            finer.append((part, np.repeat(r[of] / k, k**L)))
        middle, r = (np.concatenate([p[k] for p in finer]) for k in (0, 1))


def faces(index: Ints, axis: int) -> Array:
    """The faces (F, L) orthogonal to an axis where cells (C, L) end, in units of their side."""
    step, keys, ends = np.eye(index.shape[1], dtype=np.int64)[axis], packed(index), []
    for way in (0, 1):
        edge = index[~np.isin(packed(index + (2 * way - 1) * step), keys)] + 0.5
        edge[:, axis] += way - 0.5
        ends.append(edge)
    return np.concatenate(ends)


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def side_of(
    decoder: Decoder, left: Array, log_p: Array, index: Ints, side: float, a: float, axis: int, h: float
) -> Side:
    """The sides of cells (C, L) over one axis, for a sum of p(x, z) of spacing h or less."""
    L, at = index.shape[1], faces(index, axis) * side
    bounds, size, low, high = decoder.sides(a, axis, at, side)
    at = np.repeat(at, len(high) // max(len(at), 1), axis=0)
    table, rest = bounds.ceiling(left)
    table += rest
    for l, slope in enumerate(bounds.slope):
        table += np.abs(left @ slope) * (0.5 * (high - low) if l == axis else 0.5 * side)
    near = np.maximum(np.abs(at) - 0.5 * side, 0.0)
    near[:, axis] = at[:, axis]
    table += 0.5 * (high**2 - np.square(near).sum(axis=1) - L * LOG_2PI)
    weight = np.exp(table - log_p[:, None] + (L - 1) * np.log(side)) * piece(low, high, h)
    return Side(np.where(np.isnan(weight), np.inf, weight), size, at, high)


def piece(low: Array, high: Array, h: float) -> Array:
    """∫ 2/(1 + e^(2π y/h)) dy from low to high."""
    per = 2 * np.pi / h
    return 2 / per * (np.log1p(np.exp(-per * low)) - np.log1p(np.exp(-per * high)))
