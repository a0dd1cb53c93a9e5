"""What the panels show: a run at one step, with the densities over z; and the units in which terms are written."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyvae import Target
from tinyvae.datasets import Dataset
from tinyvae.evaluation import Evaluation
from tinyvae.model import VAE

from .terms import ELBO, TURNED, Quantity

Array = NDArray[Any]

GRID = {1: 240, 2: 56}  # values of z along each axis at which the latent panel draws a density
DRAWS = 256
FARTHEST = 12.0  # that the latent panel ever shows


@dataclass(frozen=True)
class Units:
    """How the terms are written: in nats or bits, per data point or summed over the data, ELBO or loss."""

    bits: bool = False
    total: int = 0  # how many data points to sum over; 0 is the mean
    loss: bool = False

    @property
    def factor(self) -> float:
        return (1 / float(np.log(2)) if self.bits else 1.0) * (self.total or 1)

    def factor_of(self, what: Quantity) -> float:
        """What values of this quantity are to be multiplied by."""
        return -self.factor if self.loss and what.key in TURNED else self.factor

    def name_of(self, what: Quantity, name: str) -> str:
        """Its name (or symbol) in these units: with a minus sign, or that of the loss."""
        if not (self.loss and what.key in TURNED):
            return name
        return "loss" if what is ELBO else f"−{name}"

    @property
    def unit(self) -> str:
        return ("bits" if self.bits else "nats") + (", sum" if self.total else " per")

    @property
    def of(self) -> str:
        return f"of {self.total} points" if self.total else "data point"


@dataclass(frozen=True)
class View:
    """The run at one step: everything that the panels show."""

    step: int
    row: dict[str, Any]
    evaluation: Evaluation
    model: VAE
    selected: int
    truth: Target | None = None  # the true posteriors, for z ∈ R¹
    meter: Any = None  # measures KL(q ‖ true posterior), in lessons

    @cached_property
    def true_kl(self) -> float | None:
        """Mean KL of q to the true posterior, nats, as it is best aligned; None where nobody asks."""
        return None if self.meter is None else float(self.meter.kl(self.evaluation.q))

    @property
    def x(self) -> Array:
        """The selected data point, (D,)."""
        return np.asarray(self.evaluation.target.x[self.selected])

    def named(self, data: Dataset) -> str:
        """The selected x and its reconstruction, each column by its name and in the units of the file."""
        pairs = data.original(np.stack([self.x, self.reconstruction])).T
        return " · ".join(f"{name} {x:.4g} + {again:.4g}" for name, (x, again) in zip(data.columns, pairs))

    @cached_property
    def where(self) -> Array:
        """From where to where q and the posterior of the selected x are, (L, 2): means ± 4 standard deviations."""
        target, q, n = self.evaluation.target, self.evaluation.q, self.selected
        means = np.stack([target.posterior_mean[n], q.mean[n]])
        stds = np.sqrt([np.diag(target.posterior_cov[n]), np.diag(q.cov[n])])
        ends = np.stack([(means - 4 * stds).min(axis=0), (means + 4 * stds).max(axis=0)], axis=1)
        return np.asarray(ends.clip(-FARTHEST, FARTHEST))

    def latent(self, ends: Array) -> "Latent":
        """Prior, q and posterior of the selected x on a grid of z from `ends[:, 0]` to `ends[:, 1]`."""
        target, q, L = self.evaluation.target, self.evaluation.q, self.model.latent_dim
        pick, ticks = [self.selected], [np.linspace(low, high, GRID[L]) for low, high in ends]
        z = np.stack(np.meshgrid(*ticks), axis=-1).reshape(-1, L)
        shape = (GRID[L],) * L
        return Latent(
            ends,
            ticks[0],
            np.exp(target.joint.log_prior(z)).reshape(shape),
            np.exp(q[pick].log_prob(z[:, None]))[:, 0].reshape(shape),
            target.posterior_density(z, pick)[0].reshape(shape),
            self._true_posterior(ticks[0]),
        )

    def aggregate(self, ticks: Array) -> Array:
        """The mean of all q(z|x) at values of z ∈ R¹, (G,)."""
        q = self.evaluation.q
        return np.asarray(np.exp(q.log_prob(ticks[:, None, None])).mean(axis=1))

    def _true_posterior(self, ticks: Array) -> Array | None:
        """p(z|x) of the truth on the grid, turned to the side on which the model has its posteriors.

        No data can tell z from −z: the model may have learned either.
        """
        if self.truth is None:
            return None
        side = np.vdot(self.truth.posterior_mean, self.evaluation.target.posterior_mean)
        z = ticks if side >= 0 else -ticks
        return np.asarray(self.truth.posterior_density(z[:, None], [self.selected])[0])

    @cached_property
    def decoded(self) -> Array:
        """The decoder's mean along z: a curve for z ∈ R¹ (G, D), the lines of a net for z ∈ R² (K, G, D)."""
        ticks = np.linspace(-2.5, 2.5, 121)
        if self.model.latent_dim == 1:
            return self._mean_of(ticks[:, None])
        lines = []
        for fixed in np.linspace(-2, 2, 9):
            still = np.full_like(ticks, fixed)
            lines += [np.stack([ticks, still], 1), np.stack([still, ticks], 1)]
        return np.stack([self._mean_of(line) for line in lines])

    @cached_property
    def draws(self) -> Array:
        """x drawn from p_θ(x), (256, D): always of the same z and noise, so that what moves is the model."""
        rng, theta = np.random.default_rng(0), self.evaluation.theta
        mean = self._mean_of(rng.standard_normal((DRAWS, self.model.latent_dim)))
        if self.model.likelihood == "bernoulli":
            return np.asarray(rng.random(mean.shape) < mean, float)
        return np.asarray(mean + np.exp(self.model.log_noise_std(theta)) * rng.standard_normal(mean.shape))

    @cached_property
    def decoded_grid(self) -> Array:
        """The decoder's mean at 7 × 7 places z ∈ R², or 7 places of z ∈ R¹, (7, [7,] D); z₂ upwards."""
        ticks = np.linspace(-2.25, 2.25, 7)
        z = np.stack(np.meshgrid(*[ticks] * self.model.latent_dim), axis=-1)
        return self._mean_of(z.reshape(-1, self.model.latent_dim)).reshape(*z.shape[:-1], -1)

    @cached_property
    def reconstruction(self) -> Array:
        """The decoder's mean at the mean of q of the selected x, (D,)."""
        return np.asarray(self._mean_of(self.evaluation.q.mean[[self.selected]])[0])

    def _mean_of(self, z: Array) -> Array:
        out = np.asarray(self.model.decode(self.evaluation.theta, z))
        return 1 / (1 + np.exp(-out)) if self.model.likelihood == "bernoulli" else out


@dataclass(frozen=True)
class Latent:
    """Densities over a grid of z, (G,) or (G, G), within `ends` (L, 2); `ticks` are those of the first axis."""

    ends: Array
    ticks: Array
    prior: Array
    q: Array
    posterior: Array
    true_posterior: Array | None = None
