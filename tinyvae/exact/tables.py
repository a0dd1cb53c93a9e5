"""log p_θ(x, z) in tables: at the nodes of tiles, for pairs of a tile and a data point.

A decoder runs once for each node, whatever the number of data points. Where a joint gives factors, a table is one
matrix product for each tile, and weighted sums over its nodes need no table at all.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..checks import Array, Ints
from .joint import FactoredJoint, Joint
from .quadrature import BLOCK, CLASSES, Tiles
from .scan import Rises
from .support import LOG_ZERO, to_support, uncertainty

CACHE = 2**16  # numbers in the outputs that are computed at once: what a processor's cache holds
KNOWN = 2**24  # numbers in the factors of decoded tiles that are kept


class _Block(NamedTuple):
    """Some tiles with their pairs, and what log p(x|z) of them needs."""

    tiles: slice
    pairs: slice
    x: Array  # (n, D)
    centre: Array  # (K, ·), and
    right: Array  # (K, ·, T): the factors of the tiles
    rows: Ints  # (P,): the data point of each pair,
    tile: Ints  # (P,): and which of these tiles it is on
    spans: list[tuple[int, int]]  # of each tile's pairs


class Tables:
    """log p_θ(x, z) of the data points x (N, D) at one θ, wherever it is needed."""

    def __init__(self, joint: Joint, x: Array):
        self.joint, self.x = joint, x
        self.factored = joint if isinstance(joint, FactoredJoint) else None
        self.bounded = bool(np.isfinite(joint.support[0]))
        # The tiles that were decoded, by level and corner: the factors of the likelihood.
        self._known: dict[int, dict[tuple[int, ...], tuple[Array, Array]]] = {}
        self._room = KNOWN

    # ----- at any nodes, for all data points alike -----

    def at(self, z: Array, points: Any = slice(None)) -> Array:
        """log p(x, z) for all data points (or those chosen) at z (M, L) -> (n, M)."""
        return self._at(
            self.x[points], self._node_factors(self.joint.outputs(z)[None]), self.joint.log_prior(z)
        )

    def _at(self, x: Array, factors: tuple[Array, Array], of_node: Array) -> Array:
        n, table = len(x), np.empty((len(x), len(of_node)))
        on_one_tile, rows = [(0, n)], np.arange(n)
        block = _Block(slice(0, 1), slice(0, n), x, *factors, rows, np.zeros_like(rows), on_one_tile)
        self._fill(table, block, of_node[None])
        return table

    def survey(self, t: Array, half: float) -> Callable[[Ints], tuple[Array, Rises | None]]:
        """For `scan`: log p(x, z) |dz/dt| at grid values t (M, L), for any data points."""
        z, log_slope = to_support(t, self.joint.support)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            outputs, rises = self.factored.rises(z, half) if self.factored else (self.joint.outputs(z), None)
            log_prior = self.joint.log_prior(z) + log_slope
            factors = self._node_factors(outputs[None])

        def tables(points: Ints) -> tuple[Array, Rises | None]:
            x = self.x.take(points, axis=0)
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                table = self._at(x, factors, log_prior)
            return no_nan(table), None if rises is None else partial(rises, x)

        return tables

    def beyond(self, points: Ints, reach: float, floor: Array) -> Array:
        """For `scan`: what log p(x, z) cannot exceed where some |z_i| > reach, (n,)."""
        assert self.factored is not None  # who asks has seen that
        x, chunk = self.x.take(points, axis=0), max(1, BLOCK // (72 * self.x.shape[1]))
        parts = [slice(k, k + chunk) for k in range(0, len(x), chunk)]
        with np.errstate(over="ignore", invalid="ignore"):
            return np.concatenate([self.factored.beyond(reach, x[some], floor[some]) for some in parts])

    # ----- on tiles -----

    def z(self, tiles: Tiles) -> Array:
        """The nodes of each tile, (K, T, L)."""
        return to_support(tiles.nodes(), self.joint.support)[0]

    def log_prior(self, tiles: Tiles) -> tuple[Array, Array]:
        """log p(z) and log |dz/dt| at the nodes of each tile, (K, T) each."""
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            if self.factored:
                log_prior: Array = self.factored.prior_factors(tiles.middle) @ tiles.powers.T
                return no_nan(log_prior), np.zeros_like(log_prior)
            z, log_slope = to_support(tiles.nodes(), self.joint.support)
            log_prior = self.joint.log_prior(z.reshape(-1, z.shape[2])).reshape(z.shape[:2])
            return no_nan(log_prior), log_slope

    def uncertainty(self, tiles: Tiles) -> Array:
        """By which part of itself a density on an interval is uncertain at the nodes of each tile, (K, T)."""
        return uncertainty(self.z(tiles), self.joint.support)

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")
    def log_likelihood(self, points: Ints, tiles: Tiles) -> Array:
        """log p(x|z) at the nodes of each pair, (P, T)."""
        table = np.empty((len(tiles.tile), tiles.nodes_each))
        for block in self._blocks(points, tiles):
            self._fill(table[block.pairs], block)
        return no_nan(table)

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")
    def log_joint(self, points: Ints, tiles: Tiles, shift: Array) -> Array:
        """log p(x, z) |dz/dt| − shift (n,) at the nodes of each pair, (P, T)."""
        table = np.empty((len(tiles.tile), tiles.nodes_each))
        log_prior, log_slope = self.log_prior(tiles)
        log_prior += log_slope
        for block in self._blocks(points, tiles):
            self._fill(table[block.pairs], block, log_prior[block.tiles], shift)
        return no_nan(table)

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")
    def sums_of_log_likelihood(self, weight: Array, points: Ints, tiles: Tiles, halves: bool = True) -> Array:
        """The sums of weight · log p(x|z), weight (P, T), over each of the sets of nodes, (H, n).

        Or, without the halves, over all nodes, (1, n). Where log p(x|z) = left·right, the sum moves inside:
        left·Σ weight·right.
        """
        classes = len(CLASSES[tiles.dim]) if halves else 1
        sums = np.empty((classes, len(weight)))  # of each pair, over each class of nodes
        weight_of = weight.reshape(len(weight), classes, -1).swapaxes(0, 1)  # (classes, P, ·)
        if self.factored:
            for block in self._blocks(points, tiles):
                left, right = self._factors(block)
                rights = right.reshape(*right.shape[:2], classes, -1).transpose(0, 2, 3, 1)
                inner, w = np.empty((classes, *left.shape)), weight_of[:, block.pairs]
                for of_tile, (first, last) in zip(rights, block.spans):
                    np.matmul(w[:, first:last], of_tile, out=inner[:, first:last])
                sums[:, block.pairs] = np.einsum("pf,cpf->cp", left, inner)
        if not self.factored or not np.isfinite(sums).all():
            table = self.log_likelihood(points, tiles)
            sums = np.einsum("cpt,pct->cp", weight_of, table.reshape(len(table), classes, -1))
        if halves:
            return tiles.of_points(sums)
        return np.bincount(tiles.rows, sums[0], len(points))[None]  # type: ignore[return-value]

    # ----- how -----

    def _blocks(self, points: Ints, tiles: Tiles) -> Iterator[_Block]:
        x, at_once = self.x.take(points, axis=0), max(1, CACHE // (tiles.nodes_each * self.x.shape[1]))
        for first in range(0, len(tiles.corner), at_once):
            starts, some = tiles.starts[first : first + at_once + 1], slice(first, first + at_once)
            pairs, spans = slice(starts[0], starts[-1]), list(pairwise((starts - starts[0]).tolist()))
            tile, factors = tiles.tile[pairs] - first, self._factors_of(tiles, some)
            yield _Block(some, pairs, x, *factors, tiles.rows[pairs], tile, spans)

    def _factors_of(self, tiles: Tiles, some: slice) -> tuple[Array, Array]:
        """What the likelihood needs from some of the tiles; tiles seen before are not decoded again."""
        known, keys = self._known.setdefault(tiles.level, {}), tiles.keys[some]
        new, decoded = [k for k, key in enumerate(keys) if key not in known], {}
        if new:
            z, _ = to_support(tiles.nodes(np.add(new, some.start)), self.joint.support)
            fresh = self._node_factors(self.joint.outputs(z.reshape(-1, z.shape[2])).reshape(*z.shape[:2], -1))
            decoded = dict(zip((keys[k] for k in new), zip(*fresh)))
            if self._make_room(tiles.level, fresh[1].size):
                known.update(decoded)
            if len(new) == len(keys):
                return fresh
        of_tiles = [known.get(key) or decoded[key] for key in keys]
        return np.array([centre for centre, _ in of_tiles]), np.array([right for _, right in of_tiles])

    def _make_room(self, level: int, size: int) -> bool:
        """Whether there is room for so many more numbers of this level; coarser levels are forgotten for it."""
        for coarser in sorted(known for known in self._known if known < level):
            if self._room < size:
                self._room += sum(right.size for _, right in self._known.pop(coarser).values())
        if self._room < size:
            return False
        self._room -= size
        return True

    def _node_factors(self, outputs: Array) -> tuple[Array, Array]:
        """What the likelihood needs from nodes, for outputs (K, T, ·)."""
        if self.factored:
            return self.factored.node_factors(outputs)
        return np.zeros(len(outputs)), outputs

    def _fill(
        self, table: Array, block: _Block, of_node: Array | None = None, of_point: Array | None = None
    ) -> None:
        """table[p] = log p(x|z) of the data point of pair p at the nodes of its tile, (P, T).

        of_node (K, T) is added to that, of_point (n,) taken away. Where a joint gives factors, one matrix product
        for each tile does it all.
        """
        if self.factored:
            left, right = self._factors(block, of_node, of_point)
            for of_tile, (first, last) in zip(right, block.spans):
                np.dot(left[first:last], of_tile, out=table[first:last])
            return
        for k, (first, last) in enumerate(block.spans):
            outputs = block.right[k]
            chunk = max(1, BLOCK // max(outputs.size, len(outputs) * block.x.shape[1]))
            for p in range(first, last, chunk):
                some = slice(p, min(p + chunk, last))
                table[some] = self.joint.log_likelihood(block.x[block.rows[some], None], outputs)
            if of_node is not None:
                table[first:last] += of_node[k]
        if of_point is not None:
            table -= of_point[block.rows, None]

    def _factors(
        self, block: _Block, of_node: Array | None = None, of_point: Array | None = None
    ) -> tuple[Array, Array]:
        """What `_fill` writes, as products left·right: left (P, F) of each pair, right (K, F, T) of each node."""
        assert self.factored is not None
        left, right = self.factored.data_factors(block.x, block.rows, block.centre, block.tile), block.right
        if of_point is not None:
            left[:, 1] -= of_point[block.rows]
        if of_node is not None:
            right = right.copy()
            right[:, 0] += of_node  # the row that meets a 1
        return left, right


def no_nan(table: Array) -> Array:
    """The table with what overflowed or came out as log 0 replaced by a very small logarithm."""
    flat = table.reshape(-1)
    return table if np.isfinite(flat @ flat) else np.fmax(table, LOG_ZERO, out=table)
