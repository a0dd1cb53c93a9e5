"""log p_θ(x) and the posteriors of a VAE with z ∈ R¹, with errors that are proven up to rounding.

A sum over the nodes of a lattice in an interval [l, r], both ends half way between two nodes, misses the integral by

    |T − I| <= 2 N(a) / expm1(2π a/h)  +  the sides of the box [l, r] × [−a, a]  +  what lies outside of [l, r]

(Trefethen & Weideman 2014, theorem 5.1, on a finite piece). So: cells of the real line say where each data point has
its mass; discs say up to which height a there is no pole; cells of the line Im z = a bound N(a), the integral of
|f(t + ia)|; and that gives the spacing h. Data points with mass in the same places form a group. Every sum is taken
twice, over the lattice A of all k h and over the lattice B of all (k + ½) h, and each is proven on its own.

N data points, n of them in a group, M nodes, C cells, D outputs, K columns of a product (see `bounds`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..checks import Array, Bools, Ints
from ..ops import LOG_2PI
from .bounds import TYPICAL
from .strips import (
    EPS,
    MANY,
    SIDES,
    Cells,
    Decoder,
    Strip,
    exp32,
    height_for,
    missed,
    rung,
    spacing_for,
    total,
)  # fmt: skip

SHARE = 1 / 64  # of the allowed error: so much may be left out, and as much may the sides of the box hold
REACH = 16.0  # the search for the mass is in |z| <= REACH, or twice as far, or four times …, as a point needs
APART = 2**17  # numbers in tables that another strip must save,
SPLIT = 2**13  # and that another piece of a lattice must
MOST = 2**21  # numbers in one table
BUDGET = 2**25  # numbers in all tables of a search


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
        rows, lo, hi, log_p, std, off = (part[some] for part in self[:6])
        return Found(rows, lo, hi, log_p, std, off, self.cells)


def in_groups(lo: Array, hi: Array, h: Array, worth: int) -> Iterator[Ints]:
    """Intervals [lo, hi] with spacings h, (n,) each, in groups: apart where that saves so many nodes.

    A group needs the nodes of the whole of its hull, at its smallest spacing, for each of its points.
    """

    def nodes(some: slice) -> float:
        return (some.stop - some.start) * float((hi[some].max() - lo[some].min()) / h[some].min())

    order = np.lexsort((lo + hi, np.floor(np.log2(hi - lo)), np.floor(np.log2(h))))  # like beside like
    lo, hi, h = lo[order], hi[order], h[order]
    todo = [(whole, nodes(whole))] if (whole := slice(0, len(lo))).stop else []
    while todo:
        some, cost = todo.pop()
        middle = (some.start + some.stop) // 2
        halves = [slice(some.start, middle), slice(middle, some.stop)]
        if cost > worth and middle > some.start:
            costs = [nodes(half) for half in halves]
            if sum(costs) < 0.9 * cost - worth:
                todo += zip(halves, costs)
                continue
        yield np.sort(order[some])


def apart(found: Found, width: float) -> Iterator[Found]:
    """Data points by where the middles of their intervals lie, in sixteenths of a width."""
    place = np.floor((found.lo + found.hi) / (width / 8))
    for k in np.unique(place):
        yield found.of(place == k)


@dataclass(frozen=True)
class Group:
    """Some data points on one piece of a lattice: p(x, z) on it, and its bounds beside it, in units of e^log_p."""

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
    other: Array  # the same over B, (n,)
    outside: Array  # as much mass may lie outside of the ends, (n,)
    reach: float  # and none that matters beyond |z| = reach + 1
    sides: Array  # what each piece of the sides of the box weighs in the error of a sum, (n, ·)

    @property
    def ends(self) -> tuple[float, float]:
        """Of the piece of the line that is summed over, half way between two nodes."""
        return (self.first - 0.5) * self.h, (self.last + 0.5) * self.h

    @property
    def side_ends(self) -> list[float]:
        """Where the sides are: those over A, and those over B half a spacing farther out."""
        l, r = self.ends
        return [l - 0.5 * self.h, l, r, r + 0.5 * self.h]

    def missed(self, size: Array | None = None, at_sides: Any = 1.0, far: Any = 1.0) -> Array:
        """By how much the sum of p(x, z) w(z) may miss its integral, (n,), in units of e^log_p.

        |w| is at most size (n, C) on the cells, at_sides (n, ·) on the pieces of the sides, far (n,) outside; or 1.
        """
        if self.strip is None or self.h > self.strip.widest:
            return np.full(len(self.rows), np.inf)
        bound = total(self.bounds if size is None else self.bounds * size)
        return missed(self.strip.a, self.h, bound) + (self.sides * at_sides).sum(axis=1) + self.outside * far


class Evidence:
    """log p_θ(x) and the posteriors of the data points x (N, D): all that θ owns."""

    def __init__(self, joint: Any, x: Array, tolerance: float):
        self.joint, self.tolerance, self.decoder = joint, tolerance, Decoder(joint)
        self.x, N = joint.centred(x), len(x)
        self.left = self.decoder.likelihood.rows(self.x)
        self.log_px, self.log_norm, self.error = np.full(N, np.nan), np.full(N, np.nan), np.full(N, np.inf)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            self.groups = [group for found in self._search() for group in self._solve(*found)]

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
            if typical == TYPICAL:  # are x and the mean farther apart than was thought?
                place = np.floor(np.log2(np.maximum(found.off, 1.0)))
                far = (found.off > 16 * TYPICAL) | (~told & (found.off > 4 * TYPICAL))
                for k in np.unique(place[far]):
                    todo.append((found.rows[far & (place == k)], lo, hi, reach, MANY, float(1.5 * 2**k), False))
                found, told = found.of(~far), told[~far]
            left_out[found.rows] = np.logaddexp(left_out[found.rows], found.log_p + log_share)
            if spent > BUDGET:
                told[:] = True
            done, rest = found.of(told), found.of(~told)
            for some in in_groups(done.lo, done.hi, done.std, APART):
                part = done.of(some)
                yield part, reach, left_out[part.rows]
            for part in apart(rest, hi - lo):  # a closer look: at less, or else with more cells
                begin, end = float(part.lo.min()), float(part.hi.max())
                many_more = many if end - begin < 0.5 * (hi - lo) else 4 * many
                todo.append((part.rows, begin, end, reach, many_more, typical, False))

    def _look(
        self, rows: Ints, lo: float, hi: float, many: int, typical: float, log_share: float
    ) -> tuple[Found, Bools]:
        """Where cells on the real line may hold mass, and an estimate of p(x); whether they tell it well, (n,)."""
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
        return Found(rows, begin, end, log_p, std, off, cells), (whole < 5) | cells.sharp

    # ----- the sums -----

    def _solve(self, found: Found, reach: float, left_out: Array) -> list[Group]:
        """One strip and one lattice for all that were found together, in groups on pieces of it."""
        n, log_p, std = len(found.rows), found.log_p, float(found.std.min())
        each, lo, hi = self.tolerance * (1 - 4 * SHARE), float(found.lo.min()), float(found.hi.max())
        strip = self.decoder.strip(found.cells, lo, hi, std, height_for(std, np.log(2 / each) + 2))
        bounds: Array = np.zeros((n, 0))
        h = std / 4
        for _ in range(8):
            if strip is None:
                break
            bounds = exp32(strip.cells.log_mass(self.left[found.rows]) - log_p[:, None])
            h, nats = min(std, spacing_for(strip.a, 2 * total(bounds), each)), np.log(1 / each)
            if (highest := float(np.log(total(bounds).max()))) < nats:
                break
            strip = self.decoder.lower(strip, max(0.25, np.sqrt(0.5 * nats / highest)))  # it was too high
        else:
            strip, bounds, h = None, np.zeros((n, 0)), std / 4
        outside = np.exp(left_out - log_p) + np.exp(self.decoder.likelihood.highest - 0.5 * reach**2 - log_p)
        h = max(rung(h), rung((hi - lo) * n / MOST))
        first, last = int(np.floor(lo / h + 0.5)), int(np.ceil(hi / h - 0.5))
        for shift in (0.0, 0.5):
            self.decoder.nodes(h, shift, first - (shift > 0), last, keep=True)
        pieces = in_groups(found.lo, found.hi, np.full(n, h), SPLIT)
        groups = [self._sum(found.of(k), strip, bounds[k], h, outside[k], reach) for k in pieces]
        if strip:
            groups = [replace(g, sides=sides) for g, sides in zip(groups, self._sides(strip, groups))]
        for g in groups:
            part = g.missed() / g.mass
            error = np.where(part < 1, -np.log1p(-np.minimum(part, 0.999999)), np.inf)
            self.log_px[g.rows], self.log_norm[g.rows] = g.log_p + np.log(g.mass), g.log_p + np.log(g.other)
            self.error[g.rows] = error + self.rounding(g)
        return groups

    def _sum(
        self, found: Found, strip: Strip | None, bounds: Array, h: float, outside: Array, reach: float
    ) -> Group:
        lo, hi, each = float(found.lo.min()), float(found.hi.max()), self.tolerance * (1 - 4 * SHARE)
        likelihood = self.decoder.likelihood.expecting(found.cells.typical)
        while True:
            first, last = int(np.floor(lo / h + 0.5)), int(np.ceil(hi / h - 0.5))
            _, outputs = self.decoder.nodes(h, 0.0, first, last)
            likelihood = likelihood.around(outputs[len(outputs) // 2])
            left = likelihood.rows(self.x[found.rows])
            f, other = (self._f(likelihood, left, found.log_p, h, at, first, last) for at in (0.0, 0.5))
            mass, over_b = h * f.sum(axis=1), h * other.sum(axis=1)
            finer = rung(max(spacing_for(strip.a, total(bounds), each * mass), 1e-300)) if strip else h
            if finer >= h or (hi - lo) * len(mass) > finer * MOST:
                break
            h = finer
        of = found.rows, left, likelihood, strip, h, first, last, found.log_p, bounds
        return Group(*of, f, mass, over_b, outside, reach, np.zeros((len(mass), 1)))

    def _f(
        self, likelihood: Any, left: Array, log_p: Array, h: float, shift: float, first: int, last: int
    ) -> Array:
        """p(x, z) e^−log_p at the nodes (k + shift) h, (n, M); over B from one node before the first."""
        z, outputs = self.decoder.nodes(h, shift, first - (shift > 0), last)
        columns = likelihood.columns(outputs)
        columns[0] -= 0.5 * (z * z + LOG_2PI)
        table = left @ columns
        table -= log_p[:, None]
        return np.exp(table, out=table)

    def _sides(self, strip: Strip, groups: list[Group]) -> Iterator[Array]:
        """What each piece of the sides of the boxes weighs: |f| on it counts ∫ 2/(1 + e^(2π y/h)) dy. (n, ·) each."""
        x = np.concatenate([g.side_ends for g in groups])
        d, low, high = self.decoder.sides(strip.a, [(end, end) for end in x])
        x, s = np.repeat(x, SIDES), 0.5 * (high - low)
        for k, g in enumerate(groups):
            part = slice(4 * SIDES * k, 4 * SIDES * (k + 1))
            bounds = g.likelihood.bounds(d.of(part), s[None, part], upwards=True)
            per, columns = 2 * np.pi / g.h, bounds.log_f
            columns[0] += 0.5 * (high[part] ** 2 - x[part] ** 2 - LOG_2PI) + np.log(2 / per)
            columns[0] += np.log(np.log1p(np.exp(-per * low[part])) - np.log1p(np.exp(-per * high[part])))
            table = g.left @ columns + np.abs(g.left @ bounds.slope[0]) * s[part]
            yield np.exp(table - g.log_p[:, None])

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
    def moments(self) -> tuple[Array, Array, Array, Array]:
        """Mean (N, 1) and covariance (N, 1, 1) of each posterior, and their errors."""
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
                far, whole = group.reach + 1 + np.abs(mean), group.mass - group.missed()
                first = group.missed(off, side, far) / whole
                v = variance[:, None]
                second = group.missed(off * off + v, side * side + v, far * far + variance) / whole
                errors = np.where(whole > 0, [first, second + first**2], np.inf)
            rounding = (
                2
                * EPS
                * (16 + np.abs(mean) + self.rounding(group) / EPS * np.array([np.sqrt(variance), variance]))
            )
            found[:, group.rows] = [mean, variance, *(errors + rounding)]
        return found[0][:, None], found[1][:, None, None], found[2][:, None], found[3][:, None, None]

    def divergence_to(self, other: "Evidence") -> Array:
        """KL(p_θ(z|x) ‖ p_θ'(z|x)) and its error, (2, N).

        It is E[log p_θ(x|z) − log p_θ'(x|z)] − log p_θ(x) + log p_θ'(x) under p_θ(z|x).
        """
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
            group = replace(group, sides=next(self._sides(strip, [group])))
        size, at_sides, far = (np.abs(ratio)[:, None] for _ in range(3))
        for one in (self, other):
            left = one.left[group.rows]
            size = size + left @ (strip.cells.bounds.size if one is self else one.decoder.sizes(strip.cells))
            (l, r), half = group.ends, 0.5 * group.h
            box = strip if one is self else strip._replace(top=a)
            ends = [one.decoder.highest(box, x, half, left) for x in (l - half, r)]
            at_sides = at_sides + np.maximum(*ends)[:, None]
            constant, square = one.growth
            far = far + (constant + square * (group.reach + 1) ** 2)[group.rows, None]
        whole = group.mass - group.missed()
        return np.where(whole > 0, group.missed(size, at_sides, far[:, 0]) / whole, np.inf)

    def rounding(self, group: Group) -> Array:
        """About how large rounding may be in log p(x), (n,)."""
        far = max(abs(end) for end in group.ends)
        off = np.sqrt(2 * np.maximum(self.decoder.likelihood.highest - group.log_p, 0.0)) + TYPICAL
        cancels = np.maximum(group.likelihood.magnitude(group.left) - off**2, 0.0)
        size = 16 + 3 * np.abs(group.log_p) + 3 * cancels
        return EPS * size + off * self.decoder.rounding_of_outputs(far)
