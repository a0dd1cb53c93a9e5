"""Copies, snapshots of other runs, arguments that are none, and more than there is room for."""

import copy
import dataclasses
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from autograd import elementwise_grad
from autograd.test_util import check_grads

import tinyvae as tv
from tinyvae import ops
from tinyvae.checks import ROOM, digest, expect_room, in_bytes
from tinyvae.fused import FusedGradient
from tinyvae.runs import Config, parse_share, share
from tinyvae.settings import Settings

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda trainer: pickle.loads(pickle.dumps(trainer)),
}


def points(n=40, D=2, seed=0):
    return np.random.default_rng(seed).standard_normal((n, D))


def trainer(**arguments):
    return tv.Trainer(
        tv.VAE(2, 1, hidden=(5,)), points(), **{"batch_size": 8, "evaluate_every": 20, **arguments}
    )


def state(t):
    return t.theta.tobytes(), t.phi.tobytes(), t.step_count


def run(t, n):
    return [dataclasses.replace(record, seconds=0.0) for record in t.steps(n)]


# ----- copies -----


@pytest.mark.parametrize(
    "settings", [{}, {"optimizer": "sgd"}, {"precision": "float32", "samples": 3}], ids=str
)
@pytest.mark.parametrize("way", COPIES)
def test_a_copy_trains_on_as_the_original_does_and_neither_moves_the_other(way, settings):
    original, alone = trainer(**settings), trainer(**settings)
    run(original, 23)
    run(alone, 23)
    at_23 = state(original)
    twin = COPIES[way](original)
    expected = run(alone, 60)
    assert state(alone) != at_23
    assert run(twin, 60) == expected
    assert state(twin) == state(alone)
    assert state(original) == at_23
    assert run(original, 60) == expected
    assert state(original) == state(alone)


@pytest.mark.parametrize("way", COPIES)
def test_a_copied_gradient_is_the_gradient(way):
    model = tv.VAE(2, 1, hidden=(5,))
    theta, phi = model.init(0)
    x, eps = points(8), np.random.default_rng(1).standard_normal((1, 8, 1))
    one = FusedGradient(model, 8)
    other = COPIES[way](one)
    expected = [g.copy() for g in one(theta, phi, x, eps)[2:]]
    one(theta + 1, phi, x, eps)  # overwrites the buffers of the first
    for mine, right in zip(other(theta, phi, x, eps)[2:], expected):
        assert right.any() and np.array_equal(mine, right)


# ----- snapshots -----


@pytest.mark.parametrize(
    "name, other",
    [
        ("seed", {"seed": 4}),
        ("precision", {"precision": "float32"}),
        ("model", {"model": tv.VAE(2, 1, hidden=(5,), covariance="full")}),
        ("data", {"x": points(seed=9)}),
    ],
)
def test_a_snapshot_of_another_run_is_refused_and_nothing_moves(name, other):
    arguments = {"model": tv.VAE(2, 1, hidden=(5,)), "x": points(), "seed": 3, "evaluate_every": 0}
    one, another = tv.Trainer(**arguments), tv.Trainer(**{**arguments, **other})
    run(one, 5)
    before = state(another)
    with pytest.raises(ValueError, match=f"snapshot: expected one of a run with {name} "):
        another.restore(one.snapshot())
    assert state(another) == before
    same = tv.Trainer(**arguments)
    same.restore(pickle.loads(pickle.dumps(one.snapshot())))
    run(same, 5)
    run(one, 5)
    assert state(same) == state(one)


def test_the_digest_tells_data_apart():
    x = points()
    other = x.copy()
    other[3, 1] = np.nextafter(other[3, 1], 9)
    found = [digest(x), digest(other), digest(x.T.copy()), digest(x[::-1])]
    assert len(set(found)) == 4 and all(len(one) == 8 for one in found)
    assert digest(np.asfortranarray(x)) == digest(x.copy())


# ----- arguments -----


@pytest.mark.parametrize("update", ["x", None, True, (True, False)])
def test_an_update_that_is_none_is_refused_at_once(update):
    with pytest.raises(ValueError, match="update: expected an Update, got"):
        trainer(update=update)
    t = trainer()
    with pytest.raises(ValueError, match="update: expected an Update, got"):
        t.update = update
    assert t.update == tv.Update()
    with pytest.raises(ValueError, match="settings: expected Settings, got"):
        t.settings = update
    with pytest.raises(ValueError, match="theta: expected True or False, got 'no'"):
        tv.Update(theta="no")


@pytest.mark.parametrize(
    "rate", [np.float32(1e-3), np.float64(1e-3), [1e-3, 1e-4], (np.float32(1e-3), 1), np.int64(1)], ids=repr
)
def test_rates_are_any_numbers(rate):
    t = trainer(learning_rate=rate)
    run(t, 3)
    assert type(t.settings.theta_rate) is float


@pytest.mark.parametrize("rate", [(1e-3,), (1, 2, 3), "0.1", None, True, np.nan, 0, -1, 1j], ids=repr)
def test_rates_that_are_none_are_one_clear_line(rate):
    with pytest.raises(ValueError, match="learning_rate: expected (one|a) number[^\n]*, got"):
        trainer(learning_rate=rate)


def test_a_number_of_steps_is_a_whole_one():
    with pytest.raises(ValueError, match="n: expected a whole number >= 0, got 1.5"):
        list(trainer().steps(1.5))


def test_numbers_of_numpy_count_as_numbers():
    many = {"seed": np.int32(2), "batch_size": np.uint8(9), "samples": np.int64(2), "beta": np.float32(0.5)}
    assert state(trainer(**many)) == state(trainer(seed=2, batch_size=9, samples=2, beta=0.5))
    assert tv.Update(theta_steps=np.int64(3)).substeps == tv.Update(theta_steps=3).substeps


@pytest.mark.parametrize(
    "x, message",
    [
        ([[1, 2], [3]], "rows of unequal length"),
        (np.zeros((5, 3)), r"x: expected shape \(N, 2\), got \(5, 3\)"),
        (np.zeros((5, 0)), r"shape \(N, D\) with N >= 1, got \(5, 0\)"),
        (np.zeros((0, 2)), r"shape \(N, D\) with N >= 1, got \(0, 2\)"),
        (np.array([["1", "2"]]), "expected real numbers, got dtype <U1"),
        (np.array([[1, None]], dtype=object), "expected real numbers, got dtype object"),
    ],
)
def test_data_that_are_none_are_one_clear_line(x, message):
    with pytest.raises(ValueError, match=message):
        tv.Trainer(tv.VAE(2, 1), x)
    with pytest.raises(
        ValueError,
        match=message.replace("x: expected shape", "held_out: expected shape").replace("N,", "[MN],"),
    ):
        tv.Trainer(tv.VAE(2, 1), points(), held_out=x)


def test_the_data_are_the_trainers_own():
    x, fresh = points(), points(seed=5)
    one, other = (
        tv.Trainer(tv.VAE(2, 1), a, held_out=b, evaluate_every=5)
        for a, b in ((x, fresh), (x.copy(), fresh.copy()))
    )
    run(one, 5)
    run(other, 5)
    x[:], fresh[:] = 7.0, 7.0
    assert run(one, 20) == run(other, 20)
    assert one.held_out_log_px() == other.held_out_log_px()


# ----- more than there is room for -----


@pytest.mark.parametrize(
    "config, size",
    [
        (Config(n=10**13), "PiB"),
        (Config(n=10**300), "more than 1000 PiB"),
        (Config(hidden=(100000, 100000)), "TiB|GiB"),
        (Config(hidden=(10**200,)), "more than 1000 PiB"),
        (Config(samples=65536), "GiB"),
        (Config(samples=10**30), "more than 1000 PiB"),
        (Config(hidden=(100000,)), "GiB"),
    ],
    ids=str,
)
def test_what_would_not_fit_is_refused_with_its_size_before_it_is_allocated(config, size):
    with pytest.raises(ValueError, match=f"this would take [^\n]*({size})[^\n]*") as caught:
        config.open()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_settings_that_would_not_fit_are_refused_and_the_run_goes_on():
    t, other = trainer(), trainer()
    with pytest.raises(ValueError, match="this would take"):
        t.settings = Settings(samples=10**9, batch_size=8)
    assert run(t, 10) == run(other, 10)


def test_room_is_counted_in_bytes():
    expect_room("n", ROOM // 8, "")
    with pytest.raises(ValueError, match=r"n: this would take 1 GiB of memory, more than 1 GiB; take less"):
        expect_room("n", ROOM // 8 + 1, "take less")
    assert [in_bytes(b) for b in (7, 2048, 3 * 2**29, 2**90)] == [
        "7 bytes",
        "2 KiB",
        "1.5 GiB",
        "more than 1000 PiB",
    ]


# ----- a derivative -----


def test_softplus_has_its_derivatives_everywhere_also_at_0():
    second = elementwise_grad(elementwise_grad(ops.softplus))
    assert second(np.zeros(1))[0] == 0.25
    check_grads(ops.softplus, modes=["rev"], order=2)(np.array([-90.0, -3.0, -1e-3, 0.5, 2.0, 90.0]))


# ----- the same bits -----

MANY_THREADS = """
from hashlib import sha256
from tinyvae import threads
from tinyvae.runs import Config, parse_share, share
trainer = Config(hidden=(64, 64), batch_size=256, evaluate_every=20).open().trainer
last = list(trainer.steps(40))[-1]
print(sha256(trainer.theta.tobytes() + repr(last.terms).encode()).hexdigest())
print((threads._openblas() or (lambda: 1,))[0]())
"""


def test_a_run_has_the_same_bits_whatever_number_of_threads_numpy_was_told():
    found = []
    for count in ("1", "2"):
        made = subprocess.run(
            [sys.executable, "-c", MANY_THREADS], capture_output=True, text=True, check=True, timeout=120,
            env=os.environ | {"OPENBLAS_NUM_THREADS": count},
        )  # fmt: skip
        found.append(made.stdout.split())
    (one, _), (two, left) = found
    assert one == two
    assert left == str(min(2, os.cpu_count() or 1))  # the caller's number is as it was


# ----- a line of text for a run on a file -----


def test_a_shared_line_of_a_file_says_when_the_data_have_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.csv"
    path.write_text("x,y\n1,2\n3,4\n5,7\n2,9\n")
    line = share(Config(dataset="own.csv", evaluate_every=0).open().resolved, (), 30)
    assert re.search(":data=[0-9a-f]{8}:", line)
    config, _, _ = parse_share(line)
    run(config.open().trainer, 3)
    path.write_text("x,y\n1,2\n3,4\n5,9\n2,9\n")
    with pytest.raises(tv.DataError, match="own.csv: expected the data .* the file has changed") as caught:
        config.open()
    (without,) = re.findall("without (data=[0-9a-f]{8}) ", str(caught.value))
    parse_share(line.replace(f":{without}", ""))[0].open()
    assert config.with_dataset("arc").open().resolved.data is None


def test_held_out_rows_count_as_data(tmp_path):
    path = tmp_path / "own.csv"
    rows = points(20)
    np.savetxt(path, rows, delimiter=",")
    config = Config(dataset=str(path), holdout=0.3)
    run = config.open()
    rows[(rows == run.data.held_out[0]).all(axis=1), 0] += 1
    np.savetxt(path, rows, delimiter=",")
    assert config.open().resolved.data != run.resolved.data


@pytest.mark.parametrize(
    "name", ["a b:c=@%.csv", "[red]é.csv", "\x1b[31m\n.csv", os.fsdecode(b"\xff\xfe.csv")], ids=ascii
)
def test_any_name_of_a_file_comes_back_from_a_line(name):
    config = dataclasses.replace(Config().open().resolved, dataset=name)
    line = share(config, (), 5)
    assert line.isascii() and line.isprintable() and " " not in line
    assert parse_share(line)[0].dataset == name
