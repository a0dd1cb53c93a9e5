"""E_q[·] on the line: what a Gaussian q owns beside log p_θ(x), with errors that are proven up to rounding.

|q(t + ia)| is e^(a²/2s²) q(t), s being the std of q: so N(a) of q log p(x|z) is that factor times what cells of the
line Im z = a hold of q and of |log p(x|z)|. Everything else is as in `line.py`.
"""

from typing import Any

import numpy as np

from ..checks import Array, Ints
from ..gaussian import Gaussian
from .bounds import TYPICAL
from .line import APART, MOST, REACH, SHARE, SPLIT, Evidence, in_groups
from .strips import EPS, Strip, height_for, missed, rung, spacing_for

NARROWEST = 2.0**-36  # the std of a q, beside its mean, for which there still are nodes


class UnderQ:
    """E_q[·] on the line: all that φ owns. What was tabulated once is kept for every Evidence that q meets."""

    def __init__(self, q: Gaussian, tolerance: float):
        self.q, self.tolerance = q, tolerance
        self.mean, self.std = q.mean[:, 0], np.exp(q.log_diag[:, 0])
        self._weights: dict[Any, tuple[Array, Array]] = {}

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")
    def against(self, evidence: Evidence) -> Array:
        """E_q[log p(x|z)] over A and B, E_q[log q − log p(z)] over B, the errors of 1st and 3rd − 2nd: (5, N)."""
        found, s, mu = np.full((5, len(self.mean)), np.nan), self.std, self.mean
        found[3:] = np.inf
        constant, square = evidence.growth
        # |log p(x|z)| + |log q − log p(z)| <= c + d u² with u = (z − mean)/s; beyond |u| = ρ that holds
        # 2 φ(ρ) (c/ρ + d (ρ + 1/ρ)) <= e^(−ρ²/2) (c + 81 d) at most, for 5 <= ρ <= 100.
        c, d = constant + (2 * square + 1) * mu**2 + np.abs(np.log(s)), (2 * square + 1) * s**2 + 0.5
        allowed = SHARE * self.tolerance
        far = np.sqrt(np.maximum(2 * np.log((c + 81 * d) / allowed), 25.0))
        lo, hi = mu - far * s, mu + far * s
        # A q so narrow, or so far out, that nodes in it could not be told apart: its mean stands for it, unproven.
        narrow = ~(s > NARROWEST * (1 + np.abs(mu))) & np.isfinite(mu)
        if narrow.any():
            outputs = evidence.decoder.outputs(mu[narrow])
            left, columns = evidence.left[narrow], evidence.decoder.likelihood.columns(outputs)
            found[:2, narrow] = np.einsum("nk,kn->n", left, columns)
            found[2, narrow] = self.q.kl_prior[narrow]
        known = np.flatnonzero(np.isfinite(lo) & np.isfinite(hi) & (s > 0) & (far < 100) & ~narrow)
        kept, self._weights = self._weights, {}
        for some in in_groups(lo[known], hi[known], s[known], APART):
            rows = known[some]
            self._sum(evidence, rows, lo[rows], hi[rows], kept, found)
        return found

    def _sum(
        self,
        evidence: Evidence,
        rows: Ints,
        lo: Array,
        hi: Array,
        kept: dict[Any, tuple[Array, Array]],
        found: Array,
    ) -> None:
        """`against` for some data points, whose q lie in [lo, hi] (n,), on pieces of one lattice."""
        s, each, allowed = self.std[rows], self.tolerance * (1 - 4 * SHARE), SHARE * self.tolerance
        begin, end, std = float(lo.min()), float(hi.max()), float(s.min())
        strip, h = self._strip(evidence, begin, end, std, float(np.log(2 / each)) + 5), std / 4
        bounds = np.full((2, len(rows)), np.inf)
        if strip:
            bounds = self._bounds(strip, begin, end, self.mean[rows], s, evidence.left[rows])
            h = min(std, spacing_for(strip.a, bounds.sum(axis=0), each))
        of_target = evidence.groups[0].h if evidence.groups else np.inf
        h = of_target if of_target <= h <= 1.6 * of_target else rung(max(h, 1e-300))
        h = max(h, rung((end - begin) * len(rows) / MOST))
        if not (strip and h <= std):
            bounds[:] = np.inf
        pieces = list(in_groups(lo, hi, np.full(len(rows), h), SPLIT))
        ends = [(int(np.floor(lo[k].min() / h + 0.5)), int(np.ceil(hi[k].max() / h - 0.5))) for k in pieces]
        for k, (first, last) in zip(pieces, ends):
            part = rows[k]
            *values, rounding = self._sums(evidence, part, h, first, last, kept)
            errors = missed(strip.a, h, np.array([bounds[0, k], bounds[:, k].sum(axis=0)])) if strip else np.inf
            known = self._sides(evidence, part, strip, h, first, last) if strip else np.inf
            found[:3, part], found[3:, part] = values, errors + known + allowed + rounding

    def _sums(
        self,
        evidence: Evidence,
        rows: Ints,
        h: float,
        first: int,
        last: int,
        kept: dict[Any, tuple[Array, Array]],
    ) -> list[Array]:
        """E_q[log p(x|z)] over A and over B, E_q[log q − log p(z)] over B, and about their rounding, (n,) each."""
        mu, s, decoder, sums = self.mean[rows], self.std[rows], evidence.decoder, []
        for shift in (0.0, 0.5):
            z, outputs = decoder.nodes(h, shift, first - (shift > 0), last)
            if not shift:
                likelihood = decoder.likelihood.around(outputs[len(outputs) // 2])
                left = likelihood.rows(evidence.x[rows])
            w, squares = self._weights_of(rows, z, (h, shift, first, last), kept)
            sums.append(np.einsum("nk,nk->n", left, w @ likelihood.columns(outputs).T))
        m0, m1 = (w @ np.column_stack([np.ones_like(z), z])).T
        drift = (m1 - mu * m0) * mu  # E_q[s u mean]: the first moment of u is all but 0
        to_prior = (0.5 * mu**2 - np.log(s)) * m0 + drift + 0.5 * (s**2 - 1) * squares
        cancels = np.maximum(likelihood.magnitude(left) - 2 * np.abs(sums[0]), 0.0)
        size = 16 + 3 * np.abs(sums[0]) + 2 * np.abs(to_prior) + 8 * cancels + 2 * mu**2
        off = np.sqrt(2 * np.abs(likelihood.highest - sums[0])) + TYPICAL
        far = max(abs(first), abs(last)) * h
        return [*sums, to_prior, EPS * size + off * decoder.rounding_of_outputs(far)]

    def _strip(self, evidence: Evidence, lo: float, hi: float, std: float, nats: float) -> Strip | None:
        """The strip of the posteriors where it serves q as well, or one of its own."""
        strip, wanted = evidence.groups[0].strip if evidence.groups else None, height_for(std, nats)
        if strip and lo < strip.hi and strip.lo < hi:  # not higher than what is known to be free
            wanted = min(wanted, strip.a)
        if (
            strip
            and strip.lo <= lo - 2 * std
            and hi + 2 * std <= strip.hi
            and 0.6 * wanted <= strip.a <= 1.2 * wanted
        ):
            return strip
        inside = lo - 2 * std > -REACH and hi + 2 * std < REACH
        real = evidence.decoder.real_cells(*((-REACH, REACH) if inside else (lo - 2 * std, hi + 2 * std)))
        return evidence.decoder.strip(real, lo, hi, std, wanted)

    def _bounds(self, strip: Strip, lo: float, hi: float, mu: Array, s: Array, left: Array) -> Array:
        """Of ∫ |q log p(x|z)| and ∫ |q (log q − log p(z))| on the line Im z = a, (2, n).

        There |q| is e^(a²/2s²) times q at the real part, and q of a cell is at most its length times the largest q in
        it. For the squares by Minkowski's inequality: E|u + ia/s|² <= (1 + a/s)², E|z + ia|² <= (√E z² + a)².
        """
        (middle, r, a, bounds, *_), std = strip.cells, float(s.min())
        begin, end = np.searchsorted(middle, [lo - 2 * std, hi + 2 * std])
        part = slice(max(begin - 1, 0), end + 1)
        r, scale = r[part], 1 / s[:, None]
        u = np.abs(middle[part] - mu[:, None])
        u -= r
        np.maximum(u, 0.0, out=u)
        u *= scale
        u = u.astype(np.float32)
        u *= u
        u *= np.float32(-0.5)
        held = np.exp(u, out=u)
        held *= (r * (scale * np.sqrt(2 / np.pi))).astype(np.float32)
        np.minimum(held, np.float32(1.0), out=held)
        held += np.float32(1e-37)
        of_log_p = 1.001 * np.einsum("nk,nk->n", left, held.astype(float) @ bounds.size[:, part].T)
        of_squares = np.abs(np.log(s)) + 0.5 * (1 + a / s) ** 2 + 0.5 * (np.hypot(mu, s) + a) ** 2
        return np.exp(0.5 * (a / s) ** 2) * np.array([of_log_p, of_squares])

    def _weights_of(
        self, rows: Ints, z: Array, lattice: Any, kept: dict[Any, tuple[Array, Array]]
    ) -> tuple[Array, Array]:
        """q h at the nodes of a lattice, (n, M), and E_q[u²] over it, u = (z − mean)/s, (n,)."""
        key = (*lattice, rows.tobytes())
        if key not in self._weights:
            if (known := kept.get(key)) is None:
                mu, scale = self.mean[rows], np.sqrt(0.5) / self.std[rows]
                u = z - mu[:, None]  # first, so that little is lost where q is narrow
                u *= scale[:, None]
                u *= u
                w = np.exp(-u)
                w *= (scale * lattice[0] / np.sqrt(np.pi))[:, None]
                known = w, 2 * np.einsum("nm,nm->n", w, u)
            self._weights[key] = known
        return self._weights[key]

    def _sides(self, evidence: Evidence, rows: Ints, strip: Strip, h: float, first: int, last: int) -> Array:
        """What the sides of the box weigh in the error of either sum, (n,).

        There |q| = q(end) e^(y²/2s²), which counts 2/(1 + e^(2πy/h)) <= 2 e^(−2πy/h): together at most 2 e^(−cy/a),
        the exponent being convex in y, with c = 2πa/h − a²/2s².
        """
        mu, s, (l, r), half = self.mean[rows], self.std[rows], ((first - 0.5) * h, (last + 0.5) * h), 0.5 * h
        a, left = strip.a, evidence.left[rows]
        size = np.array([evidence.decoder.highest(strip, x, half, left) for x in (l - half, r)])
        way, far = np.array([mu - l, r - mu]), np.abs([[l - half], [r + half]]) + a
        squares = np.abs(np.log(s)) + 0.5 * ((way + half + a) / s) ** 2 + 0.5 * far**2
        c = 2 * np.pi * a / h - 0.5 * (a / s) ** 2
        piece = np.where(c > 0, -2 * a * np.expm1(-c) / c, np.inf)
        return (np.exp(-0.5 * (way / s) ** 2) * (size + squares)).sum(axis=0) * piece / (s * np.sqrt(2 * np.pi))
