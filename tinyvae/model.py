"""The VAE: an encoder q_φ(z|x), a decoder p_θ(x|z), the prior N(0, I), the ELBO and its gradient.

    ELBO(x) = E_q[log p_θ(x|z)] − KL(q_φ(z|x) ‖ p(z))          (Kingma & Welling 2014, eq. 3)

θ and φ are one flat float64 vector each. The model itself is frozen and holds no parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, NamedTuple

import autograd.numpy as anp
import numpy as np
from autograd import make_vjp

from . import networks, ops
from .checks import Array, expect, expect_shape, is_whole
from .fused import FusedGradient
from .gaussian import Gaussian

Layer = tuple[Array, Array]
NOISE_INIT = 0.15


class Theta(NamedTuple):
    """θ, named: the decoder's (W, b) pairs and log σ, (1,) or (D,), or None; all views."""

    layers: list[Layer]
    log_noise_std: Array | None


class Phi(NamedTuple):
    """φ, named: the encoder's (W, b) pairs; the last yields mean (L), log_diag (L), lower (L(L−1)/2)."""

    layers: list[Layer]


class Terms(NamedTuple):
    """The two terms of the ELBO estimated on a batch, means in nats per data point."""

    reconstruction: float
    kl_prior: float

    @property
    def elbo(self) -> float:
        return self.reconstruction - self.kl_prior


@dataclass(frozen=True)
class VAE:
    """A variational autoencoder (Kingma & Welling 2014) for z ∈ R¹ or R²; frozen, without parameters.

    Args:
        data_dim, latent_dim: D >= 1, and L = 1 or 2.
        hidden: widths of the encoder's hidden tanh layers and, reversed, the decoder's; () makes both linear:
            probabilistic PCA with shared noise, factor analysis with noise per dimension.
        likelihood: "gaussian", x ~ N(decoder(z), diag(σ²)), or "bernoulli", bits with logits decoder(z).
        covariance: of q_φ(z|x), "diagonal" or "full".
        noise: one σ, "shared", or one for each of the D, "per-dimension".
        noise_std: None learns σ as part of θ, a number fixes it.
        noise_init: the σ that a learned one is born with, 0.15 if None. Born at 1 beside data of scale 1 and noise
            0.1, a model loses its posterior before it learns anything: it collapses (Lucas et al. 2019, "Don't
            blame the ELBO!"; Rybkin et al. 2021, sigma-VAE).

    Raises ValueError where an argument is none of these.
    """

    data_dim: int
    latent_dim: int
    hidden: Sequence[int] = (32, 32)
    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    covariance: Literal["diagonal", "full"] = "diagonal"
    noise: Literal["shared", "per-dimension"] = "shared"
    noise_std: float | None = None
    noise_init: float | None = None

    encoder_sizes: tuple[int, ...] = field(init=False, repr=False, compare=False)
    decoder_sizes: tuple[int, ...] = field(init=False, repr=False, compare=False)
    decoder_size: int = field(init=False, repr=False, compare=False)
    theta_size: int = field(init=False, repr=False, compare=False)
    phi_size: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        expect(is_whole(self.data_dim, 1), "data_dim", "a whole number >= 1", self.data_dim)
        latent_ok = is_whole(self.latent_dim, 1) and self.latent_dim <= 2
        expect(latent_ok, "latent_dim", "1 or 2 (the exact terms exist for those)", self.latent_dim)
        hidden = self.hidden
        widths_ok = isinstance(hidden, list | tuple) and all(is_whole(h, 1) for h in hidden)
        expect(widths_ok, "hidden", "a tuple of layer widths >= 1, such as (32, 32) or ()", hidden)
        for name, known in _CHOICES.items():
            expect(getattr(self, name) in known, name, " or ".join(map(repr, known)), getattr(self, name))
        for name, none in (("noise_std", "None to learn it"), ("noise_init", f"None for {NOISE_INIT}")):
            if (value := getattr(self, name)) is not None:
                ok = isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < np.inf
                expect(ok, name, f"a number > 0, or {none}", value)
                expect(self.likelihood == "gaussian", name, "None for bernoulli", value)
        if self.noise_std is not None:
            expect(
                self.noise_init is None, "noise_init", "None where noise_std fixes the noise", self.noise_init
            )
        D, L = int(self.data_dim), int(self.latent_dim)
        heads = L + L + (L * (L - 1) // 2 if self.covariance == "full" else 0)

        def put(name: str, value: Any) -> None:  # the one moment at which a frozen dataclass is filled in
            object.__setattr__(self, name, value)

        put("hidden", tuple(int(h) for h in hidden))
        put("encoder_sizes", (D, *self.hidden, heads))
        put("decoder_sizes", (L, *reversed(self.hidden), D))
        put("decoder_size", networks.size(self.decoder_sizes))
        noise_size = (D if self.noise == "per-dimension" else 1) if self.learns_noise else 0
        put("theta_size", self.decoder_size + noise_size)
        put("phi_size", networks.size(self.encoder_sizes))

    @property
    def learns_noise(self) -> bool:
        return self.likelihood == "gaussian" and self.noise_std is None

    # ----- parameters -----

    def init(self, seed: int | np.random.SeedSequence) -> tuple[Array, Array]:
        """The first θ (P_θ,) and φ (P_φ,): weights N(0, 1/fan_in), biases 0, noise std noise_init."""
        rng = np.random.default_rng(seed)
        theta, phi = np.zeros(self.theta_size), np.zeros(self.phi_size)
        networks.initialise(theta[: self.decoder_size], self.decoder_sizes, rng)
        networks.initialise(phi, self.encoder_sizes, rng)
        theta[self.decoder_size :] = np.log(self.noise_init or NOISE_INIT)
        return theta, phi

    def unpack_theta(self, theta: Array) -> Theta:
        """Named views of θ; writing to them changes the vector that was passed in."""
        expect_shape("theta", theta, (self.theta_size,))
        log_noise_std = theta[self.decoder_size :] if self.learns_noise else None
        return Theta(networks.layers(theta[: self.decoder_size], self.decoder_sizes), log_noise_std)

    def unpack_phi(self, phi: Array) -> Phi:
        """Named views of φ; writing to them changes the vector that was passed in."""
        expect_shape("phi", phi, (self.phi_size,))
        return Phi(networks.layers(phi, self.encoder_sizes))

    def log_noise_std(self, theta: Array) -> Array:
        """log σ of the Gaussian likelihood, learned or fixed, (1,) or (D,)."""
        return theta[self.decoder_size :] if self.learns_noise else np.array([np.log(self.noise_std or 1.0)])

    # ----- the two distributions -----

    def encode(self, phi: Array, x: Array) -> Gaussian:
        """q_φ(z|x) of each data point, x (N, D)."""
        x = self._as_data(x)
        expect_shape("phi", phi, (self.phi_size,))
        L, out = self.latent_dim, networks.outputs(phi, self.encoder_sizes, x)
        return Gaussian(out[:, :L], out[:, L : 2 * L], out[:, 2 * L :])

    def decode(self, theta: Array, z: Array) -> Array:
        """z (N, L) -> the mean (gaussian) or the logits (bernoulli) of p_θ(x|z), (N, D)."""
        expect_shape("z", z, (len(z), self.latent_dim))
        return networks.forward(self.unpack_theta(theta).layers, z)

    def log_likelihood(self, theta: Array, x: Array, z: Array) -> Array:
        """log p_θ(x_n|z_n), (N,), nats; x (N, D), z (N, L)."""
        return self.log_density(theta, self._as_data(x), self.decode(theta, z))

    def log_density(self, theta: Array, x: Array, out: Array) -> Array:
        """log p_θ(x|z), nats, given the decoder's output at z; x and out (…, D), leading axes broadcast."""
        if self.likelihood == "bernoulli":
            return ops.bernoulli_log_likelihood(x, out)
        return ops.gaussian_log_likelihood(x, out, self.log_noise_std(theta))

    # ----- the ELBO, estimated with reparameterised samples -----

    def encode_differentiably(self, phi: Array, x: Array) -> tuple[Array, Array, Array]:
        """mean (N, L), log_diag (N, L) and lower (N, L(L−1)/2; zeros if diagonal) of q_φ(z|x), for autograd."""
        L, out = self.latent_dim, networks.forward(networks.layers(phi, self.encoder_sizes), x)
        lower = out[:, 2 * L :] if self.covariance == "full" else np.zeros((len(x), L * (L - 1) // 2))
        return out[:, :L], out[:, L : 2 * L], lower

    def elbo_terms(self, theta: Array, phi: Array, x: Array, eps: Array) -> Array:
        """[reconstruction, kl_prior], batch means, written with the primitives of `ops` for autograd.

        x (B, D); eps (S, B, L) standard normal draws, S samples for each point.
        """
        mean, log_diag, lower = self.encode_differentiably(phi, x)
        decoder = networks.layers(theta[: self.decoder_size], self.decoder_sizes)
        reconstruction = 0.0
        for eps_s in eps:
            out = networks.forward(decoder, ops.reparameterise(mean, log_diag, lower, eps_s))
            reconstruction = reconstruction + anp.mean(self.log_density(theta, x, out)) / len(eps)
        return anp.array([reconstruction, anp.mean(ops.gaussian_kl(mean, log_diag, lower))])

    def elbo_and_grad_autograd(
        self,
        theta: Array,
        phi: Array,
        x: Array,
        eps: Array,
        beta: float = 1.0,
        want_theta: bool = True,
        want_phi: bool = True,
    ) -> tuple[Terms, Array | None, Array | None]:
        """The same as `elbo_and_grad`, by autograd through `elbo_terms`: the second engine, and its check."""

        def both(theta: Array, phi: Array) -> Array:
            return self.elbo_terms(theta, phi, x, _samples_first(eps))

        argnums = [k for k, wanted in enumerate((want_theta, want_phi)) if wanted]
        if not argnums:
            return Terms(*both(theta, phi).tolist()), None, None
        vjp, terms = make_vjp(both, argnum=argnums)(theta, phi)
        grads = dict(zip(argnums, vjp(np.array([1.0, -beta]))))  # d(reconstruction − β·kl_prior)
        return Terms(*terms.tolist()), grads.get(0), grads.get(1)

    def elbo_and_grad(
        self, theta: Array, phi: Array, x: Array, eps: Array, beta: float = 1.0
    ) -> tuple[Terms, Array, Array]:
        """The batch mean of the ELBO's terms and its gradient with respect to θ and φ, hand-built.

        x (B, D); eps (B, L), or (S, B, L) for S samples a point. The gradients have the shapes of θ and φ; with
        another `beta` than 1 they are those of reconstruction − β·kl_prior.
        """
        x, eps = self._as_data(x), _samples_first(np.asarray(eps, dtype=float))
        expect_shape("eps", eps, (len(eps), len(x), self.latent_dim))
        expect_shape("theta", theta, (self.theta_size,))
        expect_shape("phi", phi, (self.phi_size,))
        reconstruction, kl_prior, g_theta, g_phi = FusedGradient(self, len(x), len(eps))(
            theta, phi, x, eps, beta
        )
        return Terms(float(reconstruction.mean()), float(kl_prior.mean())), g_theta, g_phi

    def _as_data(self, x: Array) -> Array:
        x = np.asarray(x, dtype=float)
        if x.ndim != 2 or x.shape[1] != self.data_dim:
            raise ValueError(f"x: expected shape (N, {self.data_dim}), got {x.shape}")
        return x


_CHOICES: dict[str, tuple[str, ...]] = {
    "likelihood": ("gaussian", "bernoulli"),
    "covariance": ("diagonal", "full"),
    "noise": ("shared", "per-dimension"),
}


def _samples_first(eps: Array) -> Array:
    return eps[None] if eps.ndim == 2 else eps
