"""What is proven of a decoder on complex discs: held against the decoder itself at random complex points."""

import numpy as np
import pytest

from tinyvae.exact.bounds import BernoulliLikelihood, GaussianLikelihood, discs, intervals

# What is not free of poles is infinite, or not a number; so is Newton's method where it gets lost.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def network(r, L=None):
    """Random layers as the engine wants them, (W, |W|, b)."""
    L = int(r.choice([1, 2])) if L is None else L
    sizes = [L, *r.integers(2, 12, r.integers(0, 3)), int(r.integers(1, 6))]
    scale = r.uniform(0.6, 2.2)
    weights = [scale * r.standard_normal((i, o)) / np.sqrt(i) for i, o in zip(sizes, sizes[1:])]
    return L, [(W, np.abs(W), 0.5 * scale * r.standard_normal(W.shape[1])) for W in weights]


def decode(layers, z):
    for W, _, b in layers[:-1]:
        z = np.tanh(z @ W + b)
    return z @ layers[-1][0] + layers[-1][2]


def some_discs(r, L, M=30):
    """Centres on or above the real line, radii, and points inside."""
    re, im, axis = r.uniform(-4, 4, (M, L)), np.zeros((M, L)), int(r.integers(L))
    im[:, axis] = r.uniform(0, 0.5, M)
    rho = np.full((L, M), r.choice([1 / 64, 1 / 16, 1 / 4]))
    z = rho.T[:, None] * np.exp(2j * np.pi * r.random((M, 40, L))) * np.sqrt(r.random((M, 40, L)))
    return re, im, rho, z


@pytest.mark.parametrize("seed", range(40))
def test_on_a_disc_a_decoder_moves_and_bends_no_more_than_stated(seed):
    r = np.random.default_rng(seed)
    L, layers = network(r)
    re, im, rho, move = some_discs(r, L)
    d = discs(layers, re, im, rho)
    at = decode(layers, re + 1j * im)
    assert np.allclose(d.re + 1j * d.im, at, rtol=1e-12, atol=1e-12)
    moved = decode(layers, (re + 1j * im)[:, None] + move) - at[:, None]
    linear = np.einsum("lmk,mjl->mjk", d.slope[:, 0] + 1j * d.slope[:, 1], move)
    assert (np.abs(moved).max(axis=1) <= d.moves * (1 + 1e-9) + 1e-12)[d.free].all()
    assert (np.abs(moved - linear).max(axis=1) <= 0.5 * d.bend * (1 + 1e-9) + 1e-11)[d.free].all()
    assert d.free.any()


@pytest.mark.parametrize("seed", range(20))
def test_on_an_interval_a_decoder_moves_and_bends_no_more_than_stated(seed):
    r = np.random.default_rng(seed)
    L, layers = network(r)
    z, rho = r.uniform(-4, 4, (30, L)), np.full((L, 30), r.choice([1 / 64, 1 / 4, 1.0]))
    d = intervals(layers, z, rho)
    move = rho.T[:, None] * r.uniform(-1, 1, (30, 60, L))
    moved = decode(layers, z[:, None] + move) - decode(layers, z)[:, None]
    linear = np.einsum("lmk,mjl->mjk", d.slope[:, 0], move)
    assert (np.abs(moved).max(axis=1) <= d.moves * (1 + 1e-9) + 1e-12).all()
    assert (np.abs(moved - linear).max(axis=1) <= 0.5 * d.bend * (1 + 1e-9) + 1e-11).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_disc_that_is_called_free_holds_no_pole(seed):
    """Poles of a unit found by Newton's method on cosh u = 0, from many starts."""
    r = np.random.default_rng(seed)
    _, layers = network(r, L=1)
    poles = []
    for depth in range(len(layers) - 1):
        z = (r.uniform(-4, 4, 400) + 1j * r.uniform(0.05, 1.5, 400))[:, None]
        unit, k = int(r.integers(layers[depth][0].shape[1])), np.pi * 1j * (r.integers(-1, 2, 400) + 0.5)
        for _ in range(60):  # u(z) = iπ(k + ½)
            step = 1e-6
            u, v = (decode([*layers[:depth], layers[depth]], z + e)[:, unit] for e in (0.0, step))
            with np.errstate(all="ignore"):
                z = z - ((u - k) * step / (v - u))[:, None]
        found = z[:, 0][np.abs(u - k) < 1e-9]
        poles += [p for p in found if np.isfinite(p) and abs(p.real) < 4 and abs(p.imag) < 1.5]
    for p in poles[:60]:
        radius = r.uniform(0.01, 0.5)
        centre = p + radius * r.random() * np.exp(2j * np.pi * r.random())
        d = discs(layers, np.array([[centre.real]]), np.array([[centre.imag]]), np.array([[radius]]))
        assert not d.free[0]


def random_likelihood(r, layers, likelihood):
    """A likelihood, some x, and log p(x|z) for outputs F (M, T, D): (N, M, T)."""
    D = layers[-1][2].size
    if likelihood == "bernoulli":
        x = (r.random((4, D)) < 0.5).astype(float)[:, None, None]

        def of_bits(F):
            logs = [-np.log(1 + np.exp(sign * F)) for sign in (-1, 1)]
            return (x * logs[0] + (1 - x) * logs[1]).sum(axis=-1)

        return BernoulliLikelihood(), x[:, 0, 0], of_bits
    how = GaussianLikelihood(1 / r.uniform(0.1, 1, D), r.standard_normal(D))
    x = decode(layers, r.standard_normal((4, len(layers[0][0])))) + 0.3 * r.standard_normal((4, D))

    def gaussian(F):
        scaled = (x[:, None, None] - F) * how.inverse_std
        return -0.5 * (scaled * scaled).sum(axis=-1) + how.log_constant

    return how, x, gaussian


@pytest.mark.parametrize("upwards", [None, 0, 1])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("seed", range(15))
def test_log_p_is_below_its_bound_all_over_a_cell(seed, likelihood, upwards):
    r = np.random.default_rng(seed)
    L, layers = network(r, L=2 if upwards else None)
    re, im, rho, _ = some_discs(r, L)
    t = rho.T[:, None] * r.uniform(-1, 1, (len(re), 50, L))
    along = t.astype(complex)
    if upwards is not None:
        along[:, :, upwards] *= 1j
    d, F = discs(layers, re, im, rho), decode(layers, (re + 1j * im)[:, None] + along)
    how, x, log_density = random_likelihood(r, layers, likelihood)
    log_p = log_density(F)
    bounds, left, free = how.bounds(d, rho, upwards), how.rows(x), how.free(d, True)
    log_f, rest = bounds.ceiling(left)
    ceiling = (log_f + rest)[:, :, None] + np.einsum("nk,lkm,mtl->nmt", left, bounds.slope, t)
    assert free.any() and (log_p.real <= ceiling + 1e-9 * (1 + np.abs(ceiling)))[:, free].all()
    assert (np.abs(log_p) <= (left @ how.size(d))[:, :, None] * (1 + 1e-9) + 1e-9)[:, free].all()


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("seed", range(15))
def test_log_p_is_below_its_ceiling_all_over_a_large_cell_of_the_real_line_or_plane(seed, likelihood):
    r = np.random.default_rng(seed)
    L, layers = network(r)
    z, rho = r.uniform(-4, 4, (30, L)), np.full((L, 30), r.choice([1 / 4, 1.0, 4.0]))
    near = z[:, None] + rho.T[:, None] * r.uniform(-1, 1, (30, 60, L))
    how, x, log_density = random_likelihood(r, layers, likelihood)
    bounds, left = how.bounds(intervals(layers, z, rho), rho), how.rows(x)
    ceiling = bounds.highest(left, bounds.ceiling(left)[0])[:, :, None]
    assert (log_density(decode(layers, near)).real <= ceiling + 1e-9 * (1 + np.abs(ceiling))).all()
