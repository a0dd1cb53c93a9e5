"""The exact terms of a VAE with z ∈ R¹, each with a bound that is proven up to rounding.

A sum over the nodes of a lattice in an interval [l, r], both ends half way between two nodes, misses the integral by

    |T − I| <= 2 N(a) / expm1(2π a/h)  +  the sides of the box [l, r] × [−a, a]  +  what lies outside of [l, r]

(Trefethen & Weideman 2014, theorem 5.1, on a finite piece). So: cells of the real line say where each data point has
its mass; discs say up to which height a there is no pole; cells of the line Im z = a bound N(a), the integral of
|f(t + ia)|; and that gives the spacing h. Data points with mass in the same places form a group: they share a
lattice, the decoder's outputs on it, and the cells. Every sum is taken twice, over the lattice A of all k h and over
the lattice B of all (k + ½) h, and each is proven on its own.

N data points, n of them in a group, M nodes, C cells, D outputs, K columns of a product (see `bounds`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..checks import Array, Bools, Ints
from ..gaussian import Gaussian
from ..ops import LOG_2PI
from .bounds import TYPICAL, Bounds, Discs, discs

EPS = float(np.finfo(float).eps)
PER_OCTAVE = 8  # spacings and heights are powers of 2^(1/8): similar models so share tables
SHARE = 1 / 64  # of the allowed error: so much may be left out, and as much may the sides of the box hold
REACH = 16.0  # the search for the mass is in |z| <= REACH, or twice as far, or four times …, as a point needs
FARTHEST = 2000.0  # length of an interval
ENOUGH = 0.5  # nats of slack in a cell
MANY = 512  # cells
NEAR = 0.55  # of the way to where a pole is expected: so far up bounds are sharp
SMALL = 2**17  # numbers in a table that another group must save
MOST = 2**21  # numbers in one table
BUDGET = 2**25  # numbers in all tables of a search
TURN = 2048  # nodes that are decoded at once
SIDES = 4  # discs along each half side of a box


def rung(size: float) -> float:
    """The largest power of 2^(1/8) that is at most `size`."""
    return float(2.0 ** (np.floor(PER_OCTAVE * np.log2(size) + 1e-9) / PER_OCTAVE))


class Cells(NamedTuple):
    """Cells on the line Im z = a, side by side, and what bounds the integrands on them."""

    middle: Array  # (C,), ascending
    r: Array  # half of their sides, (C,)
    a: float
    bounds: Bounds
    log_f: Array  # log p(x, z) at the middle, for a = 0, as columns (K, C)
    precision: Array  # 1/variance of a posterior that has its mass here, about, (C,)
    pole: Array  # about how far the nearest singularity is, for a = 0, (C,)
    typical: float  # how many noise stds the data are from the mean, about

    def arrays(self) -> list[Array]:
        return [self.middle, self.r, *self.bounds, self.log_f, self.precision, self.pole]

    @classmethod
    def of_arrays(cls, arrays: list[Array], a: float, typical: float) -> "Cells":
        return cls(arrays[0], arrays[1], a, Bounds(*arrays[2:6]), *arrays[6:], typical)

    @property
    def ends(self) -> tuple[float, float]:
        return float(self.middle[0] - self.r[0]), float(self.middle[-1] + self.r[-1])

    def covering(self, lo: float, hi: float) -> "Cells":
        """Those that cover [lo, hi], as far as they do."""
        begin, end = np.searchsorted(self.middle, [lo, hi])
        return self.of(slice(max(int(begin) - 1, 0), int(end) + 1))

    def of(self, some: Any) -> "Cells":
        return Cells.of_arrays([array[..., some] for array in self.arrays()], self.a, self.typical)

    def log_mass(self, left: Array) -> Array:
        """Upper bounds of log ∫ |f(t + ia)| dt over each cell, f(z) = p(x, z), for rows left (n, K): (n, C)."""
        table = left @ self.bounds.slope[0]
        table -= self.middle
        table *= self.r
        np.abs(table, out=table)
        np.minimum(table, table * table * (1 / 6), out=table)  # log sinhc
        columns = self.bounds.log_f.copy()
        columns[0] += 0.5 * (self.a**2 - self.middle**2 - LOG_2PI) + np.log(2 * self.r)
        table += left @ columns
        return table


def joined(parts: list[Cells]) -> Cells:
    """The cells of all parts in order."""
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate([part.middle for part in parts]))
    arrays = [np.concatenate([part.arrays()[k] for part in parts], axis=-1)[..., order] for k in range(9)]
    return Cells.of_arrays(arrays, parts[0].a, parts[0].typical)


class Strip(NamedTuple):
    """[lo, hi] × [−a, a], free of poles, and the cells on its upper edge."""

    lo: float
    hi: float
    cells: Cells

    real: Cells  # below them
    widest: float  # the spacing of a lattice in it may be at most that

    @property
    def a(self) -> float:
        return self.cells.a


class Decoder:
    """The decoder of a VAE on the line and beside it; what was computed once is kept."""

    def __init__(self, joint: Any):
        self.layers, self.likelihood = joint.centred_layers, joint.likelihood
        self._nodes: dict[Any, list[tuple[int, int, Array]]] = {}
        self._real: dict[Any, Cells] = {}
        self._cells: dict[Any, Cells] = {}
        self._free: dict[Any, bool] = {}

    def outputs(self, z: Array) -> Array:
        """(M,) -> (M, D); without the bias that was taken from the data as well."""
        (W, _, b), *rest = self.layers
        u = z[:, None] * W[0] + b
        for W, _, b in rest:
            u = np.tanh(u, out=u) @ W + b
        return u

    def nodes(self, h: float, shift: float, first: int, last: int) -> tuple[Array, Array]:
        """The nodes z = (first + shift) h, …, (last + shift) h, (M,), and the outputs there, (M, D)."""
        z = (np.arange(first, last + 1) + shift) * h
        known = self._nodes.setdefault((h, shift), [])
        for begin, end, outputs in known:
            if begin <= first and last <= end:
                return z, outputs[first - begin : last + 1 - begin]
        outputs = np.concatenate([self.outputs(z[k : k + TURN]) for k in range(0, len(z), TURN)])
        known.append((first, last, outputs))
        return z, outputs

    def real_cells(self, lo: float, hi: float, many: int = MANY, typical: float = TYPICAL) -> Cells:
        """Cells that cover [lo, hi]: as small as their bounds need to be sharp, but at most so many."""
        key = lo, hi, many, typical
        if key not in self._real:
            n = max(1, int(np.ceil(min(hi - lo, many / 8))))
            r = np.full(n, 0.5 * (hi - lo) / n)
            middle = lo + (2 * np.arange(n) + 1) * r
            near = np.abs(middle) < 4  # where a prior has its mass
            self._real[key] = self._refined(0.0, middle, r, np.where(near & (r > 0.25), 4, 1), many, typical)
        return self._real[key]

    def cells(self, a: float, real: Cells, many: int = MANY) -> Cells:
        """The same at height a, from the cells on the real line below."""
        key = a, *real.ends, many, real.typical
        if key not in self._cells:
            pieces = np.where(real.bounds.slack > ENOUGH / 8, 2, 1)
            self._cells[key] = self._refined(a, real.middle, real.r, pieces, many, real.typical)
        return self._cells[key]

    def _refined(self, a: float, middle: Array, r: Array, pieces: Ints, many: int, typical: float) -> Cells:
        """Cells at height a, split in so many pieces each, and again until their slack is little."""
        parts: list[Cells] = []
        while True:
            k = np.concatenate([np.arange(n) - 0.5 * (n - 1) for n in pieces])
            middle, r, n = (np.repeat(part, pieces) for part in (middle, r, pieces))
            part = self._bounds(a, middle + 2 * r * k / n, r / n, typical)
            slack = part.bounds.slack + part.precision * part.r**2 / 6
            pieces = np.where(slack <= ENOUGH, 1, np.where(slack <= 8 * ENOUGH, 2, 4))
            whole = pieces == 1
            if whole.all() or sum(len(part.middle) for part in parts) + pieces.sum() > many:
                return joined([*parts, part])
            parts.append(part.of(whole))
            middle, r, pieces = part.middle[~whole], part.r[~whole], pieces[~whole]

    def sizes(self, cells: Cells) -> Array:
        """The bounds on |log p(x|z)| on cells that another decoder has chosen."""
        im, rho = np.full((len(cells.middle), 1), cells.a), cells.r[None]
        return self.likelihood.size(discs(self.layers, cells.middle[:, None], im, rho))

    def _bounds(self, a: float, middle: Array, r: Array, typical: float) -> Cells:
        d = discs(self.layers, middle[:, None], np.full((len(middle), 1), a), r[None], real=a == 0)
        log_f = self.likelihood.columns(d.re)
        log_f[0] -= 0.5 * (middle**2 + LOG_2PI)
        bounds = self.likelihood.expecting(typical).bounds(d, r[None])
        precision, pole = 1 + self.likelihood.information(d), self.likelihood.pole(d)
        return Cells(middle, r, a, bounds, log_f, precision, pole, typical)

    def is_free(self, a: float, lo: float, hi: float) -> bool:
        """Whether log p(x|z) has no singularity in [lo, hi] × [−a, a], by discs; they are halved where it may."""
        key = a, lo, hi
        if key not in self._free:
            self._free[key] = self._look_for_poles(a, lo, hi)
        return self._free[key]

    def _look_for_poles(self, a: float, lo: float, hi: float) -> bool:
        tiles = int(np.ceil((hi - lo) / max(0.5, a)))
        r, s = 0.5 * (hi - lo) / tiles, 0.5 * a
        x, y = lo + (2 * np.arange(tiles) + 1) * r, np.full(tiles, s)
        while len(x) < MANY:
            d = discs(self.layers, x[:, None], y[:, None], np.full((1, len(x)), np.hypot(r, s)))
            doubtful = ~self.likelihood.free(d)
            if not doubtful.any():
                return True
            if r < 0.3 * a:
                break
            x, y = x[doubtful], y[doubtful]
            if r > 2 * a:
                r = r / 4
                x, y = np.concatenate([x - 3 * r, x - r, x + r, x + 3 * r]), np.tile(y, 4)
            else:
                r, s = r / 2, s / 2
                x, y = (
                    np.concatenate([x - r, x + r, x - r, x + r]),
                    np.concatenate([y - s, y - s, y + s, y + s]),
                )
        return False

    def strip(
        self, real: Cells, lo: float, hi: float, std: float, wanted: float, many: int = MANY
    ) -> Strip | None:
        """A strip for densities of this std with mass in [lo, hi], as high as wanted if it can be; or None."""
        lo, hi = lo - 2 * std, hi + 2 * std  # ends half way between nodes lie beyond lo and hi
        part = real.covering(lo, hi)
        a = rung(min(wanted, NEAR * float(part.pole.min())))
        for _ in range(12):
            if self.is_free(a, *part.ends):
                return Strip(*part.ends, self.cells(a, part, many), part, std)
            a = rung(a / 1.2)
        return None

    def lower(self, strip: Strip, factor: float, many: int = MANY) -> Strip:
        """The same strip, as high as this part of it."""
        return strip._replace(cells=self.cells(rung(factor * strip.a), strip.real, many))

    def sides(self, a: float, ends: list[tuple[float, float]]) -> tuple[Discs, Array, Array]:
        """Discs that cover [x, x'] × [0, a] for each of the ends (x, x'), upwards; from where to where each goes."""
        y = np.arange(SIDES + 1) * (a / SIDES)
        low, high = np.tile(y[:-1], len(ends)), np.tile(y[1:], len(ends))
        x, width = (np.repeat(part, SIDES) for part in np.array(ends).T)
        x, width = 0.5 * (x + width), 0.5 * (width - x)
        rho = np.hypot(width, 0.5 * a / SIDES)[None]
        return discs(self.layers, x[:, None], (0.5 * (low + high))[:, None], rho), low, high

    def rounding_of_outputs(self, z: float) -> float:
        """About how far rounding moves the outputs for |z| up to this, in noise stds (or logits), all together."""
        error = np.array([abs(z)])
        for k, (_, size, b) in enumerate(self.layers):
            error = (error + (1 if k else 0)) @ size + np.abs(b)
        return EPS * self.likelihood.length(error)


def exp32(exponents: Array) -> Array:
    """exp in single precision, for bounds: see `total`."""
    return np.exp(exponents.astype(np.float32))


def total(bounds: Array) -> Array:
    """The sum of bounds in single precision over its last axis, rounded up; what underflowed is in it."""
    return 1.0001 * bounds.sum(axis=-1, dtype=float) + 1e-37 * bounds.shape[-1]


def missed(a: float, h: float, bound: Array) -> Array:
    """By how much a sum of spacing h misses the integral of a function whose |·| has the integral `bound` at height a."""
    return 2 * bound / np.expm1(min(2 * np.pi * a / h, 700.0))


def height_for(std: float, nats: float) -> float:
    """About the best height for a density of this std that is to be summed to e^−nats of itself."""
    return float(0.75 * std * np.sqrt(2 * nats))


def spacing_for(a: float, bound: Array, allowed: Array | float) -> float:
    """The spacing at which `missed` is at most what is allowed, for all; 0 where nothing is known."""
    h = 2 * np.pi * a / np.log1p(2 * bound / allowed)
    return float(np.nan_to_num(h).min())


class Found(NamedTuple):
    """Where some data points have their mass."""

    rows: Ints  # (n,)
    lo: Array  # (n,): the mass is in [lo, hi]
    hi: Array
    log_p: Array  # log p(x), about, (n,)
    std: Array  # of the posterior, about, (n,)
    off: Array  # how many noise stds x is from the mean there, about, (n,)
    cells: Cells  # that showed it

    def of(self, some: Any) -> "Found":
        return Found(*(part[some] for part in self[:6]), self.cells)


def in_groups(lo: Array, hi: Array, h: Array) -> Iterator[Ints]:
    """Intervals [lo, hi] with spacings h, (n,) each, in groups: apart where that saves many nodes."""
    todo = [np.arange(len(lo))] if len(lo) else []
    while todo:
        rows = todo.pop()
        cost = _nodes(lo, hi, h, rows)
        best, parts = 0.7 * cost - SMALL, None
        if best > 0 and len(rows) > 1:
            for by in (lo + hi, h):
                halves = np.array_split(rows[np.argsort(by[rows], kind="stable")], 2)
                if (split := sum(_nodes(lo, hi, h, half) for half in halves)) < best:
                    best, parts = split, halves
        if parts is None:
            yield np.sort(rows)
        else:
            todo.extend(parts)


def apart(found: Found, width: float) -> Iterator[Found]:
    """Data points by where the middles of their intervals lie, in sixteenths of a width."""
    place = np.floor((found.lo + found.hi) / (width / 8))
    for k in np.unique(place):
        yield found.of(place == k)


def _nodes(lo: Array, hi: Array, h: Array, rows: Ints) -> float:
    return float(len(rows) * (hi[rows].max() - lo[rows].min()) / h[rows].min())


@dataclass(frozen=True)
class Group:
    """Some data points on one lattice: p(x, z) on it, and its bounds beside it, in units of e^log_p."""

    rows: Ints
    left: Array  # (n, K), of a likelihood that is centred where these points have their mass
    likelihood: Any
    strip: Strip | None  # None: there is no proof
    h: float
    first: int  # of the nodes k h
    last: int
    log_p: Array  # (n,)
    bounds: Array  # of ∫ |f(t + ia)| dt over the cells of the strip, (n, C)
    f: Array  # p(x, z) at the nodes of A, (n, M)
    mass: Array  # its sum times h, (n,)
    outside: Array  # as much mass may lie outside of the ends, (n,)
    reach: float  # and none that matters beyond |z| = reach + 1

    @property
    def ends(self) -> tuple[float, float]:
        """Of the piece of the line that is summed over, half way between two nodes."""
        return (self.first - 0.5) * self.h, (self.last + 0.5) * self.h


class Evidence:
    """log p_θ(x) and the posteriors of the data points x (N, D): all that θ owns."""

    def __init__(self, joint: Any, x: Array, tolerance: float):
        self.joint, self.tolerance, self.decoder = joint, tolerance, Decoder(joint)
        self.x, N = joint.centred(x), len(x)
        self.left = self.decoder.likelihood.rows(self.x)
        self.log_px, self.log_norm, self.error = np.full((3, N), [[np.nan], [np.nan], [np.inf]])
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            self.groups = [self._solve(*found) for found in self._search()]

    @property
    def checked_error(self) -> Array:
        """How far the sums over A and over B are apart, (N,)."""
        return np.abs(self.log_px - self.log_norm)

    # ----- where the mass is -----

    def _search(self) -> Iterator[tuple[Found, float, Array]]:
        """The groups; how far the search for each went, and the logarithm of what it left out at most, (n,)."""
        spent, log_share = 0, np.log(SHARE * self.tolerance)
        left_out = np.full(len(self.x), -np.inf)
        todo = [(np.arange(len(self.x)), -REACH, REACH, REACH, MANY, TYPICAL, True)]
        while todo:
            rows, lo, hi, reach, many, typical, first = todo.pop()
            found, told = self._look(rows, lo, hi, many, typical, log_share)
            spent += len(rows) * many
            known = np.isfinite(found.log_p)
            found, told = found.of(known), told[known]  # the others have overflowed
            if first:  # does the tail of the prior matter?
                above = self.decoder.likelihood.highest - found.log_p - log_share
                needed = np.sqrt(2 * np.clip(np.nan_to_num(above, nan=1e9), 0, 1e9))
                if (far := needed > reach).any() and reach < 1e4:
                    todo.append((found.rows[far], -2 * reach, 2 * reach, 2 * reach, many, typical, True))
                    found, told = found.of(~far), told[~far]
            if typical == TYPICAL and not told.all():  # are x and the mean farther apart than was thought?
                far = ~told & (found.off > 4 * TYPICAL)
                for place in np.unique(np.floor(np.log2(found.off[far]))):
                    some = far & (np.floor(np.log2(np.maximum(found.off, 1e-9))) == place)
                    todo.append((found.rows[some], lo, hi, reach, many, float(1.5 * 2**place), False))
                found, told = found.of(~far), told[~far]
            left_out[found.rows] = np.logaddexp(left_out[found.rows], found.log_p + log_share)
            if spent > BUDGET:
                told[:] = True
            done, rest = found.of(told), found.of(~told)
            for some in in_groups(done.lo, done.hi, done.std):
                part = done.of(some)
                yield part, reach, left_out[part.rows]
            for part in apart(rest, hi - lo):  # a closer look: at less, or else with more cells
                begin, end = float(part.lo.min()), float(part.hi.max())
                many_more = many if end - begin < 0.5 * (hi - lo) else 4 * many
                todo.append((part.rows, begin, end, reach, many_more, typical, False))

    def _look(
        self, rows: Ints, lo: float, hi: float, many: int, typical: float, log_share: float
    ) -> tuple[Found, Bools]:
        """Where cells on the real line may hold mass, beside an estimate of p(x); and whether they tell it well, (n,)."""
        cells, left = self.decoder.real_cells(lo, hi, many, typical), self.left[rows]
        table = np.nan_to_num(cells.log_mass(left), nan=np.inf)
        middle = left @ cells.log_f + np.log(np.minimum(2 * cells.r, 2.5 / np.sqrt(cells.precision)))
        peak = middle.max(axis=1)
        log_p = peak + np.log(exp32(middle - peak[:, None]).sum(axis=1))
        held = exp32(np.clip(table - log_p[:, None], -80, 80))
        matters = table > (log_p + log_share - np.log(len(cells.middle)))[:, None]
        begin = (cells.middle - cells.r)[matters.argmax(axis=1)]
        end = (cells.middle + cells.r)[::-1][matters[:, ::-1].argmax(axis=1)]
        whole = held.sum(axis=1)
        std = np.sqrt(whole / (held @ cells.precision.astype(np.float32))).astype(float)
        k = middle.argmax(axis=1)
        log_likelihood = middle[np.arange(len(rows)), k] + 0.5 * cells.middle[k] ** 2
        off = np.sqrt(2 * np.maximum(self.decoder.likelihood.highest - log_likelihood, 0.0))
        return Found(rows, begin, end, log_p, std, off, cells), whole < 5

    # ----- the sums -----

    def _solve(self, found: Found, reach: float, left_out: Array) -> Group:
        rows, log_p, left = found.rows, found.log_p, self.left[found.rows]
        std, each = float(found.std.min()), self.tolerance * (1 - 4 * SHARE)
        lo, hi = float(found.lo.min()), float(found.hi.max())
        strip = self.decoder.strip(found.cells, lo, hi, std, height_for(std, np.log(2 / each) + 2))
        bounds, h = np.zeros((len(rows), 0)), std / 4
        for _ in range(8):
            if strip is None:
                break
            bounds = exp32(strip.cells.log_mass(left) - log_p[:, None])
            highest = float(np.log(total(bounds).max()))
            h = min(std, spacing_for(strip.a, 2 * total(bounds), each))
            if highest < np.log(1 / each):
                break
            strip = self.decoder.lower(
                strip, max(0.25, np.sqrt(0.5 * np.log(1 / each) / highest))
            )  # too high up
        else:
            strip, h = None, std / 4
        likelihood = self.decoder.likelihood.around(self._middle(lo, hi)).expecting(found.cells.typical)
        left = likelihood.rows(self.x[rows])
        outside = np.exp(left_out - log_p) + np.exp(self.decoder.likelihood.highest - 0.5 * reach**2 - log_p)
        h = max(rung(h), rung((hi - lo) * len(rows) / MOST))
        while True:
            first, last = int(np.floor(lo / h + 0.5)), int(np.ceil(hi / h - 0.5))
            f, other = (self._f(likelihood, left, log_p, h, at, first, last) for at in (0.0, 0.5))
            mass = h * f.sum(axis=1)
            group = Group(rows, left, likelihood, strip, h, first, last, log_p, bounds, f, mass, outside, reach)
            error = self._missed(group)
            finer = rung(spacing_for(strip.a, total(bounds), each * mass)) if strip else h
            if finer >= h or (hi - lo) * len(rows) > finer * MOST:
                break
            h = finer
        self.log_px[rows], self.log_norm[rows] = log_p + np.log(mass), log_p + np.log(h * other.sum(axis=1))
        part = error / mass
        error = np.where(part < 1, -np.log1p(-np.minimum(part, 0.999999)), np.inf)
        self.error[rows] = error + self.rounding(group)
        return group

    def _f(
        self, likelihood: Any, left: Array, log_p: Array, h: float, shift: float, first: int, last: int
    ) -> Array:
        """p(x, z) e^−log_p at the nodes (k + shift) h, (n, M); where shift is not 0, from one node before the first."""
        z, outputs = self.decoder.nodes(h, shift, first - (shift > 0), last)
        columns = likelihood.columns(outputs)
        columns[0] -= 0.5 * (z * z + LOG_2PI)
        table = left @ columns
        table -= log_p[:, None]
        return np.exp(table, out=table)

    def _missed(self, group: Group, size: Array | None = None, at_sides: Any = 1.0, far: Any = 1.0) -> Array:
        """By how much the sum of p(x, z) w(z) may miss its integral, (n,), in units of e^log_p.

        |w| is at most size (n, C) on the cells, at_sides (n, ·) on the discs of the sides, `far` (n,) outside; or 1.
        """
        if group.strip is None or group.h > group.strip.widest:
            return np.full(len(group.rows), np.inf)
        bound = total(group.bounds if size is None else group.bounds * size)
        sides = (self._sides(group) * at_sides).sum(axis=1)
        return missed(group.strip.a, group.h, bound) + sides + group.outside * far

    def _middle(self, lo: float, hi: float) -> Array:
        return self.decoder.outputs(np.array([0.5 * (lo + hi)]))[0]

    def _sides(self, group: Group) -> Array:
        """What each piece of the sides of the box weighs in the error of a sum, in units of e^log_p, (n, ·).

        The sides over A, and those over B half a spacing farther out. |f| on a piece counts ∫ 2/(1 + e^(2π y/h)) dy.
        """
        (l, r), half, k = group.ends, 0.5 * group.h, 2 * np.pi / group.h
        x = [l - half, l, r, r + half]
        d, low, high = self.decoder.sides(group.strip.a, [(end, end) for end in x])
        s = 0.5 * (high - low)
        bounds = group.likelihood.bounds(d, s[None], upwards=True)
        columns = bounds.log_f
        columns[0] += 0.5 * (high**2 - np.repeat(np.square(x), SIDES) - LOG_2PI) + np.log(2 / k)
        columns[0] += np.log(np.log1p(np.exp(-k * low)) - np.log1p(np.exp(-k * high)))
        table = group.left @ columns + np.abs(group.left @ bounds.slope[0]) * s
        return np.exp(table - group.log_p[:, None])

    @cached_property
    def growth(self) -> tuple[Array, Array]:
        """c and d, (N,) each, so that |log p(x|z)| <= c + d |z|² for all z."""
        W, size, b = self.decoder.layers[-1]
        fixed, linear = np.abs(b), size.sum(axis=0)
        if len(self.decoder.layers) > 1:  # |tanh| <= 1
            fixed, linear = fixed + linear, 0 * linear
        return self.decoder.likelihood.growth(self.x, fixed, linear)

    # ----- the posteriors -----

    @cached_property
    def moments(self) -> Array:
        """Mean and variance of each posterior and their errors, (4, N)."""
        found = np.full((4, len(self.x)), [[np.nan], [np.nan], [np.inf], [np.inf]])
        for group in self.groups:
            z, _ = self.decoder.nodes(group.h, 0.0, group.first, group.last)
            p = group.f / group.f.sum(axis=1)[:, None]
            mean = p @ z
            variance = np.einsum("nm,nm->n", p, (z - mean[:, None]) ** 2)
            errors = np.full((2, len(mean)), np.inf)
            if group.strip:
                (middle, r, a, *_), (lo, hi) = group.strip.cells, group.ends
                off = np.abs(middle - mean[:, None]) + (r + a)
                side = np.maximum(mean - lo, hi - mean)[:, None] + (group.h + a)
                far, whole = group.reach + 1 + np.abs(mean), group.mass - self._missed(group)
                first = self._missed(group, off, side, far) / whole
                v = variance[:, None]
                second = self._missed(group, off * off + v, side * side + v, far * far + variance) / whole
                errors = np.where(whole > 0, [first, second + first**2], np.inf)
            rounding = (
                2
                * EPS
                * (16 + np.abs(mean) + self.rounding(group) / EPS * np.array([np.sqrt(variance), variance]))
            )
            found[:, group.rows] = [mean, variance, *(errors + rounding)]
        return found

    def divergence_to(self, other: "Evidence") -> Array:
        """KL(p_θ(z|x) ‖ p_θ'(z|x)) and its error, (2, N): E[log p_θ(x|z) − log p_θ'(x|z)] − log p_θ(x) + log p_θ'(x)."""
        found = np.full((2, len(self.x)), [[np.nan], [np.inf]])
        for group in self.groups:
            sums = []
            for one in (self, other):
                _, outputs = one.decoder.nodes(group.h, 0.0, group.first, group.last)
                likelihood = one.decoder.likelihood.around(outputs[len(outputs) // 2])
                left = likelihood.rows(one.x[group.rows])
                sums.append(np.einsum("nk,nk->n", left, group.f @ likelihood.columns(outputs).T))
            ratio = (sums[0] - sums[1]) / group.f.sum(axis=1)
            rows = group.rows
            value = ratio - self.log_px[rows] + other.log_px[rows]
            error = self._error_of_ratio(group, other, ratio) + self.error[rows] + other.error[rows]
            rounding = 4 * EPS * np.abs(sums).sum(axis=0) / group.f.sum(axis=1)
            found[:, rows] = value, error + rounding + self.rounding(group)
        return found

    def _error_of_ratio(self, group: Group, other: "Evidence", ratio: Array) -> Array:
        """Of the mean of w = log p_θ(x|z) − log p_θ'(x|z): the sum of (w − ratio) p(x, z) should be 0."""
        if (strip := group.strip) is None:
            return np.full(len(ratio), np.inf)
        heights = (rung(strip.a / 1.2**k) for k in range(12))
        a = next((a for a in heights if other.decoder.is_free(a, strip.lo, strip.hi)), 0.0)
        if a != strip.a:  # lower, where the other decoder has a pole
            if not a:
                return np.full(len(ratio), np.inf)
            strip = self.decoder.lower(strip, a / strip.a)
            bounds = exp32(strip.cells.log_mass(self.left[group.rows]) - group.log_p[:, None])
            group = replace(group, strip=strip, bounds=bounds)
        size, at_sides, far = (np.abs(ratio)[:, None] for _ in range(3))
        for one in (self, other):
            left = one.left[group.rows]
            size = size + left @ one.decoder.sizes(strip.cells)
            (l, r), half = group.ends, 0.5 * group.h
            d, _, _ = one.decoder.sides(a, [(end, end) for end in (l - half, l, r, r + half)])
            at_sides = at_sides + left @ one.decoder.likelihood.size(d)
            constant, square = one.growth
            far = far + (constant + square * (group.reach + 1) ** 2)[group.rows, None]
        whole = group.mass - self._missed(group)
        return np.where(whole > 0, self._missed(group, size, at_sides, far[:, 0]) / whole, np.inf)

    def rounding(self, group: Group) -> Array:
        """About how large rounding may be in log p(x), (n,)."""
        n = group.rows
        far = max(abs(end) for end in group.ends)
        off = np.sqrt(2 * np.maximum(self.decoder.likelihood.highest - group.log_p, 0.0)) + TYPICAL
        size = 16 + np.abs(group.log_p) + group.likelihood.magnitude(group.left) + far / (2 * group.h)
        return EPS * size + off * self.decoder.rounding_of_outputs(far)


class UnderQ:
    """E_q[·] on the line: all that φ owns. What was tabulated once is kept for every Evidence that q meets."""

    def __init__(self, q: Gaussian, tolerance: float):
        self.q, self.tolerance = q, tolerance
        self.mean, self.std = q.mean[:, 0], np.exp(q.log_diag[:, 0])
        self._weights: dict[Any, Array] = {}

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")
    def against(self, evidence: Evidence) -> Array:
        """E_q[log p(x|z)] over A, the same over B, and E_q[log q − log p(z)] over B; the errors of 1 and of 3 − 2. (5, N)."""
        found, s, mu = np.full((5, len(self.mean)), np.nan), self.std, self.mean
        found[3:] = np.inf
        constant, square = evidence.growth
        # |log p(x|z)| + |log q − log p(z)| <= c + d u² with u = (z − mean)/s; beyond |u| = ρ that holds
        # 2 φ(ρ) (c/ρ + d (ρ + 1/ρ)) <= e^(−ρ²/2) (c + 81 d) at most, for 5 <= ρ <= 100.
        c, d = constant + (2 * square + 1) * mu**2 + np.abs(np.log(s)), (2 * square + 1) * s**2 + 0.5
        allowed = SHARE * self.tolerance
        far = np.sqrt(np.maximum(2 * np.log((c + 81 * d) / allowed), 25.0))
        lo, hi = mu - far * s, mu + far * s
        known = np.isfinite(lo) & np.isfinite(hi) & (s > 0) & (far < 100)
        known = np.flatnonzero(known)
        kept, self._weights = self._weights, {}
        for some in in_groups(lo[known], hi[known], s[known]):
            rows = known[some]
            found[:, rows] = self._sum(evidence, rows, float(lo[rows].min()), float(hi[rows].max()), kept)
        return found

    def _sum(self, evidence: Evidence, rows: Ints, lo: float, hi: float, kept: dict[Any, Array]) -> Array:
        """`against` for some data points, whose q lie in [lo, hi]."""
        mu, s, each = self.mean[rows], self.std[rows], self.tolerance * (1 - 4 * SHARE)
        decoder, std = evidence.decoder, float(s.min())
        strip, h = self._strip(evidence, lo, hi, std, float(np.log(2 / each)) + 5), std / 4
        if strip:
            bounds = self._bounds(strip, lo, hi, mu, s, evidence.left[rows])
            h = min(std, spacing_for(strip.a, bounds.sum(axis=0), each))
        of_target = evidence.groups[0].h if len(evidence.groups) == 1 else np.inf
        h = of_target if of_target <= h <= 1.6 * of_target else rung(h)
        h = max(h, rung((hi - lo) * len(rows) / MOST))
        first, last = int(np.floor(lo / h + 0.5)), int(np.ceil(hi / h - 0.5))
        likelihood = decoder.likelihood.around(decoder.outputs(np.array([0.5 * (lo + hi)]))[0])
        left, sums = likelihood.rows(evidence.x[rows]), []
        for shift in (0.0, 0.5):
            z, outputs = decoder.nodes(h, shift, first - (shift > 0), last)
            w = self._weights_of(rows, z, (h, shift, first, last), kept)
            sums.append(np.einsum("nk,nk->n", left, w @ likelihood.columns(outputs).T))
        middle = 0.5 * (lo + hi)
        d = z - middle
        m0, m1, m2 = (w @ np.column_stack([np.ones_like(d), d, d * d])).T
        back = mu - middle
        squares = (m2 - 2 * back * m1 + back**2 * m0) / s**2  # E_q[u²]
        to_prior = 0.5 * (m2 + 2 * middle * m1 + middle**2 * m0 - squares) - np.log(s) * m0
        size = 16 + np.abs(sums[0]) + 2 * np.abs(to_prior) + likelihood.magnitude(left) + 2 * np.abs(mu) / s
        off = np.sqrt(2 * np.abs(likelihood.highest - sums[0])) + TYPICAL
        rounding = EPS * size + off * decoder.rounding_of_outputs(max(abs(lo), abs(hi)))
        errors = np.full((2, len(rows)), np.inf)
        if strip and h <= std:
            known = (
                self._sides(evidence, likelihood, left, strip.a, h, first, last, mu, s) + SHARE * self.tolerance
            )
            errors = missed(strip.a, h, np.array([bounds[0], bounds.sum(axis=0)])) + known + rounding
        return np.array([*sums, to_prior, *errors])

    def _strip(self, evidence: Evidence, lo: float, hi: float, std: float, nats: float) -> Strip | None:
        """The strip of the posteriors where it serves q as well, or one of its own."""
        strip, wanted = evidence.groups[0].strip if evidence.groups else None, height_for(std, nats)
        if strip and lo < strip.hi and strip.lo < hi:  # not higher than what is known to be free
            wanted = min(wanted, strip.a)
        if (
            strip
            and strip.lo <= lo - 2 * std
            and hi + 2 * std <= strip.hi
            and 0.6 * wanted <= strip.a <= 1.2 * wanted
        ):
            return strip
        inside = -REACH < lo - 2 * std and hi + 2 * std < REACH
        real = evidence.decoder.real_cells(*((-REACH, REACH) if inside else (lo - 2 * std, hi + 2 * std)))
        return evidence.decoder.strip(real, lo, hi, std, wanted)

    def _bounds(self, strip: Strip, lo: float, hi: float, mu: Array, s: Array, left: Array) -> Array:
        """Of ∫ |q log p(x|z)| and ∫ |q (log q − log p(z))| on the line Im z = a, (2, n).

        There |q| is e^(a²/2s²) times q at the real part, and q of a cell is at most its length times the largest q in
        it. For the squares by Minkowski's inequality: E|u + ia/s|² <= (1 + a/s)², E|z + ia|² <= (√E z² + a)².
        """
        (middle, r, a, bounds, *_), std = strip.cells, float(s.min())
        begin, end = np.searchsorted(middle, [lo - 2 * std, hi + 2 * std])
        part = slice(max(begin - 1, 0), end + 1)
        r, scale = r[part], 1 / s[:, None]
        u = (np.maximum(np.abs(middle[part] - mu[:, None]) - r, 0.0) * scale).astype(np.float32)
        held = np.exp(-0.5 * u * u) * (r * (scale * np.sqrt(2 / np.pi)))
        held = np.minimum(held, 1.0) + 1e-37
        of_log_p = 1.001 * np.einsum("nk,nk->n", left, held @ bounds.size[:, part].T)
        of_squares = np.abs(np.log(s)) + 0.5 * (1 + a / s) ** 2 + 0.5 * (np.hypot(mu, s) + a) ** 2
        return np.exp(0.5 * (a / s) ** 2) * np.array([of_log_p, of_squares])

    def _weights_of(self, rows: Ints, z: Array, lattice: Any, kept: dict[Any, Array]) -> Array:
        """q h at the nodes of a lattice, (n, M)."""
        key = (*lattice, rows.tobytes())
        if key not in self._weights:
            if (w := kept.get(key)) is None:
                mu, scale = self.mean[rows], np.sqrt(0.5) / self.std[rows]
                w = np.multiply.outer(scale, z)
                w -= (scale * mu)[:, None]
                w *= w
                np.negative(w, out=w)
                np.exp(w, out=w)
                w *= (scale * lattice[0] / np.sqrt(np.pi))[:, None]
            self._weights[key] = w
        return self._weights[key]

    def _sides(
        self,
        evidence: Evidence,
        likelihood: Any,
        left: Array,
        a: float,
        h: float,
        first: int,
        last: int,
        mu: Array,
        s: Array,
    ) -> Array:
        """What the sides of the box weigh in the error of either sum, (n,).

        On a side |q| = q(end) e^(y²/2s²) and counts 2/(1 + e^(2πy/h)) <= 2 e^(−2πy/h): together at most 2 e^(−cy/a), the
        exponent being convex in y, with c = 2πa/h − a²/2s².
        """
        l, r, half = (first - 0.5) * h, (last + 0.5) * h, 0.5 * h
        d, _, _ = evidence.decoder.sides(a, [(l - half, l), (r, r + half)])
        size = (left @ likelihood.size(d)).reshape(len(mu), 2, SIDES).max(axis=2).T
        way, far = np.array([mu - l, r - mu]), np.abs([[l - half], [r + half]]) + a
        squares = np.abs(np.log(s)) + 0.5 * ((way + half + a) / s) ** 2 + 0.5 * far**2
        c = 2 * np.pi * a / h - 0.5 * (a / s) ** 2
        piece = np.where(c > 0, -2 * a * np.expm1(-c) / c, np.inf)
        return (np.exp(-0.5 * (way / s) ** 2) * (size + squares)).sum(axis=0) * piece / (s * np.sqrt(2 * np.pi))
