"""Strips of the complex plane over which a decoder is free of poles, and cells that bound the integrands there.

For z ∈ R¹: what `line.py` and `under_q.py` need to know of a decoder, each computed once. C cells, M nodes, D
outputs, K columns of a product (see `bounds`).
"""

from typing import Any, NamedTuple

import numpy as np

from ..checks import Array, Ints
from ..ops import LOG_2PI
from .bounds import TYPICAL, Bounds, Discs, discs, intervals

EPS = float(np.finfo(float).eps)
PER_OCTAVE = 8  # spacings and heights are powers of 2^(1/8): similar models so share tables
ENOUGH = 0.5  # nats of slack in a cell
MANY = 512  # cells
NEAR = 0.55  # of the way to where a pole is expected: so far up bounds are sharp
TURN = 2048  # nodes that are decoded at once
SIDES = 3  # discs along each half side of a box


STEPS = (
    np.floor(2.0 ** (np.arange(PER_OCTAVE) / PER_OCTAVE) * 512) / 512
)  # short: multiples k·h are exact numbers


def rung(size: float) -> float:
    """About 2^(k/8), at most `size` or hardly more: one of the spacings and heights in use."""
    k = int(np.floor(PER_OCTAVE * np.log2(min(max(size, 1e-200), 1e200)) + 0.03))
    return float(np.ldexp(STEPS[k % PER_OCTAVE], k // PER_OCTAVE))


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
        log_f, precision, pole = arrays[6:]
        return cls(arrays[0], arrays[1], a, Bounds(*arrays[2:6]), log_f, precision, pole, typical)

    @property
    def ends(self) -> tuple[float, float]:
        return float(self.middle[0] - self.r[0]), float(self.middle[-1] + self.r[-1])

    def covering(self, lo: float, hi: float) -> "Cells":
        """Those that cover [lo, hi], as far as they do."""
        begin, end = np.searchsorted(self.middle, [lo, hi])
        return self.of(slice(max(int(begin) - 1, 0), int(end) + 1))

    @property
    def sharp(self) -> bool:
        """Whether smaller cells would not say much more."""
        return bool((self.bounds.slack + self.precision * self.r**2 / 6 <= 2 * ENOUGH).all())

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
    top: float  # so high it is known to be free; the cells may be lower
    widest: float  # the spacing of a lattice in it may be at most that

    @property
    def a(self) -> float:
        return self.cells.a


class Decoder:
    """The decoder of a VAE on the line and beside it; what was computed once is kept."""

    def __init__(self, joint: Any):
        self.layers, self.likelihood = joint.centred_layers, joint.likelihood
        self._nodes: dict[Any, Array] = {}
        self._ranges: dict[Any, list[tuple[int, int, Array]]] = {}
        self._real: dict[Any, Cells] = {}
        self._cells: dict[Any, Cells] = {}
        self._free: dict[Any, bool] = {}
        self._tiles: dict[Any, tuple[Array, Array]] = {}
        self._sizes: dict[Any, Array] = {}

    def outputs(self, z: Array) -> Array:
        """(M,) -> (M, D); without the bias that was taken from the data as well."""
        (W, _, b), *rest = self.layers
        u = z[:, None] * W[0] + b
        for W, _, b in rest:
            u = np.tanh(u, out=u) @ W + b
        return u

    def nodes(self, h: float, shift: float, first: int, last: int, keep: bool = False) -> tuple[Array, Array]:
        """The nodes z = (first + shift) h, …, (last + shift) h, (M,), and the outputs there, (M, D).

        `keep`: parts of them will be asked for as well. Which were does not change a bit of what others get.
        """
        z, key = (np.arange(first, last + 1) + shift) * h, (h, shift, first, last)
        for begin, end, outputs in self._ranges.get((h, shift), ()):
            if begin <= first and last <= end:
                return z, outputs[first - begin : last + 1 - begin]
        if key not in self._nodes:
            self._nodes[key] = np.concatenate([self.outputs(z[k : k + TURN]) for k in range(0, len(z), TURN)])
        if keep:
            self._ranges.setdefault((h, shift), []).append((first, last, self._nodes[key]))
        return z, self._nodes[key]

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
            slack = real.bounds.slack
            pieces = np.where(slack > ENOUGH, 4, np.where(slack > ENOUGH / 8, 2, 1))
            self._cells[key] = self._refined(a, real.middle, real.r, pieces, many, real.typical)
        return self._cells[key]

    def _refined(self, a: float, middle: Array, r: Array, pieces: Ints, many: int, typical: float) -> Cells:
        """Cells at height a, split in so many pieces each, and again until their slack is little."""
        parts: list[Cells] = []
        while True:
            first = np.repeat(np.cumsum(pieces) - pieces, pieces)
            middle, r, n = np.repeat(middle, pieces), np.repeat(r, pieces), np.repeat(pieces, pieces)
            k = np.arange(len(n)) - first - 0.5 * (n - 1)
            part = self._bounds(a, middle + 2 * r * k / n, r / n, typical)
            slack = part.bounds.slack + part.precision * part.r**2 / 6
            allowed = 2 * ENOUGH if parts else ENOUGH  # a second look is the last, if it can be
            finer = np.ceil(0.5 * np.log2(np.nan_to_num(slack, nan=np.inf) / allowed))  # slack ∝ r²
            pieces = 2 ** np.clip(finer, 0, 3).astype(int)
            whole = pieces == 1
            if whole.all() or sum(len(part.middle) for part in parts) + pieces.sum() > many:
                return joined([*parts, part])
            parts.append(part.of(whole))
            middle, r, pieces = part.middle[~whole], part.r[~whole], pieces[~whole]

    def sizes(self, cells: Cells) -> Array:
        """The bounds on |log p(x|z)| on cells that another decoder has chosen."""
        key = cells.a, cells.middle.tobytes()
        if key not in self._sizes:
            z, rho = cells.middle[:, None], cells.r[None]
            self._sizes[key] = self.likelihood.size(discs(self.layers, z, np.full_like(z, cells.a), rho))
        return self._sizes[key]

    def _bounds(self, a: float, middle: Array, r: Array, typical: float) -> Cells:
        z = middle[:, None]
        d = discs(self.layers, z, np.full_like(z, a), r[None]) if a else intervals(self.layers, z, r[None])
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
        if (
            not 0 < (hi - lo) / max(0.5, a) < MANY
        ):  # too narrow for floating point, or wide as a q that diverges
            return False
        tiles = int(np.ceil((hi - lo) / max(0.5, a)))
        r, s = 0.5 * (hi - lo) / tiles, 0.5 * a
        x, y = lo + (2 * np.arange(tiles) + 1) * r, np.full(tiles, s)
        while len(x) < MANY:
            d = discs(self.layers, x[:, None], y[:, None], np.full((1, len(x)), np.hypot(r, s)))
            doubtful = ~self.likelihood.free(d)
            if (a, lo, hi) not in self._tiles:
                size = np.where(doubtful, np.inf, self.likelihood.size(d))
                self._tiles[a, lo, hi] = np.append(x - r, hi), size
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
                return Strip(*part.ends, self.cells(a, part, many), part, a, std)
            a = rung(a / 1.2)
        return None

    def lower(self, strip: Strip, factor: float, many: int = MANY) -> Strip:
        """The same strip, as high as this part of it."""
        return strip._replace(cells=self.cells(rung(factor * strip.a), strip.real, many))

    def highest(self, strip: Strip, x: float, width: float, left: Array) -> Array:
        """What |log p(x|z)| cannot exceed in [x, x + width] × [0, a], for rows left (n, K): (n,)."""
        edges, size = self._tiles[strip.top, strip.lo, strip.hi]
        begin, end = np.searchsorted(edges, [x, x + width])
        some = size[:, max(int(begin) - 1, 0) : int(end)]
        covered = edges[0] <= x and x + width <= edges[-1]
        if not (covered and np.isfinite(some).all()):  # other discs, smaller where the first ones were not free
            some = self.likelihood.size(self.sides(strip.a, [(x, x + width)])[0])
        return np.nan_to_num((left @ some).max(axis=1), nan=np.inf, posinf=np.inf)

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
    return 1.001 * (bounds @ np.ones(bounds.shape[-1], bounds.dtype)).astype(float) + 1e-37 * bounds.shape[-1]


def missed(a: float, h: float, bound: Array) -> Array:
    """By how much a sum of spacing h misses the integral of f, where that of |f| at height a is at most `bound`."""
    return 2 * bound / np.expm1(min(2 * np.pi * a / h, 700.0))


def height_for(std: float, nats: float) -> float:
    """About the best height for a density of this std that is to be summed to e^−nats of itself."""
    return float(0.75 * std * np.sqrt(2 * nats))


def spacing_for(a: float, bound: Array, allowed: Array | float) -> float:
    """The spacing at which `missed` is at most what is allowed, for all; 0 where nothing is known."""
    h = 2 * np.pi * a / np.log1p(2 * bound / allowed)
    return float(np.nan_to_num(h).min())
