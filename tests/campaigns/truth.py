"""A hunt for numbers that are called certified and are wrong: constructed and random models, many at a time.

    python tests/campaigns/truth.py --count 10000 --seconds 3600 --seed 0

Each case is a VAE with a q and some data points. Its terms are computed again by an integrator that shares nothing
with the engine (adaptive Gauss-Legendre sums on cells that begin where the decoder bends) and compared with what the
engine states. At the end: how many points were certified, checked, neither; and each that is wrong, with its seed.
Exit code 1 if one that is certified is wrong by more than its error.
"""

import argparse
import collections
import math
import sys
import time
from fractions import Fraction

import numpy as np

import tinyvae as tv
from tinyvae.gaussian import Gaussian

NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
TOLERANCE = {1: 1e-9, 2: 1e-6}
LOG_2PI = np.log(2 * np.pi)


# ----- the integrator -----


def integral(f, edges, tolerance=1e-14, most=200_000):
    """∫ f over [edges[0], edges[-1]], and a doubt: each cell is halved until its halves say the same.

    f takes (M,) and gives (M,); it may be a signed function, of which the sum of absolute values sets the scale.
    """
    lo, hi = np.array(edges[:-1]), np.array(edges[1:])
    value, scale, doubt, used = 0.0, 0.0, 0.0, 0

    def rule(lo, hi):
        half = 0.5 * (hi - lo)
        y = f((0.5 * (lo + hi)[:, None] + half[:, None] * NODES).ravel()).reshape(len(lo), -1)
        return half * (y @ WEIGHTS), half * (np.abs(y) @ WEIGHTS)

    whole, size = rule(lo, hi)
    while len(lo):
        middle = 0.5 * (lo + hi)
        left, left_size = rule(lo, middle)
        right, right_size = rule(middle, hi)
        used += 2 * len(lo)
        error = np.abs(left + right - whole)
        scale = max(scale, size.sum() + abs(value))
        fine = (error <= tolerance * scale / 64) | (hi - lo < 1e-12 * (1 + np.abs(lo))) | (used > most)
        value += (left + right)[fine].sum()
        doubt += error[fine].sum()
        again = ~fine
        lo, hi = np.concatenate([lo[again], middle[again]]), np.concatenate([middle[again], hi[again]])
        whole = np.concatenate([left[again], right[again]])
        size = np.concatenate([left_size[again], right_size[again]])
    return value, doubt + 1e-15 * scale


def decoder(model, theta):
    parts = model.unpack_theta(theta)
    log_std = None
    if model.likelihood == "gaussian":
        log_std = np.log(model.noise_std) if parts.log_noise_std is None else parts.log_noise_std
        log_std = np.broadcast_to(log_std, (model.data_dim,))
    *hidden, (V, c) = parts.layers

    def log_likelihood(x, z):
        h = z[:, None] if z.ndim == 1 else z
        for W, b in hidden:
            h = np.tanh(h @ W + b)
        if log_std is None:
            out = h @ V + c
            return (x * out - np.logaddexp(0, out)).sum(axis=1)
        r = ((x - c) - h @ V) * np.exp(-log_std)
        return (-0.5 * r * r - log_std - 0.5 * LOG_2PI).sum(axis=1)

    return log_likelihood


def bends(model, theta, lo, hi):
    """Where to begin: evenly, and about where the units of the first layer bend."""
    W, b = model.unpack_theta(theta).layers[0]
    at = np.linspace(lo, hi, 257)
    if model.hidden:
        steep = np.abs(W[0]) > 1e-9
        centre, width = -b[steep] / W[0, steep], 1 / np.abs(W[0, steep])
        around = [centre + k * width for k in (-12, -4, -1, 0, 1, 4, 12)]
        at = np.concatenate([at, *around])
    return np.unique(np.clip(at, lo, hi))


def truth_on_the_line(model, theta, x, mean, std):
    """log p(x), E_q[log p(x|z)] and KL(q ‖ p(z|x)) of one data point, each with a doubt."""
    log_likelihood = decoder(model, theta)
    reach = 80.0
    edges = bends(model, theta, -reach, reach)
    inner = np.unique(np.concatenate([edges, np.linspace(-8, 8, 80_001)]))
    logs = log_likelihood(x, inner) - 0.5 * inner**2
    tops = np.flatnonzero((logs[1:-1] >= logs[:-2]) & (logs[1:-1] >= logs[2:])) + 1
    tops = tops[np.argsort(-logs[tops])[:40]]  # the highest places, each looked at closely
    lo, hi = inner[np.maximum(tops - 1, 0)], inner[np.minimum(tops + 1, len(inner) - 1)]
    for _ in range(6):
        z = lo[:, None] + (hi - lo)[:, None] * np.linspace(0, 1, 41)
        at = (log_likelihood(x, z.ravel()) - 0.5 * z.ravel() ** 2).reshape(z.shape)
        k, rows = at.argmax(axis=1), np.arange(len(z))
        lo, hi = z[rows, np.maximum(k - 1, 0)], z[rows, np.minimum(k + 1, 40)]
    peak = float(max(at.max(), logs.max()))
    steps = np.concatenate([[-1], [1]])[:, None] * 10.0 ** np.arange(-9, 1.0)
    marks = (0.5 * (lo + hi)[:, None] + steps.ravel()).ravel()
    edges = np.unique(np.clip(np.concatenate([edges, marks]), -reach, reach))
    mass, doubt = integral(lambda z: np.exp(log_likelihood(x, z) - 0.5 * z**2 - peak), edges)
    log_px, log_px_doubt = np.log(mass) + peak - 0.5 * LOG_2PI, doubt / mass

    def under_q(g):
        edges = np.unique(
            np.concatenate(
                [(bends(model, theta, mean - 13 * std, mean + 13 * std) - mean) / std, np.linspace(-13, 13, 53)]
            )
        )
        return integral(
            lambda u: np.exp(-0.5 * u * u - 0.5 * LOG_2PI) * g(mean + std * u, u), np.clip(edges, -13, 13)
        )

    reconstruction, doubt_r = under_q(lambda z, u: log_likelihood(x, z))
    kl_prior = 0.5 * (mean**2 + std**2 - 1) - np.log(std)
    return {
        "log_px": (log_px, log_px_doubt),
        "reconstruction": (reconstruction, doubt_r),
        "kl_posterior": (kl_prior - reconstruction + log_px, doubt_r + log_px_doubt),
    }


# ----- the cases -----


def net(r, L=1, hidden=None, likelihood=None, D=None, noise=None, scale=None):
    D = int(r.integers(1, 6)) if D is None else D
    hidden = tuple(int(r.integers(2, 12)) for _ in range(r.integers(0, 3))) if hidden is None else hidden
    likelihood = str(r.choice(["gaussian", "bernoulli"])) if likelihood is None else likelihood
    model = tv.VAE(D, L, hidden=hidden, likelihood=likelihood, covariance="full")
    theta = model.init(int(r.integers(2**31)))[0]
    n = model.decoder_size
    theta[:n] += 0.3 * r.standard_normal(n)
    theta[:n] *= r.uniform(0.6, 2.2) if scale is None else scale
    if likelihood == "gaussian":
        theta[n:] = np.log(10 ** r.uniform(-1, 0) if noise is None else noise)
    return model, theta


def data(r, model, theta, n=3):
    z = r.standard_normal((n, model.latent_dim))
    out = model.decode(theta, z)
    if model.likelihood == "bernoulli":
        return (r.random(out.shape) < 1 / (1 + np.exp(-np.clip(out, -50, 50)))).astype(float)
    return out + np.exp(model.log_noise_std(theta)) * r.standard_normal(out.shape)


def any_q(r, n, L=1):
    std = 10 ** r.uniform(-2.5, 1.0, (n, L))
    return Gaussian(
        1.5 * r.standard_normal((n, L)), np.log(std), 0.3 * std[:, :1] * r.standard_normal((n, L - 1))
    )


def ordinary(r):
    model, theta = net(r)
    x = data(r, model, theta)
    return model, theta, x, Gaussian(r.standard_normal((3, 1)), r.uniform(-2, 0.3, (3, 1)), np.zeros((3, 0)))


def wide_or_narrow_q(r):
    model, theta = net(r)
    return model, theta, data(r, model, theta), any_q(r, 3)


def bump(r):
    """Two steep units that make a bump of the mean somewhere, of any width and height, beside a gentle unit."""
    k, c, s = 10 ** r.uniform(0.5, 4), r.uniform(-3, 3), 10 ** r.uniform(-2.5, 0.3)
    w, height = 10 ** r.uniform(-1.5, 1.5) / k, s * 10 ** r.uniform(-2, 2.5)
    model = tv.VAE(1, 1, hidden=(3,))
    theta = np.zeros(model.theta_size)
    u = model.unpack_theta(theta)
    u.layers[0][0][:], u.layers[0][1][:] = [[k, k, 1]], [-k * (c - w / 2), -k * (c + w / 2), 0]
    u.layers[1][0][:] = [[height / 2], [-height / 2], [r.choice([0.0, 0.3, 1.0])]]
    u.layers[1][1][:], u.log_noise_std[:] = r.standard_normal(), np.log(s)
    x = data(r, model, theta, 2) + height * r.choice([0, 0, 1])
    q = Gaussian(r.normal(c, 1.0, (2, 1)), r.uniform(-3, 0.5, (2, 1)), np.zeros((2, 0)))
    return model, theta, x, q


def steep(r):
    model, theta = net(
        r, hidden=(int(r.integers(2, 9)),) * int(r.integers(1, 3)), scale=10 ** r.uniform(0.3, 1.3)
    )
    return model, theta, data(r, model, theta, 2), any_q(r, 2)


def needle(r):
    model, theta = net(r, likelihood="gaussian", noise=10 ** r.uniform(-4, -1))
    return model, theta, data(r, model, theta), any_q(r, 3)


def far_mode(r):
    """A decoder that says what x wants only far out, and something poorer near 0."""
    model = tv.VAE(1, 1, hidden=(4,), noise_std=10 ** r.uniform(-2.5, -0.3))
    theta = np.zeros(model.theta_size)
    (W, b), (V, _) = model.unpack_theta(theta).layers
    W[0], b[:3], V[:3, 0] = r.uniform(0.5, 2), [-r.uniform(5, 25), 0.5, -0.5], [1, 0.2, -0.2]
    return model, theta, np.array([[1.0], [r.uniform(-1, 1)]]), any_q(r, 2)


def scaled(r):
    """Data, decoder and noise in other units, from 1e-8 to 1e8, with an offset."""
    model, theta = net(r, likelihood="gaussian")
    unit, offset = 10.0 ** r.uniform(-8, 8), 10.0 ** r.uniform(-3, 4) * r.standard_normal()
    u = model.unpack_theta(theta)
    W, b = u.layers[-1]
    W *= unit
    b[:] = unit * (b + offset)
    u.log_noise_std[:] += np.log(unit)
    return model, theta, data(r, model, theta), any_q(r, 3)


def linear_plane(r):
    """A linear Gaussian model on a plane: anything from round to needle-like posteriors, any units and offsets."""
    D, unit = int(r.integers(1, 5)), 10.0 ** r.uniform(-8, 8)
    model = tv.VAE(D, 2, hidden=(), covariance="full", noise="per-dimension")
    theta = np.zeros(model.theta_size)
    u = model.unpack_theta(theta)
    u.layers[0][0][:] = unit * r.standard_normal((2, D)) * 10 ** r.uniform(-3, 0.5, (2, 1))
    u.layers[0][1][:] = unit * r.standard_normal(D) * 10 ** r.uniform(-2, 3)
    u.log_noise_std[:] = np.log(unit) + r.uniform(-7, 1, D)
    return model, theta, data(r, model, theta), any_q(r, 3, L=2)


def plane(r):
    """z ∈ R², hidden layers, ordinary weights, a tilted q."""
    model, theta = net(r, L=2, hidden=tuple(int(r.integers(2, 12)) for _ in range(r.integers(1, 3))))
    std = 10 ** r.uniform(-0.8, 0.1, (2, 2))
    q = Gaussian(r.standard_normal((2, 2)), np.log(std), 0.3 * std[:, :1] * r.standard_normal((2, 1)))
    return model, theta, data(r, model, theta, 2), q


KINDS = [linear_plane, plane, ordinary, wide_or_narrow_q, bump, bump, steep, needle, far_mode, scaled]


def truth_of_linear(model, theta, x, mean, C):
    """The same for a linear Gaussian model on a plane, in exact rational arithmetic of the numbers given."""
    ((W, b),), F = model.unpack_theta(theta).layers, Fraction
    W, v = (
        [[F(w) for w in row] for row in W.tolist()],
        [F(math.exp(2 * s)) for s in theta[model.decoder_size :].tolist()],
    )
    r = [F(float(p)) - F(float(o)) for p, o in zip(x, b)]
    mean, C = [F(m) for m in mean.tolist()], [[F(c) for c in row] for row in C.tolist()]
    cov = [[sum(C[i][k] * C[j][k] for k in (0, 1)) for j in (0, 1)] for i in (0, 1)]

    def inner(p, o):
        return sum(a * c / s for a, c, s in zip(p, o, v))

    P = [[(i == j) + inner(W[i], W[j]) for j in (0, 1)] for i in (0, 1)]
    det = P[0][0] * P[1][1] - P[0][1] ** 2
    S = [[P[1][1] / det, -P[0][1] / det], [-P[0][1] / det, P[0][0] / det]]
    h = [inner(W[0], r), inner(W[1], r)]
    m = [S[i][0] * h[0] + S[i][1] * h[1] for i in (0, 1)]
    constant = -0.5 * (len(v) * math.log(2 * math.pi) + sum(math.log(s) for s in v))
    log_px = constant - float(inner(r, r) - h[0] * m[0] - h[1] * m[1]) / 2 - math.log(det) / 2
    off = [p - mean[0] * W[0][k] - mean[1] * W[1][k] for k, p in enumerate(r)]
    spread = sum(cov[i][j] * (P[i][j] - (i == j)) for i in (0, 1) for j in (0, 1))
    reconstruction = constant - float(inner(off, off) + spread) / 2
    d = [mean[i] - m[i] for i in (0, 1)]
    quad = sum(P[i][j] * (d[i] * d[j] + cov[i][j]) for i in (0, 1) for j in (0, 1))
    log_dets = math.log(det) + 2 * math.log(C[0][0] * C[1][1])
    doubt = 1e-15 * (1 + abs(constant) + len(v) + sum(abs(math.log(s)) for s in v))
    return {
        "log_px": (log_px, doubt + 1e-15 * abs(log_px)),
        "reconstruction": (reconstruction, doubt + 1e-15 * abs(reconstruction)),
        "kl_posterior": (float(quad) / 2 - 1 - log_dets / 2, doubt + 2e-15 * float(quad)),
    }


def panels(reach, many):
    """Gauss-Legendre nodes and weights on so many equal pieces of [−reach, reach]."""
    edges = np.linspace(-reach, reach, many + 1)
    half = reach / many
    nodes = (0.5 * (edges[:-1] + edges[1:])[:, None] + half * NODES).ravel()
    return nodes, np.tile(half * WEIGHTS, many)


def truth_on_the_plane(model, theta, x, mean, C):
    """The same for z ∈ R² by products of Gauss-Legendre sums, twice: the doubt is how far these are apart."""
    log_likelihood, found = decoder(model, theta), []
    for many in (28, 41):
        t, w = panels(9.5, many)
        z = np.stack(np.meshgrid(t, t, indexing="ij"), axis=-1).reshape(-1, 2)
        logs = log_likelihood(x, z) - 0.5 * (z * z).sum(axis=1)
        peak = logs.max()
        log_px = np.log(np.outer(w, w).ravel() @ np.exp(logs - peak)) + peak - LOG_2PI
        t, w = panels(9.0, many)
        eps = np.stack(np.meshgrid(t, t, indexing="ij"), axis=-1).reshape(-1, 2)
        weight = np.outer(w, w).ravel() * np.exp(-0.5 * (eps * eps).sum(axis=1) - LOG_2PI)
        reconstruction = weight @ log_likelihood(x, mean + eps @ C.T)
        kl_prior = 0.5 * (mean @ mean + (C * C).sum() - 2) - np.log(C[0, 0] * C[1, 1])
        found.append([log_px, reconstruction, kl_prior - reconstruction + log_px])
    names, (coarse, fine) = ("log_px", "reconstruction", "kl_posterior"), found
    return {name: (b, abs(a - b) + 1e-13 * (1 + abs(b))) for name, a, b in zip(names, coarse, fine)}


def examine(seed):
    """One case: its kind, and for each data point (what is wrong, certified, checked)."""
    r = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    model, theta, x, q = kind(r)
    with np.errstate(all="ignore"):
        got = tv.decompose(model, theta, None, x, q=q, certify=True)
    points = []
    for n in range(len(x)):
        with np.errstate(all="ignore"):
            if model.latent_dim == 1:
                expected = truth_on_the_line(model, theta, x[n], q.mean[n, 0], float(np.exp(q.log_diag[n, 0])))
            elif model.hidden:
                expected = truth_on_the_plane(model, theta, x[n], q.mean[n], q.cholesky[n])
            else:
                expected = truth_of_linear(model, theta, x[n], q.mean[n], q.cholesky[n])
        wrong = []
        for name, (value, doubt) in expected.items():
            miss, states = abs(getattr(got, name)[n] - value), getattr(got, name + "_error")[n]
            if model.latent_dim == 2 and model.hidden and got.certified[n]:
                states = got.proven_error[n]
            if not miss <= states + 4 * doubt:
                wrong.append(f"{name}: off by {miss:.2g}, states {states:.2g}, doubt {doubt:.1g}")
        points.append((wrong, bool(got.certified[n]), bool(got.checked[n])))
    return kind.__name__, points


def campaign(seeds, seconds=np.inf, report=lambda line: None):
    """Counts {kind: {"points", "certified", "checked", "neither", "wrong and certified", "wrong and checked"}}."""
    counts = collections.defaultdict(collections.Counter)
    begun = time.monotonic()
    for seed in seeds:
        if time.monotonic() - begun > seconds:
            break
        kind, points = examine(seed)
        for wrong, certified, checked in points:
            word = "certified" if certified else "checked" if checked else "neither"
            counts[kind].update(["points", word])
            if wrong:
                counts[kind].update([f"wrong and {word}"])
                if word != "neither":
                    report(f"seed {seed} ({kind}), {word}: " + "; ".join(wrong))
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="cases")
    parser.add_argument("--seconds", type=float, default=600.0, help="time budget")
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    args = parser.parse_args()
    counts = campaign(
        range(args.seed, args.seed + args.count), args.seconds, lambda line: print(line, flush=True)
    )
    total = collections.Counter()
    for kind, of_kind in sorted(counts.items()):
        total.update(of_kind)
        print(f"{kind:18}", ", ".join(f"{n} {word}" for word, n in sorted(of_kind.items())))
    print(f"{'all':18}", ", ".join(f"{n} {word}" for word, n in sorted(total.items())))
    return 1 if total["wrong and certified"] else 0


if __name__ == "__main__":
    sys.exit(main())
