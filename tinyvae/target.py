"""All that θ owns: log p_θ(x) and the posterior p_θ(z|x), computed once per θ.

    log p_θ(x) = log ∫ p(z) p_θ(x|z) dz        p_θ(z|x) = p(z) p_θ(x|z) / p_θ(x)

φ has no say in here: a φ-step leaves the Target as it is, to the last bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from .quadrature import EPS, Array, Estimate, Ints, Nodes, RowSums, certify, level_for
from .support import LOG_ZERO, drop_for, scan, to_support

TOLERANCE = {1: 1e-9, 2: 1e-6}  # nats, for z ∈ R¹ and z ∈ R²
INTEGRALS = 4  # each integral gets this part of the tolerance, so that the identity closes to all of it
CHUNK = 2**21  # numbers in one temporary array of decoder outputs or data points


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
    """The posteriors of some data points on their final nodes."""

    nodes: Nodes
    sums: RowSums
    weights: Array  # (P,), sum to 1 for each data point


class Target:
    """log p_θ(x) and p_θ(z|x) for the data points x (N, D) at one θ, with certified errors.

    log_px (N,) is the sum over all nodes of the grid; log_norm (N,), the normaliser that the posterior
    uses, only over the nodes in between, so that whatever is computed from the posterior checks log_px.
    error (N,) bounds both, in nats: `tolerance` or less, unless the budget was spent.
    """

    def __init__(self, model: Any, theta: Any, x: Any, tolerance: float | None = None):
        self.joint: Joint = model.joint(theta)
        self.x = as_data(x)
        self.tolerance = check_tolerance(tolerance, self.joint.latent_dim)
        dim, n = self.joint.latent_dim, len(self.x)
        bounded = bool(np.isfinite(self.joint.support[0]))
        self._cells = scan(self._log_table, n, dim, drop_for(self.tolerance), bounded)
        self._parts: list[tuple[int, _Part]] = []
        each = self.tolerance / INTEGRALS
        result = certify(level_for(self._cells.width, dim, each), self._cells.count, self._integrate, dim, each)
        self.log_px, self.log_norm = result.value.T
        self.error = np.where(self._cells.resolved, result.error.max(axis=1), np.inf)
        self._level = result.level

    def __len__(self) -> int:
        return len(self.x)

    @property
    def certified(self) -> Any:
        """Whether each data point reached the tolerance, (N,) bool."""
        return self.error <= self.tolerance

    # ----- p(x, z) on nodes -----

    def _log_table(self, points: Ints, t: Array) -> Array:
        """log p(x, z) |dz/dt| for all pairs of these data points and grid values, (n, M)."""
        z, log_slope = to_support(t, self.joint.support)
        outputs, x = self.joint.outputs(z), self.x[points]
        table = np.empty((len(x), len(z)))
        rows = max(1, CHUNK // (len(z) * max(x.shape[1], outputs.shape[1])))
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            for k in range(0, len(x), rows):
                table[k : k + rows] = self.joint.log_likelihood(x[k : k + rows, None], outputs)
            return _no_nan(table + (self.joint.log_prior(z) + log_slope))

    def on_nodes(self, nodes: Nodes) -> tuple[Array, Array, Array, Array]:
        """For each pair (P,): log p(x|z), log p(z), log |dz/dt|, and z (P, L)."""
        t, which = nodes.unique()
        z, log_slope = to_support(t, self.joint.support)
        outputs, log_likelihood = self.joint.outputs(z), np.empty(len(which))
        step = max(1, CHUNK // max(self.x.shape[1], outputs.shape[1]))
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            for k in range(0, len(which), step):
                part = slice(k, k + step)
                log_likelihood[part] = self.joint.log_likelihood(self.x[nodes.rows[part]], outputs[which[part]])
            return _no_nan(log_likelihood), _no_nan(self.joint.log_prior(z))[which], log_slope[which], z[which]

    def _integrate(self, points: Ints, level: int) -> Estimate:
        nodes = self._cells.nodes(points, level)
        log_likelihood, log_prior, log_slope, _ = self.on_nodes(nodes)
        log_f, sums = log_likelihood + log_prior + log_slope, RowSums(nodes.rows)
        peak = sums.max(log_f)
        f = np.exp(log_f - sums.spread(peak))
        total, halves = sums.sum(f), [2 * sums.sum(f * half) for half in nodes.halves]
        between = 2 * sums.sum(f * ~nodes.halves[-1])
        log_cell = peak + nodes.index.shape[1] * np.log(nodes.h)
        with np.errstate(divide="ignore"):
            log_total, log_between, *log_halves = (np.log(s) + log_cell for s in (total, between, *halves))
            gap = np.max([np.abs(log_total - log_half) for log_half in (*log_halves, log_between)], axis=0)
        self._parts.append((level, _Part(nodes, sums, f / sums.spread(total))))
        rounding = 8 * EPS * (1 + np.abs(peak))
        return Estimate(sums.points, np.stack([log_total, log_between], 1), gap[:, None], rounding[:, None])

    # ----- the posterior -----

    @cached_property
    def _posterior(self) -> list[_Part]:
        """Weights of p_θ(z|x) on the accepted nodes; each data point occurs in one part."""
        final = []
        for level, part in self._parts:
            keep = self._level[part.nodes.rows] == level
            if keep.all():
                final.append(part)
            elif keep.any():
                nodes = part.nodes.select(keep)
                final.append(_Part(nodes, RowSums(nodes.rows), part.weights[keep]))
        return final

    @cached_property
    def _moments(self) -> tuple[Array, Array]:
        L = self.joint.latent_dim
        mean, cov = np.empty((len(self), L)), np.empty((len(self), L, L))
        for part in self._posterior:
            t = (part.nodes.index + part.nodes.shift) * part.nodes.h
            z, _ = to_support(t, self.joint.support)
            m = part.sums.sum(part.weights[:, None] * z)
            r = z - part.sums.spread(m)
            mean[part.sums.points] = m
            cov[part.sums.points] = part.sums.sum(part.weights[:, None, None] * r[:, :, None] * r[:, None, :])
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
        log_likelihood = self.joint.log_likelihood(self.x[points][:, None], self.joint.outputs(z))
        return log_likelihood + self.joint.log_prior(z) - self.log_px[points][:, None]

    def posterior_density(self, z: Any, points: Any = slice(None)) -> Array:
        """p_θ(z|x_n) for all data points (or those chosen) at z (M, L) -> (n, M)."""
        return np.exp(self.log_posterior(z, points))

    def divergence_to(self, other: "Target") -> Array:
        """KL(p_θ(z|x) ‖ p_θ'(z|x)) with `other` the Target of θ' for the same x, (N,), nats.

        Computed on this Target's nodes: how far the target moves when θ becomes θ'.
        """
        moved = np.empty(len(self))
        for part in self._posterior:
            here = _log_joint(self, part.nodes) - part.sums.spread(self.log_px[part.sums.points])
            there = _log_joint(other, part.nodes) - part.sums.spread(other.log_px[part.sums.points])
            moved[part.sums.points] = part.sums.sum(part.weights * (here - there))
        return moved


def _log_joint(target: Target, nodes: Nodes) -> Array:
    log_likelihood, log_prior, _, _ = target.on_nodes(nodes)
    return log_likelihood + log_prior


def _no_nan(values: Array) -> Array:
    """Replace what overflowed or came out as log 0 by a very small logarithm."""
    return np.where(values > LOG_ZERO, values, LOG_ZERO)


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
