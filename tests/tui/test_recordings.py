"""Recorded runs in the program: kept by default, listed, resumed, replayed, compared, exported; nothing gets lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import complaint, read, run
from test_session import go, rows

from tinyvae import open_run, record
from tinyvae.lessons import LESSONS
from tinyvae.runfile import alone
from tinyvae.runs import Config
from tinyvae.tui import classroom, recordings
from tinyvae.tui.app import TinyVAE
from tinyvae.tui.history import History
from tinyvae.tui.notes import note
from tinyvae.tui.session import Session

LINEAR = Config(dataset="arc", n=24, hidden=(), batch_size=8)
QUICK = ["--points", "24", "--hidden", "none", "--batch", "8"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINYVAE_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def session(config: Config = LINEAR) -> Session:
    made = Session(config)
    made.record_to = recordings.automatic
    return made


def path_of(made: Session) -> Path:
    assert made.file is not None
    return made.file


def made(path: Path, steps: int = 6, config: Config = LINEAR, goal: int | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    trainer = config.open().trainer
    with record(trainer, path, goal=goal):
        list(trainer.steps(steps))
    return path


def same(one: Session, other: Session) -> bool:
    return rows(one) == rows(other) and one.trainer.theta.tobytes() == other.trainer.theta.tobytes()


# ----- a session and its file -----


def test_a_session_records_from_its_first_step_and_what_was_changed_before_it(folder):
    one = session()
    assert not folder.exists()  # nothing has been done yet
    one.switch("theta")
    go(one, 3)
    one.change("rate", theta_rate=0.1)
    go(one, 2)
    one.close()
    file = open_run(path_of(one))
    assert (file.last, list(file.schedule)) == (5, one.history.schedule)
    assert file.events == [(0, "θ off"), (3, "rate")]
    again = Session.of_file(file, 50.0)
    assert same(again, one) and again.share_string == one.share_string
    again.look_at(2)
    one.look_at(2)
    assert again.view().evaluation.phi.tobytes() == one.view().evaluation.phi.tobytes()


def test_a_session_that_is_not_asked_to_record_writes_nothing(folder):
    one = Session(LINEAR)
    go(one, 3)
    one.close()
    assert not folder.exists()


def test_a_reset_can_be_undone_and_both_runs_are_recorded_to_their_ends():
    one, plain = session(), Session(LINEAR)
    first = go(one, 4)
    file = path_of(one)
    one.reset()
    assert one.step == 0 and open_run(file).last == 4
    go(one, 2)
    one.return_to(one.before)
    one.switch("phi")
    assert go(plain, 4) == first and (one.step, path_of(one)) == (4, file)
    plain.switch("phi")
    assert go(one, 3) == go(plain, 3)
    one.return_to(one.before)
    assert one.step == 2
    go(one, 1)
    one.close()
    runs = {path: open_run(path) for path in recordings.listed()}
    assert sorted(run.last for run in runs.values()) == [3, 7]
    assert runs[file].events == [(4, "φ off")]


def test_a_branch_gets_a_file_of_its_own_and_the_run_before_it_keeps_its_file():
    one = session()
    go(one, 6)
    first = path_of(one)
    one.look_at(3)
    one.branch()
    one.switch("theta")
    go(one, 2)
    one.close()
    assert path_of(one) != first and open_run(first).last == 6
    branch = Session.of_file(open_run(path_of(one)), 50.0)
    assert same(branch, one) and [event.label for event in branch.history.events] == ["branch", "θ off"]


def test_a_run_whose_file_has_gone_meanwhile_gets_another():
    one = session()
    go(one, 4)
    one.reset()
    path_of_first = recordings.listed()[0]
    path_of_first.unlink()
    one.return_to(one.before)
    go(one, 1)
    one.close()
    assert open_run(path_of(one)).last == 5


def test_a_folder_that_cannot_be_written_stops_the_recording_and_not_the_run(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TINYVAE_RUNS", str(tmp_path / "file" / "runs"))
    one = session()
    go(one, 3)
    assert one.step == 3 and "Not a directory" in one.unrecorded and one.recorder is None


def test_a_disk_that_is_full_stops_the_recording_and_loses_no_step():
    one, plain = session(), Session(LINEAR)
    go(one, 2)
    assert one.recorder is not None and one.recorder._db is not None
    one.recorder._db.execute("PRAGMA max_page_count = 1")
    for _ in range(200):
        if one.recorder is not None:
            one.recorder._due = 0.0
        one.step_once()
    assert "No space left on device" in one.unrecorded and one.step == 202
    go(plain, 202)
    assert same(one, plain)


def test_a_run_of_a_lesson_is_replayed_from_the_weights_that_the_lesson_chose():
    lesson = next(each for each in LESSONS if each.prepare is not None)
    one = session()
    one.open_run(lesson.open)
    go(one, 3)
    one.close()
    again = Session.of_file(open_run(path_of(one)), 50.0)
    assert same(again, one) and again.share_string == ""
    again.reset()
    assert again.trainer.theta.tobytes() == lesson.open().trainer.theta.tobytes()


def test_steps_that_were_not_evaluated_are_evaluated_where_they_are_looked_at(tmp_path):
    file = made(tmp_path / "run.sqlite", 8, replace(LINEAR, evaluate_every=4))
    one, plain = Session.of_file(open_run(file), 50.0), Session(LINEAR)
    go(plain, 8)
    one.look_at(6)
    plain.look_at(6)
    assert one.view().row["elbo"] == plain.view().row["elbo"]
    assert one.invariants()[0].broken_at is None


# ----- the folder -----


def test_the_last_ten_stay_and_those_that_are_kept_or_being_recorded(folder):
    old = [made(folder / f"arc-20260101-0000{k:02}.sqlite", 1) for k in range(12)]
    for k, path in enumerate(old):
        os.utime(path, (1000 + k, 1000 + k))
    kept = made(folder / "mine.sqlite", 1)
    os.utime(kept, (1, 1))
    with alone(old[0]):
        one = session()
        go(one, 1)
        one.close()
    left = set(recordings.listed())
    assert left == {old[0], kept, *old[3:], path_of(one)}
    two = session()
    go(two, 1)
    two.close()
    assert len(recordings.listed()) == 11 and old[0] not in recordings.listed()


def test_two_runs_of_one_second_have_two_files(folder):
    folder.mkdir()
    names = [recordings.automatic("own data θ.csv")]
    names[0].touch()
    names.append(recordings.automatic("own data θ.csv"))
    assert len(set(names)) == 2 and all(recordings.UNNAMED.fullmatch(name.name) for name in names)


def test_runs_lists_them_and_keeps_one_by_name(folder, capsys):
    assert run("runs") == 0 and "no runs in" in capsys.readouterr().out
    made(folder / "arc-20260101-000001.sqlite", 4)
    (folder / "arc-20260101-000002.sqlite").write_text("nothing")
    assert run("runs") == 0
    text = capsys.readouterr().out
    assert re.search(r"arc-20260101-000001 +arc +4 .* MB", text) and "damaged" in text
    assert run("runs", "keep", "arc-20260101-000001", "mine") == 0
    assert run("runs") == 0 and re.search(r"mine +arc +4 .*kept", capsys.readouterr().out)
    assert "is there already" in complaint(capsys, "runs", "keep", "arc-20260101-000002", "mine")
    assert "not a date" in complaint(capsys, "runs", "keep", "mine", "arc-20260101-000009")
    assert "a run and a name" in complaint(capsys, "runs", "keep", "mine")
    one = session()
    go(one, 1)
    assert run("runs") == 0 and "being recorded" in capsys.readouterr().out
    assert "another program is writing" in complaint(capsys, "runs", "keep", path_of(one).stem, "other")
    one.close()


def test_runs_columns_explains_every_column(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert run("runs", "columns") == 0
    text = capsys.readouterr().out
    for name in History().names:
        assert f"steps.{name} " in text
    assert "snapshots" in text and "run: config" in text


# ----- the commands -----


def test_train_records_and_resume_goes_on_as_if_it_had_never_stopped(capsys, tmp_path):
    assert run("train", *QUICK, "--steps", "9", "--record", "run.sqlite", "--freeze", "phi") == 0
    assert "recorded up to step 9: tinyvae replay run.sqlite" in capsys.readouterr().out
    assert run("resume", "run.sqlite") == 0
    assert "is finished: it stands at step 9" in capsys.readouterr().out
    assert run("resume", "run.sqlite", "--steps", "15") == 0
    line = re.findall(r"--share (\S+)", capsys.readouterr().out)[0]
    assert run("train", "--share", line, "--record", "again.sqlite") == 0
    one, other = (open_run(name).rows()[1:, :-1] for name in ("run.sqlite", "again.sqlite"))
    np.testing.assert_array_equal(one, other)
    assert len(one) == 15
    capsys.readouterr()
    assert run("resume", "run.sqlite") == 0  # the new goal is remembered
    assert "is finished: it stands at step 15" in capsys.readouterr().out


def test_resume_warns_in_one_line_where_the_surroundings_differ(capsys, monkeypatch):
    assert run("train", *QUICK, "--steps", "3", "--record", "run.sqlite") == 0
    capsys.readouterr()
    monkeypatch.setattr("tinyvae.runfile.kernel", lambda: ("Other", 7))
    assert run("resume", "run.sqlite", "--steps", "4") == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "the bits may differ from here on" in said and "and Other now" in said


def test_mistakes_are_one_line(capsys, tmp_path):
    made(tmp_path / "run.sqlite")
    assert "--steps N says how far" in complaint(capsys, "resume", "run.sqlite")
    assert "No such file" in complaint(capsys, "resume", "nowhere.sqlite")
    assert "which is there already (tinyvae resume" in complaint(capsys, "train", "--record", "run.sqlite")
    assert "another file than that of --record" in complaint(
        capsys, "train", "--record", "new.csv", "--out", "./new.csv"
    )
    with pytest.raises(ValueError, match="there is none in"):
        recordings.find(None)
    assert "ending in .npz" in complaint(capsys, "export", "run.sqlite", "--to", "npz", "--out", "a.csv")
    (tmp_path / "a.csv").touch()
    assert "(--force)" in complaint(capsys, "export", "run.sqlite", "--to", "csv", "--out", "a.csv")
    assert run("export", "run.sqlite", "--to", "csv", "--out", "a.csv", "--force") == 0


@pytest.mark.parametrize("kind", ["csv", "jsonl", "npz"])
def test_export_writes_every_number_exactly(tmp_path, kind):
    file = open_run(made(tmp_path / "run.sqlite"))
    assert run("export", "run.sqlite", "--to", kind, "--out", f"out.{kind}") == 0
    for name, column in file.columns().items():
        if kind == "npz":
            found = np.load(f"out.{kind}")[name]
        else:
            values = [row[name] for row in read(Path(f"out.{kind}"))]
            found = np.array([np.nan if value is None else value for value in values], dtype=float)
        np.testing.assert_array_equal(found, column)


def test_a_signal_while_recording_leaves_a_run_that_goes_on(tmp_path):
    script = "import os, signal; from tinyvae import training; from tinyvae.tui.__main__ import main\n"
    script += "step = training.Trainer.step\ndef stop(self):\n"
    script += "    if self.step_count == 30: os.kill(os.getpid(), signal.SIGTERM)\n    return step(self)\n"
    script += "training.Trainer.step = stop; main()"
    arguments = ["train", *QUICK, "--steps", "100", "--record", "run.sqlite"]
    made = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 143 and made.stderr.startswith("tinyvae: terminated after step")
    assert os.listdir() == ["run.sqlite"]
    assert run("resume", "run.sqlite") == 0 and open_run("run.sqlite").last == 100


# ----- on the screen -----


def app_of(one: Session) -> TinyVAE:
    return TinyVAE(one.config, run=False, session=one)


async def test_replay_shows_the_end_of_the_run_and_goes_on_in_a_file_of_its_own(tmp_path, folder):
    file = made(tmp_path / "run.sqlite", 12)
    arguments: Any = type(
        "Arguments", (), {"command": "replay", "file": str(file), "other": None, "speed": 50.0}
    )
    one, _ = recordings.session_of(arguments)
    one.record_to = recordings.automatic
    app = app_of(one)
    async with app.run_test(size=(120, 36)) as pilot:
        assert "step 12" in app.query_one("#title").render().plain
        await pilot.press("shift+left")
        assert app.session.viewed == 0
        await pilot.press("end", "s")
    one.close()
    assert open_run(file).last == 12 and [open_run(path).last for path in recordings.listed()] == [13]
    plain = Session(LINEAR)
    go(plain, 13)
    assert same(one, plain)


async def test_resume_in_the_app_goes_on_in_the_same_file(tmp_path):
    file = made(tmp_path / "run.sqlite", 5)
    arguments: Any = type(
        "Arguments", (), {"command": "resume", "file": str(file), "steps": None, "speed": 50.0}
    )
    one, _ = recordings.session_of(arguments)
    async with app_of(one).run_test(size=(120, 36)) as pilot:
        await pilot.press("s", "t", "s")
    one.close()
    again = open_run(file)
    assert again.last == 7 and again.events == [(6, "θ off")]


async def test_two_runs_are_shown_with_their_differences_in_every_term(tmp_path):
    one = Session.of_file(open_run(made(tmp_path / "one.sqlite", 5)), 50.0)
    one.other = History.of(open_run(made(tmp_path / "two.sqlite", 9, replace(LINEAR, seed=1))))
    text = note(one.history, one.other, 5)
    assert text.startswith("Minus two: log p ")
    for name, value in (("recon.", "reconstruction"), ("KL post.", "kl_posterior"), ("ELBO", "elbo")):
        difference = one.history.row(5)[value] - one.other.row(5)[value]
        assert f"{name} {difference:+.4f}".replace("-", "−") in text
    app = app_of(one)
    async with app.run_test(size=(160, 36)) as pilot:
        await pilot.pause()
        assert text in app.query_one("#identity").render().plain


async def test_leaving_a_lesson_returns_to_the_run_as_it_was(monkeypatch):
    lesson = next(each for each in LESSONS if each.phases)
    one = session()
    go(one, 3)
    before = rows(one)
    app = app_of(one)
    async with app.run_test(size=(120, 36)) as pilot:

        async def answer(card: Any) -> int | None:
            return 0 if card.heading == lesson.title else None  # plays it, and leaves at the first question

        monkeypatch.setattr(app, "push_screen_wait", answer)
        await classroom.play(app, lesson)
        assert rows(one) == before and not one.running
        await pilot.press("R")
        assert one.data.name == lesson.open().data.name and one.step == 0
        await pilot.press("R")
        assert rows(one) == before
    one.close()


async def test_a_problem_with_the_file_is_told_once_and_the_run_goes_on(monkeypatch):
    one, said = session(), []
    app = app_of(one)
    monkeypatch.setattr(app, "notify", lambda message, **_: said.append(message))
    monkeypatch.setattr(one, "record_to", lambda name: Path("/dev/null/run.sqlite"))
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("s", "s")
        for _ in range(20):
            await pilot.pause(0.02)
    assert one.step == 2 and len([line for line in said if "run.sqlite" in line]) == 1
