"""The terms over a plane in parameter space: one direction in θ across, one in φ up.

At (a, b) the parameters are θ + a·d_θ and φ + b·d_φ. A Target is made once for each a and a q once for each
b, which is the essay again: log_px depends on a alone, kl_prior on b alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import Array
from ..model import VAE
from .target import Target
from .terms import TERMS
from .under_q import terms_under


@dataclass(frozen=True)
class Landscape:
    """Mean terms in nats: terms[name][i, j] belongs to b[i], a[j]; rows not yet computed are NaN."""

    a: Array  # (G,)
    b: Array  # (G,)
    terms: dict[str, Array]  # each (G, G)
    error: Array  # the largest error of any term of any data point, (G, G), nats
    checked: Array  # the share of the data points that are, (G, G)
    certified: Array


def landscape(
    model: VAE,
    theta: Array,
    phi: Array,
    theta_direction: Array,
    phi_direction: Array,
    x: Array,
    reach: float = 1.0,
    size: int = 17,
    tolerance: float = 1e-4,
) -> Iterator[Landscape]:
    """Compute the terms at size × size points with a, b in [−reach, reach]; yields after every column of a.

    theta_direction (P_θ,) and phi_direction (P_φ,) give the unit of each axis. A picture needs no 1e-9: the
    tolerance is in nats, as everywhere.
    """
    a = b = np.linspace(-reach, reach, size)
    terms = {name: np.full((size, size), np.nan) for name in TERMS}
    error, checked, certified = np.full((3, size, size), np.nan)
    qs: list[Any] = [model.encode(phi + up * phi_direction, x) for up in b]
    for j, across in enumerate(a):
        target = Target(model, theta + across * theta_direction, x, tolerance)
        for i, q in enumerate(qs):
            mean = terms_under(q, target).mean()
            for name in TERMS:
                terms[name][i, j] = getattr(mean, name)
            error[i, j], checked[i, j], certified[i, j] = mean.error, mean.checked, mean.certified
        yield Landscape(a, b, terms, error, checked, certified)
