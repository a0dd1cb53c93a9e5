"""Recommended settings: with them each built-in set is learned within 4,000 steps. Used wherever nothing is said.

A Gaussian decoder that is born with a noise std of 1 beside data of scale 1 and true noise 0.1 loses its posterior
before it learns anything (Lucas et al. 2019, "Don't blame the ELBO!"; Rybkin et al. 2021, sigma-VAE); so the noise is
born small. How far from the truth each set ends, over ten seeds, is measured by tests/benchmarks/learning.py.
"""

from dataclasses import dataclass

import numpy as np

from .checks import Array
from .model import NOISE_INIT


@dataclass(frozen=True)
class Recommended:
    """Settings that suit one set of data."""

    n: int | None = 256  # data points; None: all that a file has
    hidden: tuple[int, ...] = (32, 32)
    covariance: str = "diagonal"
    learning_rate: float = 1e-2
    batch_size: int = 256
    samples: int = 1
    noise_init: float = NOISE_INIT  # where a Gaussian noise is learned
    look_at: tuple[float, ...] | None = None  # the app opens on the data point nearest to this one


RECOMMENDED = {
    "arc": Recommended(learning_rate=3e-3, batch_size=64, noise_init=0.2),
    # The look is at the crossing itself, where the posterior has two modes.
    "crossing": Recommended(hidden=(32, 32, 32), samples=2, noise_init=0.1, look_at=(0.0, 0.0)),
    "pinwheel": Recommended(n=1024, covariance="full", batch_size=512, noise_init=0.1),
    "linear": Recommended(n=1000, noise_init=0.2),
    "linear-test": Recommended(n=1000, noise_init=0.2),
    "bars": Recommended(n=4096),
}


def for_file(x: Array) -> Recommended:
    """For a person's own data x (N, D): a Gaussian's noise is born at a part of their spread."""
    largest = float(np.abs(x).max()) or 1.0  # so that no square overflows
    spread = largest * float(np.sqrt((x / largest).var(axis=0).mean())) or 1.0
    return Recommended(
        n=None, learning_rate=3e-3, batch_size=64, noise_init=float(f"{NOISE_INIT * spread:.3g}")
    )


def of_v1(name: str) -> Recommended:
    """What `v1:` lines of text took for granted, whatever is recommended today."""
    n = (1000 if name.startswith("linear") else 256) if name in RECOMMENDED else None
    return Recommended(n, (32, 32), "diagonal", 3e-3, 64, 1, 1.0)
