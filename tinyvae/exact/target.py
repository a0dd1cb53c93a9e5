"""All that θ owns: log p_θ(x) and the posterior p_θ(z|x), computed once per θ.

    log p_θ(x) = log ∫ p(z) p_θ(x|z) dz        p_θ(z|x) = p(z) p_θ(x|z) / p_θ(x)

φ has no say in here: a φ-step leaves the Target as it is, to the last bit. Every integral is a sum over nodes in the
cells where the mass is (`support.py`), n in each direction of a cell, and once more with n + 1: no node is in both.
What the two sums say together is *checked*; what a bound says of either (`proof.py`) is *certified*.
"""

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..checks import Array, Bools, data_points
from .decoder import EPS, Decoder, keep_freed_memory
from .joint import Callables, VAEJoint, joint_of
from .linear import LinearEvidence
from .proof import (
    TRIES,
    Faces,
    Strip,
    exp32,
    faces_of,
    lower,
    missed,
    regular_cells,
    spacing_for,
    strip_over,
    total,
)  # fmt: skip
from .sampled import SampledJoint
from .support import Found, in_places, search

TOLERANCE = {1: 1e-9, 2: 1e-6}  # nats, for z ∈ R¹ and z ∈ R²
INTEGRALS = 4  # each integral gets this part of the tolerance, so that the identity closes to all of it
SHARE = 1 / 64  # of the allowed error: so much may be left out, and as much may the sides of the cells hold
MOST_NODES, MOST_NUMBERS = 2**18, 2**23  # that one data point may use for one integral, and all together
MOST_FINER = 8  # times, before a sum is left as it is


class Part(NamedTuple):
    """Some data points on the nodes of the same cells: p(x, z) there in units of e^log_p, and its bounds."""

    found: Found
    n: int  # nodes of the coarser lattice in each direction of a cell
    fine: int  # and of the finer one
    f: Array  # p(x, z) at the nodes of the finer lattice, (n, M)
    mass: Array  # its integral by the finer lattice, (n,)
    other: Array  # and by the coarser one
    strips: list[Strip]  # one for each axis, or none: there is no proof
    sides: list[tuple[Faces, Array]]  # the faces over each axis, and what they weigh, (n, F)

    def of(self, some: Any) -> "Part":
        """The same for some of the data points; on cells that all of them used."""
        found = self.found._replace(
            **{k: getattr(self.found, k)[some] for k in ("rows", "active", "log_p", "std", "left_out")}
        )
        strips = [strip._replace(bounds=strip.bounds[some]) for strip in self.strips]
        sides = [(faces, weight[some]) for faces, weight in self.sides]
        return Part(found, self.n, self.fine, self.f[some], self.mass[some], self.other[some], strips, sides)

    @property
    def outside(self) -> Array:
        """What may lie outside of the cells, (n,)."""
        return np.exp(self.found.left_out - self.found.log_p)

    def missed(self, n: int, size: Any = None, at_sides: Any = None, far: Any = 1.0) -> Array:
        """By how much the sum of p(x, z) w(z) with n nodes in a cell may miss its integral, (n,).

        |w| is at most size[d] (n, C) on the cells over axis d, at_sides[d] (n, F) on the sides, far (n,) outside.
        """
        if not self.strips:
            return np.full(len(self.f), np.inf)
        error, h = self.outside * far, self.found.side / n
        for d, (strip, (_, weight)) in enumerate(zip(self.strips, self.sides)):
            bounds = strip.bounds if size is None else strip.bounds * size[d]
            weight = weight if at_sides is None else weight * at_sides[d]
            error = error + missed(strip.cells.a, h, total(bounds)) + weight.sum(axis=1)
        return np.where(np.isnan(error), np.inf, error)


class Target:
    """log p_θ(x) and p_θ(z|x) for the data points x (N, D) at one θ, and what is known of their errors.

    Attributes:
        log_px: nats, (N,).
        error: of log_px, (N,), nats: `tolerance` or less, unless the budget was spent; inf where nothing is known.
        certified: whether a proven bound says so, (N,) bool: nothing hides between the nodes or beyond them, up to
            rounding, of which the error has an estimate. `certify` says whether to try: None for a VAE with z ∈ R¹
            only, since on a plane it takes many times as long. A linear Gaussian one has a closed form.
        checked: whether lattices of different nodes agree to the tolerance, and the search saw no mass elsewhere;
            or certified, (N,) bool.

    Raises ValueError for x that is no data, and for a tolerance out of reach.
    """

    def __init__(
        self, model: Any, theta: Any, x: Any, tolerance: float | None = None, certify: bool | None = None
    ):
        keep_freed_memory()
        self.joint = joint_of(model, theta)
        self.x = data_points(x)
        self.tolerance = check_tolerance(tolerance, self.joint.latent_dim)
        N, self.each = len(self.x), self.tolerance / INTEGRALS
        self.linear = linear_evidence(self.joint, self.x)
        self.parts: list[Part] = []
        self.certified: Bools
        self.checked: Bools
        if self.linear is not None:
            self.log_px, self.error = self.linear.log_px, self.linear.error
            self.certified = self.checked = self.error <= self.tolerance
            self.log_norm, self.norm_error, self.proven_error, self.proving = (
                self.log_px,
                self.error,
                self.error,
                True,
            )
            return
        by_default = self.joint.latent_dim == 1
        self.proving = bool(self.source.proven and (by_default if certify is None else certify))
        self.log_px, self.log_norm = np.full((2, N), -np.inf)
        self.proven_error, self.norm_error, self.apart = np.full((3, N), np.inf)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            for found in search(self.source, N, float(np.log(SHARE * self.each))):
                self._solve(found, prove=self.proving)
        self.apart = np.where(np.isnan(self.apart), np.inf, self.apart)
        if type(self.joint) is Callables and not is_normalised(self.joint, self.tolerance):
            self.apart[:] = np.inf
        self.error = self.proven_error if self.proving else self.apart
        self.certified = self.proven_error <= self.tolerance
        self.checked = self.certified | (self.apart <= self.tolerance)

    @cached_property
    def source(self) -> Any:
        """log p(x, z) at nodes and on cells."""
        is_vae = isinstance(self.joint, VAEJoint)
        return Decoder(self.joint, self.x) if is_vae else SampledJoint(self.joint, self.x)

    def __len__(self) -> int:
        return len(self.x)

    # ----- the sums -----

    def _solve(self, found: Found, prove: bool) -> None:
        """Sum over the cells of what was found, with as many nodes as a bound or the other lattice asks for."""
        found = found.of(np.isfinite(found.log_p))
        if not len(found.rows):
            return
        n, most_n, strips = expected_nodes(found, self.each), most_nodes(found), list[Strip]()
        for attempt in range(MOST_FINER):
            if prove and (not strips or self.source.dim > 1):
                strips = self._strips(found, n)
                n = self._needed(found, n, strips)
            n, again = min(max(n, 2), most_n), [np.zeros(0, dtype=int)]
            for m in (n, self.source.finer(n)):
                self.source.nodes(found.side, m, found.index, keep=True)
            places = list(in_places(found.active, found.index, (n + 1) ** self.source.dim))
            founds = [found.of(k) for k in places]
            for k, one, sides in zip(places, founds, self._sides(founds, n, strips)):
                part = self._summed(one, n, [s._replace(bounds=s.bounds[k]) for s in strips], sides)
                enough = (self._take(part) <= self.each) | (n == most_n) | (attempt == MOST_FINER - 1)
                if enough.any():
                    self.parts.append(part.of(enough))
                again.append(k[~enough])
            if not len(left := np.sort(np.concatenate(again))):
                break
            n = finer(n, self.apart[found.rows[left]], self.each)
            found, strips = found.of(left), [s._replace(bounds=s.bounds[left]) for s in strips]

    def _strips(self, found: Found, n: int) -> list[Strip]:
        """The strip over each axis for n nodes in a cell; or none, where one of them has none."""
        strips, h = [], found.side / n if self.source.dim > 1 else None
        for axis in range(self.source.dim):
            strip = strip_over(self.source, found, axis, float(np.log(2 / self.each)) + 2, h)
            if strip is None:
                return []
            strips.append(strip)
        return strips

    def _needed(self, found: Found, n: int, strips: list[Strip]) -> int:
        """How many nodes in a cell the strips ask for; on a plane at least n, for which they are."""
        if not strips:
            return n
        allowed = self._allowed / len(strips)
        h = min(spacing_for(s.cells.a, 2 * total(s.bounds), allowed) for s in strips)
        if not h > 0:  # nothing is known
            return n
        needed = int(np.ceil(found.side / max(h, found.side / 2**20)))
        return max(needed, n) if len(strips) > 1 else needed

    @property
    def _allowed(self) -> float:
        return self.each * (1 - 4 * SHARE)

    def _summed(self, found: Found, n: int, strips: list[Strip], sides: list[tuple[Faces, Array]]) -> Part:
        masses = []
        for m in (n, self.source.finer(n)):
            nodes = self.source.nodes(found.side, m, found.index)
            f = self.source.log_joint(found.rows, nodes, found.log_p)
            np.exp(f, out=f)
            masses.append(f.sum(axis=1) * (found.side / m) ** self.source.dim)
        return Part(found, n, m, f, masses[1], masses[0], strips, sides)

    def _sides(self, founds: list[Found], n: int, strips: list[Strip]) -> list[list[tuple[Faces, Array]]]:
        """For each set of cells of one side its faces over each axis, and what they weigh."""
        sides: list[list[tuple[Faces, Array]]] = [[] for _ in founds]
        h, indices = founds[0].side / n, [one.index for one in founds]

        def weigh(k: int, faces: Faces) -> Array:
            return faces.weight(self.source.left[founds[k].rows], founds[k].log_p, h)

        for axis, strip in enumerate(strips):
            side, allowed = founds[0].side, SHARE * self.each
            every = faces_of(self.source, indices, side, strip.cells.a, axis, weigh, allowed)
            for one, into in zip(every, sides):
                into.append(one)
        return sides

    def _take(self, part: Part) -> Array:
        """Write down what a part says; how far it may be off, as far as is known, (n,)."""
        rows, log_p = part.found.rows, part.found.log_p
        rounding = self._rounding(part)
        self.log_px[rows], self.log_norm[rows] = log_p + np.log(part.mass), log_p + np.log(part.other)
        left_out = part.outside / part.mass + rounding
        self.apart[rows] = apart(self.log_px[rows], self.log_norm[rows], part.n) + left_out
        self.proven_error[rows] = log_error(part.missed(part.fine), part.mass) + rounding
        self.norm_error[rows] = log_error(part.missed(part.n), part.other) + rounding
        return self.norm_error[rows] if part.strips else self.apart[rows]

    def _rounding(self, part: Part) -> Array:
        """About how large it may be in log p(x), (n,)."""
        found = part.found
        nodes = self.source.nodes(found.side, part.fine, found.index)
        return np.asarray(self.source.rounding(found.rows, nodes, found.log_p, part.f))

    # ----- the posteriors -----

    @cached_property
    def _moments(self) -> tuple[Array, Array, Array, Array]:
        """Mean (N, L) and covariance (N, L, L) of the posteriors, and their errors."""
        if self.linear is not None:
            return self.linear.moments
        N, L = len(self), self.joint.latent_dim
        mean, cov = np.full((N, L), np.nan), np.full((N, L, L), np.nan)
        mean_error, cov_error = np.full_like(mean, np.inf), np.full_like(cov, np.inf)
        for part in self.parts:
            rows = part.found.rows
            (m, V), (m2, V2) = (self._moments_on(part, fine) for fine in (True, False))
            mean[rows], cov[rows] = m, V
            errors = self._proven_moments(part, m, V) if part.strips else (np.abs(m - m2), np.abs(V - V2))
            std, size = np.sqrt(np.einsum("nii->ni", V)), 32 * EPS * (1 + np.abs(m))
            rounding = EPS + 2 * self._rounding(part)
            mean_error[rows] = errors[0] + size + rounding[:, None] * std
            cov_error[rows] = (
                errors[1]
                + size[:, None] * std[:, :, None]
                + rounding[:, None, None] * std[:, None] * std[:, :, None]
            )
        return mean, cov, mean_error, cov_error

    def _moments_on(self, part: Part, fine: bool) -> tuple[Array, Array]:
        """Mean (n, L) and covariance (n, L, L) by one of the lattices."""
        found, f = part.found, part.f
        nodes = self.source.nodes(found.side, part.fine if fine else part.n, found.index)
        if not fine:
            f = np.exp(self.source.log_joint(found.rows, nodes, found.log_p))
        p, z = f / f.sum(axis=1)[:, None], nodes.z
        mean = p @ z
        r = [z[:, i] - mean[:, i, None] for i in range(z.shape[1])]
        cov = np.array([[np.einsum("nm,nm,nm->n", p, a, b) for b in r] for a in r])
        return mean, cov.transpose(2, 0, 1)

    def _proven_moments(self, part: Part, mean: Array, cov: Array) -> tuple[Array, Array]:
        """Their errors: the sum of (w − E[w]) p(x, z) should be 0, and by as much as it may miss that E[w] is off."""
        L = mean.shape[1]
        far = np.abs(mean) + 1 + self.source.reach
        whole = part.mass - part.missed(part.fine)
        off, ends = [], []  # |z_i − mean_i| on the cells and on the sides of each axis, (n, ·)
        for d, (strip, (side, _)) in enumerate(zip(part.strips, part.sides)):
            c, half = strip.cells, side.half
            off.append(
                [np.abs(c.middle[:, i] - mean[:, [i]]) + c.r + (c.a if i == d else 0.0) for i in range(L)]
            )
            ends.append(
                [np.abs(side.at[:, i] - mean[:, [i]]) + (side.high if i == d else half) for i in range(L)]
            )

        def error(i: int, j: int | None = None) -> Array:
            extra: Any = 0.0 if j is None else np.abs(cov[:, i, j])[:, None]
            sizes = [o[i] * (1.0 if j is None else o[j]) + extra for o in off]
            at = [e[i] * (1.0 if j is None else e[j]) + extra for e in ends]
            distance = far[:, i] * (1.0 if j is None else far[:, j]) + (0.0 if j is None else extra[:, 0])
            return np.where(whole > 0, part.missed(part.fine, sizes, at, distance) / whole, np.inf)

        first = np.stack([error(i) for i in range(L)], axis=1)
        second = np.array([[error(i, j) for j in range(L)] for i in range(L)]).transpose(2, 0, 1)
        return first, second + first[:, :, None] * first[:, None]

    @property
    def posterior_mean(self) -> Array:
        """E[z | x_n] under p_θ(z|x), (N, L)."""
        return self._moments[0]

    @property
    def posterior_cov(self) -> Array:
        """Cov[z | x_n] under p_θ(z|x), (N, L, L)."""
        return self._moments[1]

    @property
    def posterior_mean_error(self) -> Array:
        """The error of each posterior mean, (N, L): proven where that of log_px is, else from the other lattice."""
        return self._moments[2]

    @property
    def posterior_cov_error(self) -> Array:
        """The error of each posterior covariance, (N, L, L)."""
        return self._moments[3]

    def log_posterior(self, z: Any, points: Any = slice(None)) -> Array:
        """log p_θ(z|x_n) for all data points (or those chosen) at z (M, L) -> (n, M), nats."""
        z = np.asarray(z, dtype=float).reshape(-1, self.joint.latent_dim)
        log_p = self.joint.log_likelihood(
            self.x[points][:, None], self.joint.outputs(z)
        ) + self.joint.log_prior(z)
        return log_p - self.log_px[points][:, None]

    def posterior_density(self, z: Any, points: Any = slice(None)) -> Array:
        """p_θ(z|x_n) for all data points (or those chosen) at z (M, L) -> (n, M)."""
        return np.exp(self.log_posterior(z, points))

    # ----- from one θ to another -----

    def divergence_to(self, other: "Target") -> Array:
        """KL(p_θ(z|x) ‖ p_θ'(z|x)) with `other` the Target of θ' for the same x, (N,), nats: how far it moves."""
        return self.divergence_and_error(other)[0]

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")
    def divergence_and_error(self, other: "Target") -> tuple[Array, Array]:
        """The same, and its error: proven where both targets are, or from the other lattice. (N,) each.

        It is E[log p_θ(x|z) − log p_θ'(x|z)] − log p_θ(x) + log p_θ'(x) under p_θ(z|x).
        """
        if self.linear is not None and other.linear is not None:
            value, error = self.linear.divergence_to(other.linear)
            return value, error
        value, error = np.full(len(self), np.nan), np.full(len(self), np.inf)
        for part in self.parts:
            rows, found, ratios = part.found.rows, part.found, []
            for fine in (True, False):
                f, nodes = part.f, self.source.nodes(found.side, part.fine if fine else part.n, found.index)
                if not fine:
                    if part.strips:
                        break
                    f = np.exp(self.source.log_joint(rows, nodes, found.log_p))
                sums = [
                    t.source.under(
                        rows, t.source.nodes(found.side, part.fine if fine else part.n, found.index), f
                    )
                    for t in (self, other)
                ]
                ratios.append((sums[0][0] - sums[1][0]) / f.sum(axis=1))
                if fine:
                    rounding = (sums[0][1] + sums[1][1]) / f.sum(axis=1)
            value[rows] = ratios[0] - self.log_px[rows] + other.log_px[rows]
            gap = self._proven_ratio(part, other, ratios[0]) if part.strips else np.abs(ratios[0] - ratios[1])
            error[rows] = gap + self.error[rows] + other.error[rows] + rounding
        return value, error

    def _proven_ratio(self, part: Part, other: "Target", ratio: Array) -> Array:
        """The error of the mean of w = log p_θ(x|z) − log p_θ'(x|z) under the posterior, (n,)."""
        found, strips, rows, sizes, ends = part.found, list[Strip](), part.found.rows, [], []
        both, lefts = [self.source, other.source], [t.source.left[part.found.rows] for t in (self, other)]
        for d, strip in enumerate(part.strips):
            a = strip.cells.a
            for k in range(TRIES):  # lower, where the other decoder has a pole, or a logarithm branches
                free = all(source.is_free(a, d, found.index, found.side, log=True) for source in both)
                if free and (every := regular_cells(both, a, d, strip.cells.middle, strip.cells.r)):
                    break
                a = lower(a, k)
            else:
                return np.full(len(ratio), np.inf)
            lines = 0.5 * found.side / part.n if d == 0 and len(part.strips) > 1 else 0.0
            table = every[0].log_mass(lefts[0], lines)[0]
            strips.append(Strip(every[0], exp32(table - found.log_p[:, None])))
            sizes.append(np.abs(ratio)[:, None] + sum(left @ cells.size for left, cells in zip(lefts, every)))
        part = part._replace(strips=strips, sides=self._sides([found], part.n, strips)[0])
        for d, (faces, _) in enumerate(part.sides):
            again = other.source.over(d, faces.at, faces.half, faces.low, faces.high)[1]
            ends.append(np.abs(ratio)[:, None] + lefts[0] @ faces.size + lefts[1] @ again)
        far = np.abs(ratio)
        for source in both:
            constant, square = source.growth()
            far = far + (constant + square * self.joint.latent_dim * (source.reach + 1) ** 2)[rows]
        whole = part.mass - part.missed(part.fine)
        return np.where(whole > 0, part.missed(part.fine, sizes, ends, far) / whole, np.inf)


def expected_nodes(found: Found, each: float) -> int:
    """In each direction of a cell, if the densities were Gaussians: a sum misses 2 exp(−2π² s²/h²) in each."""
    std, L = float(found.std.min()), found.index.shape[1]
    return int(np.ceil(found.side * np.sqrt(0.5 * np.log(2 * L / each)) / (np.pi * std)))


def most_nodes(found: Found) -> int:
    """That fit in each direction of a cell."""
    needed = found.active.sum(axis=1)
    return max(
        2, int(min(MOST_NODES / needed.max(), MOST_NUMBERS / needed.sum()) ** (1 / found.index.shape[1])) - 1
    )


def apart(fine: Array, coarse: Array, n: Any) -> Array:
    """How far sums are from their integrals, about, if that falls like r^n with the nodes in a cell.

    Three times what it then is: what a sum misses swings with where its nodes lie, and two may agree by chance.
    """
    gap = 3 * np.abs(fine - coarse)
    return np.asarray(gap / (1 - np.minimum(gap, 0.5) ** (1 / n)))


def finer(n: int, gaps: Array, each: float) -> int:
    """How many nodes should do where n leave such gaps, which fall like e^−(const n)."""
    worst = float(np.nan_to_num(gaps, nan=1.0, posinf=1.0).max())
    return int(np.ceil(n * np.clip(np.log(each / 8) / np.log(min(worst, 0.5)), 1.15, 2.0)))


def log_error(missed: Array, mass: Array) -> Array:
    """Of log mass."""
    part = missed / mass
    return np.where(part < 1, -np.log1p(-np.minimum(part, 0.999999)), np.inf)


class Prior(Callables):
    """A prior alone, which nobody has to ask whether it is normalised."""


def is_normalised(joint: Callables, tolerance: float) -> bool:
    """False where the prior, summed as the joint is, does not hold 1: mass was not seen, or it has none.

    A mode that the search missed, a hard edge inside a cell, a missing constant: all show here.
    """
    prior = Prior(lambda x, z: np.zeros(len(z)), joint.log_prior_of, joint.latent_dim, joint.support)
    alone = Target(prior, None, np.zeros((1, 1)), tolerance)
    return not abs(alone.log_px[0]) > 1e-6 + alone.error[0]


def linear_evidence(joint: Any, x: Array) -> LinearEvidence | None:
    """The closed form, where there is one."""
    if not (isinstance(joint, VAEJoint) and not joint.layers[1:] and joint.model.likelihood == "gaussian"):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        return LinearEvidence(joint, x)


def check_tolerance(tolerance: float | None, dim: int) -> float:
    if dim not in TOLERANCE:
        raise ValueError(f"latent_dim: expected 1 or 2 (the exact terms exist for those), got {dim}")
    if tolerance is None:
        return TOLERANCE[dim]
    if not 1e-13 <= tolerance < 1:
        raise ValueError(f"tolerance: expected a number of nats from 1e-13 to below 1, got {tolerance!r}")
    return float(tolerance)
