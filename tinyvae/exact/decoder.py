"""A VAE's decoder as the engine needs it: at the nodes of a lattice, on cells of the real line or plane, beside them.

A cell is a cube of the lattice side·Zᴸ. C cells, M nodes, N data points, n of them in a table, L latent dims.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..checks import Array, Bools, Ints
from ..ops import LOG_2PI
from .bounds import Bounds, Discs, discs, intervals

EPS = float(np.finfo(float).eps)
TURN = 2048  # nodes that are decoded at once
MOST_TILES = 4096  # of a strip, before it is given up


@cache
def keep_freed_memory() -> None:
    """Let glibc's malloc keep freed blocks of up to 32 MB for the next table; elsewhere this does nothing.

    Freeing one block of that size, never touched, teaches it so. Otherwise each table is fetched from the system
    and given back, page by page: half of the time.
    """
    np.empty(2**25 - 2**16, dtype=np.uint8)


class Nodes(NamedTuple):
    """The n^L nodes (j + ½) side/n in each of some cells."""

    z: Array  # (M, L)
    log_prior: Array  # (M,)
    outputs: Array  # (M, D)


class Cells(NamedTuple):
    """Cubes around `middle`, moved by i·a along one axis, and what bounds the integrands on them."""

    middle: Array  # (C, L)
    r: Array  # half of their sides, (C,)
    a: float
    axis: int
    bounds: Bounds
    size: Array  # of |log p(x|z)|, as columns (K, C)

    def of(self, some: Any) -> "Cells":
        return Cells(
            self.middle[some], self.r[some], self.a, self.axis, self.bounds.of(some), self.size[..., some]
        )

    @classmethod
    def joined(cls, parts: "list[Cells]") -> "Cells":
        if len(parts) == 1:
            return parts[0]
        bounds = Bounds(*(np.concatenate(arrays, axis=-1) for arrays in zip(*(p.bounds for p in parts))))
        middle, r = np.concatenate([p.middle for p in parts]), np.concatenate([p.r for p in parts])
        return cls(
            middle, r, parts[0].a, parts[0].axis, bounds, np.concatenate([p.size for p in parts], axis=-1)
        )

    def split(self, pieces: Ints) -> tuple[Array, Array]:
        """Middles and half sides of the cells, in so many pieces along each direction."""
        L, finer = self.middle.shape[1], []
        for k in np.unique(pieces).tolist():
            off, of = offsets(L, 2 * (np.arange(k) + 0.5) / k - 1), pieces == k
            middle = (self.middle[of][:, None] + off * self.r[of][:, None, None]).reshape(-1, L)
            finer.append((middle, np.repeat(self.r[of] / k, k**L)))
        middle, r = (np.concatenate([part[k] for part in finer]) for k in (0, 1))
        return middle, r

    def log_mass(self, left: Array, widen: float = 0.0) -> tuple[Array, Array]:
        """Upper bounds of log ∫ |p(x, z)| over each cell, for rows left (n, K), and the slack in them: (n, C) each.

        `widen`: the bound is to hold for the sum over lattice lines that are 2·widen apart in the other directions,
        wherever they lie. It is log-linear there, so convex, and at most its mean around each line.
        """
        log_f, rest = self.bounds.ceiling(left)
        table = log_f + rest
        L = self.middle.shape[1]
        for l, slope in enumerate(self.bounds.slope):
            r = self.r + (widen if l != self.axis else 0.0)
            along = left @ slope
            along -= self.middle[:, l]
            along *= r
            np.abs(along, out=along)
            table += np.minimum(along, along * along * (1 / 6))  # log sinhc
        squares = np.square(self.middle).sum(axis=1)
        table -= 0.5 * squares
        if not self.a:
            nearest = np.square(np.maximum(np.abs(self.middle) - self.r[:, None], 0.0)).sum(axis=1)
            table = np.fmin(table, self.bounds.highest(left, log_f) - 0.5 * nearest)
        log_volume = sum(np.log(2 * (self.r + (widen if l != self.axis else 0.0))) for l in range(L))
        table += log_volume + 0.5 * (self.a**2 - L * LOG_2PI)
        return table, rest


def packed(index: Any) -> Any:
    """Cells (C, L) as one number each, in the same order."""
    return index[:, 0] if index.shape[1] == 1 else (index[:, 0] << 31) + index[:, 1]


def offsets(dim: int, ticks: Any) -> Any:
    """All tuples of the ticks, (len^dim, dim)."""
    if dim == 1:
        return ticks[:, None]
    return np.stack(np.meshgrid(*[ticks] * dim, indexing="ij"), axis=-1).reshape(-1, dim)


def lattice(side: float, n: int, index: Ints) -> Array:
    """The nodes of cells (C, L), n in each direction, (C n^L, L)."""
    off = offsets(index.shape[1], ((np.arange(n) + 0.5) / n - 0.5) * side)
    return (((index + 0.5) * side)[:, None] + off).reshape(-1, index.shape[1])


class Decoder:
    """log p_θ(x, z) of the data points x (N, D) under a VAE, and its bounds. What the nodes gave first is kept."""

    proven = True

    def __init__(self, joint: Any, x: Array):
        self.layers, self.likelihood, self.dim = joint.centred_layers, joint.likelihood, joint.latent_dim
        self.x = joint.centred(x)
        self.left = self.likelihood.rows(self.x)
        self.reach = 0.0  # of the search for the mass
        self._kept: dict[Any, tuple[Ints, Array]] = {}
        self._last: dict[Any, Nodes] = {}
        self._free: dict[Any, dict[tuple[int, ...], float]] = {}
        self._cells: dict[Any, Cells] = {}

    # ----- at nodes -----

    def finer(self, n: int) -> int:
        """The nodes along a cell of the lattice that is held against one with n: errors fall like e^(−const n)."""
        return n + 1

    def outputs(self, z: Array) -> Array:
        """What the likelihood keeps of the decoder at z (M, L); without the bias that was taken from the data too."""
        (W, _, b), *rest = self.layers
        u = z @ W + b
        for W, _, b in rest:
            u = np.tanh(u, out=u) @ W + b
        return self.likelihood.prepared(u)

    def nodes(self, side: float, n: int, index: Ints, keep: bool = False) -> Nodes:
        """The nodes of the cells `index` (C, L). `keep`: some of these cells will be asked for again.

        What others asked for, and when, does not change a bit of what one gets.
        """
        z = lattice(side, n, index)
        log_prior = -0.5 * (np.einsum("ml,ml->m", z, z) + self.dim * LOG_2PI)
        if keep:
            outputs = self._decoded(z)
            self._kept[side, n] = packed(index), outputs.reshape(len(index), -1, outputs.shape[1])
            return Nodes(z, log_prior, outputs)
        key = side, n, index.tobytes()
        if key not in self._last:
            self._last[key] = Nodes(z, log_prior, self._gathered(side, n, index, z))
        return self._last[key]

    def _decoded(self, z: Array) -> Array:
        return np.concatenate([self.outputs(z[k : k + TURN]) for k in range(0, len(z), TURN)])

    def _gathered(self, side: float, n: int, index: Ints, z: Array) -> Array:
        if (side, n) not in self._kept:
            return self._decoded(z)
        known, outputs = self._kept[side, n]
        keys = packed(index)
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        found = outputs[at]
        if (new := known[at] != keys).any():
            fresh = self._decoded(z.reshape(len(index), -1, self.dim)[new].reshape(-1, self.dim))
            found[new] = fresh.reshape(int(new.sum()), *outputs.shape[1:])
        return found.reshape(-1, outputs.shape[2])

    def _factors(self, rows: Ints, nodes: Nodes) -> tuple[Array, Array]:
        """log p(x|z) as a product left·columns, (n, K) and (K, M), centred so that little cancels."""
        likelihood = self.likelihood.around(nodes.outputs[len(nodes.outputs) // 2])
        return likelihood.rows(self.x[rows]), likelihood.columns(nodes.outputs)

    def log_joint(self, rows: Ints, nodes: Nodes, log_p: Array) -> Array:
        """log p(x, z) − log_p, (n, M)."""
        left, columns = self._factors(rows, nodes)
        columns[0] += nodes.log_prior  # the row that meets a 1
        table = left @ columns
        table -= log_p[:, None]
        return table

    def under(self, rows: Ints, nodes: Nodes, weight: Array) -> tuple[Array, Array]:
        """Σ weight · log p(x|z) over the nodes, weight (n, M), and about its rounding, (n,) each."""
        left, columns = self._factors(rows, nodes)
        sums = np.einsum("nk,nk->n", left, weight @ columns.T)
        cancels = np.maximum(self.likelihood.magnitude(left) - 2 * np.abs(sums), 0.0)
        off = np.sqrt(2 * np.abs(self.likelihood.highest - sums)) + 3.0
        rounding = EPS * (16 + 3 * np.abs(sums) + 8 * cancels) + off * self.rounding_of_outputs(nodes.z)
        return sums, rounding

    def rounding(self, rows: Ints, nodes: Nodes, log_p: Array, f: Array) -> Array:
        """About how large rounding may be in log p(x), (n,)."""
        left, _ = self._factors(rows, nodes)
        off = np.sqrt(2 * np.maximum(self.likelihood.highest - log_p, 0.0)) + 3.0
        cancels = np.maximum(self.likelihood.magnitude(left) - off**2, 0.0)
        return EPS * (16 + 3 * np.abs(log_p) + 3 * cancels) + off * self.rounding_of_outputs(nodes.z)

    def rounding_of_outputs(self, z: Array) -> float:
        """About how far rounding moves the outputs at z (M, L), in noise stds (or logits), all together."""
        error = np.array([np.abs(z).max()] * self.dim)
        for k, (_, size, b) in enumerate(self.layers):
            error = (error + (1 if k else 0)) @ size + np.abs(b)
        return EPS * self.likelihood.length(error)

    # ----- on cells -----

    def look(self, rows: Ints, index: Ints, side: float) -> tuple[Array, Array, Array]:
        """log ∫ p(x, z) dz over cells: an upper bound and an estimate, (n, C); the precision of z there, (C,)."""
        middle, r = (index + 0.5) * side, np.full(len(index), 0.5 * side)
        rho = np.tile(r, (self.dim, 1))
        d = intervals(self.layers, middle, rho)
        cells = Cells(middle, r, 0.0, 0, self.likelihood.bounds(d, rho), middle.T)
        upper, rest = cells.log_mass(self.left[rows])
        precision = self.likelihood.information(d)
        steepest = 1 + precision[0, 0]
        log_det = np.log(steepest)
        if self.dim == 2:
            other, cross = 1 + precision[1, 1], precision[0, 1]
            log_det = np.log(steepest * other - cross**2)
            steepest = 0.5 * (steepest + other + np.sqrt((steepest - other) ** 2 + 4 * cross**2))
        log_volume = np.minimum(self.dim * np.log(side), self.dim * np.log(2.5) - 0.5 * log_det)
        estimate = self.left[rows] @ cells.bounds.log_f
        estimate += log_volume - 0.5 * (np.square(middle).sum(axis=1) + self.dim * LOG_2PI)
        return upper, estimate, steepest

    def beyond(self, reach: float, found: Any) -> Array:
        """log of what p(x, z) holds at most where some |z_i| > reach, for all x."""
        self.reach = max(self.reach, reach)
        return np.full(len(found.rows), self.likelihood.highest + np.log(self.dim) - 0.5 * reach**2)

    def cells(self, a: float, axis: int, middle: Array, r: Array, sizes: bool = True) -> Cells:
        """Cells of half sides r (C,) around middle (C, L), at height a of an axis; with bounds of |log p(x|z)|."""
        key = a, axis, middle.tobytes(), r.tobytes(), sizes
        if key not in self._cells:
            im, rho = np.zeros_like(middle), np.tile(r, (self.dim, 1))
            im[:, axis] = a
            d = discs(self.layers, middle, im, rho)
            size = self._size(d) if sizes else np.zeros((0, len(r)))
            self._cells[key] = Cells(middle, r, a, axis, self.likelihood.bounds(d, rho), size)
        return self._cells[key]

    def pole(self, middle: Array, r: Array) -> float:
        """About how far from cells of half sides r (C,) the nearest singularity of log p(x|z) is."""
        return float(self.likelihood.pole(intervals(self.layers, middle, np.tile(r, (self.dim, 1)))).min())

    def is_free(self, a: float, axis: int, index: Ints, side: float, log: bool = False) -> bool:
        """Whether p(x|z), or its logarithm, has no singularity over these cells, up to the height a; by discs."""
        k = max(1, int(2 ** np.ceil(np.log2(max(0.5, a) / side))))
        tiles = set(map(tuple, (index // k).tolist()))
        known = self._free.setdefault((axis, side * k, log), {})
        new = sorted(tile for tile in tiles if known.get(tile, 0.0) < a)
        if new:
            doubtful = self._with_a_pole(a, axis, np.array(new), side * k, log)
            known.update({tile: a for tile, doubt in zip(new, doubtful) if not doubt})
            return not doubtful.any()
        return True

    def _with_a_pole(self, a: float, axis: int, index: Ints, side: float, log: bool) -> Bools:
        """Which cells (C, L), up to the height a, may have a singularity over them; by discs, which are halved."""
        re, y, r, s = (index + 0.5) * side, np.full(len(index), 0.5 * a), 0.5 * side, 0.5 * a
        of, doubtful = np.arange(len(index)), np.ones(len(index), dtype=bool)
        off = offsets(self.dim + 1, np.array([-1.0, 1.0])) / 2
        while len(re) < MOST_TILES:
            im, rho = np.zeros_like(re), np.full((self.dim, len(re)), r)
            im[:, axis], rho[axis] = y, np.hypot(r, s)
            doubt = ~self.likelihood.free(discs(self.layers, re, im, rho), log)
            doubtful = np.isin(np.arange(len(index)), of[doubt])
            if not doubt.any() or r < 0.15 * a:
                break
            into = off if r <= 2 * s else off[::2] * (np.arange(self.dim + 1) < self.dim)  # not upwards as well
            of = np.repeat(of[doubt], len(into))
            re = (re[doubt][:, None] + into[:, :-1] * r).reshape(-1, self.dim)
            y = (y[doubt][:, None] + into[:, -1] * s).ravel()
            r, s = r / 2, s / 2 if r <= 2 * s else s
        return doubtful

    def over(self, axis: int, middle: Array, half: Array, low: Array, high: Array) -> tuple[Bounds, Array]:
        """Bounds of log |p(x|z)| and of |log p(x|z)| on faces (F, L) of half side `half`, from low to high (F,)."""
        im, rho = np.zeros_like(middle), np.tile(half, (self.dim, 1))
        im[:, axis], rho[axis] = 0.5 * (low + high), 0.5 * (high - low)
        d = discs(self.layers, middle, im, rho)
        return self.likelihood.bounds(d, rho, upwards=axis), self._size(d)

    def _size(self, d: Discs) -> Array:
        """Bounds of |log p(x|z)| on discs, as columns (K, M): infinite where there may be a singularity."""
        size = self.likelihood.size(d)
        singular = ~self.likelihood.free(d, log=True)
        size[:, singular] = 0.0
        size[0, singular] = np.inf
        return size

    def growth(self) -> tuple[Array, Array]:
        """c and d, (N,) each, so that |log p(x|z)| <= c + d |z|² for all z."""
        W, size, b = self.layers[-1]
        fixed, linear = np.abs(b), size.sum(axis=0)
        if len(self.layers) > 1:  # |tanh| <= 1
            fixed, linear = fixed + linear, 0 * linear
        return self.likelihood.growth(self.x, fixed, linear)
