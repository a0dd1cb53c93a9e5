"""The best q of a family and the two parts of the gap, against closed forms and brute force."""

import numpy as np
import oracles
import pytest
from scipy.optimize import minimize

import tinyvae as tv
from tinyvae.exact import gap
from tinyvae.gaussian import Gaussian


def linear_at_truth(covariance="full"):
    """The factor-analysis model of DESIGN section 8, with θ at the truth."""
    model = tv.VAE(3, 2, hidden=(), covariance=covariance, noise="per-dimension")
    theta, phi = model.init(0)
    parts = model.unpack_theta(theta)
    W = np.array([[-0.5, -1.0], [-1.0, -1.0], [2.0, 0.5]])
    parts.layers[0][0][:], parts.log_noise_std[:] = W.T, np.log([0.4, 0.2, 0.3])
    precision = np.eye(2) + (W.T / np.array([0.4, 0.2, 0.3]) ** 2) @ W
    return model, theta, phi, precision


def kl(target, q):
    return tv.terms_under(q, target).kl_posterior


def bent(L, seed, steps=300, covariance="full"):
    """A trained model whose posteriors are not Gaussian, and its data."""
    x = tv.load_dataset("crossing", n=8, seed=seed).x
    model = tv.VAE(2, L, hidden=(6,), covariance=covariance, noise_std=0.15)
    trainer = tv.Trainer(model, x, seed=seed, evaluate_every=0, learning_rate=0.02)
    for _ in trainer.steps(steps):
        pass
    return model, trainer.theta, trainer.phi, x


# ----- closed forms -----


def test_a_full_q_reaches_the_posterior_of_a_linear_model_from_any_start():
    model, theta, phi, _ = linear_at_truth()
    target = tv.Target(model, theta, tv.load_dataset("linear", n=12).x)
    found = gap.split_gap(target, model.encode(phi, target.x))
    assert np.abs(found.approximation).max() < 1e-9
    best = gap.best_q(target, covariance="full")
    assert np.abs(best.mean - target.posterior_mean).max() < 1e-6
    assert np.abs(best.cov - target.posterior_cov).max() < 1e-6


def test_the_diagonal_floor_of_a_linear_model_is_the_closed_form_and_that_of_the_design():
    model, theta, phi, precision = linear_at_truth("diagonal")
    floor = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    assert abs(floor - 0.471264) < 1e-6
    target = tv.Target(model, theta, tv.load_dataset("linear", n=12).x)
    found = gap.split_gap(target, model.encode(phi, target.x))
    assert np.abs(found.approximation - floor).max() < 1e-9
    best = gap.best_q(target, covariance="diagonal")
    assert np.exp(-2 * best.log_diag) == pytest.approx(np.tile(np.diag(precision), (12, 1)), rel=1e-5)


# ----- brute force -----


def log_posterior_on_grid(target, n, ticks):
    """log p(z|x_n) on a grid by direct evaluation and normalisation, with the volume of a cell."""
    L = target.joint.latent_dim
    z = np.stack(np.meshgrid(*[ticks] * L, indexing="ij"), axis=-1).reshape(-1, L)
    log_joint = target.joint.log_likelihood(target.x[n], target.joint.outputs(z)) + target.joint.log_prior(z)
    volume = (ticks[1] - ticks[0]) ** L
    top = log_joint.max()
    return z, log_joint - top - np.log(np.exp(log_joint - top).sum() * volume), volume


def least_kl(target, n, full, starts, ticks):
    """min KL(q ‖ p(z|x_n)) by Nelder-Mead from several starts, on a plain grid."""
    z, log_p, volume = log_posterior_on_grid(target, n, ticks)
    L = z.shape[1]

    def value(v):
        lower = v[2 * L :][None] if full else np.zeros((1, 0))
        q = Gaussian(v[None, :L], v[None, L : 2 * L], lower)
        log_q = q.log_prob(z[:, None])[:, 0]
        density = np.exp(log_q)
        mass = density.sum() * volume
        return (density * (log_q - log_p)).sum() * volume if abs(mass - 1) < 1e-6 else 1e3

    best = np.inf
    for start in starts:
        for _ in range(2):
            options = {"xatol": 1e-7, "fatol": 1e-11, "maxiter": 4000, "maxfev": 4000}
            found = minimize(value, start, method="Nelder-Mead", options=options)
            start, best = found.x, min(best, found.fun)
    return best


@pytest.mark.parametrize("seed", [0, 1])
def test_the_best_q_on_a_line_is_that_of_brute_force(seed):
    model, theta, phi, x = bent(1, seed)
    target = tv.Target(model, theta, x[:4])
    found = kl(target, gap.best_q(target, model.encode(phi, target.x)))
    for n in range(len(target)):
        mean, std = target.posterior_mean[n, 0], np.sqrt(target.posterior_cov[n, 0, 0])
        starts = [np.array([mean + a * std, np.log(b * std)]) for a in (-1, 0, 1) for b in (0.3, 1.0)]
        assert abs(found[n] - least_kl(target, n, False, starts, np.linspace(-7, 7, 4001))) < 1e-6


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_the_best_q_on_a_plane_is_that_of_brute_force(covariance):
    model, theta, phi, x = bent(2, 3, covariance=covariance)
    target, full = tv.Target(model, theta, x[:2]), covariance == "full"
    found = kl(target, gap.best_q(target, model.encode(phi, target.x)))
    for n in range(len(target)):
        mean, std = target.posterior_mean[n], np.sqrt(np.diag(target.posterior_cov[n]))
        start = np.concatenate([mean, np.log(0.8 * std), [0.0] * full])
        q = model.encode(phi, target.x)[[n]]
        starts = [start, np.concatenate([q.mean[0], q.log_diag[0], q.lower[0]])]
        least = least_kl(target, n, full, starts, np.linspace(-6, 6, 181))
        assert found[n] <= least + 1e-6  # never worse than brute force
        assert found[n] >= least - 1e-3  # which may stop early in five dimensions


def test_at_the_crossing_of_the_figure_of_eight_the_best_gaussian_covers_one_of_two_modes():
    truth = tv.load_dataset("crossing", n=2).truth
    target = tv.Target(truth, None, np.array([[0.0, 0.0], [0.02, 0.01], [1.2, 0.8]]))
    prior = Gaussian(np.zeros((3, 1)), np.zeros((3, 1)), np.zeros((3, 0)))
    found = kl(target, gap.best_q(target, prior))
    starts = [np.array([m, np.log(s)]) for m in (-0.73, 0.0, 0.73) for s in (0.03, 0.5)]
    for n in range(3):
        assert abs(found[n] - least_kl(target, n, False, starts, np.linspace(-6, 6, 24001))) < 1e-6
    assert found[0] == pytest.approx(np.log(2), abs=2e-3)


def test_the_higher_of_two_modes_is_found_though_the_encoder_sits_on_the_other():
    truth = tv.load_dataset("crossing", n=2).truth
    target = tv.Target(truth, None, np.array([[0.05, 0.05]]))
    z, log_p, _ = log_posterior_on_grid(target, 0, np.linspace(-3, 3, 6001))
    higher = z[np.argmax(log_p), 0]
    other = Gaussian(np.array([[-higher]]), np.array([[np.log(0.03)]]), np.zeros((1, 0)))
    assert np.sign(gap.best_q(target, other).mean[0, 0]) == np.sign(higher)


# ----- the split -----


@pytest.mark.parametrize("L", [1, 2])
@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_the_two_parts_add_up_to_kl_posterior_and_neither_is_negative(L, covariance):
    model, theta, phi, x = bent(L, 5, covariance=covariance)
    target, q = tv.Target(model, theta, x), model.encode(phi, x)
    found, own = gap.split_gap(target, q), tv.decompose(model, theta, phi, x, target)
    assert np.array_equal(found.kl_posterior, own.kl_posterior) or np.allclose(
        found.kl_posterior, own.kl_posterior, rtol=0, atol=1e-15
    )
    assert (found.amortisation >= 0).all()
    assert (found.approximation >= -found.error).all()
    assert (found.error <= target.tolerance).all()


def test_a_q_that_is_already_the_best_leaves_no_amortisation_gap():
    model, theta, phi, x = bent(1, 2)
    target = tv.Target(model, theta, x)
    found = gap.split_gap(target, gap.best_q(target, model.encode(phi, x)))
    assert found.amortisation.max() < 1e-9


def test_the_full_family_is_at_least_as_good_as_the_diagonal_one():
    model, theta, _, x = bent(2, 4)
    target = tv.Target(model, theta, x)
    diagonal, full = (kl(target, gap.best_q(target, covariance=c)) for c in ("diagonal", "full"))
    assert (full <= diagonal + 1e-9).all()


def test_the_family_is_that_of_q_unless_it_is_named():
    model, theta, phi, x = bent(2, 4, covariance="diagonal")
    target, q = tv.Target(model, theta, x), model.encode(phi, x)
    assert gap.best_q(target, q).lower.shape == (len(x), 0)
    assert gap.best_q(target, q, "full").lower.shape == (len(x), 1)


def test_the_search_is_deterministic_and_a_point_does_not_depend_on_its_company():
    model, theta, phi, x = bent(1, 6)
    first, again = (gap.best_q(tv.Target(model, theta, x), model.encode(phi, x)) for _ in range(2))
    assert np.array_equal(first.mean, again.mean) and np.array_equal(first.log_diag, again.log_diag)
    alone = gap.best_q(tv.Target(model, theta, x[:1]), model.encode(phi, x[:1]))
    assert np.abs(alone.mean - first.mean[:1]).max() < 1e-6


def test_a_start_that_is_wildly_off_does_no_harm():
    model, theta, phi, x = bent(1, 7)
    target, n = tv.Target(model, theta, x), len(x)
    far = Gaussian(np.full((n, 1), 40.0), np.full((n, 1), 3.0), np.zeros((n, 0)))
    near = kl(target, gap.best_q(target, model.encode(phi, x)))
    assert np.abs(kl(target, gap.best_q(target, far)) - near).max() < 1e-8


def test_means_are_floats_over_the_points_and_the_error_is_the_worst():
    found = gap.GapSplit(np.array([1.0, 3.0]), np.array([0.5, 0.25]), np.array([1e-9, 1e-7])).mean()
    assert (found.approximation, found.amortisation, found.error) == (2.0, 0.375, 1e-7)
    assert found.kl_posterior == 2.375


def test_what_cannot_be_searched_is_refused():
    coin = tv.Callables(lambda x, z: -z[:, 0], lambda z: np.zeros(len(z)), support=(0.0, 1.0))
    with pytest.raises(ValueError, match="expected a prior on all of R"):
        gap.best_q(tv.Target(coin, None, np.zeros((1, 1))), covariance="full")
    model, theta, _, x = bent(1, 0, steps=1)
    with pytest.raises(ValueError, match="expected q0 or covariance"):
        gap.best_q(tv.Target(model, theta, x))


def test_the_certified_value_of_the_best_q_is_that_of_the_oracle():
    model, theta, phi, x = bent(1, 1)
    target = tv.Target(model, theta, x[:3])
    best = gap.best_q(target, model.encode(phi, target.x))
    got = tv.terms_under(best, target)
    assert oracles.silently_wrong(model, theta, target.x, best, got) == []
