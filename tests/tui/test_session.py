"""The run behind the screen: what switches, speed, looking back, branches and divergence do. No screen here."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tinyvae import TERMS, Target, Update
from tinyvae.runs import Config, parse_share, scheduled_steps
from tinyvae.tui import history as history_module
from tinyvae.tui.session import SPEEDS, Session

SMALL = Config(dataset="arc", n=40, hidden=(8,), batch_size=16, learning_rate=1e-2)
BLIND = replace(SMALL, evaluate_every=0)  # no terms: a step takes a fraction of a millisecond


class Clock:
    """A clock that moves when told to, and by `tick` whenever it is looked at."""

    def __init__(self, tick: float = 0.0):
        self.now, self.tick = 100.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def go(session: Session, steps: int) -> list[tuple[bytes, bytes]]:
    """Take some steps; the bits of (θ, φ) after each."""
    out = []
    for _ in range(steps):
        assert session.step_once(), session.stopped
        out.append((session.trainer.theta.tobytes(), session.trainer.phi.tobytes()))
    return out


def shown_bits(session: Session) -> tuple[bytes, bytes]:
    evaluation = session.view().evaluation
    return evaluation.theta.tobytes(), evaluation.phi.tobytes()


def rows(session: Session) -> list[dict[str, Any]]:
    """All records, without the times that the steps took, NaN as None so that == works."""
    out = []
    for step in range(len(session.history)):
        row = session.history.row(step)
        row.pop("seconds")
        out.append({name: None if math.isnan(value) else value for name, value in row.items()})
    return out


# ----- the two invariants -----


def test_freezing_theta_freezes_log_px_to_the_last_bit_while_kl_posterior_falls():
    session = Session(SMALL)
    go(session, 25)
    session.switch("theta")
    go(session, 40)
    log_px, gap = session.history.column("log_px"), session.history.column("kl_posterior")
    elbo = session.history.column("elbo")
    assert len(set(log_px[:26])) == 26  # it did move while θ was free
    assert len(set(log_px[25:])) == 1
    assert gap[65] < 0.9 * gap[25]
    assert elbo[65] - elbo[25] == pytest.approx(gap[25] - gap[65], abs=1e-9)  # nat for nat


def test_freezing_phi_freezes_kl_prior_to_the_last_bit():
    session = Session(SMALL)
    go(session, 15)
    session.switch("phi")
    go(session, 15)
    kl_prior, log_px = session.history.column("kl_prior"), session.history.column("log_px")
    assert len(set(kl_prior[15:])) == 1
    assert len(set(kl_prior[:16])) == len(set(log_px)) - 15 == 16
    assert log_px[30] > log_px[15]


def test_every_record_closes_the_identity_and_is_certified():
    session = Session(SMALL)
    go(session, 20)
    assert np.abs(session.history.column("residual")).max() <= 1e-9
    assert session.history.column("error").max() <= session.trainer.tolerance


def test_an_invariant_counts_the_steps_it_watched_and_stays_off_while_the_group_is_free():
    session = Session(SMALL)
    go(session, 4)
    assert [(one.watching, one.steps, one.broken_at) for one in session.invariants()] == [(False, 0, None)] * 2
    session.switch("theta")
    assert session.invariants()[0].watching
    assert session.invariants()[0].steps == 0  # nothing was watched yet
    go(session, 3)
    session.switch("theta")
    session.switch("phi")
    go(session, 2)
    theta, phi = session.invariants()
    assert (theta.watching, theta.steps, theta.broken_at) == (False, 3, None)
    assert (phi.watching, phi.steps, phi.broken_at) == (True, 2, None)


@pytest.mark.parametrize("group, term, place", [("theta", "log_px", 0), ("phi", "kl_prior", 1)])
def test_an_invariant_breaks_for_good_at_the_first_step_that_moved_what_must_not_move(group, term, place):
    session = Session(SMALL)
    session.switch(group)
    go(session, 6)
    assert session.invariants()[place].broken_at is None
    column = session.history.column(term)
    column[4:] = np.nextafter(column[4:], np.inf)  # one unit in the last place, from step 4 on
    assert session.invariants()[place].broken_at == 4
    assert session.invariants()[1 - place].broken_at is None
    session.switch(group)
    go(session, 2)
    assert session.invariants()[place].broken_at == 4


def test_a_ratio_of_zero_counts_as_frozen():
    session = Session(replace(SMALL, update=Update(theta_steps=0, phi_steps=2)))
    go(session, 3)
    theta, phi = session.invariants()
    assert (theta.watching, theta.steps, theta.broken_at) == (True, 3, None)
    assert (phi.watching, phi.steps) == (False, 0)


def test_a_switch_leaves_a_mark_at_the_step_after_which_it_was_made():
    session = Session(BLIND)
    go(session, 3)
    session.switch("theta")
    go(session, 2)
    session.switch("theta")
    session.switch("phi")
    marks = [(event.step, event.label) for event in session.history.events]
    assert marks == [(3, "θ off"), (5, "θ on"), (5, "φ off")]
    assert session.history.column("theta_on").tolist() == [1, 1, 1, 1, 0, 0]


# ----- speed -----


def test_advance_takes_no_more_steps_than_the_speed_allows():
    clock = Clock()
    session = Session(BLIND, speed=50, clock=clock)
    session.run(True)
    taken = session.advance(0.008)
    assert taken == 1  # the first step does not wait
    for _ in range(100):
        clock.now += 0.01
        taken += session.advance(0.008)
    assert taken == session.step
    assert 50 <= taken <= 51  # in one second


def test_a_slow_speed_waits_for_its_step():
    clock = Clock()
    session = Session(BLIND, speed=0.5, clock=clock)
    session.run(True)
    counts = []
    for _ in range(5):
        counts.append(session.advance(0.008))
        clock.now += 1.0
    assert counts == [1, 0, 1, 0, 1]


def test_an_absence_is_not_made_up_for():
    clock = Clock()
    session = Session(BLIND, speed=100, clock=clock)
    session.run(True)
    clock.now += 3600
    assert session.advance(10.0) <= 25  # a quarter of a second's worth


def test_advance_stops_when_its_time_is_up():
    clock = Clock(tick=0.001)
    session = Session(BLIND, speed=np.inf, clock=clock)
    session.run(True)
    began = clock.now
    taken = session.advance(0.008)
    assert 2 <= taken <= 8
    assert clock.now - began <= 0.012


def test_flat_out_trains_even_if_the_clock_has_not_moved():
    session = Session(BLIND, speed=np.inf, clock=Clock())  # some clocks tick a few times a second
    session.run(True)
    assert session.advance(0.0) >= 1


def test_a_pause_takes_no_steps_and_earns_none():
    clock = Clock()
    session = Session(BLIND, speed=50, clock=clock)
    assert session.advance(1.0) == 0
    clock.now += 60
    session.run(True)
    assert session.advance(1.0) == 1


def test_the_speed_ladder_is_climbed_one_rung_at_a_time_and_ends():
    session = Session(BLIND, speed=50)
    seen = []
    for by in [1] * 6 + [-1] * 15:
        session.change_speed(by)
        seen.append(session.speed)
    assert seen[:6] == [100, 200, 500, np.inf, np.inf, np.inf]
    assert seen[6:] == list(reversed(SPEEDS[:-1])) + [0.5] * 5


# ----- looking back -----


def test_scrubbing_replays_every_step_bit_for_bit_across_switches():
    session = Session(SMALL)
    start = shown_bits(session)
    seen = go(session, 18)
    session.switch("theta")
    seen += go(session, 10)
    session.switch("phi")
    session.switch("theta")
    seen += go(session, 9)
    session.switch("phi")
    seen += go(session, 3)
    bits = [start, *seen]
    for step in [39, 0, 17, 18, 19, 28, 29, 37, 36, 1, 40]:
        session.scrub(step - (session.step if session.viewed is None else session.viewed))
        assert shown_bits(session) == bits[step], step
        view = session.view()
        assert (view.step, view.row["step"]) == (step, step)
        for term in TERMS:  # the numbers shown are those that this θ and φ give, not only those recorded
            assert getattr(view.evaluation.terms, term) == view.row[term], (step, term)


@pytest.mark.parametrize("update", [Update(theta_steps=3, phi_steps=1), Update(theta_steps=0, phi_steps=2)])
def test_scrubbing_replays_a_ratio(update):
    session = Session(replace(SMALL, update=update))
    bits = go(session, 9)
    session.scrub(-4)
    assert shown_bits(session) == bits[4]


def test_scrubbing_stays_exact_when_snapshots_are_thinned_out():
    session = Session(BLIND)
    session.history.interval = 1
    bits = [(session.trainer.theta.tobytes(), session.trainer.phi.tobytes())]
    for k in range(12):
        bits += go(session, 40)
        session.switch("theta" if k % 2 else "phi")
    assert len(session.history.snapshots) <= history_module.MAX_SNAPSHOTS < 480
    assert session.history.interval > 1
    for step in [*range(0, 480, 37), 479, 255, 256, 257, 40, 41, 39]:
        session.look_at(step)
        assert shown_bits(session) == bits[step], step


def test_scrubbing_pauses_stops_at_both_ends_and_returns_to_the_live_end():
    session = Session(BLIND)
    go(session, 5)
    session.run(True)
    session.scrub(-2)
    assert (session.running, session.viewed) == (False, 3)
    session.scrub(-50)
    assert session.viewed == 0
    session.scrub(4)
    assert session.viewed == 4
    session.scrub(50)
    assert session.viewed is None
    session.scrub(-1)
    session.run(True)
    assert (session.running, session.viewed) == (True, None)


def test_looking_back_does_not_change_the_run():
    looked, plain = Session(SMALL), Session(SMALL)
    for _ in range(4):
        go(looked, 5)
        for by in (-3, -100, 2):
            looked.scrub(by)
            looked.view().latent(looked.view().where)
        looked.viewed = None
    go(plain, 20)
    assert looked.trainer.theta.tobytes() == plain.trainer.theta.tobytes()
    assert looked.trainer.phi.tobytes() == plain.trainer.phi.tobytes()
    assert rows(looked) == rows(plain)


# ----- branching -----


def test_a_branch_that_changes_nothing_is_the_same_run_again_bit_for_bit():
    session = Session(SMALL)
    bits = go(session, 40)
    before = rows(session)
    session.scrub(-23)
    assert session.branch()
    assert (session.step, session.viewed) == (17, None)
    assert rows(session) == before[:18]
    assert go(session, 23) == bits[17:]
    assert rows(session) == before


def test_a_branch_keeps_the_old_run_as_other_and_the_two_do_not_touch():
    session = Session(SMALL)
    go(session, 20)
    old = rows(session)
    old_log_px = session.history.column("log_px").copy()
    session.scrub(-10)
    session.branch()
    session.switch("theta")
    go(session, 12)
    assert session.other is not None
    np.testing.assert_array_equal(session.other.column("log_px"), old_log_px)
    assert len(set(session.history.column("log_px")[10:])) == 1  # the branch went its own way
    assert [(event.step, event.label) for event in session.history.events] == [(10, "branch"), (10, "θ off")]
    assert session.other.events == []
    assert len(old) == len(session.other)


def test_scrubbing_inside_a_branch_is_exact_too():
    session = Session(SMALL)
    go(session, 30)
    session.scrub(-8)
    session.branch()
    session.switch("phi")
    bits = go(session, 20)
    session.scrub(-9)
    assert shown_bits(session) == bits[10]
    session.branch()  # a branch of a branch
    assert session.other is not None
    assert (session.step, len(session.other)) == (33, 43)
    assert go(session, 5) == bits[11:16]


@pytest.mark.parametrize("at", [9, 10, 11])
def test_a_branch_next_to_a_change_begins_with_the_settings_of_its_step(at):
    session = Session(SMALL)
    go(session, 10)
    session.switch("theta")
    go(session, 6)
    session.look_at(at)
    session.branch()
    assert session.trainer.update.theta == (at <= 10)
    bits = go(session, 4)
    session.look_at(at + 2)
    assert shown_bits(session) == bits[1]
    assert session.invariants()[0].broken_at is None


# ----- settings, and a run as one line -----


def test_settings_change_from_the_next_step_on_and_are_replayed():
    session = Session(SMALL)
    bits = go(session, 5)
    session.change("slower", theta_rate=1e-4, phi_rate=1e-3)
    bits += go(session, 5)
    session.change("more", samples=3, batch_size=8, phi_steps=2)
    bits += go(session, 5)
    session.change("sgd", optimizer="sgd")
    bits += go(session, 5)
    for step in (19, 16, 15, 14, 11, 10, 6, 5, 3):
        session.look_at(step)
        assert shown_bits(session) == bits[step - 1], step


@pytest.mark.parametrize(
    "changes", [{"theta_rate": -1.0}, {"samples": 0}, {"phi_steps": 11}, {"optimizer": "lion"}]
)
def test_a_bad_setting_changes_nothing(changes):
    session = Session(BLIND)
    go(session, 2)
    before = session.trainer.settings, list(session.history.schedule), list(session.history.events)
    with pytest.raises(ValueError):
        session.change("bad", **changes)
    assert (session.trainer.settings, session.history.schedule, session.history.events) == before


def test_a_shared_line_is_the_run_again_bit_for_bit():
    session = Session(replace(SMALL, seed=5))
    go(session, 7)
    session.switch("theta")
    go(session, 6)
    session.look_at(10)
    session.branch()
    session.change("faster", phi_rate=0.02)
    go(session, 4)
    config, schedule, last = parse_share(session.share_string)
    assert last == 14
    trainer = config.open().trainer
    for _ in scheduled_steps(trainer, schedule, last):
        pass
    assert trainer.theta.tobytes() == session.trainer.theta.tobytes()
    assert trainer.phi.tobytes() == session.trainer.phi.tobytes()
    again = Session(config)
    again.open(config, schedule)
    go(again, last)
    assert again.trainer.theta.tobytes() == session.trainer.theta.tobytes()
    assert rows(again) == rows(session)
    assert again.share_string == session.share_string


def test_without_looking_back_there_is_nothing_to_branch_from():
    session = Session(BLIND)
    go(session, 3)
    assert not session.branch()
    assert (session.step, session.other) == (3, None)


# ----- reset and another run -----


def test_reset_gives_the_same_run_again():
    session = Session(SMALL)
    start, bits = shown_bits(session), go(session, 20)
    before = rows(session)
    session.reset()
    assert (session.step, session.viewed, session.running, session.history.events) == (0, None, False, [])
    assert shown_bits(session) == start
    assert go(session, 20) == bits
    assert rows(session) == before


def test_reset_keeps_the_switches():
    session = Session(SMALL)
    session.switch("theta")
    go(session, 2)
    session.reset()
    assert session.trainer.update == Update(theta=False)
    go(session, 2)
    assert len(set(session.history.column("log_px"))) == 1


@pytest.mark.parametrize(
    "config, says",
    [
        (replace(SMALL, dataset="ark"), "did you mean 'arc'"),
        (replace(SMALL, dataset="none.csv"), "no such file"),
        (replace(SMALL, latent_dim=3), "latent"),
        (replace(SMALL, learning_rate=-1.0), "learning_rate"),
        (replace(SMALL, likelihood="bernoulli"), "bernoulli"),
    ],
)
def test_opening_a_bad_config_keeps_the_present_run(config, says):
    session = Session(SMALL)
    go(session, 5)
    session.select(7)
    trainer, history, before = session.trainer, session.history, rows(session)
    with pytest.raises(ValueError, match=says):
        session.open(config)
    assert (session.trainer, session.history, session.config) == (trainer, history, SMALL)
    assert (session.selected, session.step, rows(session)) == (7, 5, before)
    go(session, 1)


def test_opening_another_config_begins_a_new_run():
    session = Session(SMALL)
    go(session, 5)
    session.scrub(-2)
    session.branch()
    session.select(30)
    session.open(replace(SMALL, dataset="bars", n=12))
    assert (session.step, session.selected, session.other, session.viewed) == (0, 0, None, None)
    assert (session.data.name, session.model.likelihood) == ("bars", "bernoulli")
    go(session, 1)
    session.scrub(-1)
    assert session.view().evaluation.target.x.shape == (12, 16)


# ----- the same bits everywhere -----


def test_the_session_takes_the_same_steps_as_a_plain_trainer():
    session = Session(SMALL, speed=np.inf, clock=Clock(tick=1e-4))
    session.run(True)
    while session.step < 25:
        session.advance(0.0005)
        session.view()
    trainer = SMALL.open().trainer
    records = list(trainer.steps(session.step))
    assert session.trainer.theta.tobytes() == trainer.theta.tobytes()
    assert session.trainer.phi.tobytes() == trainer.phi.tobytes()
    for name in TERMS:
        headless = [getattr(record.terms, name) for record in records]
        assert session.history.column(name)[1:].tolist() == headless


# ----- divergence -----


@pytest.fixture(params=[("sgd", 1.0), ("adam", 5.0)], ids=["sgd", "adam"])
def diverged(request: pytest.FixtureRequest) -> Session:
    """A run that went a few steps and then off the scale."""
    optimizer, rate = request.param
    session = Session(replace(SMALL, optimizer=optimizer, learning_rate=rate))
    session.run(True)
    for _ in range(60):
        if not session.step_once():
            break
    return session


def test_a_diverged_run_stops_with_step_term_and_hint_and_keeps_its_records(diverged):
    last = diverged.step
    assert last >= 1
    assert f"step {last + 1}" in diverged.stopped
    assert "is not finite" in diverged.stopped
    assert "smaller learning rate" in diverged.stopped
    assert not diverged.running
    diverged.run(True)
    assert not diverged.running
    assert not diverged.step_once()
    assert diverged.step == last
    assert np.isfinite(diverged.history.column("log_px")).all()


def test_a_diverged_run_can_be_looked_at_where_it_stopped_and_before(diverged):
    view = diverged.view()
    assert view.step == diverged.step
    for term in TERMS:
        assert getattr(view.evaluation.terms, term) == view.row[term]
    diverged.scrub(-1)
    assert diverged.view().row["step"] == diverged.step - 1


def test_a_diverged_run_can_be_branched_and_reset(diverged):
    diverged.scrub(-1)
    assert diverged.branch()
    diverged.switch("theta")
    diverged.switch("phi")
    assert diverged.step_once()  # nothing moves, so nothing diverges
    diverged.reset()
    assert (diverged.stopped, diverged.step) == ("", 0)


def test_data_on_which_no_run_can_begin_keep_the_present_one(tmp_path):
    (tmp_path / "huge.csv").write_text("1e200,2\n3,4\n5,6e200\n")
    session = Session(SMALL)
    go(session, 3)
    with pytest.raises((ValueError, ArithmeticError), match="finite|unit scale"):
        session.open(replace(SMALL, dataset=str(tmp_path / "huge.csv"), n=None, noise_std=1.0))
    assert (session.config, session.step, session.data.name) == (SMALL, 3, "arc")
    assert session.trainer.x.shape == (40, 2)
    go(session, 1)


# ----- keeping -----


def test_exported_records_hold_every_number_exactly(tmp_path):
    session = Session(SMALL)
    go(session, 6)
    session.export_records(tmp_path)
    with open(tmp_path / "records.csv", encoding="utf-8", newline="") as file:
        table = [{k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(file)]
    lines = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    assert table == lines
    for row in lines:
        row.pop("seconds")
    assert lines == rows(session)
    with np.load(tmp_path / "records.npz") as arrays:
        assert set(arrays.files) == set(session.history.names)
        for name in arrays.files:
            np.testing.assert_array_equal(arrays[name], session.history.column(name))
    line = (tmp_path / "share.txt").read_text(encoding="utf-8")
    assert line == f"tinyvae --share {session.share_string}\n"


def test_export_says_why_it_cannot_write(tmp_path):
    with pytest.raises(OSError):
        Session(BLIND).export_records(tmp_path / "nowhere")


def test_choosing_a_point_wraps_around_and_survives_a_step():
    session = Session(SMALL)
    session.select(-1)
    assert session.selected == 39
    session.select(40)
    assert session.selected == 0
    session.select(17)
    go(session, 1)
    np.testing.assert_array_equal(session.view().x, session.trainer.evaluation_x[17])


@pytest.mark.parametrize("dataset", ["arc", "bars"])
def test_the_latent_panel_gets_densities(dataset):
    session = Session(replace(SMALL, dataset=dataset, n=12))
    view = session.view()
    L = view.model.latent_dim
    latent = view.latent(np.array([[-6.0, 6.0]] * L))
    cell = (latent.ticks[1] - latent.ticks[0]) ** L
    for density in (latent.prior, latent.q, latent.posterior):
        assert density.shape == (len(latent.ticks),) * L
        assert density.sum() * cell == pytest.approx(1, abs=2e-3)
    assert np.isfinite(view.decoded).all()
    assert view.reconstruction.shape == (session.model.data_dim,)
    if session.model.likelihood == "bernoulli":
        assert (view.decoded >= 0).all()
        assert (view.decoded <= 1).all()


def test_the_run_before_a_branch_has_a_line_of_its_own():
    session = Session(SMALL)
    assert session.share_string_of_other == ""
    for _ in range(6):
        session.step_once()
    theta = session.trainer.theta.copy()
    session.look_at(3)
    session.branch()
    session.switch("theta")
    session.step_once()
    config, schedule, last = parse_share(session.share_string_of_other)
    trainer = config.open().trainer
    assert [record.step for record in scheduled_steps(trainer, schedule, last)][-1] == 6
    assert trainer.theta.tobytes() == theta.tobytes()


# ----- what a run is held against -----


def test_a_run_opens_at_the_point_that_its_set_recommends():
    session = Session(replace(SMALL, dataset="crossing"))
    x = session.trainer.evaluation_x
    assert session.selected == np.linalg.norm(x, axis=1).argmin()
    assert Session(SMALL).selected == 0


def test_on_a_line_the_truth_is_known_at_once_and_on_a_plane_when_it_was_looked_for():
    session = Session(SMALL)
    assert [one.name for one in session.references] == ["the truth", "one Gaussian"]
    plane = Session(replace(SMALL, dataset="linear", n=20))
    assert plane.references is None and plane.truth is None
    plane.find_references()
    assert [one.name for one in plane.references] == ["the truth", "one Gaussian"]


def test_the_true_posterior_is_drawn_on_the_side_that_the_model_chose():
    session = Session(replace(SMALL, dataset="crossing", n=60))
    go(session, 5)
    ends = np.array([[-1.5, 1.5]])
    latent = session.view().latent(ends)
    step = latent.ticks[1] - latent.ticks[0]
    assert latent.true_posterior.sum() * step == pytest.approx(1, abs=1e-3)
    inner = latent.true_posterior[1:-1]
    tops = (
        (inner > latent.true_posterior[:-2])
        & (inner > latent.true_posterior[2:])
        & (inner > 0.05 * inner.max())
    )
    assert tops.sum() == 2  # at the crossing
    session.trainer.theta[:16] *= -1  # the first layer of the decoder: z becomes −z
    session.trainer._evaluation = None
    view = session.view()
    again = replace(view, evaluation=session.trainer.evaluate()).latent(ends)
    assert again.true_posterior == pytest.approx(latent.true_posterior[::-1], abs=1e-9)


def test_beta_is_in_the_line_in_the_records_and_in_words():
    session = Session(SMALL)
    go(session, 2)
    session.change("beta 4.0", beta=4.0)
    go(session, 2)
    assert session.history.column("beta").tolist() == [1, 1, 1, 4, 4]
    assert ":@2:beta=4.0:" in session.share_string
    assert session.note(4).startswith("β = 4: what rises is a looser bound on log p")
    session.change("beta 0.5", beta=0.5)
    go(session, 1)
    assert "may exceed log p" in session.note(5)
    session.change("beta 1.0", beta=1.0)
    go(session, 1)
    assert "β" not in session.note(6)


def test_fresh_points_are_looked_at_with_every_tenth_evaluation():
    session = Session(SMALL)
    go(session, 12)
    held_out = session.history.column("held_out_log_px")
    assert np.flatnonzero(np.isfinite(held_out)).tolist() == [0, 10]
    expected = Target(session.model, session.trainer.theta, session.data.held_out).log_px.mean()
    assert session.trainer.held_out_log_px() == expected
