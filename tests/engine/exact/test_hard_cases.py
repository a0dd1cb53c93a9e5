"""The exact terms where they are hard: right within the error that they state, or openly not certified.

Never silently wrong: each case is computed again by brute force (`oracles`), and a value that misses it by
more than its own error must not claim the tolerance.
"""

import signal
from contextlib import contextmanager

import numpy as np
import oracles
import pytest
from scipy import stats
from scipy.special import logsumexp

import tinyvae as tv

TOLERANCE = {1: 1e-9, 2: 1e-6}


def phi_of(model, mean, std, lower=0.0):
    """φ of an encoder that answers the same q to every x."""
    phi = np.zeros(model.phi_size)
    bias = model.unpack_phi(phi).layers[-1][1]
    L = model.latent_dim
    bias[:L], bias[L : 2 * L], bias[2 * L :] = mean, np.log(std), lower
    return phi


def network(L, seed, *, scale=1.0, hidden=(6, 5), D=2, **arguments):
    """A random decoder; `scale` multiplies all of its weights and biases."""
    model = tv.VAE(D, L, hidden=hidden, covariance="full", **arguments)
    r = np.random.default_rng(seed)
    theta = model.init(seed)[0]
    theta[: model.decoder_size] += 0.5 * r.standard_normal(model.decoder_size)
    theta[: model.decoder_size] *= scale
    return model, theta, r


def made_by(model, theta, z, r, noise):
    """One x for each z, from the model itself."""
    out = model.decode(theta, z)
    if model.likelihood == "bernoulli":
        return (r.random(out.shape) < 1 / (1 + np.exp(-np.clip(out, -50, 50)))).astype(float)
    return out + noise * r.standard_normal(out.shape)


def wide_and_narrow(L, seed, std):
    model, theta, r = network(L, seed, noise_std=0.3)
    x = made_by(model, theta, r.standard_normal((2, L)), r, 0.3)
    return model, theta, x, phi_of(model, r.standard_normal(L), std)


def narrow_q(L, seed):
    return wide_and_narrow(L, seed, 1e-3)


def wide_q(L, seed):
    return wide_and_narrow(L, seed, 3.0)


def needle_q(L, seed):
    """Narrow one way and ordinary the other, and oblique (in R²)."""
    model, theta, x, _ = wide_and_narrow(L, seed, 1.0)
    r = np.random.default_rng(seed)
    std = [0.02, 0.3][:L] if seed % 2 else [0.3, 0.02][-L:]
    return model, theta, x, phi_of(model, r.standard_normal(L), std, 0.3 * r.standard_normal())


def small_noise(L, seed):
    model, theta, r = network(L, seed, noise_std=0.01, D=L + 1)
    z = r.standard_normal((2, L))
    return model, theta, made_by(model, theta, z, r, 0.01), phi_of(model, z[0], 0.01)


def bimodal(L, seed):
    """The first coordinate comes out of the decoder as a bump, so z and −z explain x alike (almost)."""
    model = tv.VAE(L, L, hidden=(4,), noise_std=[0.3, 0.1, 0.02][seed % 3], covariance="full")
    theta, r = np.zeros(model.theta_size), np.random.default_rng(seed)
    (W1, b1), (W2, b2) = model.unpack_theta(theta).layers
    slope, where = r.uniform(1, 2), r.uniform(0.7, 1.8)
    W1[0, :2], b1[:2], W2[:2, 0] = slope, [slope * where, -slope * where], [1, -1]
    b2[0] = 0.05 * r.standard_normal()
    if L == 2:
        W1[1, 2], W2[2, 1] = 1.0, 1.0
    x = made_by(model, theta, r.standard_normal((2, L)), r, 0.02)
    return model, theta, x, phi_of(model, r.standard_normal(L), 0.3)


def far_data(L, seed):
    """|x| = 50: nothing the decoder can say is near."""
    model, theta, r = network(L, seed, noise_std=[1.0, 0.3, 0.1][seed % 3])
    direction = r.standard_normal((2, 2))
    x = 50 * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    return model, theta, x, phi_of(model, r.standard_normal(L), 0.5)


def far_posterior(L, seed):
    """A posterior beyond |z| = 8: a decoder with a gentle slope must go far to reach x."""
    r = np.random.default_rng(seed)
    noise = [0.01, 0.03][seed % 2]
    hidden = [(), (4,)][seed // 2 % 2]
    model = tv.VAE(L, L, hidden=hidden, noise_std=noise, covariance="full")
    theta = np.zeros(model.theta_size)
    layers = model.unpack_theta(theta).layers
    slope = r.uniform(0.8, 1.2)
    if hidden:  # still far from saturation where the posterior is
        layers[0][0][:L, :L], layers[1][0][:L, :L] = np.eye(L) / 40, 40 * slope * np.eye(L)
    else:
        layers[0][0][:] = slope * np.eye(L)
    z = r.uniform(9, 14, (2, L)) * np.sign(r.standard_normal((2, L)))
    x = made_by(model, theta, z, r, noise)
    return model, theta, x, phi_of(model, z[0], 0.5)


def steep(L, seed):
    """Weights and biases times 20: saturated almost everywhere, and very steep where not."""
    likelihood = "bernoulli" if seed % 4 == 3 else "gaussian"
    noise = None if likelihood == "bernoulli" else [1.0, 0.3, 0.1][seed % 3]
    model, theta, r = network(L, seed, scale=20.0, noise_std=noise, likelihood=likelihood)
    z = r.standard_normal((2, L))
    x = made_by(model, theta, z, r, noise or 0.0)
    return model, theta, x, phi_of(model, r.standard_normal(L), [0.03, 0.3, 1.0, 3.0][seed // 4 % 4])


def steep_and_linear_around(L, seed):
    """A trained-looking net with one steep unit: weights of the first layer times 20."""
    model, theta, r = network(L, seed, hidden=(8,), noise_std=[0.3, 0.05][seed % 2])
    layers = model.unpack_theta(theta).layers
    layers[0][0][:] *= 20
    layers[0][1][:] *= 20
    x = made_by(model, theta, r.standard_normal((2, L)), r, 0.05)
    return model, theta, x, phi_of(model, r.standard_normal(L), 1.0)


CASES = {
    "q with std 1e-3": narrow_q,
    "q with std 3": wide_q,
    "q like a needle": needle_q,
    "noise std 0.01": small_noise,
    "bimodal posterior": bimodal,
    "x at 50": far_data,
    "posterior beyond 8": far_posterior,
    "weights times 20": steep,
    "first layer times 20": steep_and_linear_around,
}


ALWAYS_CERTIFIED = {  # on an ordinary budget; elsewhere the budget may be spent, which the errors then say
    1: {"q with std 1e-3", "q with std 3", "q like a needle", "noise std 0.01", "bimodal posterior", "x at 50"},
    2: {"bimodal posterior", "posterior beyond 8"},
}
SEEDS = {1: range(6), 2: range(3)}


def check(name, L, seed):
    """(what is silently wrong, whether all terms are certified)."""
    model, theta, x, phi = CASES[name](L, seed)
    got = tv.decompose(model, theta, phi, x)
    wrong = oracles.silently_wrong(model, theta, x, model.encode(phi, x), got)
    return wrong, got.error.max() <= TOLERANCE[L]


@pytest.mark.parametrize("L", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_no_term_is_silently_wrong(name, L):
    for seed in SEEDS[L]:
        wrong, certified = check(name, L, seed)
        assert not wrong, f"seed {seed}: {wrong}"
        assert certified or name not in ALWAYS_CERTIFIED[L], f"seed {seed}"


@pytest.mark.parametrize("L", [1, 2])
def test_the_brute_force_itself_is_right_on_a_linear_model(L):
    """The judge is judged: closed forms for a Gaussian model with a narrow and a far posterior."""
    model = tv.VAE(L, L, hidden=(), noise_std=0.02)
    theta = np.zeros(model.theta_size)
    model.unpack_theta(theta).layers[0][0][:] = np.eye(L)
    x, mean, std = np.full((1, L), 9.7), 0.3, 0.05
    q = model.encode(phi_of(model, mean, std), x)
    found = {name: value[0][0] for name, value in oracles.terms(model, theta, x, q).items()}
    evidence = 1 + 0.02**2
    log_px = -0.5 * L * (np.log(2 * np.pi * evidence) + 9.7**2 / evidence)
    reconstruction = -0.5 * L * (np.log(2 * np.pi * 0.02**2) + ((9.7 - mean) ** 2 + std**2) / 0.02**2)
    kl_prior = 0.5 * L * (std**2 + mean**2 - 1 - 2 * np.log(std))
    assert found["log_px"] == pytest.approx(log_px, rel=1e-12)
    assert found["reconstruction"] == pytest.approx(reconstruction, rel=1e-12)
    assert found["kl_posterior"] == pytest.approx(log_px - reconstruction + kl_prior, rel=1e-12)


def test_silently_wrong_would_notice():
    model, theta, x, phi = wide_q(1, 0)
    good = tv.decompose(model, theta, phi, x)
    q = model.encode(phi, x)
    values = {name: getattr(good, name) for name in good.__dataclass_fields__}
    for name in ("log_px", "reconstruction", "kl_posterior"):
        off = tv.Decomposition(**{**values, name: values[name] + [0, 1e-8]})
        (line,) = oracles.silently_wrong(model, theta, x, q, off)
        assert line.startswith(f"{name}[1]")
        admitted = {name: off.__dict__[name], f"{name}_error": np.array([1e-12, np.inf])}
        assert not oracles.silently_wrong(model, theta, x, q, tv.Decomposition(**{**values, **admitted}))


# ----- narrow features of the likelihood -----


def one_steep_unit(slope, where, noise):
    """A decoder tanh(slope·(z − where)): for x = 0 its likelihood is a spike of width noise/slope."""
    model = tv.VAE(1, 1, hidden=(1,), noise_std=noise)
    theta = np.zeros(model.theta_size)
    (W, b), (V, _) = model.unpack_theta(theta).layers
    W[:], b[:], V[:] = slope, -slope * where, 1.0
    return model, theta


@pytest.mark.parametrize(("slope", "where", "noise"), [(400, 0.03, 0.3), (400, 0.03, 0.01), (1500, 0.531, 0.3)])
def test_a_spike_between_two_nodes_is_found_or_not_certified(slope, where, noise):
    model, theta = one_steep_unit(slope, where, noise)
    wrong = oracles.silently_wrong(
        model, theta, x := np.array([[0.0]]), model.encode(phi := phi_of(model, where, 0.01), x),
        tv.decompose(model, theta, phi, x),
    )  # fmt: skip
    assert not wrong


@pytest.mark.parametrize("where", [0.25, 0.5, 0.531])
def test_a_spike_of_the_likelihood_under_a_wide_q_is_found_or_not_certified(where):
    model, theta = one_steep_unit(400, where, 0.1)
    x, phi = np.array([[0.0]]), phi_of(model, 0.0, 3.0)
    wrong = oracles.silently_wrong(model, theta, x, model.encode(phi, x), tv.decompose(model, theta, phi, x))
    assert not wrong


@pytest.mark.parametrize("seed", [3, 21, 31])
def test_more_steep_networks_are_right_or_not_certified(seed):
    wrong, _ = check("first layer times 20", 1, seed)
    assert not wrong


def any_network(seed):
    """Four data points (one perhaps at 50) under a random decoder, plain or with all weights times 3 or 20."""
    r = np.random.default_rng(seed)
    D, hidden = int(r.choice([1, 2, 3])), [(8,), (16, 16), (32, 32)][r.integers(3)]
    likelihood = str(r.choice(["gaussian", "gaussian", "gaussian", "bernoulli"]))
    noise = float(r.choice([1.0, 0.3, 0.1, 0.01])) if likelihood == "gaussian" else None
    model = tv.VAE(D, 1, hidden, likelihood=likelihood, noise_std=noise)
    scale = float(r.choice([1, 3, 20]))
    theta = scale * model.init(seed)[0]
    biases = r.choice([0, 1.0])
    for _, b in model.unpack_theta(theta).layers:
        b[:] += biases * r.standard_normal(b.shape) * (scale if r.random() < 0.5 else 1)
    x = model.decode(theta, r.standard_normal((4, 1)) * r.choice([0.5, 1, 3]))
    assert noise
    x = x + noise * r.standard_normal(x.shape)
    if r.random() < 0.5:
        x[0] = 50 * np.sign(r.standard_normal(D))
    x[1] = r.standard_normal(D) * x.std()
    return model, theta, x


@pytest.mark.parametrize(("seed", "n"), [(39, 1), (50, 2), (74, 0), (77, 0), (128, 1)])
def test_log_px_of_any_network_is_right_or_not_certified(seed, n):
    """Seeds at which a first look at the log density on a coarse grid was once misled."""
    model, theta, x = any_network(seed)
    target = tv.Target(model, theta, x[n : n + 1])
    log_px, doubt = oracles.log_integral(oracles.joint(model, theta, x[n]), 1)
    miss = abs(target.log_px[0] - log_px)
    assert target.error[0] > 1e-9 or miss <= target.error[0] + doubt + 1e-11 * abs(log_px), miss


@pytest.mark.parametrize("std", [(1e-3, 0.3), (0.01, 1.0), (3.0, 1e-4)])
def test_a_needle_in_the_plane_is_right_or_not_certified(std):
    """A linear decoder: E_q[log p(x|z)] in closed form."""
    model = tv.VAE(2, 2, hidden=(), noise_std=0.01)
    theta = np.zeros(model.theta_size)
    model.unpack_theta(theta).layers[0][0][:] = np.eye(2)
    x, mean = np.array([[0.5, 0.0]]), np.array([0.3, 0.2])
    got = tv.decompose(model, theta, phi_of(model, mean, std), x)
    squares = ((x[0] - mean) ** 2 + np.square(std)).sum()
    exact = -0.5 * squares / 0.01**2 - np.log(2 * np.pi * 0.01**2)
    miss = abs(got.reconstruction[0] - exact)
    assert got.reconstruction_error[0] > 1e-6 or miss <= got.reconstruction_error[0] + 1e-11 * abs(exact)


def test_a_q_of_which_the_grid_sees_only_half_is_not_certified():
    """Any q integrates to 1, so a needle that the look missed can be noticed: here half of the mass."""

    class Mixture:
        def log_prob(self, z, rows):
            parts = stats.norm(0, 1).logpdf(z[:, 0]), stats.norm(0.53, 1e-3).logpdf(z[:, 0])
            return logsumexp(parts, axis=0) - np.log(2)

    def likelihood(x, z):
        return stats.norm.logpdf(x[:, 0], z[:, 0], 1)

    x = np.array([[1.0]])
    got = tv.decompose(tv.Callables(likelihood, oracles.log_prior), None, None, x, q=Mixture())
    exact = [-0.5 * ((1 - m) ** 2 + s**2) - 0.5 * np.log(2 * np.pi) for m, s in ((0, 1), (0.53, 1e-3))]
    assert got.reconstruction_error[0] > 1e-9 or abs(got.reconstruction[0] - np.mean(exact)) < 1e-9


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_what_is_left_out_on_a_plane_is_in_the_error(likelihood, monkeypatch):
    """Cells that hold little are left out. Made to leave out far too much, the error must say so."""
    noise = {"noise_std": 0.3} if likelihood == "gaussian" else {}
    model, theta, r = network(2, 3, likelihood=likelihood, **noise)
    x = made_by(model, theta, r.standard_normal((6, 2)), r, 0.3)
    exact = np.array([oracles.log_integral(oracles.joint(model, theta, one), 2)[0] for one in x])
    as_it_is = tv.Target(model, theta, x)
    assert as_it_is.checked.all() and np.all(np.abs(as_it_is.log_px - exact) <= as_it_is.error)
    monkeypatch.setattr("tinyvae.exact.target.SHARE", 1e6)
    too_little = tv.Target(model, theta, x)
    missing = exact - too_little.log_px
    assert np.all(missing > 1e-5) and not too_little.checked.any()
    assert np.all(missing <= too_little.error)


# ----- scales that over- or underflow -----


@contextmanager
def within(seconds):
    """Fail rather than hang."""

    def late(*_):
        raise TimeoutError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("log_std", [-800.0, 800.0])
@pytest.mark.parametrize("L", [1, 2])
def test_a_q_whose_scale_over_or_underflows_gets_an_answer_that_is_not_certified(L, log_std):
    model, theta, r = network(L, 0, noise_std=0.3)
    phi = phi_of(model, 0.0, 1.0)
    model.unpack_phi(phi).layers[-1][1][L : 2 * L] = log_std
    with within(8), np.errstate(all="ignore"):
        got = tv.decompose(model, theta, phi, r.standard_normal((3, 2)))
    assert np.isfinite(got.log_px).all() and np.all(got.log_px_error <= TOLERANCE[L])
    assert not np.any(got.error <= TOLERANCE[L])


@pytest.mark.parametrize(
    ("L", "optimizer", "rate", "likelihood"),
    [(1, "sgd", 1e6, "gaussian"), (1, "adam", 1e4, "bernoulli"), (2, "sgd", 1e6, "gaussian")]
    + [(2, "adam", 1e4, "gaussian")],
)
def test_a_q_whose_scale_overflows_is_a_divergence_and_not_a_crash(L, optimizer, rate, likelihood):
    x = np.random.default_rng(0).standard_normal((12, 2))
    x = (x > 0).astype(float) if likelihood == "bernoulli" else x
    model = tv.VAE(2, L, hidden=(5,), likelihood=likelihood)
    t = tv.Trainer(model, x, batch_size=5, optimizer=optimizer, learning_rate=rate, tolerance=1e-4)
    with within(60), pytest.raises(tv.Diverged, match="step [0-9]+: .* is not finite; try a smaller"):
        list(t.steps(12))
    assert np.isfinite(t.theta).all() and np.isfinite(t.phi).all()
