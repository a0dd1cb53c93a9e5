"""p_θ(x, z) at one θ, in the form that the exact terms need: of any model, and of a VAE.

What every model must give is a `Joint`; `Callables` makes one of plain functions. A VAE gives more: products, so
that tables are cheap, and bounds, by interval arithmetic on the decoder, which say how high log p_θ(x, z) can rise
between the nodes of a lattice and beyond them, so that no mass is missed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .. import networks, ops
from ..checks import Array, Ints, expect_shape
from ..model import VAE
from .bounds import BernoulliLikelihood, GaussianLikelihood

RisesOf = Callable[[Array, Array], tuple[Array, Array, Array]]
MANY = 32  # outputs from which on a sharper bound is worth its cost on a line, where nodes are cheap
SECTORS = 64  # into which all directions on a plane are divided


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


@runtime_checkable
class FactoredJoint(Joint, Protocol):
    """A Joint with prior N(0, I) that can give more: its densities as products, and bounds on them.

    log p(x|z) = left·right, `left` of the data point and `right` of the node, so that a table is a matrix product.
    """

    def prior_factors(self, m: Array) -> Array:
        """log p(m + d) as a polynomial in d: m (K, L) -> (K, 1 + L + L²)."""

    def node_factors(self, outputs: Array) -> tuple[Array, Array]:
        """For outputs (K, T, D) at the nodes of tiles: centres (K, D), right (K, F, T)."""

    def data_factors(self, x: Array, rows: Ints, centre: Array, tile: Ints) -> Array:
        """For pairs of a data point x[rows] and a tile: left (P, F)."""

    def rises(self, z: Array, half: float) -> tuple[Array, RisesOf]:
        """How far log p(x, z) may rise within `half` of z; see VAEJoint."""

    def beyond(self, reach: float, x: Array, floor: Array) -> Array:
        """What log p(x, z) cannot exceed where some |z_i| > reach, (n,); see VAEJoint."""


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
    def _layers(self) -> list[tuple[Array, Array, Array]]:
        """The decoder's layers as W, |W| (in, out) and b (out,)."""
        matrices = networks.matrices(self.theta[: self.model.decoder_size], self.model.decoder_sizes)
        return [(M[:-1], np.abs(M[:-1]), M[-1]) for M in matrices]

    @cached_property
    def _log_std(self) -> Array:
        return self.model.log_noise_std(self.theta)

    @cached_property
    def _inverse_std(self) -> Array:
        return np.exp(-self._log_std)

    @cached_property
    def likelihood(self) -> GaussianLikelihood | BernoulliLikelihood:
        """log p(x|z) as products, of `centred` x and the outputs of the `centred_layers`."""
        if self.model.likelihood == "bernoulli":
            return BernoulliLikelihood()
        D = self.model.data_dim
        return GaussianLikelihood(self._inverse_std * np.ones(D), np.zeros(D))

    @property
    def layers(self) -> list[tuple[Array, Array, Array]]:
        """The decoder's layers as W, |W| (in, out) and b (out,)."""
        return self._layers

    @property
    def inverse_std(self) -> Array:
        """1/σ of a Gaussian likelihood, (D,)."""
        return self._inverse_std * np.ones(self.model.data_dim)

    @cached_property
    def centred_layers(self) -> list[tuple[Array, Array, Array]]:
        """The decoder without the last bias of a Gaussian's mean, which `centred` takes from the data."""
        *first, (W, size, b) = self._layers
        return [*first, (W, size, b if self.model.likelihood == "bernoulli" else 0 * b)]

    def centred(self, x: Array) -> Array:
        """x (N, D) less that bias."""
        return x if self.model.likelihood == "bernoulli" else x - self._layers[-1][2]

    def log_prior(self, z: Array) -> Array:
        """log N(z; 0, I); z (M, L) -> (M,)."""
        return -0.5 * np.einsum("...l,...l->...", z, z) - 0.5 * ops.LOG_2PI * z.shape[-1]

    def prior_factors(self, m: Array) -> Array:
        """log p(m + d) = log p(m) − m·d − ½ |d|² as a polynomial in d: (K, L) -> (K, 1 + L + L²)."""
        L = m.shape[1]
        factors = np.empty((len(m), 1 + L + L**2))
        factors[:, 0], factors[:, 1 : 1 + L] = self.log_prior(m), -m
        factors[:, 1 + L :] = -0.5 * np.eye(L).ravel()
        return factors

    def outputs(self, z: Array) -> Array:
        """The decoder at z; (M, L) -> (M, D), whose columns are contiguous."""
        return networks.outputs(self.theta, self.model.decoder_sizes, z)

    def log_likelihood(self, x: Array, outputs: Array) -> Array:
        """log p_θ(x|z) given the decoder's output at z; leading axes broadcast."""
        return self.model.log_density(self.theta, x, outputs)

    # log p(x|z) of a data point at a node as an inner product left·right, left (D + 2) of the data point and
    # right (D + 2) of the node. Bernoulli: x·l − Σ softplus(l). Gaussian: with a = (x − c)/σ and b = (mean − c)/σ,
    # −½|a − b|² is a·b − ½|a|² − ½|b|²; c, the mean at one node of a tile, keeps the squares small, so that little
    # cancels.

    def node_factors(self, outputs: Array) -> tuple[Array, Array]:
        """For outputs (K, T, D) at the nodes of tiles: c/σ (K, D), right (K, D + 2, T)."""
        outputs = outputs.swapaxes(1, 2)  # as the decoder leaves them: contiguous for each of the D
        right = np.ones((len(outputs), outputs.shape[1] + 2, outputs.shape[2]))
        if self.model.likelihood == "bernoulli":
            centre, right[:, 2:] = np.zeros(outputs.shape[:2]), outputs
            right[:, 0] = -ops.softplus(outputs).sum(axis=1)
        else:
            scaled = outputs * self._inverse_std[:, None]
            centre = scaled[:, :, scaled.shape[2] // 2]
            b = np.subtract(scaled, centre[:, :, None], out=right[:, 2:])
            right[:, 0] = -0.5 * np.einsum("kdt,kdt->kt", b, b)
        return centre, right

    def data_factors(self, x: Array, rows: Ints, centre: Array, tile: Ints) -> Array:
        """For pairs of a data point x[rows] and a tile whose c/σ is centre[tile]: left (P, D + 2)."""
        left = np.empty((x.shape[1] + 2, len(rows)))
        left[0], a = 1.0, left[2:]
        if self.model.likelihood == "bernoulli":
            a[:], left[1] = x.T.take(rows, axis=1), 0.0
        else:
            np.subtract((x * self._inverse_std).T.take(rows, axis=1), centre.T.take(tile, axis=1), out=a)
            left[1] = self._highest - 0.5 * np.einsum("dp,dp->p", a, a)
        return left.T

    def variation(self, z: Array, half: float) -> tuple[Array, Array, Array, Array]:
        """The outputs at z (M, L), and how far they can move within the cubes of half side `half` around z.

        Interval arithmetic. The Jacobian of the layers so far lies in slope ± spread (L, M, width), because
        tanh' = 1 − tanh² lies between its values where |tanh| is largest and smallest in the cube; by the mean
        value theorem an output moves by at most |∂f/∂z| summed over the axes, times half. Returned are the outputs
        (M, D), a bound on their moves (M, D), which is sharper than that where units saturate, and slope and
        spread, (L, M, D).
        """
        if len(z) > (chunk := networks.CHUNK):
            parts = [self.variation(z[k : k + chunk], half) for k in range(0, len(z), chunk)]
            return tuple(np.concatenate(part, axis=-2) for part in zip(*parts))  # type: ignore[return-value]
        (W, size, b), *rest = self._layers
        value, moves = z @ W + b, half * size.sum(axis=0)
        slope, spread = W[:, None, :], np.zeros((1, 1, 1))
        if not rest:
            slope = np.broadcast_to(slope, (len(slope), *value.shape))
            return value, np.broadcast_to(moves, value.shape), slope, np.zeros_like(slope)
        for W, size, b in rest:
            low, unit, high = np.tanh(np.stack([value - moves, value, value + moves]))
            most = 1 - np.square(np.maximum(low, 0) + np.minimum(high, 0))  # of tanh': at the unit nearest to 0
            least = 1 - np.square(np.maximum(high, -low))
            spread = (np.abs(slope) * (0.5 * (most - least)) + spread * most) @ size
            slope = (slope * (0.5 * (most + least))) @ W
            steepest = half * (np.abs(slope) + spread).sum(axis=0)
            value, moves = unit @ W + b, np.minimum(np.maximum(high - unit, unit - low) @ size, steepest)
        return value, moves, slope, spread

    @cached_property
    def _highest(self) -> float:
        """What log p_θ(x|z) cannot exceed for any x and z: a Gaussian's peak, or that of certain bits."""
        if self.model.likelihood == "bernoulli":
            return 0.0
        D = self.model.data_dim
        return float(-self._log_std.sum() * (D // len(self._log_std)) - 0.5 * D * ops.LOG_2PI)

    def beyond(self, reach: float, x: Array, floor: Array) -> Array:
        """What log p_θ(x, z) cannot exceed where some |z_i| > reach, for x (n, D): (n,).

        Where that is below the `floor` (n,) any number below it does. A linear decoder has a single mode: what
        lies beyond falls off, and needs no bound.
        """
        log_prior = -0.5 * reach**2 - 0.5 * ops.LOG_2PI * self.latent_dim
        if not self._layers[1:]:
            return np.full(len(x), -np.inf)
        if (self._highest + log_prior < floor).all():
            return np.full(len(x), self._highest + log_prior)
        low, high = self._far_outputs(reach)
        at = x[:, None]
        if self.model.likelihood == "bernoulli":  # the best logit of each bit is at one of the ends
            ends = [self.log_likelihood(at[..., None], end[..., None]) for end in (low, high)]
            log_likelihood = np.maximum(*ends).sum(axis=-1)
        else:
            log_likelihood = self.log_likelihood(at, np.minimum(np.maximum(at, low), high))
        return np.asarray(log_likelihood.max(axis=1) + log_prior)

    def _far_outputs(self, reach: float) -> tuple[Array, Array]:
        """Between what the outputs lie where |z| >= reach: low and high (K, D), for K half-lines or sectors.

        Interval arithmetic. On a plane in most directions most units are saturated.
        """
        (W, _, b), *rest = self._layers
        low, high = _beyond_first_layer(W, b, reach)
        for W, size, b in rest:
            low, high = np.tanh(low), np.tanh(high)
            middle, half = (0.5 * (low + high)) @ W + b, (0.5 * (high - low)) @ size
            low, high = middle - half, middle + half
        return low, high

    def rises(self, z: Array, half: float) -> tuple[Array, RisesOf]:
        """By how much log p_θ(x, z) may rise within the cubes of half side `half` around z (M, L).

        Returns the outputs at z (M, D), and a function of x (n, D) and a floor (n,), which says how low a log
        density no longer matters. It gives the rises (n, M), valid wherever they lead above the floor; and steep
        (1 or n, M) and factor (n, 1), whose product bounds the rise of log p(x|z) in proportion for smaller cubes
        too.
        """
        outputs, moves, slope, spread = self.variation(z, half)
        prior = self.log_prior(np.maximum(np.abs(z) - half, 0.0))
        of_prior = prior - self.log_prior(z)
        if self.model.likelihood == "bernoulli":  # concave in the logits l, with gradient x − σ(l)
            # Σ m |x − σ|, m being how far a logit moves, is for bits x the same as Σ m σ + x·m (1 − 2σ). The part
            # of the Jacobian that is known keeps its sign: Σ over the axes of |(x − σ)·slope|.
            p = ops.sigmoid(outputs)
            sums = [(m * p).sum(axis=1) for m in (moves, half * spread.sum(axis=0))]
            products = [(m * (1 - 2 * p)).T for m in (moves, half * spread.sum(axis=0))]

            def bernoulli(x: Array, floor: Array) -> tuple[Array, Array, Array]:
                rise, steepest = (x @ product + total for product, total in zip(products, sums))
                for along in slope:
                    steepest += half * np.abs(x @ along.T - np.einsum("md,md->m", p, along))
                return np.minimum(rise, steepest) + of_prior, steepest, np.ones((len(x), 1))

            return outputs, bernoulli
        scale, D = self._inverse_std, outputs.shape[1]
        parts = np.stack([moves, half * np.abs(slope).sum(axis=0), half * spread.sum(axis=0)]) * scale
        far, of_slope, of_spread = np.sqrt(np.einsum("kmd,kmd->km", parts, parts))  # lengths, in noise stds
        steep, room = of_slope + of_spread, self._highest + prior.max()

        def gaussian(x: Array, floor: Array) -> tuple[Array, Array, Array]:
            # −½ d², with d the distance of x from the mean in noise stds. A cube matters if d can shrink by how
            # `far` m the mean moves to some s with −½ s² + log p(z) + the peak of p(x|z) >= floor; it then rises by
            # ½ (s + m)² − ½ s².
            s = np.sqrt(2 * np.maximum(room - floor, 0.0))[:, None]
            if self.latent_dim == 1 and D <= MANY:
                return s * far + (0.5 * far**2 + of_prior), steep[None], s + 1
            # It is concave in the mean, with gradient r = (x − mean)/σ in noise stds: what is known of the Jacobian
            # keeps its sign, Σ over the axes of |r·slope|; only the spread meets the length of r.
            a, b = x * scale, outputs * scale
            squares = (a * a).sum(axis=1)[:, None] - 2 * a @ b.T + (b * b).sum(axis=1)
            signed = np.sqrt(np.maximum(squares, 0) + 1e-6) * of_spread
            for along in half * slope * scale:
                signed += np.abs(a @ along.T - np.einsum("md,md->m", b, along))
            steepest = np.minimum((s + 1) * steep, signed + far * steep)
            return np.minimum(s * far + 0.5 * far**2, signed) + of_prior, steepest, np.ones_like(s)

        return outputs, gaussian


def _beyond_first_layer(W: Array, b: Array, reach: float) -> tuple[Array, Array]:
    """Between what a first layer's sums lie where |z| >= reach: (K, width) each, for K half-lines or sectors.

    With z = r u, |u| = 1, they are r (W·u) + b; 1e200 stands for infinity.
    """
    far = 1e200
    if len(W) == 1:
        least = most = np.concatenate([W, -W])
    else:  # W·u = |W| cos(the angle between them), over sectors of that angle
        edges = np.linspace(0, 2 * np.pi, SECTORS + 1)[:, None] - np.arctan2(W[1], W[0])
        ends, turns = np.cos(edges), edges / (2 * np.pi)
        length, peaks, troughs = np.hypot(*W), np.floor(turns), np.floor(turns - 0.5)
        most = length * np.where(peaks[1:] > peaks[:-1], 1.0, np.maximum(ends[1:], ends[:-1]))
        least = length * np.where(troughs[1:] > troughs[:-1], -1.0, np.minimum(ends[1:], ends[:-1]))
    return b + np.where(least < 0, -far, reach * least), b + np.where(most > 0, far, reach * most)
