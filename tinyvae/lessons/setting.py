"""Where lessons begin: data, runs and first weights that several of them share."""

from typing import Any

import numpy as np

from ..checks import Array
from ..datasets import load_dataset
from ..exact import MeanTerms
from ..model import VAE
from ..records import StepRecord
from ..runs import Config, Run
from ..settings import Update
from .linear import Exact, Linear
from .truth import as_linear

# As recommended for arc, with fewer points and a smaller net: every step is evaluated.
ARC = Config(dataset="arc", n=64, hidden=(16,))
# A linear VAE loses no posterior to a noise that is born at 1 (its ELBO has no poor maxima: Lucas et al. 2019), and
# from there it reaches the end soonest: a noise that is born small makes the first gradients large.
LINEAR_NOISE_INIT = 1.0
LINEAR = Config(
    dataset="linear",
    n=32,
    hidden=(),
    covariance="full",
    noise="per-dimension",
    noise_init=LINEAR_NOISE_INIT,
    learning_rate=1e-2,
)
THETA_ONLY, PHI_ONLY, BOTH = Update(phi=False), Update(theta=False), Update()
BIT = "the same to the last bit"


def level_scale(run: Run) -> None:
    """Let the encoder begin with one scale for all x; what it is born with spans factors of a hundred."""
    parts = run.model.unpack_phi(run.trainer.phi)
    parts.layers[-1][0][:, run.model.latent_dim :] = 0.0


def at_truth(run: Run) -> None:
    """Put θ where the data came from (the linear set has a θ that is the truth)."""
    truth = as_linear(run.data.truth) if run.data.truth else None
    if truth is None:
        raise ValueError(f"at_truth: expected a linear truth, {run.data.name} has none")
    truth.put_into(run.model, run.trainer.theta)
    level_scale(run)


def steps(run: Run, n: int, update: Update) -> list[StepRecord]:
    run.trainer.update = update
    return list(run.trainer.steps(n))


def train_and_record(run: Run, n: int, update: Update) -> list[MeanTerms]:
    """Train n steps and return the terms before and at every evaluated step."""
    first = run.trainer.evaluate().terms
    return [first] + [record.terms for record in steps(run, n, update) if record.terms]


def column(terms: list[MeanTerms], name: str) -> Any:
    return np.array([getattr(t, name) for t in terms])


def exact_run(covariance: str, noise: str, x: Array, seed: int) -> Exact:
    """A linear VAE of z ∈ R² at its first weights, one scale for all x, to be trained without noise."""
    model = VAE(x.shape[1], 2, (), "gaussian", covariance, noise, noise_init=LINEAR_NOISE_INIT)  # type: ignore[arg-type]
    theta, phi = model.init(seed)
    model.unpack_phi(phi).layers[-1][0][:, model.latent_dim :] = 0.0
    return Exact(model, x, theta, phi)


def linear_truth() -> Linear:
    truth = load_dataset("linear", n=2).truth
    linear = as_linear(truth) if truth else None
    assert linear is not None
    return linear


def seeds(seed: int, n: int) -> range:
    """The seeds of the n runs that one measurement averages over."""
    return range(n * seed, n * (seed + 1))
