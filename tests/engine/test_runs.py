"""A run as one line of text, and its records in files."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.records import RecordWriter
from tinyvae.runs import Config, parse_share, scheduled_steps, share
from tinyvae.settings import Settings

SMALL = Config(n=40, hidden=(6,), batch_size=16, seed=3, evaluate_every=0).open().resolved


def train(config, schedule, steps):
    trainer = config.open().trainer
    for _ in scheduled_steps(trainer, schedule, steps):
        pass
    return trainer


def test_a_shared_run_is_the_same_to_the_bit():
    first = SMALL.settings
    schedule = (
        (5, replace(first, update=tv.Update(theta=False))),
        (9, replace(first, optimizer="sgd", theta_rate=1e-3)),
        (12, replace(first, update=tv.Update(phi_steps=3), samples=2, batch_size=8)),
    )
    line = share(SMALL, schedule, 20)
    config, again, steps = parse_share(line)
    assert (replace(config, evaluate_every=0), again, steps) == (SMALL, schedule, 20)
    one, other = train(SMALL, schedule, 20), train(replace(config, evaluate_every=0), again, steps)
    assert np.array_equal(one.theta, other.theta) and np.array_equal(one.phi, other.phi)
    assert not np.array_equal(one.theta, train(SMALL, (), 20).theta)


def test_a_scheduled_change_acts_after_its_step_as_one_made_by_hand():
    changed = replace(SMALL.settings, update=tv.Update(theta=False))
    scheduled, by_hand = train(SMALL, ((3, changed),), 6), SMALL.open().trainer
    list(by_hand.steps(3))
    by_hand.settings = changed
    list(by_hand.steps(3))
    assert np.array_equal(scheduled.theta, by_hand.theta) and np.array_equal(scheduled.phi, by_hand.phi)


@pytest.mark.parametrize(
    "config",
    [
        SMALL, replace(SMALL, dataset="my data:1.csv", latent_dim=2), replace(SMALL, hidden=()),
        replace(SMALL, noise_std=0.1), replace(SMALL, update=tv.Update(theta=False)),
        replace(SMALL, learning_rate=1 / 3, likelihood="bernoulli"),
    ],
)  # fmt: skip
def test_every_config_survives_its_line(config):
    parsed, schedule, steps = parse_share(share(config, (), 7))
    starts = schedule[0][1] if schedule else parsed.settings
    assert starts == config.settings and steps == 7
    assert replace(parsed, update=config.update, evaluate_every=0) == config
    assert "\n" not in share(config, (), 7) and " " not in share(config, (), 7)


@pytest.mark.parametrize(
    "line", ["", "v2:arc", "v3:arc", "v1", "v1:arc:colour=red", "v1:arc:n=many", "v1:arc:@x", "v1:arc:@9:@3"]
)
def test_a_line_that_is_not_one_says_what_was_expected(line):
    with pytest.raises(ValueError, match="share: expected"):
        parse_share(line)


def test_settings_refuse_what_a_trainer_cannot_do():
    for wrong in ({"theta_rate": 0.0}, {"samples": 0}, {"batch_size": 1.5}, {"optimizer": "lion"}):
        with pytest.raises(ValueError, match="expected"):
            Settings(**wrong)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_records_come_back_from_a_file_as_they_were(tmp_path, suffix):
    trainer = replace(SMALL, evaluate_every=2).open().trainer
    records = list(trainer.steps(4))
    with RecordWriter(tmp_path / f"run{suffix}") as writer:
        for record in records:
            writer.write(record)
    text = (tmp_path / f"run{suffix}").read_text()
    rows = (
        list(csv.DictReader(text.splitlines()))
        if suffix == ".csv"
        else [json.loads(s) for s in text.splitlines()]
    )
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert float(rows[1]["log_px"]) == records[1].terms.log_px
    assert rows[0]["log_px"] in ("", None)
