"""The lessons: every claim holds, and every claim is seen to fail when what it is about is broken on purpose."""

import math
from dataclasses import replace

import numpy as np
import pytest

import tinyvae as tv
from tinyvae import datasets, ops
from tinyvae.exact.gap import GapSplit
from tinyvae.gaussian import Gaussian
from tinyvae.lessons import LESSONS, Claim, arrival, coin, essay, leftovers, motion, play
from tinyvae.lessons.lesson import PANELS, Phase
from tinyvae.lessons.linear import Exact, Linear, factor_analysis, ppca
from tinyvae.lessons.truth import TrueMeter, as_linear
from tinyvae.optimizers import Adam

NAMED = {lesson.name: lesson for lesson in LESSONS}


# ----- what a lesson is made of -----


def test_there_are_twelve_lessons_in_the_order_of_the_essay():
    assert list(NAMED) == [
        "identity", "original", "wrong-posterior", "direction", "both-move", "theta-alone", "e-and-m",
        "arrival", "condition", "gap", "collapse", "prior-term",
    ]  # fmt: skip


@pytest.mark.parametrize("lesson", LESSONS, ids=NAMED)
def test_a_lesson_has_all_its_parts(lesson):
    assert lesson.title and lesson.claim.endswith(".") and lesson.source
    assert lesson.look_at and set(lesson.look_at) <= set(PANELS)
    assert lesson.claims and len({claim.text for claim in lesson.claims}) == len(lesson.claims)
    assert all(claim.seen for claim in lesson.claims), "its range over the seeds 0 to 5"
    assert bool(lesson.phases) == (lesson.config is not None)
    for phase in lesson.phases:
        assert phase.question.endswith("?") and len(phase.choices) >= 2 and phase.steps > 0


@pytest.mark.parametrize("lesson", LESSONS, ids=NAMED)
def test_its_phases_can_be_played_and_say_what_happened(lesson):
    run = lesson.open(seed=1)
    for phase in lesson.phases:
        rows = play(run, replace(phase, steps=4), every=3)
        assert len(rows) == 3 and all(row["log_px"] is not None for row in rows)
        assert 0 <= phase.answer(rows) < len(phase.choices)
        assert phase.explain(rows)


def test_play_changes_only_the_settings_that_the_phase_names():
    run = NAMED["collapse"].open()
    before = run.trainer.settings
    phase = Phase("", "?", ("a", "b"), lambda rows: 0, lambda rows: "", 2, {"phi_steps": 10, "theta_rate": 0.5})
    play(run, phase)
    expected = replace(before, theta_rate=0.5, update=replace(before.update, phi_steps=10))
    assert run.trainer.settings == expected


def test_a_lesson_opens_the_same_run_for_the_same_seed():
    first, again, other = (NAMED["original"].open(seed) for seed in (3, 3, 4))
    assert np.array_equal(first.trainer.phi, again.trainer.phi) and np.array_equal(first.data.x, again.data.x)
    assert not np.array_equal(first.data.x, other.data.x)


def test_a_lesson_without_a_run_says_so():
    with pytest.raises(ValueError, match="lesson identity: expected one with a run, it has none"):
        replace(NAMED["identity"], config=None).open()


def test_a_claim_is_an_interval_and_nothing_else_passes():
    claim = Claim("c", "x", 1.0, 2.0)
    verdicts = {value: claim.check({"x": value}).ok for value in (0.99, 1.0, 2.0, 2.01, math.inf)}
    assert verdicts == {0.99: False, 1.0: True, 2.0: True, 2.01: False, math.inf: False}
    assert not claim.check({"x": math.nan}).ok
    expected = [Claim("c", "x", *bounds).expected for bounds in ((1, 1), (-math.inf, 2), (1,), (1, 2))]
    assert expected == ["= 1", "<= 2", ">= 1", "1 to 2"]


# ----- every claim holds -----


@pytest.mark.parametrize("lesson", LESSONS, ids=NAMED)
def test_every_claim_holds_and_the_outcome_is_told(lesson):
    measured = lesson.measure(0)
    failed = [check for check in lesson.check(measured) if not check.ok]
    assert failed == []
    assert "nan" not in lesson.explain(measured)


@pytest.mark.parametrize("name", ["original", "wrong-posterior", "direction", "theta-alone", "prior-term"])
def test_the_same_seed_gives_the_same_numbers(name):
    assert NAMED[name].measure(1) == NAMED[name].measure(1)


# ----- every claim is broken once -----


def nothing_learns(patch):
    """The optimiser returns without having moved anything."""
    patch.setattr(Adam, "update", lambda self, parameters, gradient, state, rate: None)


def switches_ignored(patch):
    """Both groups move whatever the switches say."""
    patch.setattr(tv.Update, "substeps", property(lambda self: [(True, True)]))
    train = Exact.train
    patch.setattr(
        Exact, "train",
        lambda self, steps, rate, theta=True, phi=True, last=1.0: train(self, steps, rate, last=last),
    )  # fmt: skip


def theta_never_moves(patch):
    patch.setattr(tv.Update, "substeps", property(lambda self: [(False, True)]))
    train = Exact.train
    patch.setattr(
        Exact, "train",
        lambda self, steps, rate, theta=True, phi=True, last=1.0: train(self, steps, rate, False, True, last),
    )  # fmt: skip


def phi_never_moves(patch):
    patch.setattr(tv.Update, "substeps", property(lambda self: [(True, False)]))


def prior_term_has_the_wrong_sign(patch):
    wrong = property(lambda q: -ops.gaussian_kl(q.mean, q.log_diag, q.lower))
    patch.setattr(Gaussian, "kl_prior", wrong)


def the_meter_measures_nothing(patch):
    patch.setattr(TrueMeter, "kl", lambda self, q: 0.5)


def phi_gradient_has_the_wrong_sign(patch):
    right = essay.grad_kl_phi
    patch.setattr(essay, "grad_kl_phi", lambda *arguments: -right(*arguments))


def theta_climbs_log_px(patch):
    patch.setattr(
        essay, "grad_elbo_theta", lambda model, theta, phi, x: 1.01 * essay.grad_log_px_theta(model, theta, x)
    )


def log_px_gradient_has_the_wrong_sign(patch):
    right = essay.grad_log_px_theta
    patch.setattr(essay, "grad_log_px_theta", lambda *arguments: -right(*arguments))


def exact_elbo_is_off(patch):
    right = essay.plain_elbo
    patch.setattr(essay, "plain_elbo", lambda *arguments: right(*arguments) + 1e-8)


def closed_form_is_off(patch):
    right = Linear.log_px
    patch.setattr(Linear, "log_px", lambda self, x: right(self, x) + 1e-5)


def maximum_likelihood_is_too_low(patch):
    def too_noisy(x, latent_dim):
        fit = ppca(x, latent_dim)
        return replace(fit, noise_std=1.2 * fit.noise_std)

    patch.setattr(arrival, "ppca", too_noisy)


def nothing_is_aligned(patch):
    patch.setattr(arrival, "to_the_end", lambda training, best: (0.0, 0.0, 0.0))
    patch.setattr(Linear, "aligned_to", lambda self, other: self)


def factor_analysis_knows_the_truth(patch):
    truth = as_linear(datasets.load_dataset("linear", n=2).truth)
    patch.setattr(arrival, "to_the_end", lambda training, best: (0.0, 0.0, 0.0))
    patch.setattr(arrival, "factor_analysis", lambda *arguments: truth)


def without_the_modes(patch):
    """Part (d) trains for long and is not what is broken."""
    names = ("one_mode", "truth_two_modes", "modes_short")
    patch.setattr(arrival, "measure_modes", lambda seed: dict.fromkeys(names, 0.0))


def only_the_coin(patch):
    without_the_modes(patch)
    patch.setattr(arrival, "measure_crossing", lambda seed: dict.fromkeys(("crossing", "elsewhere"), 0.0))
    names = ("floor", "floor_searched", "above_floor", "free", "free_short", "correlation")
    patch.setattr(arrival, "measure_diagonal", lambda seed: dict.fromkeys(names, 0.0))


def coins_prior_term_is_too_large(patch):
    only_the_coin(patch)
    right = coin._kl_prior
    patch.setattr(coin, "_kl_prior", lambda slope: 1.1 * right(slope))


def coins_likelihood_is_wrong(patch):
    only_the_coin(patch)
    patch.setattr(coin, "log_likelihood", lambda t: np.log(1 - t + t**2 / 2) + np.log(t / 2 - t**2 / 3))


def coins_bias_has_the_other_sign(patch):
    only_the_coin(patch)
    right = coin.best_likelihood()
    patch.setattr(coin, "best_likelihood", lambda: 2 * coin.best_tied()[0] - right)


def coins_untied_bias_has_the_other_sign(patch):
    only_the_coin(patch)
    right = coin.best_likelihood()
    patch.setattr(coin, "best_likelihood", lambda: 2 * coin.best_untied()[0] - right)


def coins_terms_have_a_wrong_sign(patch):
    only_the_coin(patch)
    right = coin.decompose

    def wrong(*arguments, **named):
        got = right(*arguments, **named)
        return replace(got, kl_prior=-got.kl_prior)

    patch.setattr(coin, "decompose", wrong)


def the_prior_is_called_the_best_q(patch):
    def prior(target, q0=None, covariance=None):
        n, L = len(target), target.joint.latent_dim
        return Gaussian(np.zeros((n, L)), np.zeros((n, L)), np.zeros((n, 0)))

    patch.setattr(arrival, "best_q", prior)
    patch.setattr("tinyvae.exact.gap.best_q", prior)
    phi_does_not_reach_the_floor(patch)


def phi_does_not_reach_the_floor(patch):
    without_the_modes(patch)
    nothing_learns(patch)


def theta_stays_at_the_truth(patch):
    without_the_modes(patch)
    theta_never_moves(patch)


def floor_has_the_wrong_sign(patch):
    phi_does_not_reach_the_floor(patch)
    right = Linear.kl_posterior_floor
    patch.setattr(Linear, "kl_posterior_floor", lambda self: -right(self))


def only_the_modes(patch):
    """Part (d) alone, and hardly trained."""
    others = dict.fromkeys((claim.name for claim in NAMED["condition"].claims), 0.0)
    for part in ("measure_coin", "measure_crossing", "measure_diagonal"):
        patch.setattr(arrival, part, lambda *seed: others)
    patch.setattr(arrival, "STEPS", 1)


def the_decoder_is_the_truth(patch):
    only_the_modes(patch)
    truth, right = datasets.load_dataset("crossing", n=2).truth, arrival.Target
    patch.setattr(arrival, "Target", lambda model, theta, x: right(truth, None, x))


def the_eight_does_not_cross(patch):
    only_the_modes(patch)
    patch.setitem(datasets._SETS, "crossing", datasets._SETS["arc"])


def quick(patch):
    """Enough of lesson 10 for its bookkeeping to be broken."""
    patch.setattr(leftovers, "FEW", 1)
    patch.setattr(leftovers, "GAP_STEPS", 50)


def split(patch, change):
    quick(patch)
    right = leftovers.split_gap

    def changed(target, q):
        got = right(target, q)
        return GapSplit(*change(got.approximation, got.amortisation), got.error)

    patch.setattr(leftovers, "split_gap", changed)


def the_parts_are_swapped(patch):
    split(patch, lambda approximation, amortisation: (amortisation, approximation))


def all_of_the_gap_is_amortisation(patch):
    split(patch, lambda approximation, amortisation: (1e-9 * approximation, approximation + amortisation))


def none_of_the_gap_is_amortisation(patch):
    split(patch, lambda approximation, amortisation: (approximation + 1, 0 * amortisation))


def a_part_is_negative(patch):
    split(patch, lambda approximation, amortisation: (-1 - approximation, amortisation))


def decoders_are_not_trained(patch):
    quick(patch)
    nothing_learns(patch)


def every_floor_is_zero(patch):
    quick(patch)
    patch.setattr(Linear, "kl_posterior_floor", lambda self: 0.0)


def short_lags(patch):
    patch.setattr(leftovers, "LAG_RUNS", 2)
    patch.setattr(leftovers, "LAG_STEPS", 1)


def the_ratio_is_ignored(patch):
    switches_ignored(patch)


def the_rates_are_equal(patch):
    patch.setattr(leftovers, "FAST_THETA", {"theta_rate": 1e-2, "phi_rate": 1e-2})


def the_noise_is_not_fixed_high(patch):
    short_lags(patch)
    patch.setattr(leftovers, "NOISY", 0.1)


def information_is_too_large(patch):
    right = leftovers.split_prior_term
    patch.setattr(leftovers, "split_prior_term", lambda q: (right(q)[0] + 5.0, right(q)[1] - 5.0))


BROKEN = [  # lesson, what is broken, the numbers whose claims must fail
    ("identity", prior_term_has_the_wrong_sign, {"residual", "residual_plane", "plus", "miss"}),
    ("original", switches_ignored, {"log_px_values", "gained_minus_lost"}),
    ("original", nothing_learns, {"gained", "kl_last"}),
    ("wrong-posterior", nothing_learns, {"left", "true_ratio"}),
    ("wrong-posterior", the_meter_measures_nothing, {"true_then"}),
    ("direction", phi_gradient_has_the_wrong_sign, {"phi"}),
    ("direction", theta_climbs_log_px, {"theta"}),
    ("direction", log_px_gradient_has_the_wrong_sign, {"pull_off"}),
    ("direction", exact_elbo_is_off, {"elbo"}),
    ("both-move", theta_never_moves, {"both", "longest", "never_still"}),
    ("both-move", phi_never_moves, {"by_phi"}),
    ("both-move", nothing_learns, {"gain"}),
    ("theta-alone", switches_ignored, {"kl_prior_values"}),
    ("theta-alone", nothing_learns, {"opening", "closing", "log_px"}),
    ("e-and-m", closed_form_is_off, {"closed_form"}),
    ("e-and-m", switches_ignored, {"flat"}),
    ("e-and-m", nothing_learns, {"tight", "rise", "elbo"}),
    ("e-and-m", theta_never_moves, {"gap"}),
    ("arrival", nothing_learns, {"short", "gap"}),
    ("arrival", maximum_likelihood_is_too_low, {"above"}),
    ("arrival", nothing_is_aligned, {"first_tenfold", "second_tenfold"}),
    ("arrival", factor_analysis_knows_the_truth, {"fa_10000"}),
    ("condition", coins_prior_term_is_too_large,
     {"coin_t", "coin_p", "coin_elbo", "coin_gap", "untied_t", "untied_elbo", "untied_gap"}),
    ("condition", coins_likelihood_is_wrong, {"coin_ml", "coin_ml_log_px"}),
    ("condition", coins_bias_has_the_other_sign, {"coin_bias"}),
    ("condition", coins_untied_bias_has_the_other_sign, {"untied_bias"}),
    ("condition", coins_terms_have_a_wrong_sign, {"coin_residual"}),
    ("condition", the_prior_is_called_the_best_q, {"crossing", "elsewhere", "floor_searched"}),
    ("condition", floor_has_the_wrong_sign, {"floor"}),
    ("condition", phi_does_not_reach_the_floor, {"above_floor"}),
    ("condition", theta_stays_at_the_truth, {"free", "free_short", "correlation"}),
    ("condition", the_decoder_is_the_truth, {"one_mode"}),
    ("condition", the_eight_does_not_cross, {"truth_two_modes"}),
    ("condition", only_the_modes, {"modes_short"}),
    ("gap", the_parts_are_swapped, {"approximation_0"}),
    ("gap", all_of_the_gap_is_amortisation, {"approximation_1"}),
    ("gap", none_of_the_gap_is_amortisation, {"left", "lowered"}),
    ("gap", a_part_is_negative, {"least"}),
    ("gap", decoders_are_not_trained, {"own_family"}),
    ("gap", every_floor_is_zero, {"other_family"}),
    ("collapse", the_ratio_is_ignored, {"ahead", "log_px_gain"}),
    ("collapse", the_rates_are_equal, {"together"}),
    ("collapse", the_noise_is_not_fixed_high, {"noisy"}),
    ("prior-term", prior_term_has_the_wrong_sign, {"difference"}),
    ("prior-term", nothing_learns, {"information", "share"}),
    ("prior-term", information_is_too_large, {"room", "marginal"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "broken", "numbers"), BROKEN, ids=[f"{b[0]}-{b[1].__name__}" for b in BROKEN])
def test_a_claim_fails_when_what_it_is_about_is_broken(name, broken, numbers, monkeypatch):
    broken(monkeypatch)
    lesson = NAMED[name]
    with np.errstate(all="ignore"):
        measured = lesson.measure(0)
    held = {claim.name for claim in lesson.claims if claim.check(measured).ok}
    assert held & numbers == set(), {number: measured[number] for number in numbers}


def test_every_claim_of_every_lesson_is_broken_somewhere():
    missing = {
        (lesson.name, claim.name)
        for lesson in LESSONS
        for claim in lesson.claims
        if not any(lesson.name == name and claim.name in numbers for name, _, numbers in BROKEN)
    }
    assert missing == set()


# ----- the tools of the lessons -----


def test_the_points_of_exact_training_give_the_exact_elbo_of_a_linear_model():
    x = tv.load_dataset("linear", n=6, seed=1).x
    model = tv.VAE(3, 2, hidden=(), covariance="full", noise="per-dimension")
    theta, phi = model.init(2)
    model.unpack_phi(phi).layers[-1][0][:, 2:] *= 0.1
    training = Exact(model, x, theta, phi)
    reconstruction, kl_prior, *_ = training.gradient(theta, phi, x, training.eps)
    terms = tv.decompose(model, theta, phi, x)
    assert np.abs(reconstruction - terms.reconstruction).max() < 1e-6
    assert np.abs(kl_prior - terms.kl_prior).max() < 1e-12
    assert training.terms()[0] == pytest.approx(terms.log_px.mean(), abs=1e-9)
    assert training.terms()[1] == pytest.approx(terms.kl_posterior.mean(), abs=1e-6)


def test_exact_training_is_only_for_linear_gaussian_models():
    model = tv.VAE(2, 1, hidden=(3,))
    with pytest.raises(ValueError, match="expected a linear Gaussian VAE"):
        Exact(model, np.zeros((2, 2)), *model.init(0))


def test_em_climbs_and_ends_where_no_gradient_is_left():
    r = np.random.default_rng(0)
    x = r.standard_normal((300, 2)) @ r.standard_normal((2, 5)) + r.uniform(0.3, 0.8, 5) * r.standard_normal(
        (300, 5)
    )
    scores = [factor_analysis(x, 2, steps).log_px(x).mean() for steps in (1, 10, 100, 5000)]
    assert scores == sorted(scores)
    from sklearn.decomposition import FactorAnalysis

    other = FactorAnalysis(2, tol=1e-12, max_iter=20000, svd_method="lapack").fit(x)
    assert scores[-1] == pytest.approx(other.score(x), abs=1e-6)


def test_aligning_undoes_a_turn_and_a_flip():
    truth = as_linear(tv.load_dataset("linear", n=2).truth)
    for flip in (1, -1):
        c, s = np.cos(1.1), np.sin(1.1)
        turned = truth.turned(np.array([[c, -flip * s], [s, flip * c]]))
        assert np.abs(turned.W - truth.W).max() > 0.1
        assert np.abs(turned.aligned_to(truth).W - truth.W).max() < 1e-12


def test_the_meter_forgives_a_flip_on_a_line_and_a_turn_of_a_linear_model():
    data = tv.load_dataset("arc", n=8)
    target = tv.Target(data.truth, None, data.x)
    C = np.log(np.sqrt(target.posterior_cov[:, 0]))
    meter = TrueMeter(data.truth, data.x)
    q, flipped = (Gaussian(sign * target.posterior_mean, C, np.zeros((8, 0))) for sign in (1, -1))
    assert meter.kl(flipped) == pytest.approx(meter.kl(q), abs=1e-9)
    assert meter.kl(q) == pytest.approx(tv.terms_under(q, target).kl_posterior.mean())

    data = tv.load_dataset("linear", n=8)
    truth, meter = as_linear(data.truth), TrueMeter(data.truth, data.x)
    c, s = np.cos(2.0), np.sin(2.0)
    turned = truth.turned(np.array([[c, s], [s, -c]]))
    assert abs(meter.kl(truth.posterior_as_q(data.x))) < 1e-6
    assert abs(meter.kl(turned.posterior_as_q(data.x))) < 1e-6
    off = replace(truth, W=0.8 * truth.W).posterior_as_q(data.x)
    assert 1e-2 < meter.kl(off) <= truth.kl_posterior(data.x, off).mean() + 1e-9


def test_the_meter_refuses_a_curved_truth_on_a_plane():
    data = tv.load_dataset("pinwheel", n=4)
    with pytest.raises(ValueError, match="expected z in R\\^1 or a linear truth"):
        TrueMeter(data.truth, data.x)
    assert as_linear(tv.load_dataset("bars", n=2).truth) is None
    with pytest.raises(ValueError, match="at_truth: expected a linear truth, arc has none"):
        essay.at_truth(replace(NAMED["identity"], prepare=None).open())


def test_the_coins_elbo_is_that_of_the_certified_terms():
    for t, a, b in ((0.3, -0.4, 0.9), (0.7, 1.2, -1.9), (0.5, 0.0, 1e-4)):
        assert coin.elbo(t, a, b) == pytest.approx(coin.terms(t, a, b).elbo.sum(), abs=1e-8)


def test_the_coins_surface_has_its_maximum_at_the_best_point():
    surface = coin.surface(41)
    t, p = np.unravel_index(surface.elbo.argmax(), surface.elbo.shape)
    assert abs(surface.t[t] - surface.best[0]) < 0.02 and abs(surface.p[p] - surface.best[1]) < 0.07
    assert surface.elbo.max() <= coin.elbo(surface.best[0], -surface.best[1], surface.best[1]) + 1e-12
    assert surface.likelihood_best == pytest.approx(0.47342, abs=1e-5)


def test_counting_the_steps_in_which_both_rose():
    elbo, kl = np.array([0.0, 1.0, 2.0, 1.5, 3.0]), np.array([5.0, 6.0, 5.5, 7.0, 6.5])
    assert motion.both_rose(elbo, kl) == (3, 1)
    assert motion.longest_rise(elbo, kl) == 2.0  # from step 0 to step 3
    assert motion.longest_rise(elbo, -elbo) == 0.0


def test_modes_are_counted_from_a_twentieth_of_the_highest():
    class Bumps:
        def __init__(self, *weights):
            self.weights = weights

        def posterior_density(self, z, points):
            return sum(w * np.exp(-8 * (z - 2 * k) ** 2) for k, w in enumerate(self.weights))[None]

    counts = [arrival.modes(Bumps(*weights)) for weights in ((1.0,), (1.0, 0.5), (1.0, 0.06), (1.0, 0.04))]
    assert counts == [1, 2, 2, 1]
