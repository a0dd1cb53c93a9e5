"""A q held against a Target: the terms.

    log_px = reconstruction − kl_prior + kl_posterior,    elbo = reconstruction − kl_prior

    reconstruction = E_q[log p_θ(x|z)]      kl_prior = KL(q ‖ p(z))      kl_posterior = KL(q ‖ p_θ(z|x))

(Kingma & Welling 2014, eqs. 1-3.) Each comes from sums of its own: reconstruction and log_px from those over the
finer lattice, kl_posterior = E_q[log q − log p(z) − log p(x|z)] + log p(x) from those over the coarser one, which has
no node in common with it. So the residual log_px − (reconstruction − kl_prior + kl_posterior) is a measurement.

At the height a of an axis |q| is e^(½ a² Λ) q, Λ being that entry of q's precision: so N(a) of q log p(x|z) is that
times what cells hold of q and of |log p(x|z)|; all else is as in `proof.py`.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..checks import Array, Ints
from ..gaussian import Gaussian
from ..ops import LOG_2PI
from .decoder import EPS, lattice, offsets
from .joint import Joint, VAEJoint, log_densities
from .proof import (
    FIRST,
    NEAR,
    TRIES,
    Faces,
    faces_of,
    height_for,
    lower,
    missed,
    piece,
    regular_cells,
    rung,
    spacing_for,
)
from .sampled import Sampled, to_support
from .support import MOST, Found, cell_side, in_places, search
from .target import INTEGRALS, MOST_FINER, SHARE, Target, apart, expected_nodes, finer, most_nodes
from .terms import Decomposition

NARROWEST = 2.0**-36  # the std of a q, beside its mean, for which there still are nodes
RADIUS = 8.4  # beyond so many stds there is less than 1e-15 of a q
NEARBY = {1: 8, 2: 2}  # cells of a Target so many times as large or small will do for q


def decompose(
    model: Any,
    theta: Any,
    phi: Any,
    x: Any,
    target: Target | None = None,
    tolerance: float | None = None,
    q: Any = None,
    certify: bool = False,
) -> Decomposition:
    """The terms of every data point at (θ, φ), each with its error, to `tolerance` nats.

    Args:
        model: a VAE, or a Joint such as Callables (theta and phi are then ignored).
        x: data points, (N, D).
        target: if given, the Target of this θ and x; it is used as it is, which is what makes a φ-step cheap.
        tolerance: nats; None takes the target's, which is 1e-9 for z ∈ R¹ and 1e-6 for z ∈ R².
        q: replaces model.encode(phi, x); see `terms_under`.
        certify: try to prove what is only checked otherwise; see `certified`.

    Raises ValueError where shapes do not fit, or a function does not give log densities.
    """
    target = Target(model, theta, x, tolerance) if target is None else target
    if np.shape(x) != target.x.shape:
        raise ValueError(f"target: expected one for x of shape {np.shape(x)}, got {target.x.shape}")
    q = model.encode(phi, target.x) if q is None else q
    found = terms_under(q, target, tolerance)
    return certified(found, q, target) if certify else found


def certified(found: Decomposition, q: Any, target: Target) -> Decomposition:
    """The same terms of q held against a Target, with what can be proven of them.

    On a line that is known already. On a plane lattices that are fine enough for a proof cost many times those that
    are checked: the terms are computed again on such, and `proven_error` is how far they are from the ones found,
    with what is proven of them. No value changes. Models that give no bounds stay as they are.
    """
    if target.proving or not target.source.proven:
        return found
    exact = terms_under(q, Target(target.joint, None, target.x, target.tolerance, certify=True))
    names = ("log_px", "reconstruction", "kl_prior", "kl_posterior")
    errors = [np.abs(getattr(found, n) - getattr(exact, n)) + getattr(exact, f"{n}_error") for n in names]
    proven = np.maximum.reduce(errors)
    whole = proven <= target.tolerance
    return replace(found, certified=whole, checked=found.checked | whole, proven_error=proven)


def terms_under(q: Any, target: Target, tolerance: float | None = None) -> Decomposition:
    """The terms of a q held against a Target.

    q is a Gaussian for each of the target's N data points, or any object with log_prob(z (P, L), rows (P,)) ->
    (P,), the log density of data point rows[p]'s q at z[p]; or Expectations, whose tables are then used again.
    tolerance: nats, None for the target's.
    """
    if not isinstance(q, Expectations):
        q = Expectations(q, target.joint, len(target), target.tolerance if tolerance is None else tolerance)
    return q.against(target)


_Strip = tuple[float, Array]  # a height, and what is held there of the two integrands, (2, n)


class _Sums(NamedTuple):
    """What sums over one lattice say of n data points, (n,) each."""

    mass: Array  # of q: 1, if nothing was missed
    reconstruction: Array  # E_q[log p(x|z)]
    to_prior: Array  # E_q[log q − log p(z)]
    rounding: Array  # of these, about


class Expectations:
    """E_q[·]: all that φ owns, for N data points. `against` a Target they are the integrals under q.

    A table of q on a lattice is made once and kept for the next Target that q is held against.
    """

    def __init__(self, q: Any, joint: Joint, n: int, tolerance: float):
        self.q, self.dim, self.n, self.tolerance = q, joint.latent_dim, n, tolerance
        self.each, self._tables, self._kept = tolerance / INTEGRALS, dict[Any, Any](), dict[Any, Any]()
        self._by_search: list[Found] | None = None
        if not isinstance(q, Gaussian) or np.isfinite(joint.support[0]):
            self._density = Sampled(self.dim, joint.support, self._log_density)
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                self._by_search = search(self._density, n, float(np.log(SHARE * self.each)))
        else:
            self.inverse = inverse_of(q.cholesky)  # C⁻¹
            self.precision = np.einsum("nki,nkj->nij", self.inverse, self.inverse)
            self.std = (
                np.exp(q.log_diag[:, 0])
                if self.dim == 1
                else np.linalg.svd(safe(q.cholesky), compute_uv=False)[:, -1]
            )
        self.closed = isinstance(q, Gaussian) and isinstance(joint, VAEJoint)  # KL(q ‖ N(0, I)) is

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")
    def against(self, target: Target) -> Decomposition:
        """The terms with the p_θ(x|z) and the log p_θ(x) of this Target."""
        if target.linear is not None and isinstance(self.q, Gaussian):
            reconstruction, kl_posterior, error, kl_error = target.linear.terms(self.q)
            kl_prior, kl_prior_error = self._kl_prior
            errors = target.error, error, kl_prior_error, kl_error
            worst = np.maximum.reduce(errors)
            whole = target.certified & (worst <= self.tolerance)
            values = target.log_px, reconstruction, kl_prior, kl_posterior
            return Decomposition(*values, *errors, whole, whole, worst)
        fine, coarse = np.full((2, 4, self.n), np.nan)
        bounds = np.full((2, 2, self.n), np.inf)  # by the finer and by the coarser sums, see `_solve`
        self._kept, self._tables, self._n = self._tables, {}, np.ones(self.n)
        for found in self._found(target):
            self._solve(target, found, fine, coarse, bounds)
        return self._terms(target, _Sums(*fine), _Sums(*coarse), bounds)

    def _terms(self, target: Target, a: _Sums, b: _Sums, bounds: Array) -> Decomposition:
        """From what the finer and the coarser sums say, and what bounds say of them."""
        if self.closed:
            kl_prior, kl_prior_error = self._kl_prior
        else:
            kl_prior, kl_prior_error = a.to_prior, apart(a.to_prior, b.to_prior, self._n) + a.rounding
        kl_posterior = b.to_prior - b.reconstruction + target.log_norm
        proven = np.array([target.proven_error, bounds[0, 0], kl_prior_error, bounds[1, 1] + target.norm_error])
        lost = np.abs(a.mass - 1)
        whole = lost < 1e-6
        lost = np.where(whole, lost, np.inf) * (1 + np.abs(a.reconstruction) + np.abs(a.to_prior))
        lost += a.rounding + 2 * SHARE * self.each
        gap = apart(a.reconstruction, b.reconstruction, self._n) + lost
        kl_gap = gap + apart(b.to_prior, kl_prior, self._n) + target.error
        checked = np.array([target.error, gap, kl_prior_error + lost, kl_gap])
        checked, proven = (np.where(np.isnan(errors), np.inf, errors) for errors in (checked, proven))
        worst = proven.max(axis=0)
        certified = target.certified & (worst <= self.tolerance)
        agree = target.checked & whole & (checked[1:].max(axis=0) <= self.tolerance)
        values = target.log_px, a.reconstruction, kl_prior, kl_posterior
        errors = tuple(proven if target.proving and self._by_search is None else checked)
        return Decomposition(*values, *errors, certified | agree, certified, worst)  # type: ignore[call-arg]

    @property
    def _kl_prior(self) -> tuple[Array, Array]:
        """KL(q ‖ N(0, I)) in closed form, and its rounding."""
        kl = self.q.kl_prior
        return kl, 8 * EPS * (1 + np.abs(kl) + np.abs(self.q.log_diag).sum(axis=1))

    # ----- where q is -----

    def _found(self, target: Target) -> Iterator[Found]:
        """The cells where q has its mass: those of the Target's lattices where they serve q as well."""
        if self._by_search is not None:
            yield from self._by_search
            return
        radius, (mean, std) = self._radius(target), (self.q.mean, self.std)
        known = (
            np.isfinite(mean).all(axis=1)
            & (std > NARROWEST * (1 + np.abs(mean).max(axis=1)))
            & (std < 1e6)
            & (radius < 40)
        )
        side = cell_side(np.where(known, std, 1.0))
        for part in target.parts:
            rows, of_target = part.found.rows, part.found.side
            near = (side[rows] / NEARBY[self.dim] <= of_target) & (of_target <= NEARBY[self.dim] * side[rows])
            side[rows[near]] = of_target
        for one in np.unique(side[known]).tolist():
            yield from self._cells(np.flatnonzero(known & (side == one)), one, radius)

    def _radius(self, target: Target) -> Array:
        """Beyond so many stds of q lies less than a share of the tolerance of whatever is averaged.

        |log p(x|z)| + |log q − log p(z)| <= c + d u², u being the way from the mean in stds; beyond u = ρ that holds
        (c + d (ρ² + 2)) e^(−ρ²/2) at most.
        """
        if not target.source.proven:
            return np.full(self.n, RADIUS)
        (constant, square), mean = target.source.growth(), np.square(self.q.mean).sum(axis=1)
        widest = np.square(self.q.cholesky).sum(axis=(1, 2))
        c = constant + (2 * square + 1) * mean + np.abs(self.q.log_diag.sum(axis=1))
        d = (2 * square + 1) * widest + 0.5
        radius = np.full(self.n, 40.0)
        for _ in range(2):
            radius = np.sqrt(np.maximum(2 * np.log((c + d * (radius**2 + 2)) / (SHARE * self.each)), 25.0))
        return radius

    def _cells(self, rows: Ints, side: float, radius: Array) -> Iterator[Found]:
        """The cells that meet the ellipsoids |C⁻¹(z − mean)| <= radius."""
        half = radius[rows, None] * np.sqrt(np.square(self.q.cholesky[rows]).sum(axis=2))
        low = np.floor((self.q.mean[rows] - half) / side).astype(np.int64)
        high = np.floor((self.q.mean[rows] + half) / side).astype(np.int64)
        box = high.max(axis=0) - low.min(axis=0) + 1
        if box.prod(dtype=float) * len(rows) > MOST / 4:
            if len(rows) > 1:
                order = rows[np.argsort(self.q.mean[rows, box.argmax()], kind="stable")]
                for part in np.array_split(order, 2):
                    yield from self._cells(np.sort(part), side, radius)
            return
        ticks = [np.arange(a, b + 1) for a, b in zip(low.min(axis=0), high.max(axis=0))]
        index = np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1).reshape(-1, self.dim)
        way, reach = self._away((index + 0.5) * side, 0.5 * side, rows)
        active = way <= radius[rows, None] + reach
        nothing = np.full(len(rows), -np.inf)
        yield Found(rows, side, index, active, 0 * nothing, self.std[rows], nothing).of(slice(None))

    def _away(self, z: Array, half: Any, rows: Ints, axis: int | None = None) -> tuple[Array, Array]:
        """|C⁻¹(z − mean)| for z (C, L), and by how much it differs at most in cubes of half side `half`, (n, C) each.

        In all directions but that of the axis, if one is given.
        """
        inverse = self.inverse[rows]
        squares: Any = 0.0
        for i in range(self.dim):
            u: Any = 0.0
            for j in range(i + 1):
                u = u + inverse[:, i, j, None] * (z[:, j] - self.q.mean[rows, j, None])
            squares = squares + u * u
        corner = np.ones(self.dim) if axis is None else 1.0 - np.eye(self.dim)[axis]
        return np.sqrt(squares), np.linalg.norm(np.abs(inverse) @ corner, axis=1)[:, None] * half

    def _squares(self, found: Found, n: int) -> Array:
        """|C⁻¹(z − mean)|² at the nodes, (n, M): from the middles of cells, so that a narrow q loses no digits."""
        middle, ticks = (found.index + 0.5) * found.side, ((np.arange(n) + 0.5) / n - 0.5) * found.side
        off, mean, inverse = offsets(self.dim, ticks), self.q.mean[found.rows], self.inverse[found.rows]
        way = [(middle[:, j] - mean[:, j, None])[:, :, None] + off[:, j] for j in range(self.dim)]
        squares: Any = 0.0
        for i in range(self.dim):
            u = sum(inverse[:, i, j, None, None] * way[j] for j in range(i + 1))
            squares = squares + u * u
        return np.asarray(squares.reshape(len(found.rows), -1))

    # ----- the sums -----

    def _solve(self, target: Target, found: Found, fine: Array, coarse: Array, bounds: Array) -> None:
        """The sums for some data points, with as many nodes as a bound, or else the other lattice, asks for."""
        source, L, prove = target.source, self.dim, target.proving and self._by_search is None
        n, most_n, strips = expected_nodes(found, self.each), most_nodes(found), list[_Strip]()
        for _ in range(MOST_FINER):
            if prove and (not strips or L > 1):
                strips = self._strips(target, found, found.side / max(n, 2) if L > 1 else None)
                n = self._needed(found, n, strips)
            ns = [part.n for part in target.parts if part.found.side == found.side]
            n = min((m for m in ns if n <= m <= 1.6 * n + 1), default=n)
            n, again = min(max(n, 2), most_n), [np.zeros(0, dtype=int)]
            places = list(in_places(found.active, found.index, (n + 1) ** L))
            parts = [found.of(k) for k in places]
            for k, part, of_sides in zip(places, parts, self._sides(target, parts, n, strips)):
                rows = part.rows
                self._n[rows], m_fine = n, source.finer(n)
                for m, sums in ((n, coarse), (m_fine, fine)):
                    sums[:, rows] = self._summed(target, part, m)
                for m, into in ((m_fine, bounds[0]), (n, bounds[1])):
                    held = sum(
                        missed(a, found.side / m, np.array([b[0, k], b[:, k].sum(axis=0)])) for a, b in strips
                    )
                    into[:, rows] = held + of_sides + fine[3, rows]
                gap = bounds[1, 1, rows] if strips else apart(fine[1:3, rows], coarse[1:3, rows], n).max(axis=0)
                enough = (gap <= self.each) | (n == most_n)
                again.append(k[~enough])
            if not len(left := np.sort(np.concatenate(again))):
                break
            gaps = np.abs(fine[1:3, found.rows[left]] - coarse[1:3, found.rows[left]]).max(axis=0)
            n, found, strips = finer(n, gaps, self.each), found.of(left), [(a, b[:, left]) for a, b in strips]

    def _needed(self, found: Found, n: int, strips: list[_Strip]) -> int:
        """How many nodes in a cell the strips ask for; on a plane at least n, for which they are."""
        if not strips or not all(np.isfinite(held).all() for _, held in strips):
            return n
        allowed = self.each * (1 - 4 * SHARE) / len(strips)
        h = min(spacing_for(a, held.sum(axis=0), allowed) for a, held in strips)
        needed = int(np.ceil(found.side / max(h, found.side / 2**20)))
        return max(needed, n) if len(strips) > 1 else needed

    def _summed(self, target: Target, found: Found, n: int) -> Array:
        """_Sums over one lattice, (4, n)."""
        nodes = target.source.nodes(found.side, n, found.index)
        weight, mass, entropy = self._table(found, n)
        reconstruction, rounding = target.source.under(found.rows, nodes, weight)
        to_prior = entropy - np.einsum("nm,m->n", weight, np.maximum(nodes.log_prior, -1e100))
        size = np.abs(entropy) + np.square(nodes.z).max()
        return np.array([mass, reconstruction, to_prior, rounding + 4 * EPS * (4 + size + np.abs(to_prior))])

    def _table(self, found: Found, n: int) -> tuple[Array, Array, Array]:
        """q h^L at the nodes, (n, M), its sum and that of q log q, (n,)."""
        key = n, found.side, found.rows.tobytes(), found.index.tobytes()
        if key not in self._tables:
            if (known := self._kept.get(key)) is None:
                rows = found.rows
                if self._by_search is None:
                    log_constant = self.q.log_diag[rows].sum(axis=1) + 0.5 * self.dim * LOG_2PI
                    log_q = -0.5 * self._squares(found, n) - log_constant[:, None]
                else:
                    log_q = np.maximum(self._log_density(rows, lattice(found.side, n, found.index)), -1e100)
                weight = np.exp(log_q + self.dim * np.log(found.side / n))
                known = weight, weight.sum(axis=1), np.einsum("nm,nm->n", weight, log_q)
            self._tables[key] = known
        return self._tables[key]

    def _log_density(self, rows: Ints, t: Array) -> Array:
        """log q |dz/dt| for data points `rows` at lattice values t (M, L), (n, M)."""
        if not hasattr(self.q, "log_prob"):
            raise ValueError(f"q: expected an object with log_prob(z (P, L), rows (P,)), got {self.q!r}")
        z, log_slope = to_support(t, self._density.support)
        every, at = np.repeat(rows, len(z)), np.tile(z, (len(rows), 1))
        return log_densities("q.log_prob", self.q.log_prob(at, every), at).reshape(len(rows), -1) + log_slope

    # ----- the proof -----

    def _strips(self, target: Target, found: Found, h: float | None = None) -> list[_Strip]:
        """A strip over each axis, or none where one of them has none; h: the spacing, where it is given."""
        source, strips, cells = (
            target.source,
            list[_Strip](),
            lattice(found.side, FIRST[self.dim], found.index),
        )
        r = np.full(len(cells), 0.5 * found.side / FIRST[self.dim])
        for axis in range(self.dim):
            std = float(1 / np.sqrt(self.precision[found.rows, axis, axis].max()))
            a = rung(min(height_for(std, float(np.log(2 / self.each)) + 5), NEAR * source.pole(cells, r)))
            for k in range(TRIES):
                if (strip := self._strip(target, found, axis, a, cells, r, h)) is not None:
                    break
                a = lower(a, k)
            else:
                return []
            while (
                h and (other := self._strip(target, found, axis, rung(1.3 * strip[0]), cells, r, h)) is not None
            ):
                least, less = (missed(height, h, held.sum(axis=0)).max() for height, held in (strip, other))
                if not less < 0.5 * least:
                    break
                strip = other
            strips.append(strip)
        return strips

    def _strip(
        self, target: Target, found: Found, axis: int, a: float, middle: Array, r: Array, h: float | None
    ) -> _Strip | None:
        """What |q log p(x|z)| and |q (log q − log p(z))| hold at the height a of an axis; None if it is too high."""
        source, rows = target.source, found.rows
        if not source.is_free(a, axis, found.index, found.side, log=True):
            return None
        if not (every := regular_cells([source], a, axis, middle, r)):
            return None
        (cells,) = every
        middle, r, of_axis = cells.middle, cells.r, self.precision[rows, axis, axis][:, None]
        (away, reach), logs = self._away(middle, r, rows), self.q.log_diag[rows].sum(axis=1)[:, None]
        volume = (2 * r) ** (self.dim - 1) * (
            2 * r + (h if h and axis == 0 else 0.0)
        )  # or h times the lattice lines
        held = np.exp(-0.5 * np.maximum(away - reach, 0) ** 2 - logs + 0.5 * a * a * of_axis)
        held *= volume * (2 * np.pi) ** (-0.5 * self.dim)
        rest = np.abs(logs) + 0.5 * (away + reach + a * np.sqrt(of_axis)) ** 2
        rest += 0.5 * (np.linalg.norm(middle, axis=1) + r * np.sqrt(self.dim) + a) ** 2
        size = np.einsum("nk,nk->n", source.left[rows], held @ cells.size.T)
        return a, 1.001 * np.array([size, (held * rest).sum(axis=1)])

    def _sides(self, target: Target, founds: list[Found], n: int, strips: list[_Strip]) -> list[Array]:
        """What the sides of some sets of cells, and what is beyond them, weigh in the errors of both, (2, n) each."""
        if not strips:
            return [np.full((2, len(found.rows)), np.inf) for found in founds]
        side, errors = founds[0].side, [np.full((2, len(f.rows)), 2 * SHARE * self.each) for f in founds]
        weigh = partial(self._weight, target, founds, side / n)
        for axis, (a, _) in enumerate(strips):
            every = faces_of(target.source, [f.index for f in founds], side, a, axis, weigh, SHARE * self.each)
            for error, (_, weight) in zip(errors, every):
                error += weight.sum(axis=1)
        return errors

    def _weight(self, target: Target, founds: list[Found], h: float, k: int, faces: Faces) -> Array:
        """What |q (|log p(x|z)| + |log q − log p(z)|)| weighs on faces of the k-th set of cells, (n, F)."""
        rows, high, axis = founds[k].rows, faces.high, faces.axis
        logs = self.q.log_diag[rows].sum(axis=1)[:, None]
        of_axis = self.precision[rows, axis, axis][:, None]
        away, reach = self._away(faces.at, faces.half, rows, axis)
        log_q = -0.5 * np.maximum(away - reach, 0) ** 2 - logs - 0.5 * self.dim * LOG_2PI
        rest = np.abs(logs) + 0.5 * (away + reach + high * np.sqrt(of_axis)) ** 2
        rest += 0.5 * (np.linalg.norm(faces.at, axis=1) + faces.half + high) ** 2
        held = np.exp(log_q + 0.5 * high**2 * of_axis) * (faces.length(h) * piece(faces.low, high, h))
        weight = held * (rest + target.source.left[rows] @ faces.size)
        return np.where(np.isnan(weight), np.inf, weight)


def safe(C: Array) -> Array:
    """Numbers that a diverged q may hold, within what a decomposition bears."""
    return np.clip(np.nan_to_num(C), -1e100, 1e100)


def inverse_of(C: Array) -> Array:
    """C⁻¹ of lower triangular matrices (N, L, L), L = 1 or 2."""
    inverse = np.zeros_like(C)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        for k in range(C.shape[1]):
            inverse[:, k, k] = 1 / C[:, k, k]
        if C.shape[1] == 2:
            inverse[:, 1, 0] = -C[:, 1, 0] * inverse[:, 0, 0] * inverse[:, 1, 1]
    return inverse
