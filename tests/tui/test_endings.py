"""How the program ends and what it leaves behind: signals, lost readers, full disks, encodings, names of others."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

termios = pytest.importorskip("termios", reason="Windows has no pseudo terminals")
from program import QUICK, complaint, run  # noqa: E402
from terminal import Terminal  # noqa: E402

from tinyvae.records import RecordWriter  # noqa: E402
from tinyvae.runs import Config, parse_share, scheduled_steps  # noqa: E402
from tinyvae.tui.app import TinyVAE  # noqa: E402
from tinyvae.tui.output import printable  # noqa: E402

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
SHARED = r"the same run again: tinyvae --share (v2:\S+:@(\d+))"


def program(*arguments: str, before: Any = None, **named: Any) -> subprocess.CompletedProcess[str]:
    """`python -m tinyvae ARGUMENTS` to its end."""
    command = [sys.executable, "-m", "tinyvae", *arguments]
    return subprocess.run(
        command, capture_output="stdout" not in named, text=True, encoding="utf-8", timeout=120, preexec_fn=before,
        stdin=subprocess.DEVNULL, **named,
    )  # fmt: skip


def as_it_was(terminal: Terminal) -> bool:
    """Out of the alternate screen, no mouse reports, no pasting mode, the cursor and the echo back."""
    raw = terminal.raw.decode("utf-8", "replace")
    last = {}
    for mode, state in re.findall(r"\x1b\[\?(\d+)([hl])", raw):
        last[mode] = state
    off = all(last.get(mode, "l") == "l" for mode in ("1049", "1000", "1003", "1006", "2004", "1004"))
    return off and last.get("25", "h") == "h" and termios.tcgetattr(terminal.inside) == terminal.before


# ----- signals -----


@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_the_app_as_its_own_end_does(terminals, number):
    terminal = Terminal(*QUICK)
    terminals.append(terminal)
    terminal.wait_for("▶", "the identity closes to")
    time.sleep(0.3)
    terminal.process.send_signal(number)
    assert terminal.wait_for_the_end() == CODES[number]
    assert as_it_was(terminal)
    assert re.search(SHARED, terminal.text), terminal.text
    assert "Traceback" not in terminal.text


IMPATIENT = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # the terminal becomes its own, as in a shell
from tinyvae.tui import app, signals
signals.PATIENCE = 1.0
signals.listen(signals.stop)
from tinyvae.tui.cli import main
"""
START = 'sys.exit(main(["--points", "24", "--hidden", "6"]))'


def test_an_app_that_does_not_close_puts_the_terminal_right_all_the_same(terminals, monkeypatch):
    monkeypatch.setattr("terminal.START", IMPATIENT + "app.TinyVAE.exit = lambda *_, **__: None\n" + START)
    terminal = Terminal()
    terminals.append(terminal)
    terminal.wait_for("▶", "the identity closes to")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.wait_for_the_end() == 143
    assert as_it_was(terminal) and re.search(SHARED, terminal.text)


def test_ctrl_c_in_the_app_ends_it(terminals):
    terminal = Terminal(*QUICK)
    terminals.append(terminal)
    terminal.wait_for("▶", "the identity closes to")
    terminal.send("\x03")
    assert terminal.wait_for_the_end() == 130
    assert as_it_was(terminal) and re.search(SHARED, terminal.text)


@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_train_and_its_bar_as_its_own_end_does(terminals, number, tmp_path):
    terminal = Terminal("train", *QUICK, "--steps", "1000000", "--out", str(tmp_path / "run.csv"))
    terminals.append(terminal)
    terminal.wait_for("arc", "/1000000", "log_px")
    terminal.process.send_signal(number)
    assert terminal.wait_for_the_end() == CODES[number]
    assert as_it_was(terminal)
    assert "Traceback" not in terminal.text
    done = int(re.findall(r"after step (\d+)", terminal.text)[0])
    lines = (tmp_path / "run.csv").read_text().splitlines()
    assert len(lines) in (done + 2, done + 3) and {line.count(",") for line in lines} == {lines[0].count(",")}
    config, schedule, last = parse_share(re.findall(SHARED, terminal.text)[0][0])
    assert last in (done, done + 1)


def test_a_terminal_that_is_closed_ends_the_app(monkeypatch):
    monkeypatch.setattr("terminal.START", IMPATIENT + START)
    terminal = Terminal()
    terminal.wait_for("▶", "the identity closes to")
    os.close(terminal.inside)
    os.close(terminal.end)  # the kernel sends SIGHUP, and writing fails from now on
    assert terminal.process.wait(timeout=20) == 129


@pytest.mark.parametrize("delay", [0.25, 0.4, 0.6, 0.9])
@pytest.mark.parametrize("arguments", [[], ["train", "--steps", "1000000"]], ids=["app", "train"])
def test_ctrl_c_soon_after_the_start_ends_the_program_without_a_traceback(terminals, arguments, delay):
    terminal = Terminal(*arguments, *QUICK)
    terminals.append(terminal)
    time.sleep(delay)
    terminal.send("\x03")
    assert terminal.wait_for_the_end() in (130, -signal.SIGINT)
    assert as_it_was(terminal)
    assert "Traceback" not in terminal.text, terminal.text


def test_a_signal_ends_a_check_of_lessons_and_its_children(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-m", "tinyvae", "lessons", "check"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    time.sleep(4.0)
    os.killpg(child.pid, signal.SIGINT)  # as Ctrl-C does: the children get it, too
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130 and err == "tinyvae: interrupted\n"
    with pytest.raises(ProcessLookupError):  # nobody is left
        for _ in range(50):
            os.killpg(child.pid, 0)
            time.sleep(0.1)


# ----- streams -----


EACH = """
import sys
from tinyvae.tui.cli import main
for line in sys.argv[1:]:
    try:
        code = main(line.split())
    except SystemExit as end:
        code = end.code
    if code:
        sys.exit(code)
"""


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-16", "utf-8"])
def test_any_encoding_will_do(encoding):
    lines = ["lessons list", " ".join(["train", *QUICK, "--steps", "2"]), "--help"]
    made = subprocess.run(
        [sys.executable, "-c", EACH, *lines],
        capture_output=True, timeout=60, env=os.environ | {"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert (made.returncode, made.stderr) == (0, b"")
    said = made.stdout.decode(encoding)
    assert "essay" in said and "the same run again" in said and "exit codes" in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize(
    "arguments",
    [
        ["lessons", "list"], ["--help"], ["--version"], ["train", *QUICK, "--steps", "2"],
        ["train", *QUICK, "--steps", "2", "--out"],
    ],
    ids=str,
)  # fmt: skip
def test_output_that_cannot_be_written_is_one_line(arguments, tmp_path):
    if arguments[-1] == "--out":
        arguments = [*arguments, str(tmp_path / "run.csv")]
    with open("/dev/full", "w") as full:
        made = program(*arguments, stdout=full, stderr=subprocess.PIPE)
    assert made.stderr == "tinyvae: writing the output failed: No space left on device\n"
    assert made.returncode == 2


@pytest.mark.parametrize(
    "arguments",
    ["train --points 24 --hidden 4 --steps 300 --every 1", "lessons run identity", "lessons list", "--help"],
)
def test_a_reader_that_has_left_is_141(arguments):
    command = f"exec {sys.executable} -m tinyvae {arguments}"
    made = subprocess.run(
        ["bash", "-c", f"({command}) | (read -r line); echo ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert made.stderr == ""
    assert made.stdout in ("141\n", "0\n")  # 0: it had said all, into the pipe, before the reader left
    if "--every" in arguments:
        assert made.stdout == "141\n"


def test_streams_that_are_closed_are_empty_ones():
    made = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m tinyvae train --steps 2 >&- 2>&- <&-; echo $?"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (made.stdout, made.stderr) == ("0\n", "")


# ----- files for the records -----


TRAIN = ["train", *QUICK, "--steps", "3"]


def test_a_file_that_is_there_is_not_overwritten_but_with_force(capsys, tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("mine\n")
    assert "run.csv, which is there already (--force)" in complaint(capsys, *TRAIN, "--out", str(path))
    assert path.read_text() == "mine\n"
    assert run(*TRAIN, "--out", str(path), "--force") == 0
    assert path.read_text().startswith("step,log_px")
    (tmp_path / "empty.csv").touch()  # nothing can be lost there
    assert run(*TRAIN, "--out", str(tmp_path / "empty.csv")) == 0


@pytest.mark.parametrize("answer, code", [("n", 2), ("", 2), ("y", 0)])
def test_on_a_terminal_it_is_asked(terminals, tmp_path, answer, code):
    path = tmp_path / "run.csv"
    path.write_text("mine\n")
    terminal = Terminal(*TRAIN, "--out", str(path), columns=200)
    terminals.append(terminal)
    terminal.wait_for("Overwrite it? [y/N]")
    terminal.send(f"{answer}\r")
    assert terminal.wait_for_the_end() == code
    assert (path.read_text() == "mine\n") == (code == 2)


@pytest.mark.parametrize("way", ["itself", "hard link", "symbolic link", "home", "dots"])
@pytest.mark.parametrize("force", [[], ["--force"]], ids=["", "force"])
def test_the_data_are_never_overwritten_under_any_name(capsys, tmp_path, monkeypatch, way, force):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.csv"
    path.write_text("1,2\n3,4\n5,7\n")
    other = {"itself": path, "home": "~/own.csv", "dots": "../" + tmp_path.name + "/own.csv"}.get(
        way, "other.csv"
    )
    if way == "hard link":
        os.link(path, "other.csv")
    if way == "symbolic link":
        os.symlink(path, "other.csv")
    arguments = ("--dataset", "own.csv", "--steps", "2", f"--out={other}")
    assert "expected another file than the data" in complaint(capsys, "train", *arguments, *force)
    assert path.read_text() == "1,2\n3,4\n5,7\n"


def test_an_empty_name_is_refused(capsys):
    assert ".jsonl or .csv" in complaint(capsys, *TRAIN, "--out", "")


def test_the_second_writer_is_told_and_the_first_goes_on(capsys, tmp_path):
    path = tmp_path / "run.csv"
    records = Config(n=40, hidden=(8,)).open().trainer
    with RecordWriter(path) as first:
        first.write(records.step())
        assert "another program is writing to it" in complaint(capsys, *TRAIN, "--out", str(path), "--force")
        first.write(records.step())
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == ["step", "1", "2"]
    with RecordWriter(path, overwrite=True):  # it is free again
        pass


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_full_disk_ends_the_file_after_its_last_whole_record(tmp_path, ending):
    def little_room() -> None:  # a write beyond it takes what fits, and the next one fails
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    path = tmp_path / f"run{ending}"
    made = program("train", *QUICK, "--steps", "200", "--out", str(path), before=little_room)
    assert made.returncode == 2
    found = re.fullmatch(r"tinyvae: writing \S+ failed after step (\d+): File too large\n", made.stderr)
    assert found is not None, made.stderr
    lines = path.read_text().split("\n")
    assert lines.pop() == ""
    assert len(lines) == int(found[1]) + 1 + (ending == ".csv")
    assert f"{int(found[1]) + 1} records in" in made.stdout


def test_train_says_how_to_have_the_same_run_again(capsys, tmp_path):
    out = tmp_path / "run.jsonl"
    assert run(*TRAIN, "--freeze", "theta", "--seed", "4", "--out", str(out)) == 0
    line, _ = re.findall(SHARED, capsys.readouterr().out)[0]
    again = tmp_path / "again.jsonl"
    assert run("train", "--share", line, "--out", str(again)) == 0
    same = [
        [re.sub(r'"(seconds|error)": [^,}]+', "", row) for row in path.read_text().splitlines()]
        for path in (out, again)
    ]
    assert same[0] == same[1] and len(same[0]) == 4
    config, schedule, last = parse_share(line)
    assert len(list(scheduled_steps(config.open().trainer, schedule, last))) == 3


def test_a_line_of_a_file_that_has_changed_is_refused_and_an_old_line_says_that_it_cannot_know(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.csv").write_text("x,y\n1,2\n3,4\n5,7\n")
    assert run("train", "--share", "v1:own.csv:@3") == 0
    out, err = capsys.readouterr()
    assert err.startswith("tinyvae: the line does not say what was in own.csv") and err.count("\n") == 1
    line, _ = re.findall(SHARED, out)[0]
    assert run("train", "--share", line) == 0
    assert capsys.readouterr().err == ""
    (tmp_path / "own.csv").write_text("x,y\n1,2\n3,4\n5,9\n")
    assert "the file has changed" in complaint(capsys, "train", "--share", line)


# ----- text of others -----

BAD = "\x1b[31mred\x1b]0;title\x07\u202e\r\x85"


def test_printable_shows_what_it_is():
    assert printable("arc θ [red].csv") == "arc θ [red].csv"
    assert printable("\x1b[0m\n\t\x00\x7f\u202e\ud800") == r"\x1b[0m\n\t\x00\x7f\u202e\ud800"
    assert len(printable("x" * 10_000)) < 1100


@pytest.mark.parametrize(
    "arguments",
    [
        ["--share", f"v2:arc:{BAD}=1"], ["--share", BAD], ["--dataset", f"{BAD}.csv"], [f"--{BAD}"],
        ["--points", BAD], ["--out", f"{BAD}.txt"], ["--hidden", BAD],
        ["--share", f"v2:{BAD}.csv:learning_rate=1:samples=1:batch_size=1"],
    ],
    ids=ascii,
)  # fmt: skip
def test_no_control_character_of_an_argument_reaches_the_terminal(capsys, arguments):
    line = complaint(capsys, "train", *arguments)
    assert line.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "name", ["[red]a[bold", "[x]", "\x1b[31ma", "a\nb", "%s{x}", os.fsdecode(b"\xff")], ids=ascii
)
def test_a_files_name_is_shown_as_it_is(capsys, tmp_path, name):
    path = tmp_path / f"{name}.csv"
    path.write_text("a,b\n1,2\n3,4\n5,7\n8,1\n")
    assert run("train", "--dataset", str(path), "--steps", "2", "--out", str(tmp_path / f"{name}.jsonl")) == 0
    out = capsys.readouterr().out
    assert f"{printable(name)}.csv step 2:" in out and f"{printable(name)}.csv: nats per data point" in out
    assert all(line.isprintable() for line in out.splitlines())
    path.write_bytes(os.fsencode(f"a,b\n1,2\n3,{name}\n"))
    assert complaint(capsys, "train", "--dataset", str(path)).rstrip("\n").isprintable()


async def test_the_app_shows_a_files_name_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "[red]\x1b[31ma[bold.csv"
    (tmp_path / name).write_text("1,2\n3,4\n5,7\n8,1\n")
    app: Any = TinyVAE(Config(dataset=name, hidden=(4,)), run=False)
    async with app.run_test(size=(160, 48)) as pilot:
        await pilot.pause(0.1)

        def screen() -> str:
            return "\n".join(strip.text for strip in app.screen._compositor.render_strips())

        assert printable(name) in screen()
        await pilot.press("x", "e")
        await pilot.pause(0.1)
        assert "\x1b" not in screen()
        assert any(printable(name) in notice.message for notice in app._notifications)
        await pilot.press("M")
        await pilot.pause(0.1)
        assert "\x1b" not in screen()
        await pilot.press("enter")  # nothing was changed: the same file, whatever its name
        await pilot.pause(0.2)
        assert app.session.config.dataset == name and len(app.screen_stack) == 1
        app.action_model()
        await pilot.pause(0.1)
        app.screen.query("Input").first().value = "[nothing].csv"
        await pilot.press("enter")
        await pilot.pause(0.1)
        assert "unknown dataset" in screen() or "no such file" in screen()
        assert "[nothing].csv" in screen()
    with contextlib.suppress(FileNotFoundError):
        assert [p.name for p in tmp_path.glob("tinyvae-*")]


async def test_a_reset_after_the_file_has_gone_says_so_and_the_run_stays(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("1,2\n3,4\n5,7\n8,1\n")
    app: Any = TinyVAE(Config(dataset=str(path), hidden=(4,)), run=False)
    async with app.run_test(size=(160, 48)) as pilot:
        await pilot.press("s", "s")
        path.unlink()
        await pilot.press("r")
        await pilot.pause(0.1)
        assert any("no such file" in notice.message for notice in app._notifications)
        await pilot.press("s")
        assert app.session.step == 3


def test_the_lock_is_given_back(tmp_path):
    with RecordWriter(tmp_path / "run.csv"):
        pass
    with open(tmp_path / "run.csv") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
