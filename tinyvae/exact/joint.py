"""p_θ(x, z) at one θ, in the form that the exact terms need: of any model, and of a VAE.

What every model must give is a `Joint`; `Callables` makes one of plain functions. A VAE's decoder gives more: bounds,
see `decoder.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from .. import networks, ops
from ..checks import Array, expect_shape
from ..model import VAE
from .bounds import BernoulliLikelihood, GaussianLikelihood


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


def joint_of(model: Any, theta: Any) -> Joint:
    """p_θ(x, z) of a model at θ: that of a VAE (θ is copied: later steps do not change it), or a Joint as it is."""
    if isinstance(model, VAE):
        expect_shape("theta", theta, (model.theta_size,))
        return VAEJoint(model, np.array(theta, dtype=float))
    if not hasattr(model, "log_likelihood") or not hasattr(model, "outputs"):
        raise ValueError(f"model: expected a VAE, Callables or another Joint, got {type(model).__name__}")
    joint: Joint = model
    return joint


@dataclass(frozen=True)
class Callables:
    """A Joint made of plain functions, for a model from anywhere (PyTorch, JAX, a formula).

    log_likelihood(x (P, D), z (P, L)) -> (P,) and log_prior(z (M, L)) -> (M,), nats, both with their
    normalising constants; `support` is that of the prior in each coordinate. `encoder(x)`, if given,
    returns a q with `.log_prob(z (P, L), rows (P,)) -> (P,)`, rows telling which data point's q is meant.
    A Callables stands in for a model with nothing to set: theta and phi are ignored. Raises ValueError where the
    support is neither all numbers nor an interval, or a function does not give log densities.
    """

    likelihood: Callable[[Array, Array], Any]
    log_prior_of: Callable[[Array], Any]
    latent_dim: int = 1
    support: tuple[float, float] = (-np.inf, np.inf)
    encoder: Callable[[Array], Any] | None = None

    def __post_init__(self) -> None:
        lo, hi = self.support
        if (lo, hi) != (-np.inf, np.inf) and not (lo < hi and np.isfinite([lo, hi]).all()):
            expected = "(-inf, inf) or finite ends (lo, hi) with lo < hi"
            raise ValueError(f"support: expected {expected}, got {lo, hi}")

    def encode(self, phi: Any, x: Array) -> Any:
        if self.encoder is None:
            raise ValueError("decompose: expected a model with an encoder, got Callables without one")
        return self.encoder(x)

    def unit_roundoff(self, x: Array) -> float:
        """Of the numbers in which the functions compute: 1.2e-7 where one of them answers in float32."""
        z = np.full((1, self.latent_dim), np.clip(0.5, *self.support))
        answers = np.asarray(self.likelihood(x[:1], z)), np.asarray(self.log_prior_of(z))
        return max(float(np.finfo(a.dtype).eps) if a.dtype.kind == "f" else 0.0 for a in answers)

    def log_prior(self, z: Array) -> Array:
        return log_densities("log_prior", self.log_prior_of(z), z)

    def outputs(self, z: Array) -> Array:
        return z

    def log_likelihood(self, x: Array, outputs: Array) -> Array:
        shape = np.broadcast_shapes(x.shape[:-1], outputs.shape[:-1])
        x = np.broadcast_to(x, (*shape, x.shape[-1])).reshape(-1, x.shape[-1])
        z = np.broadcast_to(outputs, (*shape, outputs.shape[-1])).reshape(-1, outputs.shape[-1])
        return log_densities("log_likelihood", self.likelihood(x, z), z).reshape(shape)


def log_densities(name: str, values: Any, z: Array) -> Array:
    """What a function that is not ours gave for z (P, L), as (P,); ValueError if they are no log densities."""
    values = np.array(values, dtype=float)  # a copy, which may be written to
    if values.shape not in ((len(z),), (len(z), 1)):
        raise ValueError(f"{name}: expected one number for each of {len(z)} z, got shape {values.shape}")
    values = values.reshape(-1)
    if not (values < np.inf).all():
        wrong = int(np.argmin(values < np.inf))
        at = ", ".join(f"{number:g}" for number in z[wrong])
        raise ValueError(f"{name}: expected numbers or -inf, got {values[wrong]} at z = ({at})")
    return values


@dataclass(frozen=True)
class VAEJoint:
    """p_θ(x, z) of a VAE at one θ: a Joint, and what makes it fast and safe."""

    model: VAE
    theta: Array
    support: tuple[float, float] = (-np.inf, np.inf)

    @property
    def latent_dim(self) -> int:
        return self.model.latent_dim

    @cached_property
    def layers(self) -> list[tuple[Array, Array, Array]]:
        """The decoder's layers as W, |W| (in, out) and b (out,)."""
        matrices = networks.matrices(self.theta[: self.model.decoder_size], self.model.decoder_sizes)
        return [(M[:-1], np.abs(M[:-1]), M[-1]) for M in matrices]

    @cached_property
    def likelihood(self) -> GaussianLikelihood | BernoulliLikelihood:
        """log p(x|z) as products, of `centred` x and the outputs of the `centred_layers`."""
        if self.model.likelihood == "bernoulli":
            return BernoulliLikelihood()
        return GaussianLikelihood(self.inverse_std, np.zeros(self.model.data_dim))

    @cached_property
    def inverse_std(self) -> Array:
        """1/σ of a Gaussian likelihood, (D,)."""
        return np.exp(-self.model.log_noise_std(self.theta)) * np.ones(self.model.data_dim)

    @cached_property
    def centred_layers(self) -> list[tuple[Array, Array, Array]]:
        """The decoder without the last bias of a Gaussian's mean, which `centred` takes from the data."""
        *first, (W, size, b) = self.layers
        return [*first, (W, size, b if self.model.likelihood == "bernoulli" else 0 * b)]

    def centred(self, x: Array) -> Array:
        """x (N, D) less that bias."""
        return x if self.model.likelihood == "bernoulli" else x - self.layers[-1][2]

    def log_prior(self, z: Array) -> Array:
        """log N(z; 0, I); z (M, L) -> (M,)."""
        return -0.5 * np.einsum("...l,...l->...", z, z) - 0.5 * ops.LOG_2PI * z.shape[-1]

    def outputs(self, z: Array) -> Array:
        """The decoder at z; (M, L) -> (M, D)."""
        return networks.outputs(self.theta, self.model.decoder_sizes, z)

    def log_likelihood(self, x: Array, outputs: Array) -> Array:
        """log p_θ(x|z) given the decoder's output at z; leading axes broadcast."""
        return self.model.log_density(self.theta, x, outputs)
