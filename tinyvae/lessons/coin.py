"""The coin VAE: two parameters, so that the whole ELBO can be drawn.

z ~ U(0, 1) is a coin, and P(heads | z) = z t with one parameter t for the decoder. The data are two pairs of
tosses, TT and HT. Each has its q on (0, 1), a straight line: q_TT(z) = 1 + a (z − ½), q_HT(z) = 1 + b (z − ½);
tied, −a = b = p. The posteriors are not straight lines, so q cannot reach them, and t pays for it: the best t
is not the maximum likelihood one (Turner & Sahani 2011 on the bias of variational learning). The example is
Sergey Litvinov's ("Variational autoencoder: simple illustration").
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..checks import Array
from ..exact import Callables, Decomposition, decompose

TOSSES = np.array([[0.0], [1.0]])  # how many heads: TT, HT


def model(t: float) -> Callables:
    """The coin as the certified terms take it."""

    def log_likelihood(x: Array, z: Array) -> Array:
        heads = x[:, 0] * np.log(z[:, 0] * t)
        return heads + (2 - x[:, 0]) * np.log1p(-z[:, 0] * t)

    return Callables(log_likelihood, lambda z: np.zeros(len(z)), support=(0.0, 1.0))


@dataclass(frozen=True)
class Lines:
    """q_TT and q_HT with their slopes."""

    slopes: tuple[float, float]

    def log_prob(self, z: Array, rows: Array) -> Array:
        return np.log1p(np.array(self.slopes)[rows] * (z[:, 0] - 0.5))


def terms(t: float, a: float, b: float) -> Decomposition:
    """Certified, one number for each of the two data points."""
    return decompose(model(t), None, None, TOSSES, q=Lines((a, b)))


def log_likelihood(t: Array | float) -> Array:
    """log p(TT) + log p(HT) = log(1 − t + t²/3) + log(t/2 − t²/3)."""
    t = np.asarray(t, dtype=float)
    return np.asarray(np.log(1 - t + t**2 / 3) + np.log(t / 2 - t**2 / 3))


def elbo(t: Array | float, a: Array | float, b: Array | float) -> Array:
    """The sum of both ELBOs; t, a and b broadcast, 0 < t < 1, |a| and |b| < 2.

    E_q[f] = ∫f + slope ∫(z − ½)f is linear in the slope. ∫log z = −1 and ∫(z − ½) log z = ¼; log(1 − zt) is
    smooth and taken by Gauss-Legendre.
    """
    t, a, b = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (t, a, b)))
    u, w = np.polynomial.legendre.leggauss(60)
    z, w = (u + 1) / 2, w / 2
    tails = np.log1p(-t[..., None] * z)
    flat, tilt = tails @ w, tails @ (w * (z - 0.5))
    both_tails = 2 * (flat + a * tilt)
    one_head = np.log(t) - 1 + b / 4 + flat + b * tilt
    return np.asarray(both_tails + one_head - _kl_prior(a) - _kl_prior(b))


def _kl_prior(slope: Array) -> Array:
    """∫ q log q for q = 1 + s(z − ½); with v = q, (1/s) ∫ v log v dv from 1 − s/2 to 1 + s/2."""
    s = np.where(np.abs(slope) < 1e-3, 1e-3, slope)

    def antiderivative(v: Array) -> Array:
        return v**2 * (np.log(v) / 2 - 0.25)

    with np.errstate(invalid="ignore", divide="ignore"):  # no density beyond |slope| = 2: NaN
        closed = (antiderivative(1 + s / 2) - antiderivative(1 - s / 2)) / s
    return np.where(np.abs(slope) < 1e-3, slope**2 / 24, closed)


@dataclass(frozen=True)
class Surface:
    """The tied ELBO over the plane of t and p: for a heat map or contours."""

    t: Array  # (T,)
    p: Array  # (P,)
    elbo: Array  # (T, P), summed over the two data points, nats
    best: tuple[float, float]  # (t, p) of its maximum
    likelihood_best: float  # the t of maximum likelihood


def surface(size: int = 81) -> Surface:
    t, p = np.linspace(0.2, 0.8, size), np.linspace(-0.5, 1.95, size)
    best = best_tied()
    return Surface(t, p, elbo(t[:, None], -p, p), (best[0], best[1]), best_likelihood())


def best_likelihood() -> float:
    return float(maximise(lambda v: log_likelihood(v[0]), [0.5])[0])


def best_tied() -> Array:
    """(t, p) at the highest ELBO."""
    return maximise(lambda v: elbo(v[0], -v[1], v[1]), [0.5, 1.0])


def best_untied() -> Array:
    """(t, a, b) at the highest ELBO."""
    return maximise(lambda v: elbo(*v), [0.5, -1.0, 1.0])


def maximise(f: Callable[[Array], Array], start: list[float]) -> Array:
    """Newton's method with differences for derivatives; enough for a smooth hill of two or three numbers."""
    v, n, h = np.array(start), len(start), 1e-4
    for _ in range(50):
        E = h * np.eye(n)
        slope = np.array([(f(v + e) - f(v - e)) / (2 * h) for e in E])
        bend = [[f(v + d + e) - f(v + d - e) - f(v - d + e) + f(v - d - e) for e in E] for d in E]
        curvature = np.array(bend) / (4 * h * h)
        step = -np.linalg.solve(curvature, slope)
        while not f(v + step) >= f(v) - 1e-15 and np.abs(step).max() > 1e-9:  # too far, or out of the domain
            step = step / 2
        v = v + step
        if np.abs(step).max() < 1e-8:
            break
    return v
