"""A run as a file: recorded as it goes, resumed bit for bit, read without us, refused where it is damaged."""

from __future__ import annotations

import contextlib
import copy
import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tinyvae as tv
from tinyvae import runfile
from tinyvae.records import StepRecord

LINEAR = tv.Config(dataset="arc", n=24, hidden=(), batch_size=8)  # terms in closed form: quick
NET = tv.Config(dataset="arc", n=16, hidden=(4,), batch_size=5)
PLANE = tv.Config(dataset="pinwheel", n=8, hidden=(3,), batch_size=4, evaluate_every=3)


def disturb(trainer: tv.Trainer, step: int) -> None:
    """What a person might do after this step of a run."""
    if step == 4:
        trainer.update = tv.Update(phi=False)
    if step == 9:
        trainer.settings = replace(trainer.settings, update=tv.Update(), optimizer="sgd", phi_rate=1e-3)
    if step == 12:  # the moments begin anew, though the settings end as they were
        before = trainer.settings
        trainer.settings = replace(before, optimizer="adam")
        trainer.settings = before
    if step == 15:
        trainer.settings = replace(trainer.settings, optimizer="adam", batch_size=6, samples=2, beta=2.0)
    if step == 18:
        trainer.evaluate_every = 2


def go(trainer: tv.Trainer, last: int) -> list[StepRecord]:
    records = []
    while trainer.step_count < last:
        disturb(trainer, trainer.step_count)
        records.append(trainer.step())
    return records


def table(records: list[StepRecord]) -> np.ndarray:
    """Without the seconds, NaN for None."""
    rows = [[np.nan if v is None else float(v) for v in record.as_row().values()] for record in records]
    return np.array(rows)[:, :-1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.sqlite"


def recorded(path: Path, config: tv.Config = LINEAR, steps: int = 20) -> tv.Trainer:
    trainer = config.open().trainer
    with tv.record(trainer, path, goal=30):
        go(trainer, steps)
    return trainer


# ----- bit for bit -----


@pytest.mark.parametrize("stop", [0, 3, 4, 9, 12, 13, 15, 18, 20])
def test_a_resumed_run_has_the_bits_of_an_unbroken_one(path, stop, monkeypatch):
    monkeypatch.setattr(runfile, "SNAPSHOT_STEPS", 8)  # so that some steps are made again from a snapshot
    whole = LINEAR.open().trainer
    expected = table([whole.record(), *go(whole, 30)])
    recorded(path, steps=stop)
    with tv.open_run(path).resume() as recorder:
        go(recorder.trainer, 30)
    file = tv.open_run(path)
    np.testing.assert_array_equal(file.rows()[:, :-1], expected)
    assert recorder.trainer.theta.tobytes() == whole.theta.tobytes()
    assert recorder.trainer.phi_state.v.tobytes() == whole.phi_state.v.tobytes()
    assert file.at(30).theta.tobytes() == whole.theta.tobytes()


@pytest.mark.parametrize(
    "config", [NET, replace(NET, precision="float32"), PLANE], ids=["net", "float32", "plane"]
)
def test_the_first_resumed_record_is_evaluated_and_split_as_if_there_had_been_no_break(path, config):
    whole = config.open().trainer
    expected = table(go(whole, 9)[6:])
    recorded(path, config, 6)
    with tv.open_run(path).resume() as recorder:
        np.testing.assert_array_equal(table(go(recorder.trainer, 9)), expected)
    assert np.isfinite(expected[:, 1]).any()


@pytest.mark.parametrize("last", [0, 3])
def test_what_was_changed_after_the_last_step_acts_on_the_next(path, last):
    trainer = LINEAR.open().trainer
    with tv.record(trainer, path):
        go(trainer, last)
        trainer.settings = replace(trainer.settings, optimizer="sgd", theta_rate=0.5)
    trainer.step()
    with tv.open_run(path).resume() as recorder:
        recorder.trainer.step()
    assert recorder.trainer.settings == trainer.settings != LINEAR.open().trainer.settings
    assert recorder.trainer.theta.tobytes() == trainer.theta.tobytes()
    assert tv.open_run(path).open().trainer.settings == LINEAR.open().trainer.settings


def test_every_step_can_be_gone_to(path, monkeypatch):
    monkeypatch.setattr(runfile, "SNAPSHOT_STEPS", 6)
    recorded(path)
    whole, file = LINEAR.open().trainer, tv.open_run(path)
    assert file.snapshots == [0, 6, 12, 18, 19]  # the last because evaluate_every changed
    for step in range(20):
        go(whole, step)
        there = file.at(step)
        assert (there.theta.tobytes(), there.phi.tobytes()) == (whole.theta.tobytes(), whole.phi.tobytes())
        assert there.step_count == step


def test_recording_does_not_change_a_run(path):
    plain = LINEAR.open().trainer
    go(plain, 20)
    assert recorded(path).theta.tobytes() == plain.theta.tobytes()


def test_a_run_made_from_arrays_goes_on_with_a_trainer_of_the_same(path):
    x = np.random.default_rng(0).normal(size=(12, 2))
    model = tv.VAE(2, 1, ())
    whole = tv.Trainer(model, x, seed=3)
    with tv.record(tv.Trainer(model, x, seed=3), path) as recorder:
        go(recorder.trainer, 5)
    file = tv.open_run(path)
    with pytest.raises(tv.DataError, match="made from arrays: give a trainer"):
        file.resume()
    for other, what in ((tv.Trainer(model, x, seed=4), "seed 4"), (tv.Trainer(model, x + 1, seed=3), "data")):
        with pytest.raises(ValueError, match=f"expected one of a run with {what}"):
            file.resume(other)
    with pytest.raises(ValueError, match="gradients: expected as in run.sqlite, fused, got 'autograd'"):
        file.at(2, tv.Trainer(model, x, seed=3, gradients="autograd"))
    with file.resume(tv.Trainer(model, x, seed=3)) as recorder:
        go(recorder.trainer, 8)
    go(whole, 8)
    assert recorder.trainer.theta.tobytes() == whole.theta.tobytes()


def test_a_snapshot_of_another_model_or_precision_is_refused(path):
    recorded(path)
    file = tv.open_run(path)
    for config in (NET, replace(LINEAR, precision="float32"), replace(LINEAR, seed=1)):
        with pytest.raises(ValueError, match="expected"):
            file.at(3, config.open().trainer)


# ----- the file -----


def test_pandas_and_sqlite_read_it_without_us(path):
    trainer = LINEAR.open().trainer
    records = [trainer.record()]
    with tv.record(trainer, path):
        records += go(trainer, 20)
    with contextlib.closing(sqlite3.connect(path)) as db:
        frame = pd.read_sql("SELECT * FROM steps ORDER BY step", db, index_col="step")
        theta = db.execute("SELECT theta FROM snapshots WHERE step = 0").fetchone()[0]
        about = dict(db.execute("SELECT name, value FROM run"))
        label = db.execute("SELECT settings FROM changes WHERE step = 15").fetchone()[0]
    np.testing.assert_array_equal(frame.drop(columns="seconds").to_numpy(dtype=float), table(records)[:, 1:])
    np.testing.assert_array_equal(np.frombuffer(theta, "<f8"), LINEAR.open().trainer.theta)
    assert list(about) == list(runfile.ABOUT)
    assert '"beta": 2.0' in label


def test_every_column_is_explained_and_comes_back(path):
    trainer = recorded(path)
    assert list(runfile.columns()) == list(trainer.record().as_row())
    assert all(meaning for _, meaning in runfile.columns().values())
    columns = tv.open_run(path).columns()
    assert list(columns) == list(runfile.columns()) and len(columns["elbo"]) == 21
    for word in ("run", "steps", "blocks", "changes", "snapshots", *runfile.ABOUT):
        assert word in str(runfile.__doc__) or word in runfile.ABOUT


def test_the_file_appears_with_its_first_snapshot_and_overwrites_nothing(path, monkeypatch):
    trainer = LINEAR.open().trainer
    seen = []
    monkeypatch.setattr(os, "fsync", lambda number: seen.append(sorted(os.listdir(path.parent))))
    with tv.record(trainer, path):
        assert tv.open_run(path).last == 0
        assert sorted(os.listdir(path.parent))[0] == "run.sqlite"  # and what SQLite has beside it
    assert seen == [[f".run.sqlite.{os.getpid()}.part"]]
    assert os.listdir(path.parent) == ["run.sqlite"]
    trainer.reset()
    with pytest.raises(FileExistsError, match="it is there already"):
        tv.record(trainer, path)
    assert os.listdir(path.parent) == ["run.sqlite"] and trainer.watcher is None


def test_a_run_can_be_read_while_it_is_recorded_and_a_second_writer_is_told(path):
    trainer = LINEAR.open().trainer
    with tv.record(trainer, path) as recorder:
        go(trainer, 4)
        assert tv.open_run(path).last == 0  # a transaction takes place about every second
        recorder.flush()
        file = tv.open_run(path)
        assert file.last == 4
        with pytest.raises(BlockingIOError, match="another program is writing to it"):
            file.resume()
        with pytest.raises(BlockingIOError), runfile.alone(path):
            pass
        go(trainer, 6)
    assert tv.open_run(path).last == 6
    with runfile.alone(path):
        pass


def test_a_second_passes_between_two_transactions(path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(runfile, "perf_counter", lambda: now[0])
    trainer = LINEAR.open().trainer
    with tv.record(trainer, path) as recorder:
        for seconds, written in ((0.6, 0), (0.5, 2), (0.9, 2), (0.2, 4), (9.0, 5)):
            now[0] += seconds
            trainer.step()
            assert tv.open_run(path).last == written
        assert tv.open_run(path).snapshots == [0, 5]  # ten seconds after the first
        trainer.step()
        now[0] += 11
        trainer.step()
        assert tv.open_run(path).snapshots == [0, 7]  # in its place
        trainer.step()
        recorder.flush(when_due=True)
        assert tv.open_run(path).last == 7
        now[0] += 1.1
        recorder.flush(when_due=True)
        assert tv.open_run(path).last == 8


def test_a_copy_of_a_recorded_trainer_is_not_recorded(path):
    trainer = LINEAR.open().trainer
    with tv.record(trainer, path):
        go(copy.deepcopy(trainer), 3)
        go(trainer, 2)
    assert tv.open_run(path).last == 2


def test_what_cannot_be_recorded_is_said(path):
    trainer = LINEAR.open().trainer
    with tv.record(trainer, path):
        go(trainer, 3)
        trainer.reset()
        with pytest.raises(ValueError, match="expected step 4 of the recorded run, got 1"):
            trainer.step()
    with pytest.raises(ValueError, match="expected a trainer at step 0, got 1"):
        tv.record(trainer, path.with_name("other.sqlite"))
    with pytest.raises(OSError, match="unable to open"):
        tv.record(LINEAR.open().trainer, path.parent / "nowhere" / "run.sqlite")


def test_a_step_that_diverges_leaves_the_file_at_the_one_before(path):
    trainer = replace(LINEAR, learning_rate=1e200).open().trainer
    with tv.record(trainer, path), pytest.raises(tv.Diverged):
        go(trainer, 4)
    file = tv.open_run(path)
    assert file.last == trainer.step_count
    with file.resume() as recorder, pytest.raises(tv.Diverged, match=f"step {file.last + 1}"):
        recorder.trainer.step()


def test_a_full_disk_raises_in_a_step_and_keeps_what_was_written(path):
    trainer = LINEAR.open().trainer
    with tv.record(trainer, path) as recorder:
        go(trainer, 3)
        recorder.flush()
        pages = recorder._db.execute("PRAGMA page_count").fetchone()[0]
        recorder._db.execute(f"PRAGMA max_page_count = {pages}")
        recorder._due = 0.0
        with pytest.raises(OSError, match="No space left on device") as raised:
            for _ in range(100):
                recorder._due = 0.0
                trainer.step()
        assert raised.value.filename == str(path)
        assert recorder.latest is not None and recorder.latest.step == trainer.step_count  # the step was made
        assert trainer.watcher is None
    file = tv.open_run(path)
    assert 3 <= file.last < trainer.step_count
    np.testing.assert_array_equal(file.rows()[: file.last + 1, 0], np.arange(file.last + 1))


# ----- what is refused, in one line -----


def sql(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


@pytest.mark.parametrize(
    "statement, says",
    [
        ("PRAGMA user_version = 2", "expected a run file of version 1 or older, got version 2"),
        ("PRAGMA application_id = 3", "another database"),
        ("DELETE FROM steps WHERE step = 7", "steps are missing"),
        ("DELETE FROM snapshots WHERE step = 0", "one of step 0"),
        ("UPDATE changes SET settings = '{}'", "change 1 is not as it was written"),
        (
            "UPDATE run SET value = 'x' WHERE name = 'config'",
            "what it says of the run is not as it was written",
        ),
        ("UPDATE run SET value = 'x' WHERE name = 'goal'", "a number of steps"),
        ("CREATE TRIGGER t AFTER INSERT ON steps BEGIN DELETE FROM steps; END", "steps are missing"),
        ("DROP TABLE changes", "no such table"),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_refused(path, statement, says):
    recorded(path, steps=8)
    sql(path, statement)
    with pytest.raises(tv.DataError, match=says) as raised:
        tv.open_run(path)
    assert str(raised.value).startswith(f"{path}: expected a run") and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "statement, says",
    [
        ("UPDATE steps SET elbo = elbo + 1e-12 WHERE step = 3", "records of steps 1 to 8 are not as they were"),
        ("UPDATE snapshots SET draws = 9", "snapshot of step 0 is not as it was"),
        ("UPDATE snapshots SET theta = zeroblob(length(theta))", "snapshot of step 0 is not as it was"),
    ],
)
def test_a_number_that_has_changed_is_noticed_where_it_is_read(path, statement, says):
    recorded(path, steps=8)
    sql(path, statement)
    with pytest.raises(tv.DataError, match=says):
        tv.open_run(path).resume()
    assert tv.open_run(path).last == 8


@pytest.mark.parametrize("what", ["gone", "folder", "empty", "text"])
def test_what_is_no_run_is_refused(path, what):
    if what == "folder":
        path.mkdir()
    elif what != "gone":
        path.write_text("step,elbo\n" * (what == "text"))
    with pytest.raises((OSError, tv.DataError)) as raised:
        tv.open_run(path)
    assert what not in ("empty", "text") or "expected a run that tinyvae has recorded" in str(raised.value)
    assert list(path.parent.iterdir()) == ([] if what == "gone" else [path])


def test_a_data_file_that_has_changed_or_gone_is_refused_and_one_elsewhere_is_found(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    Path("own.csv").write_text("a,b\n1,2\n3,4\n5,7\n8,1\n")
    recorded(path, tv.Config(dataset="own.csv", hidden=(), holdout=0.25), 4)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert tv.open_run(path).at().step_count == 4
    Path("../own.csv").write_text("a,b\n1,2\n3,4\n5,7\n8,2\n")
    with pytest.raises(tv.DataError, match="the file has changed"):
        tv.open_run(path).resume()
    Path("../own.csv").unlink()
    with pytest.raises((OSError, tv.DataError), match="own.csv"):
        tv.open_run(path).resume()


def test_other_surroundings_are_named_and_remembered(path, monkeypatch):
    recorded(path, steps=2)
    now: dict[str, Any] = runfile.surroundings() | {"numpy": "9.9", "kernel": "Other"}
    assert tv.open_run(path).differences() == ""
    monkeypatch.setattr(runfile, "surroundings", lambda: now)
    with tv.open_run(path).resume():
        pass
    differing = tv.open_run(path).differences()
    assert f"numpy {np.__version__} then and 9.9 now" in differing and "kernel" in differing
    assert tv.open_run(path).events == [(2, f"resumed ({differing})")]


def test_a_file_of_fewer_columns_still_reads_and_goes_on(path):
    recorded(path, steps=8)
    sql(path, "ALTER TABLE steps DROP COLUMN held_out_log_px", "DELETE FROM blocks")
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = np.array(db.execute("SELECT * FROM steps ORDER BY step").fetchall(), dtype=float)
        db.execute("INSERT INTO blocks VALUES (8, ?)", (runfile._crc_of_rows(rows),))
        db.commit()
    with tv.open_run(path).resume() as recorder:
        go(recorder.trainer, 12)
    columns = tv.open_run(path).columns()
    assert np.isnan(columns["held_out_log_px"]).all() and np.isfinite(columns["elbo"]).all()
