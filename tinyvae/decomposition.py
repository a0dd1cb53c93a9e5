"""Target × q → the terms; and what θ and what φ did to them in a step.

    log_px = reconstruction − kl_prior + kl_posterior,    elbo = reconstruction − kl_prior

    reconstruction = E_q[log p_θ(x|z)]      kl_prior = KL(q ‖ p(z))      kl_posterior = KL(q ‖ p_θ(z|x))

(Kingma & Welling 2014, eqs. 1-3.) Each of the integrals is computed on its own: reconstruction on the
nodes of a grid, kl_posterior on the nodes in between, log_px in the Target. So the residual
log_px − (reconstruction − kl_prior + kl_posterior) is a measurement, not algebra.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .model import Gaussian
from .quadrature import EPS, Array, Estimate, Ints, Nodes, RowSums, certify, level_for
from .support import LOG_ZERO, Ellipsoids, drop_for, scan, to_support
from .target import INTEGRALS, Target

TERMS = ("log_px", "reconstruction", "kl_prior", "kl_posterior", "elbo")


@dataclass(frozen=True)
class Decomposition:
    """The terms in nats: (N,) arrays, one number per data point; or floats, after `.mean()`."""

    log_px: Any
    reconstruction: Any
    kl_prior: Any
    kl_posterior: Any
    log_px_error: Any
    reconstruction_error: Any
    kl_prior_error: Any
    kl_posterior_error: Any

    @property
    def elbo(self) -> Any:
        """reconstruction − kl_prior."""
        return self.reconstruction - self.kl_prior

    @property
    def residual(self) -> Any:
        """By how much the identity fails to close."""
        return self.log_px - (self.reconstruction - self.kl_prior + self.kl_posterior)

    @property
    def error(self) -> Any:
        """The largest of the certified errors of the terms."""
        errors = (self.log_px_error, self.reconstruction_error, self.kl_prior_error, self.kl_posterior_error)
        return np.maximum.reduce(errors)

    def mean(self) -> "MeanTerms":
        """The same as floats: terms averaged over the data points, residual and errors the worst of any."""
        worst = float(self.residual[np.argmax(np.abs(self.residual))])
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        means = {k: float(v.max() if k.endswith("_error") else v.mean()) for k, v in values.items()}
        return MeanTerms(**means, elbo=float(self.elbo.mean()), residual=worst, error=float(self.error.max()))


@dataclass(frozen=True)
class MeanTerms:
    """The terms as means over the data points; residual and the errors are those of the worst point. Nats."""

    log_px: float
    reconstruction: float
    kl_prior: float
    kl_posterior: float
    elbo: float
    residual: float
    error: float
    log_px_error: float
    reconstruction_error: float
    kl_prior_error: float
    kl_posterior_error: float


def decompose(
    model: Any,
    theta: Any,
    phi: Any,
    x: Any,
    target: Target | None = None,
    tolerance: float | None = None,
    q: Any = None,
) -> Decomposition:
    """The terms of every data point at (θ, φ), certified to `tolerance` nats.

    x (N, D). `target`, if given, must be the Target of this θ and x: it is used as it is, which is what
    makes a φ-step cheap. `q` replaces model.encode(phi, x): any object with
    log_prob(z (P, L), rows (P,)) -> (P,), the density of data point rows[p]'s q at z[p].
    """
    target = Target(model, theta, x, tolerance) if target is None else target
    if np.shape(x) != target.x.shape:
        raise ValueError(f"target: expected one for x of shape {np.shape(x)}, got {target.x.shape}")
    q = model.encode(phi, target.x) if q is None else q
    tol = target.tolerance if tolerance is None else tolerance
    return _Integrals(target, q, tol).decomposition()


class _Integrals:
    """The integrals under q: E_q[log p_θ(x|z)], KL(q‖p_θ(z|x)), and KL(q‖p(z)) where it has no closed form."""

    def __init__(self, target: Target, q: Any, tolerance: float):
        self.target, self.q, self.tolerance = target, q, tolerance
        self.dim, drop = target.joint.latent_dim, drop_for(tolerance)
        self.support: Any
        if isinstance(q, Gaussian):
            self.support = Ellipsoids(q.mean, q.cholesky, float(np.sqrt(2 * drop)))
        else:
            bounded = bool(np.isfinite(target.joint.support[0]))
            self.support = scan(self._log_q_table, len(target), self.dim, drop, bounded)

    def decomposition(self) -> Decomposition:
        each = self.tolerance / INTEGRALS
        start = level_for(self.support.width, self.dim, each)
        got = certify(start, self.support.count, self._integrate, self.dim, each)
        error = np.where(self.support.resolved[:, None], got.error, np.inf)
        closed = isinstance(self.q, Gaussian)
        kl_prior = self.q.kl_prior if closed else got.value[:, 2]
        kl_prior_error = 4 * EPS * np.abs(kl_prior) if closed else error[:, 2]
        return Decomposition(
            self.target.log_px, got.value[:, 0], kl_prior, got.value[:, 1],
            self.target.error, error[:, 0], kl_prior_error, np.maximum(error[:, 1], self.target.error),
        )  # fmt: skip

    def _integrate(self, points: Ints, level: int) -> Estimate:
        """Columns: reconstruction and, if it has no closed form, kl_prior last; kl_posterior in between."""
        nodes = self.support.nodes(points, level, shift=0.0)
        log_likelihood, log_prior, log_q, weight = self._under_q(nodes)
        on, closed = RowSums(nodes.rows), isinstance(self.q, Gaussian)
        first = [_mean_under(weight, log_likelihood, nodes, on)]
        last = [] if closed else [_mean_under(weight, log_q - log_prior, nodes, on)]

        between = self.support.nodes(points, level, shift=0.5)
        log_likelihood, log_prior, log_q, weight = self._under_q(between)
        sums = RowSums(between.rows)
        log_posterior = log_likelihood + log_prior - sums.spread(self.target.log_norm[sums.points])
        middle = [_mean_under(weight, log_q - log_posterior, between, sums)]

        value, gap, rounding = (np.stack(column, axis=1) for column in zip(*(first + middle + last)))
        return Estimate(on.points, value, gap, rounding)

    def _under_q(self, nodes: Nodes) -> tuple[Array, Array, Array, Array]:
        """For each pair: log p(x|z), log p(z), log q(z|x), and q(z|x)·|dz/dt| up to a constant."""
        log_likelihood, log_prior, log_slope, z = self.target.on_nodes(nodes)
        log_q = np.asarray(self.q.log_prob(z, nodes.rows), dtype=float)
        with np.errstate(divide="ignore"):
            weight = np.exp(log_q + log_slope)
        return log_likelihood, log_prior, np.maximum(log_q, LOG_ZERO), weight

    def _log_q_table(self, points: Ints, t: Array) -> Array:
        z, log_slope = to_support(t, self.target.joint.support)
        rows = np.repeat(points, len(z))
        log_q = np.asarray(self.q.log_prob(np.tile(z, (len(points), 1)), rows), dtype=float)
        return log_q.reshape(len(points), len(z)) + log_slope


def _mean_under(weight: Array, values: Array, nodes: Nodes, sums: RowSums) -> tuple[Array, Array, Array]:
    """E_q[values] = Σ w v / Σ w for each data point: from all nodes, its gap to the halves, its rounding.

    Taken a second time around the first result, so that a large constant in v costs no digits.
    """
    total = sums.sum(weight)
    centre = sums.sum(weight * values) / total
    r = weight * (values - sums.spread(centre))
    correction, gaps = sums.sum(r) / total, []
    with np.errstate(divide="ignore", invalid="ignore"):
        for half in nodes.halves:
            gaps.append(np.abs(sums.sum(r * half) / sums.sum(weight * half) - correction))
    size = sums.sum(weight * np.abs(values)) / total
    return centre + correction, np.max(gaps, axis=0), 8 * EPS * (1 + size)


# ----- who did what in a step -----


@dataclass(frozen=True)
class Changes:
    """What one group of parameters did to each term in a step, nats per data point."""

    log_px: float
    reconstruction: float
    kl_prior: float
    kl_posterior: float
    elbo: float


@dataclass(frozen=True)
class Attribution:
    """The change of every term in a step, split between θ and φ: theta + phi is the whole change."""

    theta: Changes
    phi: Changes


def attribute(old: MeanTerms, theta_only: MeanTerms, phi_only: MeanTerms, new: MeanTerms) -> Attribution:
    """Split a step from (θ, φ) to (θ', φ') exactly and symmetrically, half from each order of the two moves.

    Δ_θ T = ½ [T(θ', φ) − T(θ, φ)] + ½ [T(θ', φ') − T(θ, φ')], Δ_φ T likewise (the Shapley value of two
    players). theta_only are the terms at (θ', φ), phi_only those at (θ, φ'). log_px does not depend on φ,
    nor kl_prior on θ: those two are exactly zero.
    """

    def changes(one: MeanTerms, other: MeanTerms, zero: str) -> Changes:
        split = {}
        for term in TERMS:
            alone = getattr(one, term) - getattr(old, term)
            after = getattr(new, term) - getattr(other, term)
            split[term] = 0.0 if term == zero else 0.5 * alone + 0.5 * after
        return Changes(**split)

    return Attribution(changes(theta_only, phi_only, "kl_prior"), changes(phi_only, theta_only, "log_px"))
