"""The exact terms at one (θ, φ), and who changed what between two evaluations: θ or φ.

A Target belongs to θ, a q to φ: what did not move since the last evaluation is used again as it is.
"""

from dataclasses import dataclass, replace

import numpy as np

from .checks import Array
from .exact import TERMS, Expectations, MeanTerms, Target, certified, terms_under
from .gaussian import Gaussian
from .model import VAE

EPS = float(np.finfo(float).eps)
LARGEST = 1e50  # nats; a term beyond it belongs to a run that has diverged
LARGEST_LOG_STD = (
    34.5  # of q, a factor of 1e15: narrower than rounding or wider than any lattice, q has diverged
)
LARGEST_PARAMETER = 1e12  # a weight beyond it, too: no lattice of this world could follow such a decoder


class NotFinite(ArithmeticError):
    """A number that the terms or a step need is not finite; `what` names it."""

    def __init__(self, what: str):
        self.what = what
        super().__init__(f"{what} is not finite")


@dataclass(frozen=True)
class Evaluation:
    """The terms at one (θ, φ), with the Target and the q they came from.

    Where the data were standardised, target and q are those of the standardised points, and the terms those of the
    original data: log_scale = Σ_d log s_d is taken off log_px, reconstruction and elbo.
    """

    theta: Array
    phi: Array
    target: Target
    under_q: Expectations
    terms: MeanTerms
    log_scale: float = 0.0

    @property
    def q(self) -> Gaussian:
        """q_φ(z|x) of the evaluated data points."""
        return self.under_q.q

    def certified(self) -> "Evaluation":
        """The same with what can be proven of its terms, for z ∈ R²; see `exact.certified`. No value changes."""
        found = certified(terms_under(self.q, self.target), self.q, self.target).mean()
        share, proven = found.certified, found.proven_error
        return replace(self, terms=replace(self.terms, certified=share, proven_error=proven))


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def evaluate(
    model: VAE,
    theta: Array,
    phi: Array,
    x: Array,
    tolerance: float | None = None,
    last: Evaluation | None = None,
    log_scale: float = 0.0,
) -> Evaluation:
    """The terms of x (N, D) at (θ, φ), which are copied; `last` is an evaluation of the same x to take over from.

    log_scale: what is taken off the terms of standardised data, so that they are those of the original; nats.
    Raises NotFinite where a term, or q, is not a finite number, or a parameter far from any.
    """
    for name, vector in (("θ", theta), ("φ", phi)):
        if not np.abs(vector).max() < LARGEST_PARAMETER:
            raise NotFinite(name)
    same_theta = last is not None and np.array_equal(last.theta, theta)
    same_phi = last is not None and np.array_equal(last.phi, phi)
    if last is not None and same_theta and same_phi:
        return last
    theta, phi = theta.astype(float), phi.astype(float)
    target = last.target if last and same_theta else Target(model, theta, x, tolerance)
    under_q = last.under_q if last and same_phi else _expectations(model.encode(phi, x), target)
    return Evaluation(theta, phi, target, under_q, _terms(target, under_q, log_scale), log_scale)


def _expectations(q: Gaussian, target: Target) -> Expectations:
    if not (np.isfinite(q.mean).all() and (np.abs(q.log_diag) < LARGEST_LOG_STD).all()):
        raise NotFinite("q")
    return Expectations(q, target.joint, len(target), target.tolerance)


def _terms(target: Target, under_q: Expectations, log_scale: float) -> MeanTerms:
    terms = terms_under(under_q, target).mean()
    for name in TERMS[:-1]:
        if not abs(getattr(terms, name)) < LARGEST:
            raise NotFinite(name)
    return of_original(terms, log_scale)


def of_original(terms: MeanTerms, log_scale: float) -> MeanTerms:
    """The terms of the original data x, from those of z_d = (x_d − m_d) / s_d and log_scale = Σ_d log s_d.

    log p(x) = log p(z) − Σ_d log s_d, and so for every density of x: reconstruction and elbo. A KL is between
    densities of the latent variable, and stays. The errors grow by what the subtraction rounds.
    """
    if log_scale == 0:
        return terms
    shifted = {name: getattr(terms, name) - log_scale for name in ("log_px", "reconstruction", "elbo")}
    rounding = {name: 2 * EPS * (abs(log_scale) + abs(shifted[name])) for name in ("log_px", "reconstruction")}
    errors = {f"{name}_error": getattr(terms, f"{name}_error") + more for name, more in rounding.items()}
    return replace(terms, **shifted, **errors, error=max(terms.error, *errors.values()))


# ----- who did what between two evaluations -----


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


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def compare(before: Evaluation, after: Evaluation) -> tuple[Attribution, float]:
    """Who changed what from `before` to `after`, and how far the target moved: mean KL(p_θ(z|x) ‖ p_θ'(z|x)), nats.

    Raises NotFinite as `evaluate` does.
    """
    theta_moved, phi_moved = after.target is not before.target, after.under_q is not before.under_q
    if theta_moved and phi_moved:
        theta_only = _terms(after.target, before.under_q, after.log_scale)
        phi_only = _terms(before.target, after.under_q, after.log_scale)
    else:
        theta_only = after.terms if theta_moved else before.terms
        phi_only = after.terms if phi_moved else before.terms
    moved = float(before.target.divergence_to(after.target).mean()) if theta_moved else 0.0
    return attribute(before.terms, theta_only, phi_only, after.terms), moved
