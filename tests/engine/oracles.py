"""Brute force: integrals in the log domain on grids so fine that nothing about the model need be known.

None of this uses the engine's quadrature, support or networks: a decoder is written out again here.
Every oracle returns (value, doubt): doubt is how far the value from half of the nodes is.
"""

import numpy as np
from scipy.special import logsumexp

LOG_2PI = np.log(2 * np.pi)


def network(layers, h):
    for W, b in layers[:-1]:
        h = np.tanh(h @ W + b)
    return h @ layers[-1][0] + layers[-1][1]


def log_prior(z):
    return -0.5 * (z**2).sum(axis=-1) - 0.5 * z.shape[-1] * LOG_2PI


def log_likelihood(model, theta, x):
    """z (M, L) -> log p(x|z) (M,) for one data point x (D,)."""
    parts = model.unpack_theta(theta)

    def at(z):
        out = network(parts.layers, z)
        if model.likelihood == "bernoulli":
            return (x * out - np.logaddexp(0, out)).sum(axis=1)
        log_std = np.log(model.noise_std) if parts.log_noise_std is None else parts.log_noise_std
        log_std = np.broadcast_to(log_std, x.shape)
        return (-0.5 * ((x - out) * np.exp(-log_std)) ** 2 - log_std - 0.5 * LOG_2PI).sum(axis=1)

    return at


def joint(model, theta, x):
    likelihood = log_likelihood(model, theta, x)
    return lambda z: likelihood(z) + log_prior(z)


def grid(sides, n):
    """The nodes (n^L, L) of a box and the volume of one cell; the last axis runs fastest."""
    axes = [np.linspace(lo, hi, n) for lo, hi in sides]
    volume = np.prod([(hi - lo) / (n - 1) for lo, hi in sides])
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(sides)), volume


def on_grid(log_f, sides, n):
    z, volume = grid(sides, n)
    table = np.concatenate([log_f(part) for part in np.array_split(z, max(1, len(z) // 50_000))])
    return table.reshape([n] * len(sides)), volume


def log_integral(log_f, dim, n=None, depth=60.0):
    """log ∫ exp(log_f(z)) dz over all of R^dim: the trapezoid rule where the mass is.

    The box grows until its border lies `depth` nats below the peak, and shrinks to what is within `depth`
    of it as long as the nodes do not resolve it.
    """
    n = n or {1: 200_001, 2: 601}[dim]
    reach, coarse = {1: (160.0, 40_001), 2: (40.0, 401)}[dim]
    far, _ = on_grid(log_f, [(-reach, reach)] * dim, coarse)  # first, how far out is there anything at all
    mass = np.abs(np.argwhere(far > far.max() - depth) - coarse // 2).max() * 2 * reach / (coarse - 1)
    sides = np.array([[-1.0, 1.0]] * dim) * max(9.0, 1.1 * mass)
    grown = False
    for _ in range(12):
        table, volume = on_grid(log_f, sides, n)
        peak = table.max()
        border = max(table.take([0, -1], axis=axis).max() for axis in range(dim))
        if not grown and border > peak - depth:
            sides = 2 * sides
            continue
        grown = True
        value = logsumexp(table) + np.log(volume)
        halves = [table[(slice(None),) * axis + (slice(None, None, 2),)] for axis in range(dim)]
        doubt = max(abs(logsumexp(half) + np.log(2 * volume) - value) for half in halves)
        rise = np.zeros_like(table)
        for axis in range(dim):
            step = np.abs(np.diff(table, axis=axis))
            for pad in ((0, 1), (1, 0)):
                pads = [pad if a == axis else (0, 0) for a in range(dim)]
                np.maximum(rise, np.pad(step, pads), out=rise)
        at = np.argwhere(table + 2 * rise > peak - depth)
        h = (sides[:, 1] - sides[:, 0]) / (n - 1)
        smaller = np.stack([sides[:, 0] + (at.min(axis=0) - 3) * h, sides[:, 0] + (at.max(axis=0) + 3) * h], 1)
        if doubt < 1e-12 * (1 + abs(value)) or ((smaller[:, 1] - smaller[:, 0]) > 0.8 * (n - 1) * h).all():
            break
        sides = smaller
    return float(value), float(doubt)


def mean_under_gaussian(f, mean, cholesky, n=None):
    """E[f(z)], z ~ N(mean, C Cᵀ), by the trapezoid rule in the standardised coordinates."""
    dim = len(mean)
    n = n or {1: 200_001, 2: 601}[dim]
    half = {1: 11.0, 2: 9.0}[dim]
    t, volume = grid([(-half, half)] * dim, n)
    weighted = np.concatenate(
        [
            np.exp(log_prior(part)) * volume * f(mean + part @ cholesky.T)
            for part in np.array_split(t, max(1, len(t) // 50_000))
        ]
    ).reshape([n] * dim)
    value = weighted.sum()
    halves = [2 * weighted[(slice(None),) * axis + (slice(None, None, 2),)].sum() for axis in range(dim)]
    return float(value), float(max(abs(half - value) for half in halves))


def terms(model, theta, x, q):
    """The terms of each data point by brute force: {name: [(value, doubt), …]}; q a Gaussian of the engine."""
    found = {"log_px": [], "reconstruction": [], "kl_posterior": []}
    for n in range(len(x)):
        mean, C = q.mean[n], np.linalg.cholesky(q.cov[n])
        log_px, doubt = log_integral(joint(model, theta, x[n]), model.latent_dim)
        likelihood = log_likelihood(model, theta, x[n])
        log_det = np.log(np.diag(C)).sum()

        def log_ratio(z, likelihood=likelihood, mean=mean, C=C, log_det=log_det):
            u = np.linalg.solve(C, (z - mean).T).T
            return log_prior(u) - log_det - likelihood(z) - log_prior(z)

        ratio, ratio_doubt = mean_under_gaussian(log_ratio, mean, C)
        found["log_px"].append((log_px, doubt))
        found["reconstruction"].append(mean_under_gaussian(likelihood, mean, C))
        found["kl_posterior"].append((ratio + log_px, doubt + ratio_doubt))
    return found


def silently_wrong(model, theta, x, q, got):
    """What of the Decomposition `got` misses the truth by more than it admits, while it claims the tolerance."""
    tolerance = {1: 1e-9, 2: 1e-6}[model.latent_dim]
    lines = []
    for name, oracle in terms(model, theta, x, q).items():
        values, errors = getattr(got, name), getattr(got, name + "_error")
        for n, (expected, doubt) in enumerate(oracle):
            allowed = errors[n] + doubt + 1e-11 * abs(expected) + 2e-12
            if not errors[n] > tolerance and not abs(values[n] - expected) <= allowed:
                miss = values[n] - expected
                lines.append(f"{name}[{n}] = {values[n]!r} is off by {miss:.3g}, claims {errors[n]:.1g}")
    return lines
