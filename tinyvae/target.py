"""All that θ owns: log p_θ(x) and the posterior p_θ(z|x), computed once per θ.

    log p_θ(x) = log ∫ p(z) p_θ(x|z) dz        p_θ(z|x) = p(z) p_θ(x|z) / p_θ(x)

φ has no say in here: a φ-step leaves the Target as it is, to the last bit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise, repeat
from typing import Any, NamedTuple, Protocol

import numpy as np

from .quadrature import BLOCK, CLASSES, EPS, Array, Estimate, Ints, Tiles, certify
from .support import LOG_ZERO, Tables, scan, to_support

TOLERANCE = {1: 1e-9, 2: 1e-6}  # nats, for z ∈ R¹ and z ∈ R²
KEEP = 2**24  # numbers in tables of the posteriors that are kept; others are computed again when needed
CACHE = 2**16  # numbers in the outputs that are computed at once: what a processor's cache holds
KNOWN = 2**23  # numbers in the factors of decoded tiles that are kept
INTEGRALS = 4  # each integral gets this part of the tolerance, so that the identity closes to all of it


class Joint(Protocol):
    """p(x, z) at one θ: all that the exact terms need to know about a model.

    The likelihood comes in two steps so that the first, a network, runs once per node and the second once
    per data point and node. `Callables` makes a Joint of a plain log p(x|z).
    """

    @property
    def latent_dim(self) -> int: ...
    @property
    def support(self) -> tuple[float, float]:
        """Of the prior, in each coordinate: (−inf, inf) or an interval."""

    def log_prior(self, z: Array) -> Array:
        """(M, L) -> (M,), nats."""

    def outputs(self, z: Array) -> Array:
        """What the likelihood needs from z, (M, L) -> (M, K): a decoder's output, or z itself."""

    def log_likelihood(self, x: Array, outputs: Array) -> Array:
        """log p(x|z), nats; x (…, D), outputs (…, K), leading axes broadcast."""


@dataclass(frozen=True)
class Callables:
    """A Joint made of plain functions, for a model from anywhere (PyTorch, JAX, a formula).

    log_likelihood(x (P, D), z (P, L)) -> (P,) and log_prior(z (M, L)) -> (M,), nats, both with their
    normalising constants; `support` is that of the prior in each coordinate. `encoder(x)`, if given,
    returns a q with `.log_prob(z (P, L), rows (P,)) -> (P,)`, rows telling which data point's q is meant.
    A Callables stands in for a model with nothing to set: theta and phi are ignored.
    """

    likelihood: Callable[[Array, Array], Any]
    log_prior_of: Callable[[Array], Any]
    latent_dim: int = 1
    support: tuple[float, float] = (-np.inf, np.inf)
    encoder: Callable[[Array], Any] | None = None

    def joint(self, theta: Any) -> "Callables":
        return self

    def encode(self, phi: Any, x: Array) -> Any:
        if self.encoder is None:
            raise ValueError("decompose: expected a model with an encoder, got Callables without one")
        return self.encoder(x)

    def log_prior(self, z: Array) -> Array:
        return np.asarray(self.log_prior_of(z), dtype=float)

    def outputs(self, z: Array) -> Array:
        return z

    def log_likelihood(self, x: Array, outputs: Array) -> Array:
        shape = np.broadcast_shapes(x.shape[:-1], outputs.shape[:-1])
        x = np.broadcast_to(x, (*shape, x.shape[-1])).reshape(-1, x.shape[-1])
        z = np.broadcast_to(outputs, (*shape, outputs.shape[-1])).reshape(-1, outputs.shape[-1])
        return np.asarray(self.likelihood(x, z), dtype=float).reshape(shape)


@dataclass(frozen=True)
class _Part:
    """The posteriors of some data points on their tiles."""

    points: Ints  # (n,)
    tiles: Tiles
    density: Array | None  # (P, T), not normalised; None if there was no room to keep it
    mass: Array  # its sum, (n,)


class _Block(NamedTuple):
    """Some tiles with their pairs, and what log p(x|z) of them needs."""

    tiles: slice
    pairs: slice
    x: Array  # (n, D)
    centre: Array  # (K, ·), and
    right: Array  # (K, T, ·): the factors of the tiles
    rows: Ints  # (P,): the data point of each pair,
    tile: Ints  # (P,): and which of these tiles it is on
    spans: list[tuple[int, int]]  # of each tile's pairs


def _one_tile(x: Array, centre: Array, right: Array) -> _Block:
    """All data points on one tile."""
    n = len(x)
    all_of_it = slice(0, 1), slice(0, n)
    return _Block(*all_of_it, x, centre, right, np.arange(n), np.zeros(n, dtype=int), [(0, n)])


class Target:
    """log p_θ(x) and p_θ(z|x) for the data points x (N, D) at one θ, with certified errors.

    log_px (N,) is the sum over all nodes of the lattice; log_norm (N,), the normaliser that the posterior
    uses, only over every second node, so that whatever is computed from the posterior checks log_px.
    error (N,) bounds both, in nats: `tolerance` or less, unless the budget was spent.
    """

    def __init__(self, model: Any, theta: Any, x: Any, tolerance: float | None = None):
        self.joint: Joint = model.joint(theta)
        self.x = as_data(x)
        self.tolerance = check_tolerance(tolerance, self.joint.latent_dim)
        # The tiles that were decoded, by level and corner: the factors of the likelihood.
        self._known: dict[int, dict[tuple[int, ...], tuple[Array, Array]]] = {}
        self._room_for_tiles = KNOWN
        dim, n = self.joint.latent_dim, len(self.x)
        bounded = bool(np.isfinite(self.joint.support[0]))
        each = self.tolerance / INTEGRALS
        beyond = self._beyond if hasattr(self.joint, "beyond") else None
        support = scan(self._survey, n, dim, each, bounded, beyond, per_node=self.x.shape[1])
        self._peak, self._parts, self._room = support.peak, list[_Part](), KEEP
        result = certify(support, support.start, dim, each, self._integrate)
        self.level = result.level
        self.log_px, self.log_norm = result.value
        resolved = support.resolved & (result.level >= support.least)
        with np.errstate(over="ignore"):
            error = result.error.max(axis=0) + np.exp(support.left_out - self.log_px)
        self.error = np.where(resolved, error, np.inf)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def certified(self) -> Any:
        """Whether each data point reached the tolerance, (N,) bool."""
        return self.error <= self.tolerance

    # ----- p(x, z) in tables -----

    def _survey(self, t: Array, half: float) -> Callable[[Ints], Tables]:
        """For `scan`: log p(x, z) |dz/dt| at grid values t (M, L), for any data points."""
        z, log_slope = to_support(t, self.joint.support)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            if hasattr(self.joint, "rises"):
                outputs, rises = self.joint.rises(z, half)
            else:
                outputs, rises = self.joint.outputs(z), None
            log_prior = self.joint.log_prior(z) + log_slope
            factors = self._node_factors(outputs[None])

        def tables(points: Ints) -> Tables:
            x, table = self.x.take(points, axis=0), np.empty((len(points), len(z)))
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                self._fill(table, _one_tile(x, *factors), log_prior[None])
            return no_nan(table), None if rises is None else partial(rises, x)

        return tables

    def _beyond(self, points: Ints, reach: float, floor: Array) -> Array:
        """For `scan`: what log p(x, z) cannot exceed where some |z_i| > reach, (n,)."""
        x, turn = self.x.take(points, axis=0), max(1, BLOCK // (72 * self.x.shape[1]))
        parts = [slice(k, k + turn) for k in range(0, len(x), turn)]
        with np.errstate(over="ignore", invalid="ignore"):
            return np.concatenate([self.joint.beyond(reach, x[some], floor[some]) for some in parts])  # type: ignore[attr-defined]

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")
    def log_likelihood(self, points: Ints, tiles: Tiles) -> Array:
        """log p(x|z) at the nodes of each pair, (P, T)."""
        table = np.empty((len(tiles.tile), len(tiles.offsets)))
        for block in self._blocks(points, tiles):
            self._fill(table[block.pairs], block)
        return no_nan(table)

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")
    def log_joint(self, points: Ints, tiles: Tiles, shift: Array) -> Array:
        """log p(x, z) |dz/dt| − shift (n,) at the nodes of each pair, (P, T)."""
        table = np.empty((len(tiles.tile), len(tiles.offsets)))
        log_prior, log_slope, _ = self.log_prior(tiles)
        log_prior += log_slope
        for block in self._blocks(points, tiles):
            self._fill(table[block.pairs], block, log_prior[block.tiles], shift)
        return no_nan(table)

    def sums_of_log_likelihood(self, weight: Array, points: Ints, tiles: Tiles) -> Array:
        """The sums of weight · log p(x|z), weight (P, T), over each of the sets of nodes, (H, n).

        Where a joint gives factors, log p(x|z) = left·right, the sum moves inside: left·Σ weight·right. That
        needs no table of log p(x|z).
        """
        return tiles.of_points(self._sums_of_pairs(weight, points, tiles, len(CLASSES[tiles.dim])))

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")
    def _sums_of_pairs(
        self, weight: Array, points: Ints, tiles: Tiles, classes: int, minus: "Target | None" = None
    ) -> Array:
        """The sums of weight · log p(x|z) over each class of nodes, or over all as one class: (classes, P).

        With another Target to subtract, those of the difference to its log p(x|z).
        """
        sums, weight_of = np.empty((classes, len(weight))), weight.reshape(len(weight), classes, -1)
        if all(hasattr(of.joint, "data_factors") for of in (self, minus or self)):
            others = repeat(None) if minus is None else minus._blocks(points, tiles)
            for block, other in zip(self._blocks(points, tiles), others):
                left, right = self._factors(block)
                if minus is not None and other is not None:
                    left_of_other, right_of_other = minus._factors(other)
                    left = np.concatenate([left, -left_of_other], axis=1)
                    right = np.concatenate([right, right_of_other], axis=2)
                rights = right.reshape(len(right), classes, -1, right.shape[2])
                inner = np.empty((classes, *left.shape))
                for c in range(classes):
                    w = weight_of[block.pairs, c]
                    for of_tile, (first, last) in zip(rights[:, c], block.spans):
                        np.dot(w[first:last], of_tile, out=inner[c, first:last])
                sums[:, block.pairs] = np.einsum("pf,cpf->cp", left, inner)
            if np.isfinite(sums).all():
                return sums
        table = self.log_likelihood(points, tiles)
        if minus is not None:
            table -= minus.log_likelihood(points, tiles)
        return np.einsum("pct,pct->cp", weight_of, table.reshape(weight_of.shape))

    def _blocks(self, points: Ints, tiles: Tiles) -> Iterator[_Block]:
        x, at_once = self.x.take(points, axis=0), max(1, CACHE // (len(tiles.offsets) * self.x.shape[1]))
        for first in range(0, len(tiles.corner), at_once):
            starts, some = tiles.starts[first : first + at_once + 1], slice(first, first + at_once)
            pairs, spans = slice(starts[0], starts[-1]), list(pairwise((starts - starts[0]).tolist()))
            tile, factors = tiles.tile[pairs] - first, self._factors_of(tiles, some)
            yield _Block(some, pairs, x, *factors, tiles.rows[pairs], tile, spans)

    def _factors_of(self, tiles: Tiles, some: slice) -> tuple[Array, Array]:
        """What the likelihood needs from some of the tiles; tiles seen before are not decoded again."""
        known = self._known.setdefault(tiles.level, {})
        keys = tiles.keys[some]
        new = [k for k, key in enumerate(keys) if key not in known]
        if not new:
            of_tiles = [known[key] for key in keys]
            return np.array([centre for centre, _ in of_tiles]), np.array([right for _, right in of_tiles])
        z, _ = to_support(tiles.nodes(some)[new], self.joint.support)
        outputs = self.joint.outputs(z.reshape(-1, z.shape[2])).reshape(*z.shape[:2], -1)
        fresh = self._node_factors(outputs)
        of_new = dict(zip((keys[k] for k in new), zip(*fresh)))
        self._room_for_tiles -= fresh[1].size
        if self._room_for_tiles > 0:
            known.update(of_new)
        if len(new) == len(keys):
            return fresh
        of_tiles = [of_new.get(key) or known[key] for key in keys]
        return np.array([centre for centre, _ in of_tiles]), np.array([right for _, right in of_tiles])

    def _node_factors(self, outputs: Array) -> tuple[Array, Array]:
        """What the likelihood needs from nodes, for outputs (K, T, ·)."""
        if hasattr(self.joint, "node_factors"):
            return self.joint.node_factors(outputs)
        return np.zeros(len(outputs)), outputs

    def _fill(
        self, table: Array, block: _Block, of_node: Array | None = None, of_point: Array | None = None
    ) -> None:
        """table[p] = log p(x|z) of the data point of pair p at the nodes of its tile, (P, T).

        of_node (K, T) is added to that, of_point (n,) taken away. Where a joint gives factors, one matrix product
        for each tile does it all.
        """
        if hasattr(self.joint, "data_factors"):
            left, right = self._factors(block, of_node, of_point)
            for of_tile, (first, last) in zip(right, block.spans):
                np.dot(left[first:last], of_tile.T, out=table[first:last])
            return
        for k, (first, last) in enumerate(block.spans):
            outputs = block.right[k]
            turn = max(1, BLOCK // max(outputs.size, len(outputs) * block.x.shape[1]))
            for p in range(first, last, turn):
                some = slice(p, min(p + turn, last))
                table[some] = self.joint.log_likelihood(block.x[block.rows[some], None], outputs)
            if of_node is not None:
                table[first:last] += of_node[k]
        if of_point is not None:
            table -= of_point[block.rows, None]

    def _factors(
        self, block: _Block, of_node: Array | None = None, of_point: Array | None = None
    ) -> tuple[Array, Array]:
        """What `_fill` writes, as products left·right: left (P, F) of each pair, right (K, T, F) of each node."""
        left = self.joint.data_factors(block.x, block.rows, block.centre, block.tile)  # type: ignore[attr-defined]
        right = block.right
        if of_point is not None:
            left[:, 1] -= of_point[block.rows]
        if of_node is not None:
            right = right.copy()
            right[..., 0] += of_node  # the column that meets a 1
        return left, right

    def log_prior(self, tiles: Tiles) -> tuple[Array, Array, Array]:
        """log p(z) and log |dz/dt| (K, T), and z (K, T, L), at the nodes of each tile."""
        z, log_slope = to_support(tiles.nodes(), self.joint.support)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            log_prior = self.joint.log_prior(z.reshape(-1, z.shape[2])).reshape(z.shape[:2])
        return no_nan(log_prior), log_slope, z

    def _density(self, points: Ints, tiles: Tiles) -> tuple[Array, Array, Array]:
        """f = p(x, z) |dz/dt| e^(−shift) at the nodes of each pair, (P, T), its sums (H, n), the shift (n,)."""
        shift = self._peak[points]
        with np.errstate(over="ignore", invalid="ignore"):
            f = self.log_joint(points, tiles, shift)
            sums = tiles.sums(np.exp(f, out=f))
            if not (np.isfinite(sums).all() and sums[0].all()):  # far from the peak that was seen
                shift = shift + tiles.max(self.log_joint(points, tiles, shift))
                f = self.log_joint(points, tiles, shift)
                sums = tiles.sums(np.exp(f, out=f))
        return f, sums, shift

    def _integrate(self, points: Ints, tiles: Tiles) -> Estimate:
        f, sums, peak = self._density(points, tiles)
        self._room -= f.size
        self._parts.append(_Part(points, tiles, f if self._room > 0 else None, sums[0]))
        with np.errstate(divide="ignore", invalid="ignore"):
            halves = np.log(2 * sums[1:] / sums[0])
            log_px = np.log(sums[0]) + peak + tiles.dim * np.log(tiles.h)
        gap, rounding = np.abs(halves).max(axis=0), 8 * EPS * (1 + np.abs(peak))
        return Estimate(np.stack([log_px, log_px + halves[-1]]), gap[None], rounding[None])

    # ----- the posterior -----

    # A data point that was refined occurs in more than one part: the last is the finest, and overwrites.

    def _density_of(self, part: _Part) -> Array:
        return self._density(part.points, part.tiles)[0] if part.density is None else part.density

    @cached_property
    def _moments(self) -> tuple[Array, Array]:
        L = self.joint.latent_dim
        mean, cov = np.empty((len(self), L)), np.empty((len(self), L, L))
        for part in self._parts:
            z = self.log_prior(part.tiles)[2][part.tiles.tile]  # (P, T, L)
            f = self._density_of(part)
            f = f / part.mass[part.tiles.rows, None]
            m = np.stack([part.tiles.sums(f * z[..., i])[0] for i in range(L)], axis=1)
            r = z - m[part.tiles.rows, None]
            mean[part.points] = m
            for i, j in np.ndindex(L, L):
                cov[part.points, i, j] = part.tiles.sums(f * r[..., i] * r[..., j])[0]
        return mean, cov

    @property
    def posterior_mean(self) -> Array:
        """E[z | x_n] under p_θ(z|x), (N, L)."""
        return self._moments[0]

    @property
    def posterior_cov(self) -> Array:
        """Cov[z | x_n] under p_θ(z|x), (N, L, L)."""
        return self._moments[1]

    def log_posterior(self, z: Any, points: Any = slice(None)) -> Array:
        """log p_θ(z|x_n) for all data points (or those chosen) at z (M, L) -> (n, M), nats."""
        z = np.asarray(z, dtype=float).reshape(-1, self.joint.latent_dim)
        x = self.x[points]
        log_likelihood = np.empty((len(x), len(z)))
        self._fill(log_likelihood, _one_tile(x, *self._node_factors(self.joint.outputs(z)[None])))
        return log_likelihood + self.joint.log_prior(z) - self.log_px[points][:, None]

    def posterior_density(self, z: Any, points: Any = slice(None)) -> Array:
        """p_θ(z|x_n) for all data points (or those chosen) at z (M, L) -> (n, M)."""
        return np.exp(self.log_posterior(z, points))

    def divergence_to(self, other: "Target") -> Array:
        """KL(p_θ(z|x) ‖ p_θ'(z|x)) with `other` the Target of θ' for the same x, (N,), nats.

        Computed on this Target's nodes: how far the target moves when θ becomes θ'.
        """
        moved = np.empty(len(self))
        for part in self._parts:
            at, f = (part.points, part.tiles), self._density_of(part)
            of_pairs = self._sums_of_pairs(f, *at, 1, minus=other)[0]
            moved[part.points] = np.bincount(part.tiles.rows, of_pairs, len(part.points)) / part.mass
        return moved - (self.log_px - other.log_px)


def no_nan(table: Array) -> Array:
    """The table with what overflowed or came out as log 0 replaced by a very small logarithm."""
    flat = table.reshape(-1)
    return table if np.isfinite(flat @ flat) else np.fmax(table, LOG_ZERO, out=table)


def as_data(x: Any) -> Array:
    x = np.asarray(x, dtype=float)
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f"x: expected data points of shape (N, D) with N >= 1, got {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"x: expected finite numbers, got {int((~np.isfinite(x)).sum())} that are not")
    return x


def check_tolerance(tolerance: float | None, dim: int) -> float:
    if dim not in TOLERANCE:
        raise ValueError(f"latent_dim: expected 1 or 2 (the exact terms exist for those), got {dim}")
    if tolerance is None:
        return TOLERANCE[dim]
    if not 1e-13 <= tolerance < 1:
        raise ValueError(f"tolerance: expected a number of nats from 1e-13 to below 1, got {tolerance!r}")
    return float(tolerance)
