"""A q held against a Target: the terms.

    log_px = reconstruction − kl_prior + kl_posterior,    elbo = reconstruction − kl_prior

    reconstruction = E_q[log p_θ(x|z)]      kl_prior = KL(q ‖ p(z))      kl_posterior = KL(q ‖ p_θ(z|x))

(Kingma & Welling 2014, eqs. 1-3.) Each of the integrals is computed on its own: reconstruction on the
nodes of a grid, kl_posterior on the nodes in between, log_px in the Target. So the residual
log_px − (reconstruction − kl_prior + kl_posterior) is a measurement, not algebra.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..checks import Array, Ints
from ..gaussian import Gaussian
from ..ops import LOG_2PI
from .halving import INTEGRALS, KEEP, Halving
from .joint import FactoredJoint, Joint, log_densities
from .linear import LinearEvidence
from .quadrature import CLASSES, EPS, SHARED, Estimate, Tiles, certify, level_for
from .scan import scan
from .support import LOG_ZERO, Ellipsoids, drop_for, inverse_of, to_support
from .tables import no_nan
from .target import Target
from .terms import Decomposition
from .under_q import UnderQ

MOST_FINER = {1: 10, 2: 6}  # levels by which a q goes finer than its own width asks, to where the posterior is


def decompose(
    model: Any,
    theta: Any,
    phi: Any,
    x: Any,
    target: Target | None = None,
    tolerance: float | None = None,
    q: Any = None,
) -> Decomposition:
    """The terms of every data point at (θ, φ), each with its error, to `tolerance` nats.

    Args:
        model: a VAE, or a Joint such as Callables (theta and phi are then ignored).
        x: data points, (N, D).
        target: if given, the Target of this θ and x; it is used as it is, which is what makes a φ-step cheap.
        tolerance: nats; None takes the target's, which is 1e-9 for z ∈ R¹ and 1e-6 for z ∈ R².
        q: replaces model.encode(phi, x); see `terms_under`.

    Raises ValueError where shapes do not fit, or a function does not give log densities.
    """
    target = Target(model, theta, x, tolerance) if target is None else target
    if np.shape(x) != target.x.shape:
        raise ValueError(f"target: expected one for x of shape {np.shape(x)}, got {target.x.shape}")
    return terms_under(model.encode(phi, target.x) if q is None else q, target, tolerance)


def terms_under(q: Any, target: Target, tolerance: float | None = None) -> Decomposition:
    """The terms of a q held against a Target.

    q is a Gaussian for each of the target's N data points, or any object with log_prob(z (P, L), rows (P,)) ->
    (P,), the log density of data point rows[p]'s q at z[p]; or Expectations, whose tables are then used again.
    tolerance: nats, None for the target's.
    """
    if not isinstance(q, Expectations):
        q = Expectations(q, target.joint, len(target), target.tolerance if tolerance is None else tolerance)
    return q.against(target)


@dataclass(frozen=True)
class _Table:
    """q on the tiles of some data points; sums are (H, n), one for each set of nodes."""

    weight: Array  # q(z|x) |dz/dt| at the nodes of each pair, (P, T)
    mass: Array  # its sums, without the spacing
    kl_prior: Array  # E_q[log q(z|x) − log p(z)]
    missing: Array  # ∞ where the mass, with the spacing, is not 1, as it is of any q; else 0
    uncertain: Array  # part of the mass: what lies too near to an end of an interval for z to tell


class Expectations:
    """E_q[·]: all that φ owns, for N data points. `against` a Target they are the integrals under q.

    A table of q on a lattice is made once and kept, for every Target that q is held against.
    """

    def __init__(self, q: Any, joint: Joint, n: int, tolerance: float):
        self.q, self.joint, self.dim, self.n, self.tolerance = q, joint, joint.latent_dim, n, tolerance
        self._on_line = UnderQ(q, tolerance / INTEGRALS) if isinstance(q, Gaussian) and self.dim == 1 else None

    def against(self, target: Target) -> Decomposition:
        """The terms with the p_θ(x|z) and the log p_θ(x) of this Target."""
        proven, q = target.proven, self.q
        if not isinstance(q, Gaussian) or proven is None:
            return self._halving.against(target)
        kl_prior = q.kl_prior
        kl_prior_error = 8 * EPS * (1 + np.abs(kl_prior) + np.abs(q.log_diag).sum(axis=1))
        apart: Any = 0.0
        if isinstance(proven, LinearEvidence):
            reconstruction, kl_posterior, error, kl_error = proven.terms(q)
        else:
            assert self._on_line is not None
            reconstruction, other, to_prior, error, kl_error = self._on_line.against(proven)
            kl_posterior = to_prior - other + proven.log_norm
            kl_error = kl_error + proven.error
            apart = np.maximum(np.abs(reconstruction - other), np.abs(to_prior - kl_prior))
        errors = target.error, error, kl_prior_error, kl_error
        certified = target.certified & (np.maximum.reduce(errors) <= self.tolerance)
        checked = certified | (target.checked & (apart <= self.tolerance))
        if isinstance(proven, LinearEvidence):
            checked = certified
        return Decomposition(target.log_px, reconstruction, kl_prior, kl_posterior, *errors, checked, certified)

    @cached_property
    def _halving(self) -> "_UnderQ":
        return _UnderQ(self.q, self.joint, self.n, self.tolerance)


class _UnderQ:
    """The same by lattices that are made finer until half of their nodes say the same: checked, not proven."""

    def __init__(self, q: Any, joint: Joint, n: int, tolerance: float):
        self.q, self.dim, self.tolerance = q, joint.latent_dim, tolerance / INTEGRALS
        bounded, gaussian = bool(np.isfinite(joint.support[0])), isinstance(q, Gaussian)
        # Beside a prior N(0, I) a Gaussian q has a kl_prior in closed form.
        self._closed = gaussian and isinstance(joint, FactoredJoint)
        self.support: Any
        if gaussian and not bounded:
            # Beyond this lies at most e^−34.5 = 1e-15 of a q: less than rounding, whatever is averaged there.
            radius = float(np.sqrt(2 * max(drop_for(self.tolerance), 34.5)))
            mean, cholesky = q.mean, q.cholesky
            if not (np.vdot(mean, mean) < 1e60 and np.vdot(cholesky, cholesky) < 1e60):  # a diverged q
                # Far beyond any use, so that integers can count tiles; what is cut off there will not certify.
                mean, cholesky = (np.clip(np.nan_to_num(v), -1e30, 1e30) for v in (mean, cholesky))
            self.support = Ellipsoids(mean, cholesky, radius)
            self.start = level_for(np.minimum(self.support.width, 1.0), self.dim, self.tolerance)
        else:
            self.support = scan(partial(self._survey, joint), n, self.dim, self.tolerance, bounded)
            self.start = self.support.start
        self._tiles: dict[tuple[int, bytes], list[tuple[Ints, Tiles]]] = {}
        self._tables: dict[Tiles, _Table] = {}

    def against(self, proven: Target) -> Decomposition:
        target = proven.halving
        start = np.maximum(self.start, target.level)
        if isinstance(self.support, Ellipsoids):  # the decoder sets a limit as well, which the posterior knows
            start = np.minimum(start, self.start + MOST_FINER[self.dim])
        start += (target.level - start) % SHARED  # onto lattices whose nodes the Target has decoded
        self._last, self._tiles = self._tiles, {}  # what this Target does not use again is forgotten
        got = certify(self, start, self.dim, self.tolerance, partial(self._integrate, target))
        self._tables = {
            t: self._tables[t] for kept in self._tiles.values() for _, t in kept if t in self._tables
        }
        error = np.where(self.support.resolved, got.error, np.inf)
        kl_prior = self.q.kl_prior if self._closed else got.value[2]
        kl_prior_error = 4 * EPS * np.abs(kl_prior) if self._closed else error[2]
        if (unit := target.unit_roundoff) > EPS:  # functions that compute in float32
            error = error + 8 * unit * (1 + np.abs(got.value[0]) + np.abs(got.value[1]) + np.abs(kl_prior))
            kl_prior_error = kl_prior_error + 8 * unit * (1 + np.abs(kl_prior))
        errors = proven.error, error[0], kl_prior_error, error[1] + target.error
        checked = proven.checked & (np.maximum.reduce(errors[1:]) <= INTEGRALS * self.tolerance)
        return Decomposition(
            proven.log_px, got.value[0], kl_prior, got.value[1], *errors, checked, np.zeros_like(checked)
        )

    # For `certify`, a support that keeps its tiles.

    def count(self, level: Ints) -> Array:
        return self.support.count(level)

    def tiles(self, points: Ints, level: int) -> list[tuple[Ints, Tiles]]:
        key = level, points.tobytes()
        self._tiles[key] = self._last.get(key) or list(self.support.tiles(points, level))
        return self._tiles[key]

    def _integrate(self, target: Halving, points: Ints, tiles: Tiles) -> Estimate:
        """reconstruction on the nodes A, kl_posterior on the nodes B in between, and kl_prior on A."""
        table = self._tables.get(tiles)
        if table is None:
            table = self._table(target, points, tiles)
            if sum(kept.weight.size for kept in self._tables.values()) < KEEP:
                self._tables[tiles] = table
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # a diverged q may meet no node
            reconstruction = target.tables.sums_of_log_likelihood(table.weight, points, tiles) / table.mass
        kl_prior = table.kl_prior
        kl_posterior = kl_prior - reconstruction + target.log_norm[points]
        size = np.abs(reconstruction[0]) + np.abs(kl_prior[0])
        integrals = np.array([reconstruction, kl_posterior, kl_prior][: 2 + (not self._closed)])  # (J, H, n)
        value = integrals[np.arange(len(integrals)), [-2, -1, -2][: len(integrals)]]  # on A, on B, on A
        gap = np.abs(integrals - value[:, None]).max(axis=1)
        value = np.where(np.isnan(value), integrals[:, 0], value)
        return Estimate(value, np.maximum(gap, table.missing), (8 * EPS + table.uncertain) * (1 + size))

    def _table(self, target: Halving, points: Ints, tiles: Tiles) -> _Table:
        uncertain = np.zeros(len(points))
        if self._closed:
            # log q and log p(z) are polynomials on a tile: their expectations are sums of weighted powers.
            left, powers = self._factors(points, tiles)
            weight = left @ powers.T
            np.exp(weight, out=weight)
            left -= target.tables.factored.prior_factors(tiles.middle).take(tiles.tile, axis=0)  # type: ignore[union-attr]
            classes = len(CLASSES[tiles.dim])
            by_class = weight.reshape(len(weight), classes, -1).swapaxes(0, 1)
            sums = by_class @ powers.reshape(classes, -1, powers.shape[1])  # (classes, P, ·)
            mass = tiles.of_points(sums[..., 0])
            kl_prior = tiles.of_points(np.einsum("pf,cpf->cp", left, sums))
        else:
            (log_prior, log_slope), z = target.tables.log_prior(tiles), target.tables.z(tiles)
            rows = np.repeat(points[tiles.rows], z.shape[1])
            log_q = self._log_prob(z[tiles.tile].reshape(len(rows), -1), rows).reshape(-1, z.shape[1])
            weight = np.exp(log_q + log_slope[tiles.tile])
            mass = tiles.sums(weight)
            kl_prior = tiles.sums(weight * (no_nan(log_q) - log_prior[tiles.tile]))
            if target.tables.bounded:
                uncertain = tiles.sums(weight * target.tables.uncertainty(tiles)[tiles.tile])[0]
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # a diverged q may meet no node
            uncertain /= mass[0]
            whole = np.abs(mass[0] * tiles.h**self.dim - 1) < 1e-6
            return _Table(weight, mass, kl_prior / mass, np.where(whole, 0.0, np.inf), uncertain)

    def _factors(self, points: Ints, tiles: Tiles) -> tuple[Array, Array]:
        """log q(z|x) at the nodes of each pair as a product left·powers: (P, 1 + L + L²) and (T, 1 + L + L²).

        With d the way from a tile's middle m to a node and u = C⁻¹(m − mean), log q is a polynomial in d:
        log q(m) − (C⁻ᵀu)·d − ½ |C⁻¹d|².
        """
        q, rows = self.q, points.take(tiles.rows)
        inverse = inverse_of(q.cholesky.take(points, axis=0))  # C⁻¹ of each data point,
        inverse = inverse.take(tiles.rows, axis=0)  # and of each pair, (P, L, L)
        u = np.einsum("pij,pj->pi", inverse, tiles.middle.take(tiles.tile, axis=0) - q.mean.take(rows, axis=0))
        at_middle = -0.5 * np.einsum("pi,pi->p", u, u) - q.log_diag.sum(axis=1).take(rows)
        slope = -np.einsum("pij,pi->pj", inverse, u)
        bend = -0.5 * (inverse.swapaxes(1, 2) @ inverse).reshape(len(u), -1)
        left, L = np.empty((len(u), tiles.powers.shape[1])), tiles.dim
        left[:, 0], left[:, 1 : 1 + L], left[:, 1 + L :] = at_middle - 0.5 * LOG_2PI * L, slope, bend
        return left, tiles.powers

    def _log_prob(self, z: Array, rows: Ints) -> Array:
        if not hasattr(self.q, "log_prob"):
            raise ValueError(f"q: expected an object with log_prob(z (P, L), rows (P,)), got {self.q!r}")
        return log_densities("q.log_prob", self.q.log_prob(z, rows), z)

    def _survey(self, joint: Joint, t: Array, half: float) -> Callable[[Ints], tuple[Array, None]]:
        """For `scan`: log q(z|x) |dz/dt| at grid values t (M, L), for any data points."""
        z, log_slope = to_support(t, joint.support)

        def tables(points: Ints) -> tuple[Array, None]:
            rows = np.repeat(points, len(z))
            log_q = self._log_prob(np.tile(z, (len(points), 1)), rows)
            return np.fmax(log_q.reshape(len(points), len(z)) + log_slope, LOG_ZERO), None

        return tables
