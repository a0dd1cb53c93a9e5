"""Densities that give no bounds: functions from anywhere, looked at where a cell is, and summed on its nodes.

Their logarithm does not hide: a peak that is narrow beside a cell is invisible in the density between three looks at
it, but the logarithm slopes steeply up towards it. So what a cell may hold is taken to be as far above the largest of
the looks as that is above the smallest. That is no proof: what is computed so is checked, and never certified.
"""

import math
from collections.abc import Callable

import numpy as np

from ..checks import Array, Ints
from .decoder import EPS, Nodes, lattice, offsets
from .joint import Callables, Joint
from .support import Found, log_sum

BLOCK = 2**20  # numbers in one call of a function that is not ours


def to_support(t: Array, support: tuple[float, float]) -> tuple[Array, Array]:
    """z(t) (M, L) and log |dz/dt| (M,) for values t (M, L) of a lattice.

    On all of R, z = t. On an interval the double-exponential map z = lo + (hi − lo) σ(π sinh t), σ the logistic
    function, makes any integrand decay at both ends (Takahasi & Mori 1974). The ends themselves, where a density may
    be infinite, are left out.
    """
    lo, hi = support
    if math.isinf(lo):
        return t, np.zeros(len(t))
    u = np.pi * np.sinh(np.clip(t, -300, 300))
    log_slope = (
        np.log((hi - lo) * np.pi) + np.logaddexp(t, -t) - np.log(2) - np.logaddexp(0, u) - np.logaddexp(0, -u)
    )
    z = lo + (hi - lo) * np.exp(-np.logaddexp(0, -u))
    inside = max(lo + 1e-300, np.nextafter(lo, hi)), min(hi - 1e-300, np.nextafter(hi, lo))
    return np.clip(z, *inside), log_slope.sum(axis=-1)


class Sampled:
    """A density for each of n data points over t ∈ Rᴸ, given by its logarithm only: log_density(rows, t) (n, M)."""

    proven = False

    def __init__(self, dim: int, support: tuple[float, float], log_density: Callable[[Ints, Array], Array]):
        self.dim, self.support, self._log_density, self.reach = dim, support, log_density, 0.0

    def look(self, rows: Ints, index: Ints, side: float) -> tuple[Array, Array, Array]:
        """log of what the density holds in cells, hardly more and about, and its precision, (n, C) each."""
        L, off = self.dim, offsets(self.dim, np.array([-1 / 3, 0, 1 / 3]) * side)
        t = (((index + 0.5) * side)[:, None] + off).reshape(-1, L)
        log_f = self._log_density(rows, t).reshape(len(rows), len(index), -1)
        finite = np.isfinite(log_f)
        most = log_f.max(axis=2)
        least = np.where(finite, log_f, np.inf).min(axis=2)
        slope = np.where(np.isfinite(most), most - least, 0.0)
        precision, middle = np.zeros_like(most), 3**L // 2
        for step in (1, 3)[:L]:  # of a parabola through three looks along each axis
            bend = 2 * log_f[:, :, middle] - log_f[:, :, middle - step] - log_f[:, :, middle + step]
            precision = np.fmax(precision, bend * (3 / side) ** 2)
        log_volume = np.minimum(L * np.log(side), L * np.log(2.5) - 0.5 * L * np.log(precision))
        estimate = log_sum(log_f) - L * np.log(3.0) + L * np.log(side)
        # What is flat over a cell may be wide, but more cannot be known from here.
        return (
            most + slope + L * np.log(side),
            np.minimum(estimate, most + log_volume),
            np.fmax(precision, (0.3 / side) ** 2),
        )

    def beyond(self, reach: float, found: Found) -> Array:
        """Nothing, unless there is some at the border of the search."""
        self.reach = max(self.reach, reach)
        edge = round(reach / found.side)
        at_border = ((found.index == -edge) | (found.index == edge - 1)).any(axis=1)
        return np.where(found.active[:, at_border].any(axis=1), np.inf, -np.inf)


class SampledJoint(Sampled):
    """p(x, z) of the data points x (N, D) under any Joint."""

    def __init__(self, joint: Joint, x: Array):
        super().__init__(joint.latent_dim, joint.support, lambda rows, t: self._of(rows, self._at(t)))
        self.joint, self.x = joint, x
        self.unit = max(EPS, joint.unit_roundoff(x)) if isinstance(joint, Callables) else EPS

    def finer(self, n: int) -> int:
        """The nodes along a cell of the lattice that is held against one with n: errors may be a power of n."""
        return 2 * n

    def nodes(self, side: float, n: int, index: Ints, keep: bool = False) -> Nodes:
        """The nodes of the cells `index` (C, L), mapped into the support; log_prior is that of t."""
        return self._at(lattice(side, n, index))

    def _at(self, t: Array) -> Nodes:
        z, log_slope = to_support(t, self.support)
        return Nodes(z, self.joint.log_prior(z) + log_slope, self.joint.outputs(z))

    def _of(self, rows: Ints, nodes: Nodes) -> Array:
        return self.log_likelihood(rows, nodes) + nodes.log_prior

    def log_likelihood(self, rows: Ints, nodes: Nodes) -> Array:
        """log p(x|z) at nodes, (n, M)."""
        table = np.empty((len(rows), len(nodes.z)))
        many = max(1, BLOCK // (table.shape[1] * max(self.x.shape[1], nodes.outputs.shape[1])))
        for k in range(0, len(rows), many):
            table[k : k + many] = self.joint.log_likelihood(self.x[rows[k : k + many], None], nodes.outputs)
        return table

    def log_joint(self, rows: Ints, nodes: Nodes, log_p: Array) -> Array:
        """log p(x, z) − log_p, (n, M)."""
        return self._of(rows, nodes) - log_p[:, None]

    def under(self, rows: Ints, nodes: Nodes, weight: Array) -> tuple[Array, Array]:
        """Σ weight · log p(x|z) over the nodes, weight (n, M), and about its rounding, (n,) each."""
        terms = np.where(weight > 0, weight * np.maximum(self.log_likelihood(rows, nodes), -1e100), 0.0)
        sums = terms.sum(axis=1)
        return sums, self._rounding(sums, nodes, weight)

    def rounding(self, rows: Ints, nodes: Nodes, log_p: Array, f: Array) -> Array:
        """About how large rounding may be in log p(x), (n,), f (n, M) being p(x, z) at the nodes."""
        return self._rounding(log_p, nodes, f / f.sum(axis=1)[:, None])

    def _rounding(self, size: Array, nodes: Nodes, weight: Array) -> Array:
        """Numbers near 1 are 1e-16 apart: a density like (1 − z)^(−½) has 1e-8 of its mass where they cannot tell."""
        found = 8 * self.unit * (1 + np.abs(size))
        if math.isinf(self.support[0]):
            return found
        lo, hi = self.support
        way = np.minimum(nodes.z - lo, hi - nodes.z)
        doubt = (EPS * np.abs(nodes.z) / way * (1 - np.log(way / (hi - lo)))).sum(axis=-1)
        doubt += (way < 1e-260 * (hi - lo)).any(axis=-1)  # and more may lie where there are no numbers
        part = weight @ doubt
        return np.where(part < 1e-6, found + part * (1 + np.abs(size)), np.inf)
