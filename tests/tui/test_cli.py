"""The command line: every option arrives, every mistake is one clear line, every run leaves its records."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import QUICK, Child, complaint, read, run

from tinyvae import DATASETS, TERMS, Update
from tinyvae.exact import MeanTerms
from tinyvae.runs import Config, Schedule, share
from tinyvae.settings import Settings
from tinyvae.tui import cli, headless

FIRST_NAMES = ["step", "log_px", "reconstruction", "kl_prior", "kl_posterior", "elbo", "residual", "error"]


# ----- every option reaches the run -----

OPTIONS = [
    (["--dataset", "bars"], "dataset", "bars"),
    (["--points", "77"], "n", 77),
    (["--data-seed", "5"], "data_seed", 5),
    (["--latent-dim", "2"], "latent_dim", 2),
    (["--hidden", "8,4,2"], "hidden", (8, 4, 2)),
    (["--hidden", "none"], "hidden", ()),
    (["--likelihood", "bernoulli"], "likelihood", "bernoulli"),
    (["--covariance", "full"], "covariance", "full"),
    (["--noise", "per-dimension"], "noise", "per-dimension"),
    (["--noise-std", "0.25"], "noise_std", 0.25),
    (["--noise-init", "0.3"], "noise_init", 0.3),
    (["--beta", "0"], "beta", 0.0),
    (["--holdout", "0.2"], "holdout", 0.2),
    (["--learning-rate", "1e-4"], "learning_rate", 1e-4),
    (["--optimizer", "sgd"], "optimizer", "sgd"),
    (["--batch", "9"], "batch_size", 9),
    (["--samples", "3"], "samples", 3),
    (["--seed", "11"], "seed", 11),
    (["--precision", "float32"], "precision", "float32"),
    (["--columns", "a,b"], "columns", ("a", "b")),
    (["--columns", '"length, mm",b'], "columns", ("length, mm", "b")),
    (["--skip-columns", "species"], "skip_columns", ("species",)),
    (["--color", "species"], "color", "species"),
    (["--header", "no"], "header", False),
    (["--standardize"], "standardize", True),
    (["--freeze", "theta"], "update", Update(theta=False)),
    (["--freeze", "phi"], "update", Update(phi=False)),
]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would have been started, instead of starting it."""
    calls: list[dict[str, Any]] = []

    def train(config: Config, *more: Any) -> int:
        calls.append({"config": config, "more": more[:3], "force": more[3]})
        return 0

    def open_app(config: Config, schedule: Schedule, last: int | None, args: Namespace) -> int:
        calls.append({"config": config, "args": args, "more": (last, schedule)})
        return 0

    monkeypatch.setattr(headless, "train", train)
    monkeypatch.setattr(cli, "open_app", open_app)
    return calls


def test_the_table_of_options_is_complete():
    known = {name for action in cli.run_options()._actions for name in action.option_strings}
    assert known == {arguments[0] for arguments, *_ in OPTIONS} | {"--share"}


@pytest.mark.parametrize("place", ["screen", "before train", "after train"])
@pytest.mark.parametrize("arguments, name, value", OPTIONS, ids=[" ".join(option[0]) for option in OPTIONS])
def test_every_option_reaches_the_run_wherever_it_stands(started, arguments, name, value, place):
    line = {"screen": arguments, "before train": [*arguments, "train"], "after train": ["train", *arguments]}
    assert run(*line[place]) == 0
    (call,) = started
    assert getattr(call["config"], name) == value
    assert ("args" in call) == (place == "screen")
    others = {n for _, n, _ in OPTIONS} - {name}
    assert {n: getattr(call["config"], n) for n in others} == {n: getattr(Config(), n) for n in others}


def test_without_options_the_run_is_the_default_one(started):
    assert run() == run("train") == 0
    assert started[0]["config"] == started[1]["config"] == Config()
    assert started[1]["more"] == (1000, None, ())


def test_the_later_of_two_options_counts(started):
    run("--seed", "1", "train", "--seed", "2")
    assert started[0]["config"].seed == 2


def test_the_options_of_train_and_of_the_screen(started):
    run("train", "--steps", "7", "--out", "x.csv", "--every", "3")
    assert started[0]["more"] == (7, "x.csv", ())
    assert started[0]["config"].evaluate_every == 3
    run("--speed", "max", "--paused", "--fps", "5", "--charset", "ascii")
    args = started[1]["args"]
    assert (args.speed, args.paused, args.fps, args.charset) == (math.inf, True, 5, "ascii")


def test_a_shared_line_brings_its_config_its_changes_and_its_last_step(started):
    config = Config(dataset="bars", n=20, hidden=(), seed=4, precision="float32").open().resolved
    schedule = (
        (3, Settings(Update(theta=False))),
        (9, Settings(Update(phi_steps=2), theta_rate=0.1, samples=4)),
    )
    line = share(config, schedule, 25)
    assert run("--share", line) == run("train", "--share", line) == 0
    assert run("train", "--share", line, "--steps", "7", "--every", "2") == 0
    assert started[0]["config"] == started[1]["config"] == config
    assert started[0]["more"] == (25, schedule)
    assert started[1]["more"] == (25, None, schedule)
    assert started[2]["more"] == (7, None, schedule)
    assert started[2]["config"].evaluate_every == 2


@pytest.mark.parametrize(
    "line",
    ["", "v2:arc", "v2:arc:n=9:@3", "v3:arc",
     "arc", "v1", "v1:ark", "v1:arc:n", "v1:arc:n=x", "v1:arc:colour=3", "v1:arc:@x", "v1:arc:@9:@3",
     "v1:arc:n=-5:@3", "v1:arc:hidden=0:@3", "v1:arc:learning_rate=nan:@3", "v1:arc:@2:theta_steps=99:@3",
     "v1:arc:@2:optimizer=lion:@3", "v1:arc:@2:theta_rate=-1:@3", "v1:arc:@2:batch_size=0:@3", "v1:arc:@-3",
     "v1:arc\n:@3", "v1:arc:latent_dim=3:@3"],
)  # fmt: skip
def test_a_bad_shared_line_is_one_line(capsys, line):
    complaint(capsys, "train", f"--share={line}", "--steps", "2")


def test_the_help_explains_every_option(capsys):
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert run("train", "--help") == 0
    shown_for_train = capsys.readouterr().out
    for arguments, *_ in OPTIONS:
        assert arguments[0] in shown
        assert arguments[0] in shown_for_train
    for name in ("--speed", "--fps", "--charset", "--paused"):
        assert name in shown
    for name in ("--steps", "--out", "--every"):
        assert name in shown_for_train
    for action in (*cli.parser()._actions, *cli.run_options()._actions):
        assert action.help or action.dest == "command", action.option_strings
    assert all(name in shown for name in DATASETS)


# ----- mistakes -----


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--latent-dim", "0"], "1 or 2"),
        (["--latent-dim", "3"], "1 or 2"),
        (["--latent-dim", "x"], "1 or 2"),
        (["--learning-rate", "0"], "number > 0"),
        (["--learning-rate", "-1"], "number > 0"),
        (["--learning-rate", "nan"], "number > 0"),
        (["--learning-rate", "inf"], "number > 0"),
        (["--learning-rate", "fast"], "'fast'"),
        (["--noise-std", "0"], "number > 0"),
        (["--hidden", "a"], "32,32"),
        (["--hidden", "8,-1"], "32,32"),
        (["--hidden", "8,,8"], "32,32"),
        (["--steps", "0"], ">= 1"),
        (["--steps", "1.5"], ">= 1"),
        (["--batch", "0"], ">= 1"),
        (["--samples", "0"], ">= 1"),
        (["--points", "1"], ">= 2"),
        (["--seed", "-1"], ">= 0"),
        (["--every", "0"], ">= 1"),
        (["--share=--"], "another value than --"),
        (["--out=--"], "another value than --"),
        (["--optimizer", "lion"], "adam"),
        (["--covariance", "round"], "diagonal"),
        (["--freeze", "both"], "theta"),
        (["--stepz", "4"], "--stepz"),
        (["--dataset"], "--dataset"),
    ],
    ids=" ".join,
)
def test_a_bad_value_is_one_line_that_says_what_was_expected(capsys, arguments, says):
    line = complaint(capsys, "train", *arguments)
    assert says in line
    assert arguments[0] in line


@pytest.mark.parametrize("arguments", [["--speed", "0"], ["--speed", "-5"], ["--fps", "0"], ["--fps", "1000"]])
def test_a_bad_value_for_the_screen_is_one_line(capsys, arguments):
    assert arguments[0] in complaint(capsys, *arguments)


def test_an_unknown_command_is_one_line(capsys):
    assert "train" in complaint(capsys, "trian")


def test_an_unknown_dataset_names_the_known_ones(capsys):
    line = complaint(capsys, "train", "--dataset", "ark")
    assert all(name in line for name in DATASETS)
    assert "did you mean 'arc'" in line


FILES = {
    "empty.csv": ("", "empty"),
    "header.csv": ("a,b\n", "only a header"),
    "ragged.csv": ("1,2\n3,4,5\n", "line 2"),
    "words.csv": ("1,2\n3,four\n", "'four'"),
    "nan.csv": ("1,2\nnan,4\n", "NaN"),
    "inf.csv": ("1,2\n3,inf\n", "infinite"),
    "one-column.csv": ("1\n2\n3\n", "two columns"),
    "one-row.csv": ("1,2\n", "two rows"),
    "not-numpy.npy": ("1,2\n", "NumPy"),
    "data.parquet": ("1,2\n", ".csv"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_one_line_that_names_it(capsys, tmp_path, name):
    content, says = FILES[name]
    (tmp_path / name).write_text(content)
    line = complaint(capsys, "train", "--dataset", str(tmp_path / name))
    assert says in line
    assert name in line


@pytest.mark.parametrize("path", ["missing.csv", "missing", "."])
def test_a_file_that_is_not_there_is_one_line(capsys, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    assert path in complaint(capsys, "train", "--dataset", path)


def test_binary_data_and_a_gaussian_model_do_not_go_together(capsys, tmp_path):
    (tmp_path / "coins.csv").write_text("1,1\n0,1\n1,0\n")
    for dataset in ("bars", str(tmp_path / "coins.csv")):
        assert "bernoulli" in complaint(capsys, "train", "--dataset", dataset, "--likelihood", "gaussian")


def test_continuous_data_and_a_bernoulli_model_do_not_go_together(capsys, tmp_path):
    (tmp_path / "weights.csv").write_text("0.5,1\n1,1\n1,0\n")
    for dataset in ("arc", str(tmp_path / "weights.csv")):
        assert "gaussian" in complaint(capsys, "train", "--dataset", dataset, "--likelihood", "bernoulli")


def test_without_a_terminal_the_app_says_what_to_run_instead(capsys):
    assert "tinyvae train" in complaint(capsys)


@pytest.mark.parametrize("name", ["run.txt", "run", "run.csv.gz"])
def test_out_wants_a_known_ending(capsys, tmp_path, name):
    line = complaint(capsys, "train", *QUICK, "--steps", "2", "--out", str(tmp_path / name))
    assert ".jsonl" in line
    assert ".csv" in line
    assert list(tmp_path.iterdir()) == []


def test_out_that_cannot_be_opened_is_one_line(capsys, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    for place in ("nowhere/run.csv", "folder.csv", "file/run.csv"):
        assert place in complaint(capsys, "train", *QUICK, "--steps", "2", "--out", str(tmp_path / place))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_out_in_a_directory_without_permission_is_one_line(capsys, tmp_path):
    tmp_path.chmod(0o500)
    line = complaint(capsys, "train", *QUICK, "--steps", "2", "--out", str(tmp_path / "run.csv"))
    assert "run.csv" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_full_disk_is_one_line_and_says_how_far_the_run_came(capsys, tmp_path, ending):
    path = tmp_path / f"run{ending}"
    path.symlink_to("/dev/full")
    line = complaint(capsys, "train", *QUICK, "--steps", "5", "--out", str(path))
    assert "step 0" in line
    assert "No space left" in line


# ----- the records -----


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_train_writes_one_record_a_step_with_the_public_names(capsys, tmp_path, ending):
    path = tmp_path / f"run{ending}"
    assert run("train", *QUICK, "--steps", "12", "--out", str(path)) == 0
    records = read(path)
    assert [record["step"] for record in records] == list(range(13))
    for record in records:
        assert list(record)[: len(FIRST_NAMES)] == FIRST_NAMES
        assert abs(record["residual"]) <= 1e-9
        assert record["error"] <= 1e-9
        assert record["kl_prior"] >= 0
        assert record["kl_posterior"] >= -record["error"]
        identity = record["reconstruction"] - record["kl_prior"] + record["kl_posterior"]
        assert abs(record["log_px"] - identity) <= abs(record["residual"]) + 1e-13  # the worst of all points
    for before, after in zip(records, records[1:]):
        assert after["theta_on"] == after["phi_on"] == 1
        assert (after["log_px_by_phi"], after["kl_prior_by_theta"]) == (0, 0)
        for term in TERMS:
            parts = after[f"{term}_by_theta"] + after[f"{term}_by_phi"]
            assert after[term] - before[term] == pytest.approx(parts, abs=1e-9)
    assert f"13 records in {path}\n" in capsys.readouterr().out  # in one piece, to be copied


def test_the_two_formats_hold_the_same_numbers(tmp_path):
    for ending in (".csv", ".jsonl"):
        assert run("train", *QUICK, "--steps", "4", "--out", str(tmp_path / f"run{ending}")) == 0
    table, lines = read(tmp_path / "run.csv"), read(tmp_path / "run.jsonl")
    for record in (*table, *lines):
        record.pop("seconds")
    assert table == lines  # exactly, and True == 1


def test_train_is_the_run_of_a_plain_trainer(tmp_path):
    assert run("train", *QUICK, "--seed", "3", "--steps", "8", "--out", str(tmp_path / "run.jsonl")) == 0
    trainer = Config(n=40, hidden=(8,), batch_size=16, seed=3).open().trainer
    for row, record in zip(read(tmp_path / "run.jsonl")[1:], trainer.steps(8), strict=True):
        mine = record.as_row() | {"seconds": row["seconds"]}
        assert row == mine


@pytest.mark.parametrize("group, still", [("theta", "log_px"), ("phi", "kl_prior")])
def test_freeze_keeps_its_term_to_the_last_bit(tmp_path, group, still):
    path = tmp_path / "run.jsonl"
    assert run("train", *QUICK, "--steps", "15", "--freeze", group, "--out", str(path)) == 0
    records = read(path)
    assert len({record[still] for record in records}) == 1
    assert len({record["elbo"] for record in records}) == 16
    if group == "theta":
        assert records[-1]["kl_posterior"] < records[0]["kl_posterior"]


def test_every_leaves_out_terms_and_nothing_else(tmp_path):
    for every in ("1", "4"):
        arguments = ("train", *QUICK, "--steps", "9", "--every", every, "--out")
        assert run(*arguments, str(tmp_path / f"{every}.jsonl")) == 0
    all_of_them, some = read(tmp_path / "1.jsonl"), read(tmp_path / "4.jsonl")
    assert [record["step"] for record in some if record["log_px"] is not None] == [0, 4, 8]
    assert some[8]["log_px"] == all_of_them[8]["log_px"]
    assert [r["grad_norm_phi"] for r in some] == [r["grad_norm_phi"] for r in all_of_them]


def test_log_px_rises_and_the_last_table_says_so(capsys, tmp_path):
    path = tmp_path / "run.csv"
    arguments = ("train", *QUICK, "--learning-rate", "0.01", "--steps", "150", "--out")
    assert run(*arguments, str(path)) == 0
    records, out = read(path), capsys.readouterr().out
    change = records[-1]["log_px"] - records[0]["log_px"]
    assert change > 0.1
    (line,) = [line for line in out.splitlines() if "log_px" in line and f"{change:+.4f}" in line]
    assert f"{records[0]['log_px']:.4f}" in line
    assert f"{records[-1]['log_px']:.4f}" in line


@pytest.mark.parametrize("every", [[], ["--every", "7"], ["--every", "1000"]], ids=" ".join)
def test_a_pipe_gets_about_twenty_plain_lines_the_last_step_among_them(capsys, every):
    assert run("train", *QUICK, "--steps", "60", *every) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(r"[^\x00-\x09\x0b-\x1f\x7f]*", out), "control characters"
    steps = [int(step) for step in re.findall(r"^arc step (\d+): log_px", out, re.MULTILINE)]
    last = 60 if not every else 56 if every[1] == "7" else None
    assert steps == sorted(set(steps))
    assert len(steps) <= 25
    if last is not None:
        assert steps[-1] == last
        assert len(steps) >= 5


def test_the_end_is_looked_at_even_where_its_step_is_not(capsys):
    assert run("train", *QUICK, "--steps", "3", "--every", "2") == 0
    assert re.search(r"step 0 +┃ +step 3 ", capsys.readouterr().out)
    line = complaint(
        capsys, "train", *QUICK, "--steps", "1", "--every", "2", "--learning-rate", "1e300", code=3
    )
    assert "diverged at step 1" in line


@pytest.mark.parametrize("optimizer, rate", [("sgd", "1"), ("adam", "5")])
def test_divergence_exits_3_with_step_term_and_hint_and_keeps_the_records(capsys, tmp_path, optimizer, rate):
    path = tmp_path / "run.jsonl"
    arguments = ("--optimizer", optimizer, "--learning-rate", rate, "--steps", "60", "--out", str(path))
    line = complaint(capsys, "train", *QUICK, *arguments, code=3)
    found = re.search(r"step (\d+): (.+) is not finite; try a smaller learning rate", line)
    assert found is not None, line
    records = read(path)
    assert [record["step"] for record in records] == list(range(int(found[1])))
    assert len(records) >= 2
    assert all(math.isfinite(record["log_px"]) for record in records)


def test_data_on_which_no_run_can_begin_are_one_line(capsys, tmp_path):
    np.save(tmp_path / "huge.npy", [[1e200, 2.0], [3.0, 4.0], [5.0, 6e200]])
    data = "--dataset", str(tmp_path / "huge.npy"), "--noise-std", "1"
    assert run("train", *data, "--steps", "3") in (2, 3)
    line = capsys.readouterr().err
    assert re.fullmatch(r"tinyvae: \S.*unit scale.*\n", line), line


def test_the_data_file_is_never_overwritten_by_the_records(capsys, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("0.5,1\n1,1\n1,0\n")
    assert "mine.csv" in complaint(capsys, "train", "--dataset", str(path), "--steps", "2", "--out", str(path))
    assert path.read_text() == "0.5,1\n1,1\n1,0\n"


# ----- as a process of its own -----


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_ctrl_c_keeps_what_was_written_and_exits_130(tmp_path, ending):
    path = tmp_path / f"run{ending}"
    child = Child("train", *QUICK, "--steps", "1000000", "--out", str(path))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and child.process.poll() is None:
        with contextlib.suppress(OSError):
            if path.read_bytes().count(b"\n") > 5:
                break
        time.sleep(0.02)
    child.process.send_signal(signal.SIGINT)
    code, out, err = child.finish()
    assert code == 130, err
    found = re.fullmatch(r"tinyvae: interrupted after step (\d+)\n", err)
    assert found is not None, err
    records = read(path)
    assert [record["step"] for record in records] == list(range(len(records)))
    assert len(records) in (int(found[1]) + 1, int(found[1]) + 2)  # the one being written counts as written
    assert "log_px" in out  # the last table


def test_a_reader_that_leaves_early_is_no_trouble():
    child = Child("train", *QUICK, "--steps", "2000")
    assert child.process.stdout is not None
    assert child.process.stdout.readline().startswith("arc step 1:")
    child.process.stdout.close()
    child.process.stdout = None
    code, _, err = child.finish()
    assert code != 0
    assert "Traceback" not in err
    assert err.count("\n") <= 1, err
    assert "None" not in err


def test_a_pipe_gets_no_control_characters_even_with_force_color_unset(tmp_path):
    code, out, err = Child("train", *QUICK, "--steps", "3").finish()
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert "\r" not in out


def test_help_and_mistakes_load_neither_textual_nor_rich():
    script = (
        "import sys\nfrom tui.cli import main\n"
        "try: main({})\nexcept SystemExit as stop: code = stop.code\n"
        "heavy = {{'textual', 'rich'}} & set(sys.modules)\n"
        "print(code, sorted(heavy))"
    )
    for arguments, code in ((["--help"], 0), (["--latent-dim", "3"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", script.format(arguments)], capture_output=True, text=True, timeout=60
        )
        assert done.stdout.splitlines()[-1] == f"{code} []", done.stderr


# ----- what is said of the errors -----


def record_with(certified: float, checked: float, residual: float = 1e-13) -> Any:
    names = MeanTerms.__annotations__
    terms = MeanTerms(
        **dict.fromkeys(names, 0.0) | {"certified": certified, "checked": checked, "residual": residual}
    )
    return replace(Config(n=4, hidden=(2,)).open().trainer.record(), terms=terms)


PLANE = ["--dataset", "pinwheel", "--points", "12", "--hidden", "4"]


def test_the_last_record_of_a_plane_says_what_is_proven(tmp_path, capsys):
    path = tmp_path / "records.csv"
    assert run("train", *PLANE, "--steps", "3", "--out", str(path)) == 0
    rows = read(path)
    assert "1 certified, 3 checked" in capsys.readouterr().out.replace("\n", " ")
    assert [float(row["certified"]) for row in rows] == [0, 0, 0, 1]
    assert float(rows[-1]["proven_error"]) <= 1e-6


def test_certify_proves_the_end_of_a_shared_and_of_a_recorded_run(tmp_path, capsys):
    path = tmp_path / "run.sqlite"
    assert run("train", *PLANE, "--steps", "3", "--record", str(path)) == 0
    line, said = capsys.readouterr().out.split("--share ")[1].split()[0], []
    for which in (["--share", line], [str(path)]):
        assert run("certify", *which) == 0
        said.append(capsys.readouterr().out.replace("\n", " "))
    assert said[0] == said[1] and "12 of 12 points" in said[0] and "step 3" in said[0]
    complaint(capsys, "certify", str(tmp_path / "none.sqlite"))


def test_the_summary_counts_what_was_proven_what_was_checked_and_what_was_neither():
    tally = headless.Tally()
    for certified, checked in ((1.0, 1.0), (1.0, 1.0), (0.5, 1.0), (0.0, 0.75)):
        tally.add(record_with(certified, checked))
    tally.add(replace(record_with(1.0, 1.0), terms=None))  # not evaluated: not counted
    said = tally.says(1e-9)
    counts = "2 certified, 1 checked, 1 neither (up to 25 % of the points)"
    assert said == f"the identity closed to 1e-13; evaluated records: {counts}"


def test_an_identity_that_misses_is_not_said_to_close():
    tally = headless.Tally()
    tally.add(record_with(0.0, 0.0, residual=-1e3))
    assert tally.says(1e-9).startswith("the identity does not close: it misses 1e+03;")
