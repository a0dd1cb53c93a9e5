"""Training: what a step does, what it leaves alone, and that looking at it changes nothing."""

import dataclasses
import itertools

import numpy as np
import oracles
import pytest
from scipy.special import logsumexp

import tinyvae as tv
from tinyvae.optimizers import SGD, Adam

TERMS = ("log_px", "reconstruction", "kl_prior", "kl_posterior", "elbo")
THETA_ONLY, PHI_ONLY = tv.Update(phi=False), tv.Update(theta=False)


def arc(n=12, D=2, seed=0):
    r = np.random.default_rng(seed)
    z = r.standard_normal((n, 1))
    return np.concatenate([np.cos(z), np.sin(z), z][:D], axis=1) + 0.2 * r.standard_normal((n, D))


def trainer(L=1, *, n=12, model=None, **arguments):
    model = model or tv.VAE(2, L, hidden=(5,), covariance="full")
    x = arc(n)
    if model.likelihood == "bernoulli":
        x = (x > 0.5).astype(float)
    return tv.Trainer(model, x, **{"seed": 1, "batch_size": 5, "learning_rate": 0.01, **arguments})


def run(trained, n):
    return [dataclasses.replace(record, seconds=0.0) for record in trained.steps(n)]


def bits(*arrays):
    return [a.tobytes() for a in arrays]


# ----- looking never changes the run -----


@pytest.mark.parametrize("L", [1, 2])
def test_parameters_are_bit_identical_however_often_the_terms_are_evaluated(L):
    found = []
    for evaluate_every in (1, 10, 0):
        t = trainer(L, evaluate_every=evaluate_every)
        run(t, 25)
        found.append(bits(t.theta, t.phi))
    assert found[0] == found[1] == found[2]


def test_parameters_do_not_depend_on_what_the_evaluation_looks_at():
    found = []
    for arguments in ({}, {"evaluation_points": 3}, {"tolerance": 1e-3}, {"evaluation_points": 12}):
        t = trainer(**arguments)
        run(t, 8)
        t.evaluate()
        found.append(bits(t.theta, t.phi))
    assert found.count(found[0]) == len(found)


def test_initial_weights_do_not_depend_on_batches_samples_or_optimiser():
    first = trainer()
    for arguments in ({"batch_size": 2}, {"samples": 7}, {"optimizer": "sgd"}, {"evaluation_points": 4}):
        other = trainer(**arguments)
        assert bits(first.theta, first.phi) == bits(other.theta, other.phi)
    assert bits(first.theta) != bits(trainer(seed=2).theta)


def test_terms_are_evaluated_after_every_kth_step_and_not_elsewhere():
    for every, expected in ((0, []), (1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6])):
        records = run(trainer(evaluate_every=every), 7)
        assert [r.step for r in records] == [1, 2, 3, 4, 5, 6, 7]
        assert [r.step for r in records if r.terms] == expected
        assert [r.step for r in records if r.attribution] == expected
        assert [r.step for r in records if r.target_moved is not None] == expected


def test_the_record_holds_the_terms_after_the_step():
    t = trainer(evaluate_every=4)
    record = run(t, 4)[-1]
    assert record.terms == tv.decompose(t.model, t.theta, t.phi, t.x).mean()


def test_a_large_set_is_evaluated_on_a_fixed_choice_of_its_points():
    t = trainer(n=20, evaluation_points=6)
    chosen = t.evaluation_x
    assert chosen.shape == (6, 2)
    assert {tuple(row) for row in chosen} <= {tuple(row) for row in t.x}
    assert np.array_equal(chosen, trainer(n=20, evaluation_points=6, batch_size=2).evaluation_x)
    assert not np.array_equal(chosen, trainer(n=20, evaluation_points=6, seed=9).evaluation_x)
    assert trainer(n=20, evaluation_points=20).evaluation_x is not None
    assert np.array_equal(trainer(n=20).evaluation_x, t.x)


# ----- freezing -----


@pytest.mark.parametrize("L", [1, 2])
@pytest.mark.parametrize("gradients", ["fused", "autograd"])
def test_freezing_theta_leaves_log_px_bit_identical(L, gradients):
    t = trainer(L, gradients=gradients)
    run(t, 5)
    t.update = PHI_ONLY
    before = t.snapshot()
    log_px = t.evaluate().terms.log_px
    per_point = t.evaluate().target.log_px.copy()
    records = run(t, 10)
    after = t.snapshot()
    assert {r.terms.log_px for r in records} == {log_px}
    assert np.array_equal(t.evaluate().target.log_px, per_point)
    assert np.array_equal(tv.Target(t.model, t.theta, t.evaluation_x).log_px, per_point)
    assert bits(before.theta, before.theta_state.m, before.theta_state.v) == bits(
        after.theta, after.theta_state.m, after.theta_state.v
    )
    assert before.theta_state.count == after.theta_state.count == 5
    assert after.phi_state.count == 15
    assert not np.array_equal(before.phi, after.phi)
    assert all(r.target_moved == 0 and r.grad_norm_theta is None and r.grad_norm_phi > 0 for r in records)


@pytest.mark.parametrize("L", [1, 2])
@pytest.mark.parametrize("gradients", ["fused", "autograd"])
def test_freezing_phi_leaves_kl_prior_bit_identical(L, gradients):
    t = trainer(L, gradients=gradients)
    run(t, 5)
    t.update = THETA_ONLY
    before, kl_prior = t.snapshot(), t.evaluate().terms.kl_prior
    records = run(t, 10)
    after = t.snapshot()
    assert {r.terms.kl_prior for r in records} == {kl_prior}
    assert bits(before.phi, before.phi_state.m, before.phi_state.v) == bits(
        after.phi, after.phi_state.m, after.phi_state.v
    )
    assert before.phi_state.count == after.phi_state.count == 5
    assert not np.array_equal(before.theta, after.theta)
    assert all(r.target_moved > 0 and r.grad_norm_phi is None and r.grad_norm_theta > 0 for r in records)


def test_a_thawed_group_goes_on_as_if_the_pause_had_not_been():
    """A frozen θ keeps its moments and its counter: its next step is the one Adam would have taken."""
    t = trainer(batch_size=12)
    run(t, 3)
    t.update = PHI_ONLY
    run(t, 3)
    t.update = tv.Update()
    state, theta = t.snapshot().theta_state, t.theta.copy()
    run(t, 1)
    after = t.snapshot().theta_state
    m, v = 0.1 * after.m, 0.001 * after.v  # the state holds sums, not averages
    gradient = after.m - 0.9 * state.m
    assert np.allclose(v, 0.001 * (0.999 * state.v + gradient**2), rtol=1e-6, atol=1e-15)
    step = 0.01 * (m / (1 - 0.9**4)) / (np.sqrt(v / (1 - 0.999**4)) + 1e-8)
    assert np.allclose(t.theta - theta, step, rtol=1e-9, atol=1e-14)


def test_with_both_groups_off_nothing_moves():
    t = trainer(update=tv.Update(theta=False, phi=False))
    before = t.snapshot()
    records = run(t, 3)
    after = t.snapshot()
    assert bits(before.theta, before.phi) == bits(after.theta, after.phi)
    assert before.theta_state.count == after.theta_state.count == after.phi_state.count == 0
    assert [r.step for r in records] == [1, 2, 3]
    assert records[0].terms == records[2].terms
    for r in records:
        assert r.target_moved == 0 and r.grad_norm_theta is None and r.grad_norm_phi is None
        assert set(vars(r.attribution.theta).values()) == set(vars(r.attribution.phi).values()) == {0.0}


# ----- who did what -----

each_update = pytest.mark.parametrize(
    "update",
    [tv.Update(), THETA_ONLY, PHI_ONLY, tv.Update(theta_steps=2, phi_steps=3)],
    ids=["both", "theta", "phi", "2:3"],
)


@pytest.mark.parametrize("L", [1, 2])
@each_update
def test_the_changes_by_theta_and_by_phi_add_up_to_the_change(update, L):
    t = trainer(L, update=update)
    old = t.evaluate().terms
    for record in run(t, 6):
        by = record.attribution
        for term in TERMS:
            change = getattr(record.terms, term) - getattr(old, term)
            assert abs(getattr(by.theta, term) + getattr(by.phi, term) - change) < 1e-12
        assert by.phi.log_px == 0 and by.theta.kl_prior == 0
        for group in (by.theta, by.phi):
            assert abs(group.elbo - group.reconstruction + group.kl_prior) < 1e-12
        old = record.terms


@pytest.mark.parametrize("L", [1, 2])
def test_the_attribution_is_that_of_four_explicit_decompositions(L):
    t = trainer(L, evaluate_every=1)
    run(t, 4)
    theta, phi = t.theta.copy(), t.phi.copy()
    record = t.step()
    corners = {
        (a, b): tv.decompose(t.model, (theta, t.theta)[a], (phi, t.phi)[b], t.evaluation_x).mean()
        for a, b in itertools.product((0, 1), (0, 1))
    }
    for term in TERMS:
        T = {corner: getattr(terms, term) for corner, terms in corners.items()}
        by_theta = 0.5 * (T[1, 0] - T[0, 0]) + 0.5 * (T[1, 1] - T[0, 1])
        by_phi = 0.5 * (T[0, 1] - T[0, 0]) + 0.5 * (T[1, 1] - T[1, 0])
        assert abs(getattr(record.attribution.theta, term) - by_theta) < 1e-12
        assert abs(getattr(record.attribution.phi, term) - by_phi) < 1e-12
    assert record.attribution.theta.kl_posterior != 0 != record.attribution.phi.kl_posterior


def test_with_theta_frozen_every_nat_the_elbo_gains_is_one_that_kl_posterior_loses():
    t = trainer(update=PHI_ONLY, learning_rate=0.05)
    old = t.evaluate().terms
    first = old
    for record in run(t, 30):
        gained, lost = record.terms.elbo - old.elbo, old.kl_posterior - record.terms.kl_posterior
        assert abs(gained - lost) < 2e-9
        by = record.attribution.phi
        assert abs(by.elbo + by.kl_posterior) < 2e-9
        old = record.terms
    assert old.elbo > first.elbo + 0.05


@pytest.mark.parametrize("L", [1, 2])
def test_target_moved_is_the_kl_from_the_old_posterior_to_the_new_by_brute_force(L):
    t = trainer(L, n=4, learning_rate=0.2)
    run(t, 2)
    old = t.theta.copy()
    record = t.step()
    z, _ = oracles.grid([(-9.0, 9.0)] * L, {1: 20_001, 2: 601}[L])
    kls = []
    for x in t.evaluation_x:
        p, r = (oracles.joint(t.model, theta, x)(z) for theta in (old, t.theta))
        p, r = p - logsumexp(p), r - logsumexp(r)
        kls.append(np.exp(p) @ (p - r))
    assert record.target_moved > 1e-4
    assert abs(record.target_moved - np.mean(kls)) < {1: 1e-9, 2: 1e-6}[L]
    assert all(r.target_moved >= 0 for r in run(t, 10))


# ----- the step itself -----


@pytest.mark.parametrize("update", [tv.Update(), tv.Update(theta_steps=3, phi_steps=2)], ids=["1:1", "3:2"])
@pytest.mark.parametrize("L", [1, 2])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_fused_and_autograd_train_to_the_same_parameters(L, likelihood, update):
    found = []
    for gradients in ("fused", "autograd"):
        model = tv.VAE(2, L, hidden=(5, 4), likelihood=likelihood, covariance="full")
        t = trainer(model=model, gradients=gradients, evaluate_every=0, samples=2, update=update)
        run(t, 100 if update == tv.Update() else 20)
        found.append(np.concatenate([t.theta, t.phi]))
    assert np.abs(found[0] - found[1]).max() < 1e-10


@pytest.mark.parametrize("gradients", ["fused", "autograd"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_float32_steps_are_the_float64_steps_rounded(likelihood, optimizer, gradients):
    """The same minibatches and the same noise, so that the parameters differ by rounding only."""
    found = {}
    for precision in ("float64", "float32"):
        model = tv.VAE(2, 2, hidden=(5, 4), likelihood=likelihood, covariance="full")
        arguments = {"gradients": gradients, "optimizer": optimizer, "precision": precision}
        t = trainer(model=model, samples=2, evaluate_every=0, **arguments)
        run(t, 50)
        assert t.theta.dtype == t.phi.dtype == precision
        found[precision] = np.concatenate([t.theta, t.phi])
    difference = np.abs(found["float64"] - found["float32"]).max()
    assert 1e-9 < difference < 1e-4


@pytest.mark.parametrize("L", [1, 2])
def test_the_terms_of_float32_steps_are_exact_in_float64(L):
    t = trainer(L, precision="float32")
    for record in t.steps(5):
        fresh = tv.decompose(t.model, t.theta.astype(float), t.phi.astype(float), t.evaluation_x)
        assert record.terms == fresh.mean()
        assert abs(record.terms.residual) <= t.tolerance


def test_a_float32_run_that_is_rewound_gives_the_same_bits_again():
    t = trainer(precision="float32")
    run(t, 5)
    start = t.snapshot()
    first, end = run(t, 7), bits(t.theta, t.phi)
    t.restore(start)
    assert run(t, 7) == first and bits(t.theta, t.phi) == end


@pytest.mark.parametrize(("k_theta", "k_phi"), [(1, 1), (1, 5), (3, 1), (2, 2), (0, 1), (10, 0)])
def test_the_ratio_counts_updates(k_theta, k_phi):
    t = trainer(evaluate_every=0, update=tv.Update(theta_steps=k_theta, phi_steps=k_phi))
    records = run(t, 4)
    state = t.snapshot()
    assert (state.theta_state.count, state.phi_state.count) == (4 * k_theta, 4 * k_phi)
    assert t.step_count == records[-1].step == 4
    assert (records[-1].grad_norm_theta is None) == (k_theta == 0)
    assert (records[-1].grad_norm_phi is None) == (k_phi == 0)


@pytest.mark.parametrize("group", ["theta", "phi"])
def test_a_frozen_group_is_not_updated_whatever_the_ratio(group):
    t = trainer(evaluate_every=0, update=tv.Update(**{group: False}, theta_steps=3, phi_steps=3))
    before = bits(getattr(t, group))
    run(t, 2)
    assert bits(getattr(t, group)) == before


def test_in_a_joint_step_both_gradients_are_taken_at_the_same_point():
    """So one joint step is a θ-step and a φ-step from the same start, with the same draws."""
    both, theta, phi = (trainer(update=u) for u in (tv.Update(), THETA_ONLY, PHI_ONLY))
    for t in (both, theta, phi):
        t.step()
    assert bits(both.theta, both.phi) == bits(theta.theta, phi.phi)


def bias_trainer(x, batch_size, seed=0):
    """θ is put to 0 before each step, so that one SGD step of size 1 moves the bias to the batch's mean."""
    model = tv.VAE(1, 1, hidden=(), noise_std=1.0)
    return tv.Trainer(
        model, x[:, None], batch_size=batch_size, seed=seed, optimizer="sgd", learning_rate=1.0,
        update=THETA_ONLY, evaluate_every=0,
    )  # fmt: skip


def batch_sums(t, n):
    sums = []
    for _ in range(n):
        t.theta[:] = t.phi[:] = 0
        t.step()
        sums.append(round(float(t.model.unpack_theta(t.theta).layers[0][1][0]) * t.settings.batch_size))
    return sums


@pytest.mark.parametrize("n", [12, 13])
def test_minibatches_of_an_epoch_share_no_point_and_cover_the_set(n):
    """Point k has the value 2^k: the bits of a batch's sum are its members."""
    t = bias_trainer(2.0 ** np.arange(n), 4)
    epochs = [batch_sums(t, 3) for _ in range(20)]
    for epoch in epochs:
        assert [s.bit_count() for s in epoch] == [4, 4, 4]
        assert (epoch[0] | epoch[1] | epoch[2]).bit_count() == 12  # disjoint; 13 points leave one out
    covered = 0
    for s in itertools.chain(*epochs):
        covered |= s
    assert covered == 2**n - 1
    assert len({tuple(epoch) for epoch in epochs}) == 20  # each in its own order
    assert batch_sums(bias_trainer(2.0 ** np.arange(n), 4, seed=1), 3) != epochs[0]


def test_a_batch_larger_than_the_set_is_the_set():
    t = bias_trainer(2.0 ** np.arange(5), 64)
    assert t.settings.batch_size == 5
    assert batch_sums(t, 3) == [31, 31, 31]


def test_a_sgd_step_is_the_rate_times_the_gradient():
    """The bias of a decoder that outputs 0 has the gradient mean(x)/σ²."""
    model = tv.VAE(1, 1, hidden=(), noise_std=0.5)
    x = np.array([[1.0], [2.0], [6.0]])
    t = tv.Trainer(model, x, optimizer="sgd", learning_rate=0.01, update=THETA_ONLY, evaluate_every=0)
    t.theta[:] = 0
    t.step()
    assert model.unpack_theta(t.theta).layers[0][1][0] == pytest.approx(0.01 * 3 / 0.25, rel=1e-13)


def test_theta_and_phi_can_have_their_own_learning_rates():
    one, two = trainer(learning_rate=0.01), trainer(learning_rate=(0.01, 0.02))
    start = one.snapshot()
    one.step()
    two.step()
    assert bits(one.theta) == bits(two.theta)
    assert np.allclose(two.phi - start.phi, 2 * (one.phi - start.phi), rtol=1e-9, atol=1e-15)


# ----- settings that change on the way -----


def test_settings_hold_from_the_next_step_on_and_change_nothing_before_it():
    plain, changed = trainer(evaluate_every=0), trainer(evaluate_every=0)
    run(plain, 3)
    run(changed, 3)
    changed.settings = dataclasses.replace(changed.settings, theta_rate=0.02, phi_rate=0.02)
    assert bits(plain.theta, plain.phi) == bits(changed.theta, changed.phi)
    start = plain.theta.copy()
    run(plain, 1)
    run(changed, 1)
    assert np.allclose(changed.theta - start, 2 * (plain.theta - start), rtol=1e-9, atol=1e-15)


def test_another_batch_size_holds_from_the_next_step_on():
    t = bias_trainer(2.0 ** np.arange(12), 4)
    assert [s.bit_count() for s in batch_sums(t, 3)] == [4, 4, 4]
    t.settings = dataclasses.replace(t.settings, batch_size=6)
    assert [s.bit_count() for s in batch_sums(t, 4)] == [6, 6, 6, 6]
    t.settings = dataclasses.replace(t.settings, batch_size=100)
    assert t.settings.batch_size == 12
    assert batch_sums(t, 2) == [2**12 - 1] * 2


def test_another_optimiser_begins_without_moments():
    t = trainer(evaluate_every=0)
    run(t, 3)
    t.settings = dataclasses.replace(t.settings, optimizer="sgd")
    theta = t.theta.copy()
    record = t.step()
    assert np.linalg.norm(t.theta - theta) == pytest.approx(0.01 * record.grad_norm_theta, rel=1e-9)
    t.settings = dataclasses.replace(t.settings, optimizer="adam")
    theta = t.theta.copy()
    t.step()
    assert np.abs(t.theta - theta).max() == pytest.approx(0.01, rel=1e-4)  # Adam's first step
    assert t.snapshot().theta_state.count == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"theta_rate": 0}, "theta_rate: expected a number > 0, got 0"),
        ({"phi_rate": "x"}, "phi_rate: expected a number > 0, got 'x'"),
        ({"samples": 0}, "samples: expected a whole number >= 1, got 0"),
        ({"batch_size": 1.5}, "batch_size: expected a whole number >= 1, got 1.5"),
        ({"optimizer": "lion"}, "optimizer: expected 'adam' or 'sgd', got 'lion'"),
    ],
)
def test_bad_settings_are_told_what_was_expected_and_what_came(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(trainer().settings, **change)


# ----- optimisers, against their formulas -----


def test_adam_is_algorithm_1_of_kingma_and_ba():
    r = np.random.default_rng(0)
    parameters, adam = r.standard_normal(9), Adam()
    state, reference = adam.init(parameters), parameters.copy()
    m = v = np.zeros(9)
    for t in range(1, 40):
        g = r.standard_normal(9) * np.logspace(-9, 3, 9)
        g[4] = 0.0
        adam.update(parameters, g, state, 0.003)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        reference = reference + 0.003 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    assert np.allclose(parameters, reference, rtol=1e-11, atol=0)
    assert state.count == 39


def test_sgd_is_plain_ascent():
    parameters = np.array([1.0, 2.0])
    state = SGD().init(parameters)
    for _ in range(2):
        SGD().update(parameters, np.array([0.5, -1.0]), state, 0.1)
    assert parameters == pytest.approx([1.1, 1.8])
    assert state.count == 2


def test_an_optimiser_leaves_the_gradient_alone():
    for optimizer in (Adam(), SGD()):
        parameters, gradient = np.ones(3), np.arange(3.0)
        optimizer.update(parameters, gradient, optimizer.init(parameters), 0.1)
        assert gradient.tolist() == [0, 1, 2]


# ----- rewinding -----


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_restoring_a_snapshot_replays_the_run_bit_for_bit(optimizer):
    t = trainer(optimizer=optimizer)
    run(t, 7)
    snapshot = t.snapshot()
    first = run(t, 12)
    end = bits(t.theta, t.phi)
    t.restore(snapshot)
    assert t.step_count == 7 and bits(t.theta, t.phi) == bits(snapshot.theta, snapshot.phi)
    assert run(t, 12) == first
    assert bits(t.theta, t.phi) == end
    t.restore(snapshot)  # the snapshot has not moved with the run
    assert run(t, 12) == first
    fresh = trainer(optimizer=optimizer)
    fresh.restore(snapshot)
    assert run(fresh, 12) == first


def test_reset_is_the_beginning_again():
    t = trainer()
    start = bits(t.theta, t.phi)
    first = run(t, 6)
    t.update = PHI_ONLY
    t.reset()
    assert t.step_count == 0 and bits(t.theta, t.phi) == start
    assert t.update == PHI_ONLY
    t.update = tv.Update()
    assert run(t, 6) == first


def test_the_same_arguments_give_the_same_run():
    assert run(trainer(), 6) == run(trainer(), 6)
    assert run(trainer(), 2) != run(trainer(seed=2), 2)


@pytest.mark.parametrize(("first", "then"), [("sgd", "adam"), ("adam", "sgd")])
def test_a_snapshot_can_be_restored_after_the_optimiser_was_changed(first, then):
    x = np.random.default_rng(0).standard_normal((12, 2))
    t = tv.Trainer(tv.VAE(2, 1, hidden=(5,)), x, optimizer=first, evaluate_every=0)
    list(t.steps(3))
    snapshot = t.snapshot()
    t.settings = dataclasses.replace(t.settings, optimizer=then)
    list(t.steps(2))
    t.restore(snapshot)
    t.step()
    assert t.step_count == 4 and np.isfinite(t.theta).all()


# ----- divergence -----


def test_divergence_names_the_step_and_what_and_keeps_all_that_was_recorded():
    t = trainer(optimizer="sgd", learning_rate=1e6, evaluate_every=0)
    records = []
    with pytest.raises(tv.Diverged) as caught:
        for record in t.steps(200):
            records.append(record)
    assert [r.step for r in records] == list(range(1, len(records) + 1))
    assert caught.value.step == len(records) + 1
    message = str(caught.value)
    assert f"step {caught.value.step}" in message
    assert caught.value.what in message and "not finite" in message
    assert "learning rate" in message
    assert np.isfinite(t.theta).all() and np.isfinite(t.phi).all()
    t.reset()
    assert np.isfinite(t.evaluate().terms.elbo)


@pytest.mark.parametrize("update", [tv.Update(), tv.Update(theta_steps=3, phi_steps=3)], ids=["1:1", "3:3"])
@pytest.mark.parametrize("evaluate_every", [0, 1])
def test_after_a_divergence_the_parameters_are_those_before_that_step(evaluate_every, update):
    """So says Diverged. The step is undone as a whole: parameters, moments, counters."""
    x, model = np.random.default_rng(0).standard_normal((12, 2)), tv.VAE(2, 1, hidden=(5,))
    t = tv.Trainer(model, x, optimizer="sgd", learning_rate=100.0, update=update, evaluate_every=evaluate_every)
    with pytest.raises(tv.Diverged) as caught:
        for _ in range(50):
            before = t.snapshot()
            t.step()
    assert caught.value.step == before.step_count + 1
    assert t.step_count == before.step_count
    assert np.array_equal(t.theta, before.theta) and np.array_equal(t.phi, before.phi)
    assert t.snapshot().phi_state.count == before.phi_state.count


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize(("precision", "rate"), [("float64", 1e308), ("float32", 1e39)])
def test_a_step_that_overflows_is_a_divergence_and_no_warning(precision, rate, optimizer):
    steep = tv.VAE(2, 1, hidden=(5,), noise_std=0.01)
    t = trainer(model=steep, precision=precision, learning_rate=rate, optimizer=optimizer, evaluate_every=0)
    with pytest.raises(tv.Diverged):
        run(t, 20)


def test_a_gradient_that_is_not_finite_moves_nothing():
    t = trainer(evaluate_every=0)
    run(t, 2)
    t.phi[:] = 1e200
    before = t.snapshot()
    with pytest.raises(tv.Diverged, match="step 3: .*gradient"):
        t.step()
    after = t.snapshot()
    assert bits(before.theta, before.phi, before.theta_state.m, before.phi_state.m) == bits(
        after.theta, after.phi, after.theta_state.m, after.phi_state.m
    )
    assert t.step_count == 2


# ----- records -----


def test_a_row_has_the_names_used_everywhere():
    columns = {"step", "seconds", "target_moved", "theta_on", "phi_on", "theta_steps", "phi_steps"}
    columns |= {"grad_norm_theta", "grad_norm_phi", "held_out_log_px", "beta"}
    t = trainer(evaluate_every=2)
    without, with_terms = (record.as_row() for record in t.steps(2))
    errors = {f"{name}_error" for name in TERMS[:-1]} | {"error", "residual"}
    by = {f"{name}_by_{group}" for name in TERMS for group in ("theta", "phi")}
    evaluated = {*TERMS, *errors, *by, "checked", "certified", "proven_error"}
    assert set(without) == set(with_terms) == columns | evaluated
    assert all(without[name] is None for name in evaluated | {"target_moved"})
    assert [name for name, value in with_terms.items() if value is None] == ["held_out_log_px"]
    assert (without["step"], with_terms["step"]) == (1, 2)
    assert with_terms["theta_on"] is True and with_terms["seconds"] > 0
    assert all(isinstance(with_terms[name], float) for name in TERMS)
    gap = (
        with_terms["log_px"]
        - with_terms["reconstruction"]
        + with_terms["kl_prior"]
        - with_terms["kl_posterior"]
    )
    assert abs(gap) < 1e-9


def test_gradient_norms_are_those_of_the_gradients():
    t = trainer(optimizer="sgd", learning_rate=1.0, evaluate_every=0)
    theta, phi = t.theta.copy(), t.phi.copy()
    record = t.step()
    assert record.grad_norm_theta == pytest.approx(np.linalg.norm(t.theta - theta), rel=1e-9)
    assert record.grad_norm_phi == pytest.approx(np.linalg.norm(t.phi - phi), rel=1e-9)


def test_records_are_frozen():
    record = trainer().step()
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.step = 7


# ----- what is refused -----

BAD = [
    ({"seed": -1}, "seed: expected a whole number >= 0, got -1"),
    ({"seed": 1.5}, "seed: expected a whole number >= 0, got 1.5"),
    ({"batch_size": 0}, "batch_size: expected a whole number >= 1, got 0"),
    ({"batch_size": True}, "batch_size: expected a whole number >= 1, got True"),
    ({"samples": 0}, "samples: expected a whole number >= 1, got 0"),
    ({"evaluation_points": 0}, "evaluation_points: expected a whole number >= 1, got 0"),
    ({"evaluate_every": -1}, "evaluate_every: expected a whole number >= 0, got -1"),
    ({"learning_rate": 0}, "learning_rate: expected a number > 0, got 0"),
    ({"learning_rate": -1e-3}, "learning_rate: expected a number > 0, got -0.001"),
    ({"learning_rate": float("nan")}, "learning_rate: expected a number > 0, got nan"),
    ({"learning_rate": "fast"}, "learning_rate: expected a number > 0, got 'fast'"),
    ({"learning_rate": (0.1, 0)}, "learning_rate: expected a number > 0, got 0"),
    ({"optimizer": "lion"}, "optimizer: expected 'adam' or 'sgd', got 'lion'"),
    ({"gradients": "torch"}, "gradients: expected 'fused' or 'autograd', got 'torch'"),
    ({"precision": "float16"}, "precision: expected 'float64' or 'float32', got 'float16'"),
    ({"tolerance": 0}, "tolerance: expected .* got 0"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message for _, message in BAD])
def test_a_bad_argument_is_told_what_was_expected_and_what_came(arguments, message):
    with pytest.raises(ValueError, match=message):
        trainer(**arguments)


def test_bad_data_is_told_what_was_expected_and_what_came():
    model, x = tv.VAE(2, 1), arc()
    for bad, message in (
        (x[0], r"x: expected .*got \(2,\)"),
        (x[:0], r"x: expected .*got \(0, 2\)"),
        (x[:, :1], r"x: expected shape \(N, 2\), got \(12, 1\)"),
        (np.where(x == x[2, 1], np.nan, x), "x: expected finite numbers, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            tv.Trainer(model, bad)
    with pytest.raises(ValueError, match="x: expected numbers that float32 can hold, got 1e\\+39"):
        tv.Trainer(model, 1e39 * np.ones((3, 2)), precision="float32")
    with pytest.raises(ValueError, match="x: expected only 0 and 1"):
        tv.Trainer(tv.VAE(2, 1, likelihood="bernoulli"), x)


@pytest.mark.parametrize("steps", [-1, 11, 1.0, True, "2"])
@pytest.mark.parametrize("name", ["theta_steps", "phi_steps"])
def test_a_bad_ratio_is_told_what_was_expected_and_what_came(name, steps):
    with pytest.raises(ValueError, match=f"{name}: expected a whole number from 0 to 10, got {steps!r}"):
        tv.Update(**{name: steps})


def test_an_evaluated_step_leaves_numpys_warnings_as_they_were():
    before = np.geterr()
    trainer = tv.Trainer(tv.VAE(2, 1, (4,)), tv.load_dataset("arc", n=16).x, batch_size=8)
    trainer.step()
    assert np.geterr() == before


# ----- trained to the end -----


def test_a_linear_vae_reaches_the_maximum_likelihood_of_probabilistic_pca_and_never_exceeds_it():
    r = np.random.default_rng(5)
    x = r.standard_normal((200, 1)) @ [[1.0, -0.6, 0.3]] + 0.5 * r.standard_normal((200, 3)) + [0.3, 0, -0.2]
    eigenvalues = np.linalg.eigvalsh(np.cov(x, rowvar=False, bias=True))
    noise = eigenvalues[:2].mean()  # Tipping & Bishop 1999, eq. 8
    best = -0.5 * (3 * np.log(2 * np.pi) + np.log(eigenvalues[2]) + 2 * np.log(noise) + 3)
    model = tv.VAE(3, 1, hidden=(), noise_init=1.0)
    t = tv.Trainer(model, x, batch_size=200, samples=32, evaluate_every=100)
    reached = []
    for rate in (0.03, 0.005, 0.0005):
        t.settings = dataclasses.replace(t.settings, theta_rate=rate, phi_rate=rate)
        reached += [record.terms for record in t.steps(600) if record.terms]
    assert all(terms.log_px <= best + 1e-9 for terms in reached)
    assert reached[0].log_px < best - 1e-3  # it had to be learned
    assert best - reached[-1].log_px < 1e-4
    assert 0 <= reached[-1].kl_posterior < 1e-3
    assert np.exp(2 * model.unpack_theta(t.theta).log_noise_std[0]) == pytest.approx(noise, rel=0.01)


# ----- β, and points that are not trained on -----


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0, 4.0])
@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_both_engines_follow_reconstruction_minus_beta_times_kl_prior(beta, covariance):
    model, r = tv.VAE(3, 2, (5,), covariance=covariance), np.random.default_rng(4)
    theta, phi = (v + 0.2 * r.standard_normal(v.shape) for v in model.init(1))
    x, eps = r.standard_normal((6, 3)), r.standard_normal((6, 2))
    _, *fused = model.elbo_and_grad(theta, phi, x, eps, beta)
    _, *autograd = model.elbo_and_grad_autograd(theta, phi, x, eps[None], beta)
    for one, other in zip(fused, autograd):
        assert np.abs(one - other).max() <= 1e-12 * np.abs(other).max()

    def objective(phi):
        terms, *_ = model.elbo_and_grad(theta, phi, x, eps)
        return terms.reconstruction - beta * terms.kl_prior

    d = r.standard_normal(phi.shape)
    slope = (objective(phi + 1e-5 * d) - objective(phi - 1e-5 * d)) / 2e-5
    assert fused[1] @ d == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_the_best_q_under_beta_is_the_prior_times_a_tempered_likelihood(beta):
    """arg max E_q[log p(x|z)] − β KL(q ‖ p(z)) is q ∝ p(z) p(x|z)^(1/β); here all of it is Gaussian."""
    model = tv.VAE(2, 1, hidden=(), noise_std=0.8)
    x = np.random.default_rng(0).standard_normal((50, 2))
    t = tv.Trainer(
        model, x, beta=beta, batch_size=50, samples=64, evaluate_every=0, update=tv.Update(theta=False)
    )
    for rate in (0.03, 0.003):
        t.settings = dataclasses.replace(t.settings, phi_rate=rate)
        list(t.steps(600))
    ((W, b),) = model.unpack_theta(t.theta).layers
    precision = 1 + float((W**2).sum()) / 0.8**2 / beta
    mean = (x - b) @ W[0] / 0.8**2 / beta / precision
    q = model.encode(t.phi, x)
    assert q.mean[:, 0] == pytest.approx(mean, abs=0.03)
    assert np.exp(-2 * q.log_diag[:, 0]) == pytest.approx(precision, rel=0.05)


def test_beta_changes_what_is_followed_and_none_of_the_terms():
    x = tv.load_dataset("arc", n=32).x
    one, other = (tv.Trainer(tv.VAE(2, 1, (4,)), x, beta=beta, batch_size=16) for beta in (1.0, 4.0))
    assert one.evaluate().terms == other.evaluate().terms
    one.step(), other.step()
    assert np.array_equal(one.theta, other.theta) and not np.array_equal(one.phi, other.phi)
    with pytest.raises(ValueError, match="beta: expected a number >= 0, got -1"):
        dataclasses.replace(one.settings, beta=-1)


def test_held_out_points_are_looked_at_with_every_tenth_evaluation_and_change_nothing():
    data = tv.load_dataset("arc", n=32)
    plain, watched = (tv.Trainer(tv.VAE(2, 1, (4,)), data.x, held_out=h) for h in (None, data.held_out))
    records = list(watched.steps(21))
    list(plain.steps(21))
    assert np.array_equal(plain.theta, watched.theta) and np.array_equal(plain.phi, watched.phi)
    assert [r.step for r in records if r.held_out_log_px is not None] == [10, 20]
    watched.step(), watched.step()
    expected = tv.Target(watched.model, watched.theta, data.held_out).log_px.mean()
    assert watched.record().held_out_log_px == expected
    assert plain.record().held_out_log_px is None
    with pytest.raises(ValueError, match=r"held_out: expected shape \(M, 2\), got \(4, 3\)"):
        tv.Trainer(tv.VAE(2, 1, (4,)), data.x, held_out=np.zeros((4, 3)))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ma.masked_equal([[0.1, 0.4], [-999.0, 0.3]], -999.0), "masked cells"),
        (np.ones((3, 2)) * 1j, "real numbers, got dtype complex128"),
        (np.array([["0.5", "1"], ["2", "3"]]), "real numbers, got dtype <U3"),
        (np.zeros((3, 2), "datetime64[s]"), "real numbers, got dtype datetime64"),
        (np.zeros((3, 0)), r"shape \(N, D\) with N >= 1, got \(3, 0\)"),
    ],
)
def test_what_are_no_data_points_is_refused_in_one_line(x, message):
    for use in (
        lambda: tv.Trainer(tv.VAE(2, 1), x),
        lambda: tv.Target(tv.VAE(2, 1), tv.VAE(2, 1).init(0)[0], x),
    ):
        with pytest.raises(ValueError, match=message):
            use()


def test_a_callers_array_may_change_afterwards():
    x = tv.load_dataset("arc", n=16).x
    kept = x.copy()
    trainer, target = tv.Trainer(tv.VAE(2, 1), x), tv.Target(tv.VAE(2, 1), tv.VAE(2, 1).init(0)[0], x)
    x[:] = 7.0
    assert np.array_equal(trainer.x, kept) and np.array_equal(target.x, kept)
