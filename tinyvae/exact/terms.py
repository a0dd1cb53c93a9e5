"""The terms of log p_θ(x), by their names; of each data point, and as means.

    log_px = reconstruction − kl_prior + kl_posterior,    elbo = reconstruction − kl_prior

(Kingma & Welling 2014, eqs. 1-3.) Nats per data point.
"""

from dataclasses import dataclass

import numpy as np

from ..checks import Array, Bools

TERMS = ("log_px", "reconstruction", "kl_prior", "kl_posterior", "elbo")


@dataclass(frozen=True)
class Decomposition:
    """The terms of N data points in nats, and a bound on the error of each: arrays of shape (N,)."""

    log_px: Array
    reconstruction: Array
    kl_prior: Array
    kl_posterior: Array
    log_px_error: Array
    reconstruction_error: Array
    kl_prior_error: Array
    kl_posterior_error: Array
    checked: Bools | bool = False  # other nodes say the same, to the tolerance; or certified, (N,)
    certified: Bools | bool = False  # a proven bound says that every term is right to the tolerance, (N,)
    proven_error: Array | float = np.inf  # what is proven of the worst of the terms, (N,), nats

    @property
    def elbo(self) -> Array:
        """reconstruction − kl_prior, (N,)."""
        return self.reconstruction - self.kl_prior

    @property
    def residual(self) -> Array:
        """log_px − (reconstruction − kl_prior + kl_posterior), (N,): by how much the identity fails to close."""
        return self.log_px - (self.reconstruction - self.kl_prior + self.kl_posterior)

    @property
    def error(self) -> Array:
        """The largest of the errors of the terms, (N,)."""
        errors = (self.log_px_error, self.reconstruction_error, self.kl_prior_error, self.kl_posterior_error)
        return np.asarray(np.maximum.reduce(errors))

    def mean(self) -> "MeanTerms":
        """The same as floats: terms averaged over the data points, residual and errors the worst of any."""
        terms = np.array([getattr(self, name) for name in TERMS]).mean(axis=1).tolist()
        errors = np.array([getattr(self, f"{name}_error") for name in TERMS[:-1]]).max(axis=1).tolist()
        residual = self.residual
        worst = float(residual[np.abs(residual).argmax()])
        known = float(np.mean(self.checked)), float(np.mean(self.certified)), float(np.max(self.proven_error))
        values = zip(MeanTerms.__annotations__, (*terms, worst, max(errors), *errors, *known))
        return MeanTerms(**dict(values))


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
    checked: float = 0.0  # the share of the data points that are, from 0 to 1
    certified: float = 0.0
    proven_error: float = np.inf  # the largest; what `certified` says is that it is at most the tolerance
