"""The VAE: its parameters, its two distributions, the ELBO estimate and the hand-built gradient."""

import dataclasses
import itertools

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from scipy import integrate, stats

import tinyvae as tv
from tinyvae import networks

LOG_2PI = np.log(2 * np.pi)

NOISES = [("gaussian", "shared", None), ("gaussian", "per-dimension", None), ("gaussian", "shared", 0.3)]
KINDS = [*NOISES, ("bernoulli", "shared", None)]
CONFIGURATIONS = [
    {"latent_dim": L, "likelihood": kind[0], "noise": kind[1], "noise_std": kind[2]}
    | {"covariance": covariance, "hidden": hidden}
    for L, kind, covariance, hidden in itertools.product((1, 2), KINDS, ("diagonal", "full"), ((), (5, 4)))
]


def name_of(c):
    noise = "" if c["likelihood"] == "bernoulli" else f"-{c['noise']}-{c['noise_std'] or 'learned'}"
    return f"R{c['latent_dim']}-{c['likelihood']}{noise}-{c['covariance']}-{c['hidden']}"


each_configuration = pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=map(name_of, CONFIGURATIONS))


def setting(configuration, samples=1, B=7, D=3, seed=0):
    """A model, random θ and φ (biases too), a batch and its noise."""
    model = tv.VAE(D, **configuration)
    r = np.random.default_rng(seed)
    theta, phi = (v + 0.3 * r.standard_normal(v.shape) for v in model.init(seed))
    x = r.standard_normal((B, D))
    if model.likelihood == "bernoulli":
        x = (x > 0).astype(float)
    eps = r.standard_normal((samples, B, model.latent_dim))
    return model, theta, phi, x, eps


# ----- an independent VAE in plain autograd.numpy: parameters cut from the flat vectors here, by hand -----


def cut(vector, sizes):
    layers, at = [], 0
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:]):
        W = anp.reshape(vector[at : at + fan_in * fan_out], (fan_in, fan_out))
        at += fan_in * fan_out
        layers.append((W, vector[at : at + fan_out]))
        at += fan_out
    return layers, vector[at:]


def mlp(layers, h):
    for k, (W, b) in enumerate(layers):
        h = anp.dot(h, W) + b
        h = anp.tanh(h) if k < len(layers) - 1 else h
    return h


def plain_elbo(configuration, theta, phi, x, eps):
    """(reconstruction, kl_prior), batch means."""
    c, (B, D) = configuration, x.shape
    L, full = c["latent_dim"], c["covariance"] == "full" and c["latent_dim"] == 2
    encoder, rest = cut(phi, (D, *c["hidden"], 2 * L + full))
    assert len(rest) == 0
    decoder, rest = cut(theta, (L, *reversed(c["hidden"]), D))
    out = mlp(encoder, x)
    mean, std = out[:, :L], anp.exp(out[:, L : 2 * L])
    corner = out[:, 4] if full else np.zeros(B)
    reconstruction = 0.0
    for e in eps:
        z = mean + std * e
        if L == 2:
            z = z + anp.stack([np.zeros(B), corner * e[:, 0]], axis=1)
        y = mlp(decoder, z)
        if c["likelihood"] == "bernoulli":
            logs = anp.sum(x * y - anp.logaddexp(0.0, y), axis=1)
        else:
            log_std = anp.log(c["noise_std"]) if c["noise_std"] else rest
            assert np.size(rest) == (0 if c["noise_std"] else 1 if c["noise"] == "shared" else D)
            logs = anp.sum(-0.5 * ((x - y) / anp.exp(log_std)) ** 2 - log_std - 0.5 * LOG_2PI, axis=1)
        reconstruction = reconstruction + anp.mean(logs) / len(eps)
    # KL(N(m, S) ‖ N(0, I)) = ½ [tr S + m·m − L − log det S]
    trace = anp.sum(std**2, axis=1) + corner**2
    kl = 0.5 * (trace + anp.sum(mean**2, axis=1) - L - 2 * anp.sum(anp.log(std), axis=1))
    return reconstruction, anp.mean(kl)


def close(got, expected, relative=1e-12):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max(initial=0.0) <= relative * max(np.abs(expected).max(initial=0.0), 1.0)


@pytest.mark.parametrize("samples", [1, 3])
@each_configuration
def test_the_fused_gradient_is_autograds_and_that_of_an_independent_vae(configuration, samples):
    model, theta, phi, x, eps = setting(configuration, samples)
    terms, g_theta, g_phi = model.elbo_and_grad(theta, phi, x, eps)
    other, a_theta, a_phi = model.elbo_and_grad_autograd(theta, phi, x, eps)

    def plain(theta, phi):
        reconstruction, kl = plain_elbo(configuration, theta, phi, x, eps)
        return reconstruction - kl

    reconstruction, kl = plain_elbo(configuration, theta, phi, x, eps)
    for one in (terms, other):
        close([one.reconstruction, one.kl_prior, one.elbo], [reconstruction, kl, reconstruction - kl])
    close(g_theta, a_theta)
    close(g_phi, a_phi)
    close(g_theta, grad(plain, 0)(theta, phi))
    close(g_phi, grad(plain, 1)(theta, phi))


@each_configuration
def test_the_fused_gradient_is_the_finite_difference(configuration):
    model, theta, phi, x, eps = setting(configuration, samples=2, seed=1)
    _, g_theta, g_phi = model.elbo_and_grad(theta, phi, x, eps)
    h = 1e-3
    for k, vector, gradient in ((0, theta, g_theta), (1, phi, g_phi)):
        direction = np.random.default_rng(k).standard_normal(vector.shape)

        def elbo_at(t):
            moved = [theta, phi]
            moved[k] = vector + t * direction  # noqa: B023
            return model.elbo_and_grad(*moved, x, eps)[0].elbo

        pairs = [elbo_at(j * h) - elbo_at(-j * h) for j in (1, 2, 3)]
        slope = (45 * pairs[0] - 9 * pairs[1] + pairs[2]) / (60 * h)
        assert abs(slope - gradient @ direction) <= 1e-8 * (1 + np.abs(gradient) @ np.abs(direction))


def test_eps_without_samples_axis_is_one_sample():
    model, theta, phi, x, eps = setting(CONFIGURATIONS[-1])
    one, many = model.elbo_and_grad(theta, phi, x, eps[0]), model.elbo_and_grad(theta, phi, x, eps)
    assert one[0] == many[0]
    assert np.array_equal(one[1], many[1]) and np.array_equal(one[2], many[2])


@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True), (False, False)])
def test_autograd_computes_only_what_is_wanted(wanted):
    model, theta, phi, x, eps = setting(CONFIGURATIONS[3])
    terms, *both = model.elbo_and_grad_autograd(theta, phi, x, eps)
    some, *gradients = model.elbo_and_grad_autograd(theta, phi, x, eps, 1.0, *wanted)
    assert some == terms
    for want, gradient, full in zip(wanted, gradients, both):
        if want:
            close(gradient, full)
        else:
            assert gradient is None


def test_the_gradients_are_the_callers_own():
    model, theta, phi, x, eps = setting(CONFIGURATIONS[0])
    _, g_theta, g_phi = model.elbo_and_grad(theta, phi, x, eps)
    kept = g_theta.copy(), g_phi.copy()
    model.elbo_and_grad(theta + 1, phi + 1, x, eps)
    assert np.array_equal(g_theta, kept[0]) and np.array_equal(g_phi, kept[1])


# ----- parameters -----


@each_configuration
def test_layers_are_writable_views_of_one_flat_vector(configuration):
    model, theta, phi, *_ = setting(configuration)
    L, hidden = configuration["latent_dim"], configuration["hidden"]
    heads = 3 * L - 1 if configuration["covariance"] == "full" else 2 * L  # L=1: 2, L=2: 5
    for vector, unpack, sizes in (
        (theta, model.unpack_theta, (L, *reversed(hidden), 3)),
        (phi, model.unpack_phi, (3, *hidden, heads)),
    ):
        parts = unpack(vector)
        assert [(W.shape, b.shape) for W, b in parts.layers] == [
            ((i, o), (o,)) for i, o in zip(sizes[:-1], sizes[1:])
        ]
        noise = getattr(parts, "log_noise_std", None)
        arrays = [a for layer in parts.layers for a in layer] + ([] if noise is None else [noise])
        assert sum(a.size for a in arrays) == vector.size
        for number, array in enumerate(arrays):
            array[...] = number
        assert set(vector) == set(range(len(arrays)))
        assert [np.count_nonzero(vector == k) for k in range(len(arrays))] == [a.size for a in arrays]


def test_the_learned_noise_is_one_number_or_one_for_each_dimension():
    sizes = {}
    for noise in ("shared", "per-dimension"):
        for noise_std in (None, 0.5):
            model = tv.VAE(4, 1, noise=noise, noise_std=noise_std)
            log_std = model.unpack_theta(model.init(0)[0]).log_noise_std
            sizes[noise, noise_std] = None if log_std is None else log_std.shape
    assert sizes == {
        ("shared", None): (1,),
        ("shared", 0.5): None,
        ("per-dimension", None): (4,),
        ("per-dimension", 0.5): None,
    }
    bernoulli = tv.VAE(4, 1, likelihood="bernoulli")
    assert bernoulli.unpack_theta(bernoulli.init(0)[0]).log_noise_std is None


def test_init_is_a_function_of_the_seed_with_unit_fan_in_variance():
    model = tv.VAE(100, 2, hidden=(300, 200))
    theta, phi = model.init(3)
    again, other = model.init(3), model.init(4)
    assert np.array_equal(theta, again[0]) and np.array_equal(phi, again[1])
    assert not np.array_equal(theta, other[0]) and not np.array_equal(phi, other[1])
    for W, b in (*model.unpack_theta(theta).layers, *model.unpack_phi(phi).layers):
        assert not b.any()
        if W.size > 5000:
            assert np.var(W) == pytest.approx(1 / W.shape[0], rel=0.05)
    assert model.unpack_theta(theta).log_noise_std.tolist() == [np.log(0.15)]


def test_a_model_is_a_frozen_value():
    model = tv.VAE(3, 2, hidden=[4, 4])
    assert model == tv.VAE(3, 2, hidden=(4, 4)) != tv.VAE(3, 2, hidden=(4, 5))
    for field in ("data_dim", "hidden", "likelihood", "theta_size"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(model, field, 7)


# ----- the networks -----


def test_a_network_is_x_W_plus_b_with_tanh_between_layers_and_none_after_the_last():
    model, theta, phi, x, _ = setting(CONFIGURATIONS[1] | {"hidden": (5, 4)})
    (W1, b1), (W2, b2), (W3, b3) = model.unpack_theta(theta).layers
    z = np.linspace(-3, 3, 11)[:, None]
    close(model.decode(theta, z), np.tanh(np.tanh(z @ W1 + b1) @ W2 + b2) @ W3 + b3)
    (W1, b1), (W2, b2), (W3, b3) = model.unpack_phi(phi).layers
    close(model.encode(phi, x).mean, (np.tanh(np.tanh(x @ W1 + b1) @ W2 + b2) @ W3 + b3)[:, :1])


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 8, 11])
@pytest.mark.parametrize("hidden", [(), (5,), (4, 6)])
def test_the_pass_on_columns_is_the_pass_on_rows_however_many_go_at_once(hidden, rows):
    sizes, r = (2, *hidden, 3), np.random.default_rng(0)
    vector, x = r.standard_normal(networks.size(sizes)), r.standard_normal((rows, 2))
    expected = networks.forward(networks.layers(vector, sizes), x)
    got = networks.outputs(vector, sizes, x, chunk=4)
    assert got.shape == (rows, 3) and np.allclose(got, expected, rtol=1e-13, atol=1e-14)


def test_without_hidden_layers_encoder_and_decoder_are_linear():
    model, theta, phi, x, _ = setting({"latent_dim": 2, "hidden": ()})
    a, b = np.random.default_rng(5).standard_normal((2, 4, 2))
    origin = model.decode(theta, np.zeros((4, 2)))
    close(
        model.decode(theta, 2 * a - 3 * b), 2 * model.decode(theta, a) - 3 * model.decode(theta, b) + 2 * origin
    )
    mean = model.encode(phi, x).mean
    (W, bias), *more = model.unpack_phi(phi).layers
    assert not more
    close(mean, x @ W[:, :2] + bias[:2])
    close(model.encode(phi, 1e3 * x).mean - bias[:2], 1e3 * (mean - bias[:2]))


@each_configuration
def test_log_likelihood_is_scipys(configuration):
    model, theta, _, x, _ = setting(configuration)
    z = np.random.default_rng(2).standard_normal((len(x), model.latent_dim))
    out = model.decode(theta, z)
    if model.likelihood == "bernoulli":
        expected = stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-out))).sum(axis=1)
    else:
        log_std = model.unpack_theta(theta).log_noise_std
        std = model.noise_std if log_std is None else np.exp(log_std)
        expected = stats.norm.logpdf(x, out, std).sum(axis=1)
    close(model.log_likelihood(theta, x, z), expected)


# ----- q -----

QS = [(1, "diagonal"), (1, "full"), (2, "diagonal"), (2, "full")]


@pytest.mark.parametrize(("L", "covariance"), QS)
def test_q_is_the_normal_distribution_that_scipy_knows(L, covariance):
    model, _, phi, x, _ = setting({"latent_dim": L, "covariance": covariance, "hidden": (5, 4)}, seed=2)
    q = model.encode(phi, x)
    r = np.random.default_rng(3)
    z = r.standard_normal((6, len(x), L))
    assert q.mean.shape == (len(x), L) and q.cov.shape == (len(x), L, L)
    expected = np.empty((6, len(x)))
    for n in range(len(x)):
        scipys = stats.multivariate_normal(q.mean[n], q.cov[n])
        expected[:, n] = np.atleast_1d(scipys.logpdf(z[:, n]))
    close(q.log_prob(z), expected)
    close(q.log_prob(z[0]), expected[0])
    rows = np.array([0, 2, 2, 5])
    close(q.log_prob(z[0, rows], rows), expected[0, rows])
    off_diagonal = q.cov[:, 0, -1] if L == 2 else np.zeros(1)
    assert off_diagonal.any() == (covariance == "full" and L == 2)


@pytest.mark.parametrize(("L", "covariance"), QS)
def test_q_has_the_covariance_that_the_encoder_spells_out(L, covariance):
    model, _, phi, x, _ = setting({"latent_dim": L, "covariance": covariance, "hidden": (5, 4)}, seed=2)
    out = mlp(model.unpack_phi(phi).layers, x)
    for n, cov in enumerate(model.encode(phi, x).cov):
        C = np.diag(np.exp(out[n, L : 2 * L]))
        if out.shape[1] == 5:
            C[1, 0] = out[n, 4]
        close(cov, C @ C.T)


@pytest.mark.parametrize(("L", "covariance"), QS)
def test_samples_of_q_have_its_mean_and_covariance(L, covariance):
    model, _, phi, x, _ = setting({"latent_dim": L, "covariance": covariance, "hidden": (5, 4)}, seed=4)
    q, n = model.encode(phi, x[:2]), 40_000
    eps = np.random.default_rng(0).standard_normal((n, 2, L))
    z = np.stack([q.sample(e) for e in eps])
    for k in range(2):
        spread = np.sqrt(np.diag(q.cov[k]))
        assert np.all(np.abs(z[:, k].mean(axis=0) - q.mean[k]) < 5 * spread / np.sqrt(n))
        sampled = np.cov(z[:, k], rowvar=False).reshape(L, L)
        assert np.all(np.abs(sampled - q.cov[k]) < 5 * np.outer(spread, spread) * np.sqrt(2 / n))
    close(q.sample(np.zeros((2, L))), q.mean)


@pytest.mark.parametrize(("L", "covariance"), QS)
def test_kl_prior_is_the_integral_that_it_stands_for(L, covariance):
    model, _, phi, x, _ = setting({"latent_dim": L, "covariance": covariance, "hidden": (5, 4)}, seed=5)
    q = model.encode(phi, x)
    for n in range(2):
        scipys = stats.multivariate_normal(q.mean[n], q.cov[n])
        prior = stats.multivariate_normal(np.zeros(L), np.eye(L))

        def integrand(*z):
            log_q = scipys.logpdf(z)  # noqa: B023
            return np.exp(log_q) * (log_q - prior.logpdf(z))  # noqa: B023

        std = np.sqrt(np.diag(q.cov[n]))
        box = [(m - 9 * s, m + 9 * s) for m, s in zip(q.mean[n], std)]
        if L == 1:
            value, _ = integrate.quad(integrand, *box[0], epsabs=1e-12)
        else:  # a plain product of Simpson's rule, fine enough for a Gaussian
            axes = [np.linspace(*side, 801) for side in box]
            z = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
            log_q = scipys.logpdf(z)
            f = np.exp(log_q) * (log_q - prior.logpdf(z))
            value = integrate.simpson(integrate.simpson(f, x=axes[1]), x=axes[0])
        close(q.kl_prior[n], value, 1e-9)


# ----- what is refused -----

BAD = [
    ({"data_dim": 0}, "data_dim: expected a whole number >= 1, got 0"),
    ({"data_dim": 2.0}, "data_dim: expected a whole number >= 1, got 2.0"),
    ({"data_dim": True}, "data_dim: expected a whole number >= 1, got True"),
    ({"latent_dim": 0}, "latent_dim: expected 1 or 2 .*, got 0"),
    ({"latent_dim": 3}, "latent_dim: expected 1 or 2 .*, got 3"),
    ({"hidden": 32}, "hidden: expected a tuple of layer widths >= 1.*, got 32"),
    ({"hidden": (8, 0)}, r"hidden: expected a tuple of layer widths >= 1.*, got \(8, 0\)"),
    ({"hidden": "ab"}, "hidden: expected a tuple.*, got 'ab'"),
    ({"likelihood": "poisson"}, "likelihood: expected 'gaussian' or 'bernoulli', got 'poisson'"),
    ({"covariance": "diag"}, "covariance: expected 'diagonal' or 'full', got 'diag'"),
    ({"noise": None}, "noise: expected 'shared' or 'per-dimension', got None"),
    ({"noise_std": 0}, "noise_std: expected a number > 0, or None to learn it, got 0"),
    ({"noise_std": -0.1}, "noise_std: expected a number > 0, or None to learn it, got -0.1"),
    ({"noise_std": float("inf")}, "noise_std: expected a number > 0, or None to learn it, got inf"),
    ({"noise_std": float("nan")}, "noise_std: expected a number > 0, or None to learn it, got nan"),
    ({"noise_std": "1"}, "noise_std: expected a number > 0, or None to learn it, got '1'"),
    ({"likelihood": "bernoulli", "noise_std": 1.0}, "noise_std: expected None for bernoulli, got 1.0"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message for _, message in BAD])
def test_a_bad_argument_is_told_what_was_expected_and_what_came(arguments, message):
    with pytest.raises(ValueError, match=message):
        tv.VAE(**{"data_dim": 3, "latent_dim": 1, **arguments})


def test_a_wrong_shape_is_told_what_was_expected_and_what_came():
    model, theta, phi, x, eps = setting({"latent_dim": 2})
    P, Q = len(theta), len(phi)
    z = np.zeros((7, 2))
    calls = [
        (lambda: model.unpack_theta(theta[1:]), rf"theta: expected shape \({P},\), got \({P - 1},\)"),
        (lambda: model.unpack_phi(phi[None]), rf"phi: expected shape \({Q},\), got \(1, {Q}\)"),
        (lambda: model.encode(phi, x[:, :2]), r"x: expected shape \(N, 3\), got \(7, 2\)"),
        (lambda: model.encode(phi, x[0]), r"x: expected shape \(N, 3\), got \(3,\)"),
        (lambda: model.decode(theta, z[:, :1]), r"z: expected shape \(7, 2\), got \(7, 1\)"),
        (lambda: model.decode(theta, z[:, 0]), r"z: expected shape \(7, 2\), got \(7,\)"),
        (lambda: model.decode(phi, z), rf"theta: expected shape \({P},\), got \({Q},\)"),
        (lambda: model.log_likelihood(theta, x[:, 0], z), r"x: expected shape \(N, 3\), got \(7,\)"),
        (
            lambda: model.elbo_and_grad(theta, phi, x, eps[:, :3]),
            r"eps: expected shape \(1, 7, 2\), got \(1, 3, 2\)",
        ),
        (lambda: model.elbo_and_grad(theta, phi, x, eps[0, 0]), r"eps: expected shape .*, got \(2,\)"),
        (lambda: model.elbo_and_grad(phi, phi, x, eps), rf"theta: expected shape \({P},\), got \({Q},\)"),
        (lambda: model.elbo_and_grad(theta, theta, x, eps), rf"phi: expected shape \({Q},\), got \({P},\)"),
        (lambda: model.elbo_and_grad(theta, phi, x[:, :1], eps), r"x: expected shape \(N, 3\), got \(7, 1\)"),
    ]
    for call, message in calls:
        with pytest.raises(ValueError, match=message):
            call()
