"""p_θ(x, z) of a VAE at one θ, in the form that the exact terms need: values, products, and bounds.

The values and the products say what log p_θ(x, z) is at the nodes of a lattice; the bounds, by interval arithmetic
on the decoder, say how high it can rise between the nodes and beyond them, so that no mass is missed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import networks, ops

Array = NDArray[np.floating]

AT_ONCE = 512  # nodes that the decoder and its bounds take at once: what a processor's cache holds
MANY = 32  # outputs from which on a sharper bound is worth its cost on a line, where nodes are cheap
SECTORS = 64  # into which all directions on a plane are divided


@dataclass(frozen=True)
class VAEJoint:
    """p_θ(x, z) of a VAE at one θ, in the form that the exact terms need (see target.Joint)."""

    model: Any  # the VAE
    theta: Array
    support: tuple[float, float] = (-np.inf, np.inf)

    @property
    def latent_dim(self) -> int:
        return self.model.latent_dim

    def log_prior(self, z: Array) -> Array:
        """log N(z; 0, I); z (M, L) -> (M,)."""
        return -0.5 * np.einsum("...l,...l->...", z, z) - 0.5 * ops.LOG_2PI * z.shape[-1]

    def outputs(self, z: Array) -> Array:
        """The decoder at z; (M, L) -> (M, D)."""
        if len(z) > AT_ONCE:
            return np.concatenate([self.outputs(z[k : k + AT_ONCE]) for k in range(0, len(z), AT_ONCE)])
        out, matrices = z, networks.matrices(self.theta[: self.model.decoder_size], self.model.decoder_sizes)
        for k, M in enumerate(matrices):
            out = np.tanh(out, out=out) if k else out
            out = out @ M[:-1]
            out += M[-1]
        return out

    def log_likelihood(self, x: Array, outputs: Array) -> Array:
        """log p_θ(x|z) given the decoder's output at z; leading axes broadcast."""
        if self.model.likelihood == "bernoulli":
            return ops.bernoulli_log_likelihood(x, outputs)
        return ops.gaussian_log_likelihood(x, outputs, self.model.log_noise_std(self.theta))

    # log p(x|z) of a data point at a node as an inner product left·right, left (D + 2) of the data point and
    # right (D + 2) of the node. Bernoulli: x·l − Σ softplus(l). Gaussian: with a = (x − c)/σ and b = (mean − c)/σ,
    # −½|a − b|² is a·b − ½|a|² − ½|b|²; c, the mean at one node of a tile, keeps the squares small, so that little
    # cancels.

    def node_factors(self, outputs: Array) -> tuple[Array, Array]:
        """For outputs (K, T, D) at the nodes of tiles: c (K, D), right (K, T, D + 2)."""
        centre: Array
        right = np.ones((*outputs.shape[:2], outputs.shape[2] + 2))
        if self.model.likelihood == "bernoulli":
            centre, right[..., 2:] = np.zeros((len(outputs), outputs.shape[2])), outputs
            right[..., 0] = -ops.softplus(outputs).sum(axis=-1)
        else:
            centre = outputs[:, outputs.shape[1] // 2]
            b = (outputs - centre[:, None]) * np.exp(-self.model.log_noise_std(self.theta))
            right[..., 2:], right[..., 0] = b, -0.5 * np.einsum("ktd,ktd->kt", b, b)
        return centre, right

    def data_factors(self, x: Array, centre: Array) -> Array:
        """For data points x (P, D) on tiles whose c is centre (P, D): left (P, D + 2)."""
        left = np.ones((len(x), x.shape[1] + 2))
        if self.model.likelihood == "bernoulli":
            left[:, 2:], left[:, 1] = x, 0.0
        else:
            log_std = self.model.log_noise_std(self.theta)
            a = (x - centre) * np.exp(-log_std)
            constant = log_std.sum() * (x.shape[1] // len(log_std)) + 0.5 * x.shape[1] * ops.LOG_2PI
            left[:, 2:], left[:, 1] = a, -0.5 * np.einsum("pd,pd->p", a, a) - constant
        return left

    def variation(self, z: Array, half: float) -> tuple[Array, Array, Array]:
        """How far the outputs can move within the cubes of half side `half` around z (M, L).

        Interval arithmetic. The Jacobian of the layers so far lies in slope ± spread (L, M, width), because
        tanh' = 1 − tanh² lies between its values where |tanh| is largest and smallest in the cube; by the mean
        value theorem an output moves by at most |∂f/∂z| summed over the axes, times half. Returned are a bound
        on the moves (M, D), which is sharper than that where units saturate, and slope and spread, (L, M, D).
        """
        if len(z) > AT_ONCE:
            parts = [self.variation(z[k : k + AT_ONCE], half) for k in range(0, len(z), AT_ONCE)]
            moves, slopes, spreads = zip(*parts)
            return np.concatenate(moves), np.concatenate(slopes, axis=1), np.concatenate(spreads, axis=1)
        first, *rest = networks.matrices(self.theta[: self.model.decoder_size], self.model.decoder_sizes)
        value, moves = z @ first[:-1] + first[-1], half * np.abs(first[:-1]).sum(axis=0)
        slope, spread = first[:-1, None, :], np.zeros((1, 1, 1))
        for M in rest:
            W, size = M[:-1], np.abs(M[:-1])
            low, unit, high = np.tanh(value - moves), np.tanh(value), np.tanh(value + moves)
            ends = low * low, high * high
            most = 1 - np.where(low * high <= 0, 0.0, np.minimum(*ends))
            least = 1 - np.maximum(*ends)
            spread = np.abs(slope) * (0.5 * (most - least)) + spread * most
            slope, spread = (slope * (0.5 * (most + least))) @ W, spread @ size
            steepest = half * (np.abs(slope) + spread).sum(axis=0)
            value, moves = unit @ W + M[-1], np.minimum(np.maximum(high - unit, unit - low) @ size, steepest)
        along_axes = (z.shape[1], *value.shape)
        slope, spread = np.broadcast_to(slope, along_axes), np.broadcast_to(spread, along_axes)
        return np.broadcast_to(moves, value.shape), slope, spread

    def beyond(self, reach: float) -> Callable[[Array], Array]:
        """What log p_θ(x, z) cannot exceed where some |z_i| > reach: a function of x (n, D) -> (n,).

        Interval arithmetic over half-lines or, on a plane, over sectors |z| >= reach: in most directions most units
        are saturated. A linear decoder has a single mode: what lies beyond falls off, and needs no bound.
        """
        first, *rest = networks.matrices(self.theta[: self.model.decoder_size], self.model.decoder_sizes)
        if not rest:
            return lambda x: np.full(len(x), -np.inf)
        low, high = _beyond_first_layer(first, reach)
        for M in rest:
            low, high = np.tanh(low), np.tanh(high)
            rising, falling = np.maximum(M[:-1], 0), np.minimum(M[:-1], 0)
            low, high = low @ rising + high @ falling + M[-1], high @ rising + low @ falling + M[-1]
        log_prior = -0.5 * reach**2 - 0.5 * ops.LOG_2PI * self.latent_dim

        def bound(x: Array) -> Array:
            at = x[:, None]
            if self.model.likelihood == "bernoulli":
                ends = [self.log_likelihood(at[..., None], end[..., None]) for end in (low, high)]
                log_likelihood = np.maximum(*ends).sum(axis=-1)  # bits: the best logit is at one of the ends
            else:
                log_likelihood = self.log_likelihood(at, np.clip(at, low, high))
            return np.asarray(log_likelihood.max(axis=1) + log_prior)

        return bound

    def rises(
        self, z: Array, half: float, outputs: Array
    ) -> Callable[[Array, Array], tuple[Array, Array, Array]]:
        """By how much log p_θ(x, z) may rise within the cubes around z (M, L), given `outputs` there (M, D).

        Returns a function of x (n, D) and a floor (n,), which says how low a log density no longer matters. It
        gives the rises (n, M), valid wherever they lead above the floor; and steep (1 or n, M) and factor (n, 1),
        whose product bounds the rise of log p(x|z) in proportion for smaller cubes too.
        """
        moves, slope, spread = self.variation(z, half)
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

            return bernoulli
        log_std = self.model.log_noise_std(self.theta)
        scale = np.exp(-log_std)
        of_spread = half * spread.sum(axis=0)
        moves, known, spread_ = (
            np.sqrt(((m * scale) ** 2).sum(axis=1))
            for m in (moves, half * np.abs(slope).sum(axis=0), of_spread)
        )
        steep = known + spread_
        top = -np.broadcast_to(log_std, outputs.shape[1]).sum() - 0.5 * outputs.shape[1] * ops.LOG_2PI
        b, along = outputs * scale, half * slope * scale  # (M, D), (L, M, D)

        def gaussian(x: Array, floor: Array) -> tuple[Array, Array, Array]:
            # −½ d², with d the distance of x from the mean in noise stds. A cube matters if d can shrink by its
            # `moves` m to some s with −½ s² + top + log p(z) >= floor; it then rises by ½ (s + m)² − ½ s².
            s = np.sqrt(2 * np.maximum(top + prior.max() - floor, 0.0))[:, None]
            rise, factor = s * moves + 0.5 * moves**2, s + 1
            if self.latent_dim == 1 and outputs.shape[1] <= MANY:
                return rise + of_prior, steep[None], factor
            # It is concave in the mean, with gradient r = (x − mean)/σ in noise stds: what is known of the Jacobian
            # keeps its sign, Σ over the axes of |r·slope|; only the spread meets the length of r.
            a = x * scale
            length = np.sqrt(
                np.maximum((a * a).sum(axis=1)[:, None] - 2 * a @ b.T + (b * b).sum(axis=1), 0) + 1e-6
            )
            signed = length * spread_
            for B in along:
                signed += np.abs(a @ B.T - np.einsum("md,md->m", b, B))
            steepest = np.minimum(factor * steep, signed + moves * steep)
            return np.minimum(rise, signed) + of_prior, steepest, np.ones_like(factor)

        return gaussian


def _beyond_first_layer(M: Array, reach: float) -> tuple[Array, Array]:
    """Between what a first layer's sums lie where |z| >= reach: (K, width) each, for K half-lines or sectors.

    With z = r u, |u| = 1, they are r (W·u) + b; 1e200 stands for infinity.
    """
    W, b, far = M[:-1], M[-1], 1e200
    if len(W) == 1:
        least = most = np.concatenate([W, -W])
    else:  # W·u = |W| cos(the angle between them), over sectors of that angle
        edges = np.linspace(0, 2 * np.pi, SECTORS + 1)[:, None] - np.arctan2(W[1], W[0])
        ends, turns = np.cos(edges), edges / (2 * np.pi)
        length, peaks, troughs = np.hypot(*W), np.floor(turns), np.floor(turns - 0.5)
        most = length * np.where(peaks[1:] > peaks[:-1], 1.0, np.maximum(ends[1:], ends[:-1]))
        least = length * np.where(troughs[1:] > troughs[:-1], -1.0, np.minimum(ends[1:], ends[:-1]))
    return b + np.where(least < 0, -far, reach * least), b + np.where(most > 0, far, reach * most)
