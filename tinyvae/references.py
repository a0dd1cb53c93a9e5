"""What log p_θ(x) is measured against: the truth's, where it is known, and a model without a latent number."""

from dataclasses import dataclass

import numpy as np

from .checks import Array
from .datasets import Dataset
from .exact import Target
from .ops import LOG_2PI

TOLERANCE = 1e-4  # nats: a line on a chart needs no more


@dataclass(frozen=True)
class Reference:
    """A mean log p(x) over the evaluated points, nats, with its error; named for a legend or a table."""

    name: str
    log_px: float
    error: float


def references(data: Dataset, x: Array) -> list[Reference]:
    """What to hold the log p_θ(x) of the points x (N, D) of `data` against, the best first.

    The truth's log p(x) is an integral as the model's is; on `bars` it takes about a second. The other is the
    log density of one Gaussian, or the log probability of independent bits, fitted to all of the data by maximum
    likelihood; there is none where the data lie in fewer dimensions than they have.
    """
    found = []
    if data.truth is not None:
        target = Target(data.truth, None, x, TOLERANCE)
        found.append(Reference("the truth", float(target.log_px.mean()), float(target.error.max())))
    if data.likelihood == "bernoulli":
        found.append(Reference("independent bits", independent_bits(data.x, x), 0.0))
    elif (log_px := one_gaussian(data.x, x)) is not None:
        found.append(Reference("one Gaussian", log_px, 0.0))
    return found


def one_gaussian(data: Array, x: Array) -> float | None:
    """Mean log N(x; m, S) over x (N, D), with the mean m and the covariance S (by 1/M) of data (M, D); nats."""
    mean = data.mean(axis=0)
    scale = np.abs(data - mean).max(axis=0)  # in these units nothing overflows, and columns compare
    if not (scale > 0).all():
        return None
    centred, residual = (data - mean) / scale, (x - mean) / scale
    cov = centred.T @ centred / len(data)
    if np.linalg.cond(cov) > 1e12:
        return None
    squares = np.einsum("ni,ni->n", residual, np.linalg.solve(cov, residual.T).T)
    log_det = np.linalg.slogdet(cov)[1] + 2 * np.log(scale).sum()
    return float(-0.5 * (squares.mean() + log_det + x.shape[1] * LOG_2PI))


def independent_bits(data: Array, x: Array) -> float:
    """Mean log probability of bits x (N, D) that are 1 as often as they are in data (M, D); nats."""
    p = data.mean(axis=0)
    with np.errstate(divide="ignore"):
        log_p, log_not = np.log(p), np.log1p(-p)
    return float(np.where(x == 1, log_p, log_not).sum(axis=1).mean())
