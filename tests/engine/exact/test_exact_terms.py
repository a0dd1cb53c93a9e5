"""The exact terms: closed forms, other people's integrators, the identity, the numbers of the design."""

import itertools

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats
from scipy.special import betaln, digamma, expit, logsumexp
from sklearn.decomposition import PCA, FactorAnalysis

import tinyvae as tv

TERMS = ("log_px", "reconstruction", "kl_prior", "kl_posterior", "elbo")


def random_setting(latent_dim, seed, n=3, scale=1.0, D=3, **arguments):
    """A model with random weights and biases, and data that it made itself."""
    noise = {} if "bernoulli" in arguments.values() else {"noise_init": 1.0}
    model = tv.VAE(D, latent_dim, **{"hidden": (6, 5), **noise, **arguments})
    r = np.random.default_rng(seed)
    theta, phi = (scale * (v + 0.3 * r.standard_normal(v.shape)) for v in model.init(seed))
    out = model.decode(theta, r.standard_normal((n, latent_dim)))
    if model.likelihood == "bernoulli":
        return model, theta, phi, (r.random((n, D)) < expit(out)).astype(float)
    return model, theta, phi, out + 0.5 * r.standard_normal((n, D))


def linear(latent_dim, W, mean, variances, noise):
    """A linear VAE with the factor loadings W (D, L) and this noise, and its θ."""
    model = tv.VAE(len(W), latent_dim, hidden=(), noise=noise)
    theta, _ = model.init(0)
    parts = model.unpack_theta(theta)
    ((weights, bias),) = parts.layers
    weights[:], bias[:], parts.log_noise_std[:] = W.T, mean, 0.5 * np.log(variances)
    return model, theta


# ----- the linear model in closed form -----

LINEAR = list(itertools.product((1, 2), ("shared", "per-dimension")))


def random_linear(latent_dim, noise, seed=0, D=4):
    r = np.random.default_rng(seed)
    W, mean = r.standard_normal((D, latent_dim)), r.standard_normal(D)
    variances = np.exp(r.standard_normal(1 if noise == "shared" else D))
    x = mean + r.standard_normal((5, latent_dim)) @ W.T + np.sqrt(variances) * r.standard_normal((5, D))
    return W, mean, np.broadcast_to(variances, D), variances, x


@pytest.mark.parametrize(("L", "noise"), LINEAR)
def test_a_linear_model_has_its_closed_form(L, noise):
    W, mean, full, variances, x = random_linear(L, noise)
    target = tv.Target(*linear(L, W, mean, variances, noise), x, 1e-11)
    log_px = stats.multivariate_normal(mean, W @ W.T + np.diag(full)).logpdf(x)
    cov = np.linalg.inv(np.eye(L) + W.T @ (W / full[:, None]))
    posterior_mean = (x - mean) / full @ W @ cov
    assert np.abs(target.log_px - log_px).max() < 1e-10
    assert np.abs(target.posterior_mean - posterior_mean).max() < 1e-10
    assert np.abs(target.posterior_cov - cov).max() < 1e-10
    z = np.random.default_rng(1).standard_normal((7, L))
    for n in range(len(x)):
        density = stats.multivariate_normal(posterior_mean[n], cov).pdf(z)
        assert np.allclose(target.posterior_density(z)[n], density, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("L", "noise"), LINEAR)
def test_kl_posterior_of_two_gaussians_has_its_closed_form(L, noise):
    W, mean, full, variances, x = random_linear(L, noise, seed=3)
    _, theta = linear(L, W, mean, variances, noise)
    model = tv.VAE(4, L, hidden=(), noise=noise, covariance="full")
    phi = 0.4 * np.random.default_rng(2).standard_normal(model.phi_size)
    q, got = model.encode(phi, x), tv.decompose(model, theta, phi, x, tolerance=1e-11)
    precision = np.eye(L) + W.T @ (W / full[:, None])
    for n in range(len(x)):
        m, S = (x[n] - mean) / full @ W @ np.linalg.inv(precision), q.cov[n]
        r = q.mean[n] - m
        log_dets = np.linalg.slogdet(S)[1] + np.linalg.slogdet(precision)[1]
        expected = 0.5 * (np.trace(precision @ S) + r @ precision @ r - L - log_dets)
        assert abs(got.kl_posterior[n] - expected) < 1e-10 * (1 + expected)
        mu = W @ q.mean[n] + mean
        spread = np.sum((W @ S) * W, axis=1)
        reconstruction = np.sum(stats.norm.logpdf(x[n], mu, np.sqrt(full)) - 0.5 * spread / full)
        assert abs(got.reconstruction[n] - reconstruction) < 1e-10 * (1 + abs(reconstruction))


@pytest.mark.parametrize("L", [1, 2])
def test_log_px_is_the_score_of_scikit_learn(L):
    r = np.random.default_rng(4)
    x = r.standard_normal((60, L)) @ r.standard_normal((L, 4)) + r.uniform(0.3, 1, 4) * r.standard_normal(
        (60, 4)
    )
    pca = PCA(L).fit(x)
    W = pca.components_.T * np.sqrt(pca.explained_variance_ - pca.noise_variance_)
    model, theta = linear(L, W, pca.mean_, pca.noise_variance_, "shared")
    assert np.abs(tv.Target(model, theta, x, 1e-11).log_px - pca.score_samples(x)).max() < 1e-10
    fa = FactorAnalysis(L).fit(x)
    model, theta = linear(L, fa.components_.T, fa.mean_, fa.noise_variance_, "per-dimension")
    assert np.abs(tv.Target(model, theta, x, 1e-11).log_px - fa.score_samples(x)).max() < 1e-10


# ----- the factor analysis run of the design -----

FA_W, FA_STD = np.array([[-0.5, -1], [-1, -1], [2, 0.5]]), np.array([0.4, 0.2, 0.3])


@pytest.fixture(scope="module")
def factor_analysis():
    legacy = np.random.RandomState(42)
    z_train, z_test = legacy.randn(1000, 2), legacy.randn(1000, 2)
    noise_train, noise_test = legacy.randn(1000, 3), legacy.randn(1000, 3)
    return z_train @ FA_W.T + FA_STD * noise_train, z_test @ FA_W.T + FA_STD * noise_test


@pytest.mark.parametrize(("which", "expected"), [(0, -3.934837), (1, -3.970452)], ids=["train", "test"])
def test_factor_analysis_truth_has_the_log_likelihood_of_the_design(factor_analysis, which, expected):
    x = factor_analysis[which]
    as_vae = tv.Target(*linear(2, FA_W, np.zeros(3), FA_STD**2, "per-dimension"), x)
    assert abs(as_vae.log_px.mean() - expected) < 1e-6

    def likelihood(x, z):  # the truth itself, as plain functions
        return stats.norm.logpdf(x, z @ FA_W.T, FA_STD).sum(axis=-1)

    few = x[:100]
    truth = tv.Target(tv.Callables(likelihood, oracles.log_prior, latent_dim=2), None, few)
    assert np.abs(truth.log_px - as_vae.log_px[:100]).max() < 1e-9


def test_the_floor_of_a_diagonal_q_under_factor_analysis(factor_analysis):
    """The best diagonal q of a Gaussian posterior has the diagonal of its precision: KL = ½ log(∏ Λ_ii / |Λ|)."""
    x = factor_analysis[0][:200]
    model, theta = linear(2, FA_W, np.zeros(3), FA_STD**2, "per-dimension")
    precision = np.eye(2) + FA_W.T @ (FA_W / FA_STD[:, None] ** 2)
    phi = np.zeros(model.phi_size)
    ((W, b),) = model.unpack_phi(phi).layers
    W[:, :2] = (FA_W / FA_STD[:, None] ** 2) @ np.linalg.inv(precision)
    b[2:] = -0.5 * np.log(np.diag(precision))
    got = tv.decompose(model, theta, phi, x)
    assert abs(got.mean().kl_posterior - 0.471264) < 1e-6
    assert got.error.max() <= 1e-6
    worse = phi.copy()
    model.unpack_phi(worse).layers[0][1][2:] += 0.1
    assert tv.decompose(model, theta, worse, x).mean().kl_posterior > 0.4713


def test_a_full_q_reaches_the_gaussian_posterior(factor_analysis):
    x = factor_analysis[0][:50]
    _, theta = linear(2, FA_W, np.zeros(3), FA_STD**2, "per-dimension")
    model = tv.VAE(3, 2, hidden=(), noise="per-dimension", covariance="full")
    precision = np.eye(2) + FA_W.T @ (FA_W / FA_STD[:, None] ** 2)
    C = np.linalg.cholesky(np.linalg.inv(precision))
    phi = np.zeros(model.phi_size)
    ((W, b),) = model.unpack_phi(phi).layers
    W[:, :2] = (FA_W / FA_STD[:, None] ** 2) @ np.linalg.inv(precision)
    b[2:] = [*np.log(np.diag(C)), C[1, 0]]
    got = tv.decompose(model, theta, phi, x)
    assert np.abs(got.kl_posterior).max() < 1e-6
    assert np.abs(got.elbo - got.log_px).max() < 1e-6


# ----- non-linear decoders, against scipy's adaptive integrators -----


def scalar_joint(model, theta, x):
    """log p(x|z) and log p(z) for one z, written for speed at a single point."""
    parts = model.unpack_theta(theta)
    log_std = 0.0 if model.likelihood == "bernoulli" else parts.log_noise_std

    def log_likelihood(*z):
        h = np.array(z)
        for W, b in parts.layers[:-1]:
            h = np.tanh(h @ W + b)
        h = h @ parts.layers[-1][0] + parts.layers[-1][1]
        if model.likelihood == "bernoulli":
            return float(np.sum(x * h - np.logaddexp(0, h)))
        r = (x - h) * np.exp(-log_std)
        constant = np.sum(np.broadcast_to(log_std, x.shape)) + 0.5 * len(x) * np.log(2 * np.pi)
        return float(-0.5 * (r @ r) - constant)

    def log_prior(*z):
        return -0.5 * sum(v * v for v in z) - 0.5 * len(z) * np.log(2 * np.pi)

    return log_likelihood, log_prior


def by_scipy_quad(model, theta, x, m, s):
    """The terms of one data point under q = N(m, s²)."""
    log_likelihood, log_prior = scalar_joint(model, theta, x)
    log_q = stats.norm(m, s).logpdf
    z = np.linspace(-10, 10, 2001)
    logs = np.array([log_likelihood(v) + log_prior(v) for v in z])
    peak, at = logs.max(), z[logs.argmax()]

    def quad(f, lo, hi, points):
        return integrate.quad(f, lo, hi, points=points, limit=500, epsabs=1e-13, epsrel=1e-12)[0]

    def under_q(f):
        return quad(lambda v: np.exp(log_q(v)) * f(v), m - 9 * s, m + 9 * s, [m - 2 * s, m, m + 2 * s])

    mass = quad(lambda v: np.exp(log_likelihood(v) + log_prior(v) - peak), -10, 10, [at - 0.2, at, at + 0.2])
    log_px = np.log(mass) + peak
    reconstruction = under_q(log_likelihood)
    kl_prior = under_q(lambda v: log_q(v) - log_prior(v))
    kl_posterior = under_q(lambda v: log_q(v) - log_likelihood(v) - log_prior(v) + log_px)
    return dict(zip(TERMS, (log_px, reconstruction, kl_prior, kl_posterior, reconstruction - kl_prior)))


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_terms_are_those_of_scipy_quad(likelihood, seed):
    model, theta, phi, x = random_setting(1, seed, likelihood=likelihood, scale=1.5)
    got = tv.decompose(model, theta, phi, x)
    q = model.encode(phi, x)
    assert got.error.max() <= 1e-9
    for n in range(len(x)):
        expected = by_scipy_quad(model, theta, x[n], q.mean[n, 0], np.sqrt(q.cov[n, 0, 0]))
        for name, value in expected.items():
            assert abs(getattr(got, name)[n] - value) < 2e-10 * (1 + abs(value)), name


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_the_terms_are_those_of_scipy_dblquad(likelihood):
    arguments = {"likelihood": likelihood, "hidden": (3,), "covariance": "full"}
    model, theta, phi, x = random_setting(2, 5, n=1, D=2, **arguments)
    got = tv.decompose(model, theta, phi, x)
    q, target = model.encode(phi, x), tv.Target(model, theta, x)
    log_likelihood, log_prior = scalar_joint(model, theta, x[0])

    def integral(f, mean, cov):
        (a, c), (s, t) = mean, 7.5 * np.sqrt(np.diag(cov))
        return integrate.dblquad(lambda v, u: f(u, v), a - s, a + s, c - t, c + t, epsabs=1e-8, epsrel=1e-8)[0]

    def density(u, v):
        return np.exp(log_likelihood(u, v) + log_prior(u, v) - got.log_px[0])

    # that the posterior integrates to 1 is the statement about log_px
    assert abs(integral(density, target.posterior_mean[0], target.posterior_cov[0]) - 1) < 1e-6
    m, precision = q.mean[0], np.linalg.inv(q.cov[0])
    constant = -0.5 * np.linalg.slogdet(q.cov[0])[1] - np.log(2 * np.pi)

    def log_q(u, v):
        a, b = u - m[0], v - m[1]
        return constant - 0.5 * (
            precision[0, 0] * a * a + 2 * precision[0, 1] * a * b + precision[1, 1] * b * b
        )

    def under_q(f):
        return integral(lambda u, v: np.exp(log_q(u, v)) * f(u, v), m, q.cov[0])

    assert abs(under_q(log_likelihood) - got.reconstruction[0]) < 1e-6
    kl = under_q(lambda u, v: log_q(u, v) - log_likelihood(u, v) - log_prior(u, v) + got.log_px[0])
    assert abs(kl - got.kl_posterior[0]) < 1e-6


@pytest.mark.parametrize(("L", "tolerance"), [(1, 1e-9), (2, 1e-6)])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_posterior_moments_and_density_are_those_of_brute_force(L, tolerance, likelihood):
    model, theta, _, x = random_setting(L, 6, n=2, likelihood=likelihood)
    target = tv.Target(model, theta, x)
    z, volume = oracles.grid([(-8.0, 8.0)] * L, {1: 20_001, 2: 501}[L])
    for n in range(len(x)):
        logs = oracles.joint(model, theta, x[n])(z)
        p = np.exp(logs - logsumexp(logs))
        mean = p @ z
        cov = (p[:, None] * (z - mean)).T @ (z - mean)
        assert np.abs(target.posterior_mean[n] - mean).max() < tolerance
        assert np.abs(target.posterior_cov[n] - cov).max() < 10 * tolerance
        density = target.posterior_density(z[::97], [n])[0]
        assert np.abs(density - p[::97] / volume).max() < tolerance


# ----- the identity -----

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
    seed=seeds,
    scale=st.floats(0.05, 2.5),
    hidden=st.sampled_from([(), (4,), (8, 8), (32, 32)]),
    likelihood=st.sampled_from(["gaussian", "bernoulli"]),
)
def test_the_identity_closes_in_r1(seed, scale, hidden, likelihood):
    setting = random_setting(1, seed, scale=scale, hidden=hidden, likelihood=likelihood)
    got = tv.decompose(*setting)
    certified = got.error <= 1e-9
    assert np.all(np.abs(got.residual)[certified] <= 1e-9)
    assert np.all(np.abs(got.residual) <= 4 * got.error)
    assert np.all(got.kl_prior >= -1e-9) and np.all(got.kl_posterior >= -got.kl_posterior_error)
    assert np.array_equal(got.elbo, got.reconstruction - got.kl_prior)


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(
    seed=seeds,
    scale=st.floats(0.05, 2),
    hidden=st.sampled_from([(), (4,), (8, 8)]),
    likelihood=st.sampled_from(["gaussian", "bernoulli"]),
    covariance=st.sampled_from(["diagonal", "full"]),
)
def test_the_identity_closes_in_r2(seed, scale, hidden, likelihood, covariance):
    arguments = {"hidden": hidden, "likelihood": likelihood, "covariance": covariance}
    got = tv.decompose(*random_setting(2, seed, n=2, scale=scale, **arguments))
    certified = got.error <= 1e-6
    assert np.all(np.abs(got.residual)[certified] <= 1e-6)
    assert np.all(np.abs(got.residual) <= 4 * got.error)
    assert np.all(got.kl_prior >= -1e-9) and np.all(got.kl_posterior >= -got.kl_posterior_error)


@pytest.mark.parametrize("L", [1, 2])
def test_ordinary_models_reach_the_tolerance(L):
    for seed in range(6):
        got = tv.decompose(*random_setting(L, seed, n=8, scale=1 / L))
        assert got.error.max() <= {1: 1e-9, 2: 1e-6}[L]


@pytest.mark.parametrize(("L", "tolerance"), [(1, 1e-13), (2, 1e-12)])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_phi_climbs_the_elbo_exactly_as_fast_as_it_descends_kl_posterior(L, tolerance, likelihood):
    """∇_φ elbo = −∇_φ kl_posterior: finite differences of both, each from its own integral."""
    arguments = {"hidden": (4,), "likelihood": likelihood, "covariance": "full"}
    model, theta, phi, x = random_setting(L, 7, n=2, **arguments)
    target = tv.Target(model, theta, x, tolerance)
    r = np.random.default_rng(0)
    directions = [*np.eye(len(phi))[:: 7 if L == 1 else 15], r.standard_normal(len(phi)) / np.sqrt(len(phi))]
    slopes = []
    for direction in directions:
        slope = np.zeros(2)
        for j, weight in ((1, 672), (2, -168), (3, 32), (4, -3)):  # central, order eight
            for sign in (1, -1):
                got = tv.decompose(model, theta, phi + sign * j * 0.02 * direction, x, target).mean()
                slope += sign * weight * np.array([got.elbo, got.kl_posterior])
        slopes.append(slope / (840 * 0.02))
    elbo, kl_posterior = np.array(slopes).T
    assert np.abs(elbo).max() > 0.1
    assert np.abs(elbo + kl_posterior).max() < 1e-8 * np.abs(elbo).max()


# ----- the coin VAE, handed in as plain functions -----


class CoinEncoder:
    """q_TT(z) = 1 + a(z − ½), q_HT(z) = 1 + b(z − ½) on (0, 1)."""

    def __init__(self, a, b):
        self.slopes = np.array([a, b])

    def log_prob(self, z, rows):
        return np.log1p(self.slopes[rows] * (z[:, 0] - 0.5))


TOSSES = np.array([[0.0], [1.0]])  # how many heads in two tosses: TT, HT


def coin(t):
    def log_likelihood(x, z):  # P(H|z) = z t; the second toss of each pair is tails
        heads = x[:, 0] * np.log(z[:, 0] * t)
        return heads + (2 - x[:, 0]) * np.log1p(-z[:, 0] * t)

    return tv.Callables(log_likelihood, lambda z: np.zeros(len(z)), support=(0.0, 1.0))


def coin_terms(t, a, b):
    """Sums over the two data points."""
    got = tv.decompose(coin(t), None, None, TOSSES, q=CoinEncoder(a, b))
    assert got.error.max() <= 1e-9 and np.abs(got.residual).max() <= 1e-9
    return {name: float(getattr(got, name).sum()) for name in TERMS}


def test_the_coin_has_a_likelihood_in_closed_form():
    for t in (0.2, 0.5, 0.9):
        target = tv.Target(coin(t), None, TOSSES)
        exact = [np.log(1 - t + t**2 / 3), np.log(t / 2 - t**2 / 3)]
        assert np.abs(target.log_px - exact).max() < 1e-9
        assert np.all(target.error <= 1e-9)


def test_the_coins_maximum_likelihood():
    def loss(t):
        return -tv.Target(coin(t), None, TOSSES).log_px.sum()

    best = optimize.minimize_scalar(loss, bounds=(0.1, 0.9), method="bounded", options={"xatol": 1e-8})
    assert abs(best.x - 0.47342) < 1e-5
    assert abs(-best.fun + 2.32883) < 1e-5


def test_the_coins_elbo_optimum_and_its_gap():
    best = optimize.minimize(
        lambda v: -coin_terms(v[0], -v[1], v[1])["elbo"], [0.5, 1.5], method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-12},
    )  # fmt: skip
    assert np.abs(best.x - [0.48905, 1.56190]).max() < 1e-5
    at = coin_terms(best.x[0], -best.x[1], best.x[1])
    assert abs(at["elbo"] + 2.35272) < 1e-5
    assert abs(at["kl_posterior"] - 0.02322) < 1e-5
    assert abs(at["log_px"] - at["elbo"] - 0.02322) < 1e-5


def test_the_coins_elbo_optimum_with_slopes_untied():
    best = optimize.minimize(
        lambda v: -coin_terms(*v)["elbo"], [0.47, -1.1, 1.8], method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-12},
    )  # fmt: skip
    assert np.abs(best.x - [0.46376, -1.14292, 1.83571]).max() < 1e-4
    at = coin_terms(*best.x)
    assert abs(at["elbo"] + 2.33808) < 1e-4
    assert abs(at["kl_posterior"] - 0.00898) < 1e-4


# ----- a decoder and a q from anywhere -----


class Mixture:
    """Two Gaussians for each data point: no closed form for its KLs."""

    def __init__(self, means, stds, weights=(0.5, 0.5)):
        self.parts = [(w, stats.norm(m, s)) for w, m, s in zip(weights, means, stds)]

    def log_prob(self, z, rows):
        return logsumexp([np.log(w) + part.logpdf(z).sum(axis=-1) for w, part in self.parts], axis=0)


class Heavy:
    """Student's t with ν degrees of freedom in each coordinate."""

    def __init__(self, nu, centre=0.0, scale=1.0):
        self.one = stats.t(nu, centre, scale)

    def log_prob(self, z, rows):
        return self.one.logpdf(z).sum(axis=-1)


def bent(x, z):
    """A decoder of two bent coordinates, with noise 0.5; works for any L."""
    out = np.stack([np.sin(z).sum(axis=-1), np.tanh(2 * z).sum(axis=-1)], axis=-1)
    return stats.norm.logpdf(x, out, 0.5).sum(axis=-1)


QS = {
    "mixture": Mixture((-1.3, 0.9), (0.3, 0.5)),
    "mixture far apart": Mixture((-6.0, 5.0), (0.2, 1.0), (0.2, 0.8)),
    "mixture of a wide and a narrow one": Mixture((0.0, 2.03), (1.0, 0.2)),
    "heavy tails": Heavy(30.0, 0.3, 0.7),
}


@pytest.mark.parametrize("q", QS.values(), ids=QS)
@pytest.mark.parametrize("L", [1, 2])
def test_any_q_under_any_decoder_is_that_of_brute_force(q, L):
    x = np.array([[0.3, -0.8], [1.2, 0.9]])
    model = tv.Callables(bent, oracles.log_prior, latent_dim=L, encoder=lambda x: q)
    tolerance = {1: 1e-9, 2: 1e-6}[L]
    got = tv.decompose(model, None, None, x)
    assert np.all(got.error <= tolerance)
    assert np.all(np.abs(got.residual) <= tolerance)
    z, volume = oracles.grid([(-24.0, 24.0)] * L, {1: 60_001, 2: 1201}[L])
    log_q = q.log_prob(z, None)
    weight = np.exp(log_q) * volume
    assert abs(weight.sum() - 1) < 1e-9  # the oracle covers q
    for n in range(2):
        log_px, _ = oracles.log_integral(lambda z: bent(x[n], z) + oracles.log_prior(z), L)  # noqa: B023
        logs = bent(x[n], z)
        expected = {
            "log_px": log_px,
            "reconstruction": weight @ logs,
            "kl_prior": weight @ (log_q - oracles.log_prior(z)),
            "kl_posterior": weight @ (log_q - logs - oracles.log_prior(z)) + log_px,
        }
        for name, value in expected.items():
            error = getattr(got, name + "_error")[n]
            assert abs(getattr(got, name)[n] - value) <= error + 1e-9 * (1 + abs(value)), name


def test_a_q_too_heavy_for_the_grid_is_not_certified():
    x = np.array([[0.3, -0.8]])
    got = tv.decompose(tv.Callables(bent, oracles.log_prior), None, None, x, q=Heavy(2.0))
    assert np.isinf(got.reconstruction_error[0]) or got.reconstruction_error[0] > 1e-9
    assert got.log_px_error[0] <= 1e-9


def test_a_vae_as_plain_callables_has_the_same_terms():
    for L in (1, 2):
        model, theta, phi, x = random_setting(L, 8)

        def likelihood(x, z):
            return model.log_likelihood(theta, x, z)  # noqa: B023

        plain = tv.Callables(likelihood, oracles.log_prior, L, encoder=lambda x: model.encode(phi, x))  # noqa: B023
        one, other = tv.decompose(model, theta, phi, x), tv.decompose(plain, None, None, x)
        for name in TERMS:
            assert (np.abs(getattr(one, name) - getattr(other, name)) <= one.error + other.error).all()


def test_callables_without_an_encoder_say_so():
    with pytest.raises(ValueError, match="encoder"):
        tv.decompose(tv.Callables(bent, oracles.log_prior), None, None, np.zeros((1, 2)))


# ----- what the Target owns -----


@pytest.mark.parametrize("L", [1, 2])
def test_log_px_does_not_depend_on_q_to_the_bit(L):
    model, theta, phi, x = random_setting(L, 9, n=4)
    target = tv.Target(model, theta, x)
    for move in (0.0, 0.1, 1.0):
        shared = tv.decompose(model, theta, phi + move, x, target)
        alone = tv.decompose(model, theta, phi + move, x)
        assert np.array_equal(shared.log_px, target.log_px)
        assert np.array_equal(alone.log_px, target.log_px)
        assert np.array_equal(alone.kl_posterior, shared.kl_posterior)


@pytest.mark.parametrize("L", [1, 2])
def test_the_same_target_twice_is_bit_identical(L):
    model, theta, phi, x = random_setting(L, 10, n=4)
    one, two = tv.Target(model, theta, x), tv.Target(model, theta.copy(), x.copy())
    for name in ("log_px", "error", "posterior_mean", "posterior_cov"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    a, b = tv.decompose(model, theta, phi, x, one), tv.decompose(model, theta, phi, x, one)
    for name in (*TERMS, "error", "residual"):
        assert np.array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("L", [1, 2])
def test_a_data_point_has_the_same_terms_alone_and_in_company(L):
    """On a line: to far below the tolerance. On a plane, where company may ask for a finer lattice: to the errors."""
    model, theta, phi, x = random_setting(L, 11, n=5)
    together = tv.decompose(model, theta, phi, x)
    for n in range(5):
        alone = tv.decompose(model, theta, phi, x[n : n + 1])
        for name in TERMS:
            allowed = 1e-9 if L == 1 else alone.error[0] + together.error[n]
            assert abs(getattr(alone, name)[0] - getattr(together, name)[n]) < allowed <= 1e-6


def test_a_target_keeps_its_theta_when_training_moves_on():
    model, theta, phi, x = random_setting(1, 12)
    target = tv.Target(model, theta, x)
    before, density = tv.decompose(model, theta, phi, x, target), target.posterior_density([[0.3]])
    theta += 1.0
    after = tv.decompose(model, theta, phi, x, target)
    for name in TERMS:
        assert np.array_equal(getattr(before, name), getattr(after, name))
    assert np.array_equal(density, target.posterior_density([[0.3]]))


@pytest.mark.parametrize("L", [1, 2])
def test_divergence_between_two_targets_is_a_kl(L):
    model, theta, _, x = random_setting(L, 13, n=2)
    moved = theta + 0.2 * np.random.default_rng(0).standard_normal(theta.shape)
    one, other = tv.Target(model, theta, x), tv.Target(model, moved, x)
    z, _ = oracles.grid([(-9.0, 9.0)] * L, {1: 40_001, 2: 801}[L])
    for n in range(2):
        p, r = (oracles.joint(model, at, x[n])(z) for at in (theta, moved))
        p, r = p - logsumexp(p), r - logsumexp(r)
        assert abs(one.divergence_to(other)[n] - np.exp(p) @ (p - r)) < {1: 1e-9, 2: 1e-6}[L]
    assert np.all(one.divergence_to(other) > 1e-4)
    assert np.abs(one.divergence_to(one)).max() < 1e-13


def test_a_tolerance_asked_for_is_kept():
    model, theta, phi, x = random_setting(1, 14)
    best = tv.decompose(model, theta, phi, x, tolerance=1e-12)
    for tolerance in (1e-3, 1e-6, 1e-9):
        got = tv.decompose(model, theta, phi, x, tolerance=tolerance)
        assert np.all(got.error <= tolerance)
        for name in TERMS:
            assert np.abs(getattr(got, name) - getattr(best, name)).max() <= tolerance


def test_the_mean_is_over_points_and_residual_and_errors_are_the_worst():
    got = tv.decompose(*random_setting(1, 15, n=6))
    mean = got.mean()
    for name in TERMS:
        assert getattr(mean, name) == pytest.approx(getattr(got, name).mean(), abs=1e-14)
        assert type(getattr(mean, name)) is float
    assert abs(mean.residual) == np.abs(got.residual).max()
    assert mean.error == got.error.max()
    errors = [got.log_px_error, got.reconstruction_error, got.kl_prior_error, got.kl_posterior_error]
    assert np.array_equal(got.error, np.max(errors, axis=0))


# ----- what is refused -----


@pytest.mark.parametrize("tolerance", [0, -1e-9, 1e-14, 1.0, float("nan"), float("inf")])
def test_a_bad_tolerance_is_refused(tolerance):
    model, theta, _, x = random_setting(1, 0)
    with pytest.raises(ValueError, match="tolerance: expected .* got"):
        tv.Target(model, theta, x, tolerance)


def test_bad_data_is_told_what_was_expected_and_what_came():
    model, theta, phi, x = random_setting(1, 0)
    for bad, message in (
        (x[0], r"x: expected .*shape \(N, D\).*got \(3,\)"),
        (x[:0], r"x: expected .*N >= 1, got \(0, 3\)"),
        (np.where(x == x[1, 1], np.nan, x), "x: expected finite numbers, got 1 that are not"),
        (np.where(x == x[1, 1], np.inf, x), "x: expected finite numbers, got 1 that are not"),
    ):
        with pytest.raises(ValueError, match=message):
            tv.Target(model, theta, bad)
        with pytest.raises(ValueError, match=message):
            tv.decompose(model, theta, phi, bad)
    with pytest.raises(ValueError, match="theta: expected shape"):
        tv.Target(model, theta[1:], x)
    with pytest.raises(ValueError, match=r"target: expected .* \(2, 3\), got \(3, 3\)"):
        tv.decompose(model, theta, phi, x[:2], tv.Target(model, theta, x))


def normal(x, z):
    return stats.norm.logpdf(x[:, 0], z[:, 0])


class Q:
    def __init__(self, log_prob):
        self.log_prob = log_prob


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"likelihood": lambda x, z: 0.0},
            r"log_likelihood: expected one number for each of \d+ z, got shape \(\)",
        ),
        ({"likelihood": lambda x, z: np.zeros((len(z), 3))}, r"log_likelihood: .*, got shape \(\d+, 3\)"),
        ({"likelihood": lambda x, z: np.full(len(z), np.nan)}, "log_likelihood: .*, got nan at z"),
        ({"log_prior_of": lambda z: np.full(len(z), np.inf)}, "log_prior: .*, got inf at z"),
        ({"log_prior_of": lambda z: z[:3, 0]}, r"log_prior: .*, got shape \(3,\)"),
        ({"support": (0.0, np.inf)}, r"support: expected \(-inf, inf\) or finite ends .*, got \(0.0, inf\)"),
        ({"support": (1.0, 0.0)}, "support: .* with lo < hi, got"),
        ({"support": (np.nan, 1.0)}, "support: .*nan"),
        ({"q": Q(lambda z, rows: 0.0)}, "q.log_prob: expected one number for each"),
        ({"q": Q(lambda z, rows: np.full(len(z), np.nan))}, "q.log_prob: .*, got nan"),
        ({"q": "gaussian"}, r"q: expected an object with log_prob\(.*\), got 'gaussian'"),
    ],
)
def test_functions_that_give_no_log_densities_are_refused_with_what_came(wrong, message):
    q = wrong.pop("q", Q(lambda z, rows: oracles.log_prior(z)))
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=message):
        model = tv.Callables(**{"likelihood": normal, "log_prior_of": oracles.log_prior, **wrong})
        tv.decompose(model, None, None, np.array([[0.5], [1.0]]), q=q)


def test_a_data_point_that_no_z_can_have_made_is_not_certified_and_warns_of_nothing():
    def only_positive(x, z):
        return np.where(x[:, 0] > 0, normal(x, z), -np.inf)

    with np.errstate(all="raise", under="ignore"):
        target = tv.Target(tv.Callables(only_positive, oracles.log_prior), None, np.array([[1.0], [-1.0]]))
    assert np.isfinite(target.log_px[0]) and not np.isnan(target.log_px[1])
    assert target.checked.tolist() == [True, False] and target.error[1] == np.inf
    assert not target.certified.any()  # plain functions give no bounds


def test_a_column_of_log_densities_will_do_and_nobody_elses_array_is_written_to():
    zeros = {}

    def uniform(z):  # one array for each size, given away again and again
        return zeros.setdefault(len(z), np.zeros(len(z)))

    def column(x, z):
        return np.log(z) * x[:, :1]

    target = tv.Target(tv.Callables(column, uniform, support=(0.0, 1.0)), None, np.array([[1.0], [3.0]]))
    assert np.allclose(target.log_px, np.log([1 / 2, 1 / 4]), rtol=0, atol=1e-9)
    assert not any(array.any() for array in zeros.values())


def seven_tosses(x, z):
    """log P(x heads of seven | z), which is 0·log 0 at an end of [0, 1]."""
    return x[:, 0] * np.log(z[:, 0]) + (7 - x[:, 0]) * np.log1p(-z[:, 0])


@pytest.mark.parametrize("end", [0.5, 0.1, 0.01])
def test_log_px_is_right_within_its_error_where_the_prior_is_infinite_at_both_ends(end):
    """A coin with prior Beta(end, end)."""
    heads = np.arange(8.0)
    model = tv.Callables(seven_tosses, lambda z: stats.beta(end, end).logpdf(z[:, 0]), support=(0.0, 1.0))
    target = tv.Target(model, None, heads[:, None])
    exact = betaln(heads + end, 7 - heads + end) - betaln(end, end)
    assert np.all(np.abs(target.log_px - exact) <= target.error)
    # Mass may lie at 0, where numbers are dense. At 1 they are 1e-16 apart, too far for seven heads.
    assert target.checked[1:7].all() and target.checked[0] == (end > 0.05) and not target.checked[7]


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (2.0, 0.5), (0.5, 2.0), (0.3, 0.3), (1.0, 1.0)])
def test_a_q_that_is_infinite_at_an_end_of_its_interval_is_right_within_its_error(a, b):
    """E_q[log z] of q = Beta(a, b) is ψ(a) − ψ(a + b), and its entropy is known."""
    heads, q = np.array([0.0, 3.0, 7.0]), stats.beta(a, b)
    model = tv.Callables(seven_tosses, lambda z: np.zeros(len(z)), support=(0.0, 1.0))
    got = tv.decompose(model, None, None, heads[:, None], q=Q(lambda z, rows: q.logpdf(z[:, 0])))
    exact = heads * (digamma(a) - digamma(a + b)) + (7 - heads) * (digamma(b) - digamma(a + b))
    assert np.all(np.abs(got.reconstruction - exact) <= got.reconstruction_error)
    assert np.all(np.abs(got.kl_prior + q.entropy()) <= got.kl_prior_error + 1e-13)
    assert np.all(got.error <= 1e-9) == (b >= 1)  # at 0 numbers are dense


# ----- what is kept -----


@pytest.mark.parametrize("dataset", ["arc", "pinwheel"])
def test_tables_of_q_that_are_kept_change_no_bit(dataset):
    """A trainer holds q against several Targets and keeps its tables; `decompose` makes them anew."""
    x = tv.load_dataset(dataset, n=24, seed=0).x
    model = tv.VAE(2, 1 if dataset == "arc" else 2, (8,))
    trainer = tv.Trainer(model, x, batch_size=12, learning_rate=0.02)
    for record in trainer.steps(12):
        fresh = tv.decompose(model, trainer.theta, trainer.phi, x).mean()
        assert fresh == record.terms
