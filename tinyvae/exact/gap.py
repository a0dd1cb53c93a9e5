"""The two parts of the gap: what no q of the family could close, and what this encoder leaves open.

    kl_posterior = approximation + amortisation            (Cremer, Li & Duvenaud 2018, section 3)

    approximation = min over q in the family of KL(q ‖ p_θ(z|x)), for each data point on its own
    amortisation  = what the encoder's q misses of that minimum

The minimum is searched on exact integrals, from several starts, so that a second mode is not overlooked; the
value at the end is the certified one of `decompose`. A search can miss the best optimum: then the approximation
gap given here is too large, never too small.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np

from .. import ops
from ..checks import Array, Bools, Ints
from ..gaussian import Gaussian
from .target import Target
from .under_q import inverse_of, terms_under

SPACING, REACH = {1: 0.2, 2: 0.4}, 6.0  # of the nodes ε on which E_q is taken during the search
LOOK = {1: 401, 2: 41}  # nodes along each axis when the posterior's modes are looked for
MODES = 3  # at most so many modes of a posterior become starts
MOST_STEPS, ENOUGH = 300, 1e-13  # the search ends when a step promises less than so many nats
BLOCK = 2**19  # nodes handled in one go


@dataclass(frozen=True)
class GapSplit:
    """kl_posterior = approximation + amortisation: (N,) arrays in nats; or floats, after `.mean()`."""

    approximation: Any
    amortisation: Any
    error: Any  # the certified error of either KL; after `.mean()` the worst of any point

    @property
    def kl_posterior(self) -> Any:
        return self.approximation + self.amortisation

    def mean(self) -> "GapSplit":
        means = float(self.approximation.mean()), float(self.amortisation.mean())
        return GapSplit(*means, float(np.max(self.error)))


def split_gap(target: Target, q: Gaussian) -> GapSplit:
    """Split KL(q ‖ p_θ(z|x)) of every data point; the family is that of q, diagonal or full."""
    own, best = terms_under(q, target), terms_under(best_q(target, q), target)
    approximation = np.minimum(best.kl_posterior, own.kl_posterior)  # q is of the family too
    error = np.maximum(best.kl_posterior_error, own.kl_posterior_error)
    return GapSplit(approximation, own.kl_posterior - approximation, error)


def best_q(
    target: Target, q0: Gaussian | None = None, covariance: Literal["diagonal", "full"] | None = None
) -> Gaussian:
    """For each data point the Gaussian q that minimises KL(q ‖ p_θ(z|x)), as far as could be found.

    covariance: the family; None takes that of q0. The search starts from q0 (if given), from the posterior's
    mean and covariance and from its highest modes, and keeps the best of what it arrives at. Every step is

        Λ ← (1 − ρ) Λ + ρ E_q[−∇² log p(x, z)],     mean ← mean + ρ Λ⁻¹ E_q[∇ log p(x, z)]

    a natural-gradient step whose fixed point is the optimum (Opper & Archambeau 2009, section 2); ρ is
    halved until the ELBO does not fall. The expectations of derivatives need only values of log p(x, z)
    (Stein's identities): with z = mean + C ε, E[∇f] = C⁻ᵀ E[ε f] and E[∇²f] = C⁻ᵀ E[(ε εᵀ − I) f] C⁻¹.
    """
    if np.isfinite(target.joint.support).any():
        raise ValueError(f"best_q: expected a prior on all of R^L, got the support {target.joint.support}")
    L = target.joint.latent_dim
    if covariance is None:
        if q0 is None:
            raise ValueError("best_q: expected q0 or covariance, got neither")
        covariance = "full" if q0.lower.shape[1] == L * (L - 1) // 2 else "diagonal"
    search = _Search(target, diagonal=covariance == "diagonal")
    rows, mean, precision = _starts(target, q0)
    return search.best(rows, mean, search.in_family(precision))


# ----- where to start -----


def _starts(target: Target, q0: Gaussian | None) -> tuple[Ints, Array, Array]:
    """Starts for every data point: its number (K,), mean (K, L) and precision (K, L, L)."""
    N = len(target)
    found = [(np.arange(N), target.posterior_mean, np.linalg.inv(target.posterior_cov))]
    if q0 is not None:
        found.append((np.arange(N), q0.mean, np.linalg.inv(q0.cov)))
    found.append(_modes(target))
    rows, mean, precision = (np.concatenate(part) for part in zip(*found))
    return rows, mean, precision


def _modes(target: Target) -> tuple[Ints, Array, Array]:
    """The highest local maxima of each posterior on a grid about its mean, with the curvature there."""
    L, G = target.joint.latent_dim, LOOK[target.joint.latent_dim]
    ticks = np.linspace(-4, 4, G)
    u = np.stack(np.meshgrid(*[ticks] * L, indexing="ij"), axis=-1).reshape(-1, L)
    std = np.sqrt(np.diagonal(target.posterior_cov, axis1=1, axis2=2))  # (N, L)
    z = target.posterior_mean[:, None] + std[:, None] * u
    log_p = _log_joint(target, np.arange(len(target)), z).reshape(-1, *[G] * L)
    inner = log_p[(slice(None), *[slice(1, -1)] * L)]
    top = np.ones(inner.shape, dtype=bool)
    for shift in product((0, 1, 2), repeat=L):
        if shift != (1,) * L:
            top &= inner >= log_p[(slice(None), *[slice(s, s + G - 2) for s in shift])]
    height = np.where(top, inner, -np.inf).reshape(len(target), -1)
    order = np.argsort(-height, axis=1)[:, :MODES]
    best = np.take_along_axis(height, order, axis=1)
    keep = best > best[:, :1] - 8.0  # a mode e^-8 times as high as the first is none
    rows, column = np.nonzero(keep & np.isfinite(best))
    place = np.unravel_index(order[rows, column], (G - 2,) * L)
    precision = np.zeros((len(rows), L, L))
    at: Any = (rows, *[p + 1 for p in place])
    for k in range(L):
        up, down = list(at), list(at)
        up[k + 1], down[k + 1] = at[k + 1] + 1, at[k + 1] - 1
        bend = (2 * log_p[at] - log_p[tuple(up)] - log_p[tuple(down)]) / (ticks[1] - ticks[0]) ** 2
        precision[:, k, k] = np.maximum(bend, 0.25) / std[rows, k] ** 2
    mean = target.posterior_mean[rows] + std[rows] * np.stack([ticks[p + 1] for p in place], axis=1)
    return rows, mean, precision


def _log_joint(target: Target, rows: Ints, z: Array) -> Array:
    """log p(x_n, z) for z (K, S, L), a set of nodes for each of the data points `rows` (K,) -> (K, S)."""
    joint, values = target.joint, np.empty(z.shape[:2])
    step = max(1, BLOCK // z.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(0, len(z), step):
            some, part = slice(k, k + step), z[k : k + step]
            flat, shape = part.reshape(-1, z.shape[2]), part.shape[:2]
            outputs = joint.outputs(flat).reshape(*shape, -1)
            likelihood = joint.log_likelihood(target.x[rows[some], None], outputs)
            values[some] = likelihood + joint.log_prior(flat).reshape(shape)
    return values


# ----- the search -----


class _Search:
    """Damped natural-gradient steps on many starts at once."""

    def __init__(self, target: Target, diagonal: bool):
        self.target, self.diagonal, L = target, diagonal, target.joint.latent_dim
        ticks = np.arange(-REACH, REACH + SPACING[L] / 2, SPACING[L])
        eps = np.stack(np.meshgrid(*[ticks] * L, indexing="ij"), axis=-1).reshape(-1, L)
        inside = (eps**2).sum(axis=1) <= REACH**2
        self.eps = eps[inside]  # (S, L)
        weight = np.exp(-0.5 * (self.eps**2).sum(axis=1))
        self.weight = weight / weight.sum()

    def in_family(self, matrices: Array) -> Array:
        """Precisions (K, L, L) without their off-diagonal entries if the family is diagonal."""
        return matrices * np.eye(matrices.shape[1]) if self.diagonal else matrices

    def look(self, rows: Ints, mean: Array, precision: Array) -> tuple[Array, Array, Array]:
        """The ELBO up to a constant (K,), E[∇ log p] (K, L) and E[−∇² log p] (K, L, L)."""
        C = np.linalg.cholesky(np.linalg.inv(precision))
        z = mean[:, None] + np.einsum("kij,sj->ksi", C, self.eps)
        f = _log_joint(self.target, rows, z)
        mean_f = f @ self.weight
        elbo = mean_f + np.log(np.diagonal(C, axis1=1, axis2=2)).sum(axis=1)
        f = (f - mean_f[:, None]) * self.weight  # centred: E[ε] = 0, and the constant costs no digits
        back = inverse_of(C)  # C⁻¹; its transpose takes ε to z
        slope = np.einsum("kji,kj->ki", back, f @ self.eps)
        bend = np.einsum("ks,si,sj->kij", f, self.eps, self.eps, optimize=True)
        return elbo, slope, self.in_family(-np.einsum("kai,kab,kbj->kij", back, bend, back))

    def best(self, rows: Ints, mean: Array, precision: Array) -> Gaussian:
        """Climb from every start; of those of one data point the highest is its best q."""
        mean, precision, rho = mean.copy(), precision.copy(), np.ones(len(rows))
        elbo, slope, curvature = self.look(rows, mean, precision)
        alive = np.isfinite(elbo)
        for _ in range(MOST_STEPS):
            k = np.flatnonzero(alive)
            if len(k) == 0:
                break
            r = rho[k, None, None]
            new_precision = (1 - r) * precision[k] + r * curvature[k]
            ok = _positive(new_precision)
            new_precision[~ok] = precision[k][~ok]
            move = np.linalg.solve(new_precision, slope[k][..., None])[..., 0]
            new_mean = mean[k] + rho[k, None] * move
            new = self.look(rows[k], new_mean, new_precision)
            ok &= (new[0] >= elbo[k] - 1e-13 * (1 + np.abs(elbo[k]))) & np.isfinite(new[0])
            promise = (slope[k] * move).sum(axis=1) + _surprise(precision[k], curvature[k])
            better = k[ok]
            mean[better], precision[better] = new_mean[ok], new_precision[ok]
            elbo[better], slope[better], curvature[better] = (part[ok] for part in new)
            rho[better], rho[k[~ok]] = np.minimum(1.0, 2 * rho[better]), rho[k[~ok]] / 2
            alive[k] = (promise > ENOUGH) & (rho[k] > 1e-6)
        elbo[~np.isfinite(elbo)] = -np.inf
        winner = np.lexsort((elbo, rows))[np.append(np.flatnonzero(np.diff(np.sort(rows))), len(rows) - 1)]
        return _gaussian(mean[winner], np.linalg.inv(precision[winner]), self.diagonal)


def _positive(matrices: Array) -> Bools:
    """Which symmetric matrices (K, L, L) are positive definite, and not by rounding alone."""
    if not np.isfinite(matrices).all():
        matrices = np.where(np.isfinite(matrices), matrices, -1.0)
    return np.asarray(np.linalg.eigvalsh(matrices)[:, 0] > 1e-12 * np.abs(matrices).max(axis=(1, 2)))


def _surprise(precision: Array, curvature: Array) -> Array:
    """How far the precision is from its fixed point, in the metric of the problem: ½|Λ⁻¹H − I|², (K,)."""
    off = np.linalg.solve(precision, curvature) - np.eye(precision.shape[1])
    return 0.5 * (off**2).sum(axis=(1, 2))


def _gaussian(mean: Array, cov: Array, diagonal: bool) -> Gaussian:
    C = np.linalg.cholesky(cov)
    pairs = [] if diagonal else ops.strictly_lower(mean.shape[1])
    lower = np.stack([C[:, i, j] for i, j in pairs], axis=1) if pairs else np.zeros((len(mean), 0))
    return Gaussian(mean, np.log(np.diagonal(C, axis1=1, axis2=2)), lower)
