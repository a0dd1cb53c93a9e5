"""A decoder on small complex discs: no pole in them, and how large the integrands can be there.

What makes the error of a lattice sum provable (Trefethen & Weideman 2014, SIAM Review 56, theorem 5.1): an integrand
that is analytic in the strip |Im z| < A and real on the line misses its integral by at most 2 N(a) / expm1(2π a/h),
for any a < A, where h is the spacing and N(a) the integral of |f(t + ia)| over t. So two things are needed: `discs`
shows that there is no pole, and bounds a decoder to second order; `GaussianCells` and `BernoulliCells` bound log |f|
and |log p(x|z)| on cells of the line Im z = a. The line itself is the case a = 0.

All bounds hold up to rounding. M discs or cells, L latent dims, D outputs, N data points. Bounds for pairs of a data
point and a cell are products left·right of a row of each data point and a column of each cell.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Bools = NDArray[np.bool_]
Layers = list[tuple[Array, Array, Array]]  # W, |W| (in, out) and b (out,) of each layer

LOG_2PI = float(np.log(2 * np.pi))
SPARE = 0.25  # e in (√S + B)² <= (1 + e) S + (1 + 1/e) B²


class Discs(NamedTuple):
    """A decoder F on M discs |(z − c)_l| <= ρ_l: at their centres c, and all over each of them."""

    re: Array  # Re F(c), (M, D)
    im: Array  # Im F(c), (M, D)
    slope: Array  # Re and Im of ∂F/∂z_l at c, (L, 2, M, D)
    bend: Array  # >= |Σ F_lm (z − c)_l (z − c)_m|, F_lm taken anywhere in the disc, (M, D)
    moves: Array  # >= |F(z) − F(c)|, (M, D)
    free: Bools  # no unit has a pole in the disc, (M,)
    pole: Array  # about how far the nearest pole of a unit is, for `intervals`, (M,)


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def discs(layers: Layers, re: Array, im: Array, rho: Array) -> Discs:
    """The decoder on discs around re + i·im (M, L), of radii rho (L, M).

    With J the Jacobian at c, exact, and Q >= |u''[d, d]| for all |d_l| <= ρ_l, a pre-activation u moves by at most
    Σ ρ_l |J_l| + Q/2, and |Σ u_l d_l| <= Σ ρ_l |J_l| + Q everywhere. A tanh keeps the form:
    Q ← sup|tanh''| (Σ ρ_l |J_l| + Q)² + sup|tanh'| Q, with tanh'' = −2 tanh tanh'.
    """
    (W, _, b), *rest = layers
    L, M = rho.shape
    parts = np.zeros((2 + 2 * L, M, W.shape[1]))  # Re u and Im u; for each l Re and Im of ∂u/∂z_l
    np.add(re @ W, b, out=parts[0])
    np.matmul(im, W, out=parts[1])
    parts[2::2] = W[:, None]
    bend, free, pole = np.zeros((M, W.shape[1])), np.ones(M, dtype=bool), np.zeros(M)
    first = _reach(parts, rho)
    for W, size, b in rest:
        moves = first + 0.5 * bend
        tanh, steepest = _tanh(parts[0], parts[1], moves)
        free &= np.isfinite(steepest).all(axis=1)
        largest = np.sqrt(tanh[0] * tanh[0] + tanh[1] * tanh[1]) + steepest * moves
        first += bend
        bend += 2 * largest * (first * first)
        bend *= steepest
        parts = _through_tanh(parts, *tanh) @ W
        parts[0] += b
        bend, first = bend @ size, _reach(parts, rho)
    return Discs(parts[0], parts[1], parts[2:].reshape(L, 2, M, -1), bend, first + 0.5 * bend, free, pole)


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def intervals(layers: Layers, z: Array, rho: Array) -> Discs:
    """The same where z and its moves are real: the decoder within rho (L, M) of z (M, L), |tanh'| = 1/cosh² u."""
    (W, _, b), *rest = layers
    L, M = rho.shape
    parts = np.empty((1 + L, M, W.shape[1]))
    parts[0], parts[1:] = z @ W + b, W[:, None]
    bend, pole = np.zeros((M, W.shape[1])), np.full(M, np.inf)
    first = moves = np.einsum("lm,lmk->mk", rho, np.abs(parts[1:]))
    for W, size, b in rest:
        u = np.abs(parts[0])
        pole = np.minimum(pole, rho.max(axis=0) * (np.sqrt(u * u + np.pi**2 / 4) / first).min(axis=1))
        tanh, nearest = np.tanh(parts[0]), u - moves
        e = np.exp(-2 * np.abs(nearest))
        steepest = np.where(nearest > 0, 4 * e / (1 + e) ** 2, 1.0)
        at_most = (np.abs(tanh) - np.copysign((1 - e) / (1 + e), nearest)) @ size  # towards 0 it changes most
        first = first + bend
        bend += 2 * (np.abs(tanh) + steepest * moves) * (first * first)
        bend *= steepest
        parts[1:] *= 1 - tanh * tanh
        parts[0] = tanh
        parts = parts @ W
        parts[0] += b
        bend, first = bend @ size, np.einsum("lm,lmk->mk", rho, np.abs(parts[1:]))
        moves = np.fmin(first + 0.5 * bend, at_most)  # the one on small intervals, the other on large ones
    slope = np.zeros((L, 2, *parts.shape[1:]))
    slope[:, 0] = parts[1:]
    free = np.ones(M, dtype=bool)
    return Discs(parts[0], np.zeros_like(parts[0]), slope, bend, moves, free, pole)


def _reach(parts: Array, rho: Array) -> Array:
    """Σ ρ_l |∂u/∂z_l|."""
    first, *rest = (np.sqrt(parts[k] * parts[k] + parts[k + 1] * parts[k + 1]) for k in range(2, len(parts), 2))
    first *= rho[0][:, None]
    for r, length in zip(rho[1:], rest):
        first += r[:, None] * length
    return first


def _tanh(x: Array, y: Array, moves: Array) -> tuple[tuple[Array, Array], Array]:
    """tanh(x + iy) as Re and Im, and sup|tanh'| on discs of radius `moves`: infinite where a pole may be in them.

    |tanh'| = 1/(sinh² Re u + cos² Im u), and poles are where Re u = 0 and Im u = π/2 + πk. sin w >= w − w³/6.
    """
    size = np.abs(x)
    off = np.maximum(size - moves, 0.0)
    off = np.exp(np.minimum(off, 300.0, out=off), out=off)
    if len(y) and (y == y[0]).all():  # a first layer on a line Im z = a
        y = y[:1]
    y = y - np.pi * np.round(y * (1 / np.pi))
    sin = np.sin(y)
    squares = sin * sin
    e = np.exp(-2 * size)
    below = 1 / (1 + e * (2 - 4 * squares + e))
    re, im = np.copysign((1 - e * e) * below, x), e * below * (4 * sin * np.sqrt(1 - squares))
    way = np.maximum((np.pi / 2 - np.abs(y)) - moves, 0.0)
    off -= 1 / off
    way *= 1 - way * way * (1 / 6)
    least = 0.25 * (off * off) + way * way
    return (re, im), 1 / least


def _through_tanh(parts: Array, a: Array, b: Array) -> Array:
    """tanh u = a + ib and its derivatives (1 − tanh² u) ∂u/∂z_l, as parts."""
    out = np.empty_like(parts)
    out[0], out[1] = a, b
    re, im = 1 - (a * a - b * b), 2 * a * b
    for l in range(2, len(parts), 2):
        p, q = parts[l], parts[l + 1]
        np.add(re * p, im * q, out=out[l])
        np.subtract(re * q, im * p, out=out[l + 1])
    return out


def _turned(slope: Array, upwards: int | None) -> Array:
    """The derivatives (L, 2, M, D), that along one axis in the direction of i: Re iF' = −Im F', Im iF' = Re F'."""
    if upwards is None:
        return slope
    turned = slope.copy()
    turned[upwards] = np.stack([-slope[upwards, 1], slope[upwards, 0]])
    return turned


class Bounds(NamedTuple):
    """φ = log |p(x|z)| on cells, for rows `left` (n, K) of data points: below φ(c) + slope·d + ½K at c + d.

    ½K is `rest` + `bent` √(½ (top − φ)): how far x is from the decoder's mean enters its root.
    """

    log_f: Array  # φ at the centres, as columns (K, M)
    slope: Array  # its derivatives there along the cell, as columns (L, K, M)
    rest: Array  # (M,), or as columns (K, M)
    bent: Array  # (M,), or zero
    top: Array  # what φ is at most if x is the mean, (M,)
    far: Array  # how far the mean moves on a cell, in noise stds, (M,); or φ where it is highest, as columns (K, M)

    def of(self, some: Any) -> "Bounds":
        return Bounds(*(part[..., some] for part in self))

    def ceiling(self, left: Array) -> tuple[Array, Array]:
        """φ at the centres and ½K, (n, M) each."""
        log_f = left @ self.log_f
        if self.rest.ndim > 1:
            return log_f, left @ self.rest
        return log_f, self.rest + self.bent * np.sqrt(np.maximum(0.5 * (self.top - log_f), 0.0))

    def highest(self, left: Array, log_f: Array) -> Array:
        """What φ cannot exceed on cells of the real line, (n, M): sharper where they are large."""
        if self.far.ndim > 1:
            return left @ self.far
        way = np.sqrt(np.maximum(2 * (self.top - log_f), 0.0)) - self.far
        return np.asarray(self.top - 0.5 * np.maximum(way, 0.0) ** 2)


@dataclass(frozen=True)
class GaussianLikelihood:
    """log N(x; F(z), diag σ²) as products: rows [1, |a|², a], a = (x − centre)/σ; columns of b = (F − centre)/σ."""

    inverse_std: Array  # 1/σ, (D,)
    centre: Array  # (D,): near x and F, so that little cancels

    @cached_property
    def log_constant(self) -> float:
        return float(np.log(self.inverse_std).sum() - 0.5 * len(self.inverse_std) * LOG_2PI)

    @property
    def highest(self) -> float:
        """What log p(x|z) cannot exceed."""
        return self.log_constant

    def around(self, outputs: Array) -> "GaussianLikelihood":
        """The same, centred where the outputs (D,) are."""
        return replace(self, centre=outputs)

    def length(self, outputs: Array) -> float:
        """Of a change of the outputs (D,), in noise stds."""
        return float(np.sqrt(np.square(outputs * self.inverse_std).sum()))

    def magnitude(self, left: Array) -> Array:
        """How large the numbers are whose differences are log p(x|z), for rows left (n, K): (n,)."""
        return left[:, 1] + len(self.inverse_std)

    def growth(self, x: Array, fixed: Array, linear: Array) -> tuple[Array, Array]:
        """|log p(x|z)| <= c (N,) + d (N,) |z|² where each |F| <= fixed + linear |z|, (D,) both."""
        far = np.square((np.abs(x - self.centre) + fixed) * self.inverse_std).sum(axis=1)
        return abs(self.log_constant) + far, np.full(len(x), np.square(linear * self.inverse_std).sum())

    def rows(self, x: Array) -> Array:
        """(N, 2 + D)."""
        a = (x - self.centre) * self.inverse_std
        return np.column_stack([np.ones(len(x)), np.einsum("nd,nd->n", a, a), a])

    def prepared(self, outputs: Array) -> Array:
        """What nodes keep of the decoder's outputs."""
        return outputs

    def columns(self, outputs: Array) -> Array:
        """log p(x|z) at nodes: outputs (M, D) -> (2 + D, M)."""
        b = (outputs - self.centre) * self.inverse_std
        columns = np.empty((2 + b.shape[1], len(b)))
        columns[0], columns[1], columns[2:] = (
            self.log_constant - 0.5 * np.einsum("md,md->m", b, b),
            -0.5,
            b.T,
        )
        return columns

    def free(self, d: Discs, log: bool) -> Bools:
        """On which discs p(x|z) is analytic, or its logarithm is, (M,)."""
        return d.free

    def information(self, d: Discs) -> Array:
        """Jᵀ Σ⁻¹ J, (L, L, M): what x tells of z there."""
        return np.einsum("lmd,kmd->lkm", (J := d.slope[:, 0] * self.inverse_std), J)

    def pole(self, d: Discs) -> Array:
        """About how far the nearest singularity of log p(x|z) is, (M,)."""
        return d.pole

    def size(self, d: Discs) -> Array:
        """Upper bounds of |log p(x|z)| all over each disc, (K, M): (√S + B)² <= (1 + e) S + (1 + 1/e) B²."""
        P, q, moves = (part * self.inverse_std for part in (d.re - self.centre, d.im, d.moves))
        squares = np.einsum("md,md->m", P, P) + np.einsum("md,md->m", q, q)
        e, columns = 0.5 * (1 + SPARE), np.empty((2 + P.shape[1], len(P)))
        columns[0] = abs(self.log_constant) + e * (squares + np.einsum("md,md->m", moves, moves) / SPARE)
        columns[1], columns[2:] = e, -2 * e * P.T
        return columns

    def bounds(self, d: Discs, rho: Array, upwards: int | None = None) -> Bounds:
        """φ = −½|a − P|² + ½|q|² + const, P + iq = b; φ'' <= |Im b'|² + |b''| (moves + √(|a − P|² + |q|²))."""
        P, q, bend, moves = (part * self.inverse_std for part in (d.re - self.centre, d.im, d.bend, d.moves))
        slope = _turned(d.slope, upwards) * self.inverse_std
        turn = np.einsum("lm,lmd->md", rho, np.abs(slope[:, 1])) + bend
        qq = np.einsum("md,md->m", q, q)
        rest = 0.5 * (np.einsum("md,md->m", turn, turn) + np.einsum("md,md->m", moves, bend))
        log_f = np.empty((2 + P.shape[1], len(P)))
        log_f[0] = self.log_constant + 0.5 * (qq - np.einsum("md,md->m", P, P))
        log_f[1], log_f[2:] = -0.5, P.T
        along = np.zeros((len(slope), *log_f.shape))
        along[:, 0] = np.einsum("md,lmd->lm", q, slope[:, 1]) - np.einsum("md,lmd->lm", P, slope[:, 0])
        along[:, 2:] = slope[:, 0].swapaxes(1, 2)
        bent = np.sqrt(np.einsum("md,md->m", bend, bend))
        far = np.sqrt(np.einsum("md,md->m", moves, moves))
        return Bounds(log_f, along, rest, bent, self.log_constant + qq, far)


@dataclass(frozen=True)
class BernoulliLikelihood:
    """Σ x l − softplus(l), l the logits, as products: rows [1, x]."""

    highest = 0.0

    def around(self, outputs: Array) -> "BernoulliLikelihood":
        return self

    def length(self, outputs: Array) -> float:
        return float(np.abs(outputs).sum())

    def magnitude(self, left: Array) -> Array:
        return np.full(len(left), float(left.shape[1]))

    def growth(self, x: Array, fixed: Array, linear: Array) -> tuple[Array, Array]:
        """As for a Gaussian: |log p(x|z)| <= Σ log 2 + |l|."""
        half = 0.5 * linear.sum()
        return np.full(len(x), len(fixed) + fixed.sum() + half), np.full(len(x), half)

    def rows(self, x: Array) -> Array:
        """(N, 1 + D)."""
        return np.column_stack([np.ones(len(x)), x])

    def prepared(self, outputs: Array) -> Array:
        """What nodes keep of the decoder's outputs: (M, D) -> (M, 1 + D)."""
        softplus = np.maximum(outputs, 0) + np.log1p(np.exp(-np.abs(outputs)))
        return np.column_stack([-softplus.sum(axis=1), outputs])

    def columns(self, prepared: Array) -> Array:
        """(M, 1 + D) -> (1 + D, M)."""
        return prepared.T.copy()

    def free(self, d: Discs, log: bool) -> Bools:
        """On which discs p(x|z) is analytic, or its logarithm is, (M,): σ(l) has poles at l = iπ (2k + 1)."""
        if log:  # which branches there
            return d.free & (np.abs(d.im) + d.moves < np.pi).all(axis=1)
        away = np.pi - np.abs(d.im - 2 * np.pi * np.round(d.im / (2 * np.pi)))
        return d.free & (np.hypot(d.re, away) > d.moves).all(axis=1)

    def information(self, d: Discs) -> Array:
        """Fisher's information of the bits on z, (L, L, M)."""
        J = d.slope[:, 0] / (2 * np.cosh(np.clip(0.5 * d.re, -300, 300)))
        return np.einsum("lmd,kmd->lkm", J, J)

    def pole(self, d: Discs) -> Array:
        """About how far the nearest singularity of log p(x|z) is, (M,)."""
        length = np.sqrt(np.square(d.slope[:, 0]).sum(axis=0)) + 1e-300
        return np.minimum(d.pole, (np.sqrt(d.re**2 + np.pi**2) / length).min(axis=1))

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")
    def _steepest(self, d: Discs) -> tuple[Array, Array, Array]:
        """sup|1 − σ(l)|, sup|σ(l)| and sup|σ(1 − σ)| on discs of radius `moves` around the logits."""
        away = np.pi - np.abs(d.im - 2 * np.pi * np.round(d.im / (2 * np.pi)))
        b = np.maximum(away - d.moves, 0.0)
        cos, squares = -np.cos(b), np.sin(b) ** 2  # of the largest |Im l| in the disc
        low, high = (np.exp(np.clip(-d.re + side * d.moves, -700, 700)) for side in (-1, 1))
        off_one = ((np.clip(-cos, 1 / high, 1 / low) + cos) ** 2 + squares) ** -0.5
        off_zero = ((np.clip(-cos, low, high) + cos) ** 2 + squares) ** -0.5
        return off_one, off_zero, 0.5 / (np.cosh(np.clip(np.abs(d.re) - d.moves, 0, 700)) + cos)

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")
    def size(self, d: Discs) -> Array:
        """Upper bounds of |log p(x|z)| all over each disc, (K, M), where it has no branch."""
        off_one, off_zero, _ = self._steepest(d)
        one, zero = (np.abs(part) for part in _log_sigmoid(d.re, d.im))
        return _of_bits(one + off_one * d.moves, zero + off_zero * d.moves)

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")
    def bounds(self, d: Discs, rho: Array, upwards: int | None = None) -> Bounds:
        """φ = Σ x log|σ(l)| + (1 − x) log|σ(−l)|, on discs where |Im l| < π."""
        off_one, off_zero, v = self._steepest(d)
        log_one, log_zero = _log_sigmoid(d.re, d.im)  # log σ(l) and log σ(−l), complex
        length = np.sqrt(d.slope[:, 0] ** 2 + d.slope[:, 1] ** 2)
        turn = v * (np.einsum("lm,lmd->md", rho, length) + d.bend) ** 2
        rest = 0.5 * _of_bits(turn + off_one * d.bend, turn + off_zero * d.bend)
        slope, p = _turned(d.slope, upwards), np.exp(log_one)
        J = slope[:, 0] + 1j * slope[:, 1]
        along = np.stack([_of_bits(((1 - p) * j).real, (-p * j).real) for j in J])
        far = _of_bits(*(-np.log1p(np.exp(np.clip(side * d.re - d.moves, -700, 700))) for side in (-1, 1)))
        zero = np.zeros(len(p))
        return Bounds(_of_bits(log_one.real, log_zero.real), along, rest, zero, zero, far)


def _of_bits(one: Array, zero: Array) -> Array:
    """Σ x one + (1 − x) zero as columns (1 + D, M), for one and zero (M, D)."""
    return np.concatenate([zero.sum(axis=1)[None], (one - zero).T])


def _log_sigmoid(re: Array, im: Array) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """log σ(l) and log σ(−l), principal values."""
    im = im - 2 * np.pi * np.round(im / (2 * np.pi))
    l = np.abs(re) + 1j * np.where(re >= 0, im, -im)
    small = -np.log1p(np.exp(-l))  # log σ of the side where Re l >= 0
    other = small - l
    return np.where(re >= 0, small, other), np.where(re >= 0, other, small)
