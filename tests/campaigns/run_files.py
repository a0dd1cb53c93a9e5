"""Run files that are killed, cut, flipped, fuzzed or out of room: opened with right rows, or refused in one line."""

import contextlib
import io
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import tinyvae as tv
from tinyvae.runfile import columns
from tinyvae.runs import parse_share, scheduled_steps
from tinyvae.tui.cli import main

# θ and φ frozen and freed, another optimiser and batch on the way: what a resumed run must not forget.
CHANGES = (
    ":@7:theta=0:@31:theta=1:optimizer=sgd:theta_rate=0.001:phi_rate=0.001"
    ":@60:optimizer=adam:batch_size=6:theta_steps=2:@333:phi=0:@340:phi=1:@100000"
)
LINE = (
    f"v2:arc:n=24:hidden=:batch_size=8:learning_rate=0.003:samples=1{CHANGES}"  # its terms have closed forms,
)
NET = LINE.replace("hidden=:", "hidden=5:")  # for those of this one a proof is looked for
# A commit and a snapshot at almost every moment, so that kills hit them; or the program as it is.
HURRIED = (
    "import sys; from tinyvae.tui import signals; signals.listen(signals.stop)\n"
    "from tinyvae import runfile; runfile.SECONDS, runfile.SNAPSHOT_STEPS = 0.004, 50\n"
    "from tinyvae.tui.cli import main; sys.exit(main(sys.argv[1:]))"
)
LAST = 350  # steps of the run file that is damaged
SECONDS = list(columns()).index("seconds")  # the column that differs from run to run


class Unbroken:
    """The same run without a break, as far as somebody has asked."""

    def __init__(self, line: str):
        config, self.schedule, _ = parse_share(line)
        self.trainer = config.open().trainer
        self.rows = [self._row(self.trainer.record())]
        self.weights = [(self.trainer.theta.tobytes(), self.trainer.phi.tobytes())]

    def _row(self, record: tv.StepRecord) -> list[float]:
        return [np.nan if value is None else float(value) for value in record.as_row().values()]

    def up_to(self, step: int) -> np.ndarray:
        for record in scheduled_steps(self.trainer, self.schedule, step + 1 - len(self.rows)):
            self.rows.append(self._row(record))
            self.weights.append((self.trainer.theta.tobytes(), self.trainer.phi.tobytes()))
        return without_seconds(np.array(self.rows[: step + 1]))


@cache
def unbroken(line: str = LINE) -> Unbroken:
    return Unbroken(line)


def without_seconds(rows: Any) -> np.ndarray:
    return np.delete(np.asarray(rows), SECONDS, axis=1)


def same_rows(file: Any, whole: Unbroken) -> bool:
    return np.array_equal(without_seconds(file.rows()), whole.up_to(file.last), equal_nan=True)


def goes_on(path: Path, steps: int, line: str = LINE) -> int:
    """Resume a file and hold all of it, and the weights, against the unbroken run; returns where it had stood."""
    file, run = tv.open_run(path), unbroken(line)
    assert same_rows(file, run), f"rows of {path} differ before it goes on"
    with file.resume() as recorder:
        for _ in scheduled_steps(recorder.trainer, run.schedule, steps):
            pass
    again = tv.open_run(path)
    assert again.last == file.last + steps and same_rows(again, run), (
        f"{path} from step {file.last}: other rows"
    )
    weights = recorder.trainer.theta.tobytes(), recorder.trainer.phi.tobytes()
    assert weights == run.weights[again.last], f"{path} from step {file.last}: other weights"
    assert again.schedule == tuple(change for change in run.schedule if change[0] < again.last), again.schedule
    return file.last


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


# ----- kills -----


def heeds_signals() -> None:
    """A shell starts what runs in the background with Ctrl-C ignored, which the program respects."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def killed(chance: random.Random) -> str:
    """A recording is killed at a random moment, and goes on."""
    with folder() as here:
        path, number = (
            here / "run.sqlite",
            chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]),
        )
        start = ["-c", HURRIED] if chance.random() < 0.5 else ["-m", "tinyvae"]
        line = chance.choice([LINE, NET])
        command = [sys.executable, *start, "train", "--share", line, "--record", str(path)]
        child = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heeds_signals
        )
        try:
            deadline, early = time.monotonic() + 60, chance.random() < 0.1
            while not early and not path.exists():
                assert child.poll() is None and time.monotonic() < deadline, "no file appeared"
                time.sleep(0.002)
            time.sleep(chance.random() * (0.8 if early or start[0] == "-c" else 2.5))
            child.send_signal(number)
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
        if not path.exists():
            return "no file yet"  # Python itself may have been stopped while it was starting
        assert "Traceback" not in said and said.count("\n") <= 1, said
        last = goes_on(path, chance.randrange(1, 60), line)
        assert os.listdir(here) == ["run.sqlite"] or number == signal.SIGKILL, os.listdir(here)
        return f"{signal.Signals(number).name}, {'with steps' if last else 'at step 0'}"


# ----- damage -----


@cache
def whole() -> bytes:
    """A run file as it is when it was closed, of some 100 KiB."""
    with folder() as here:
        config, schedule, _ = parse_share(LINE)
        trainer = config.open().trainer
        with tv.record(trainer, here / "run.sqlite", goal=LAST):
            for _ in scheduled_steps(trainer, schedule, LAST):
                pass
        return (here / "run.sqlite").read_bytes()


def looked_at(path: Path) -> str:
    """Open it, read all of it and go to its end: what came of that."""
    try:
        file = tv.open_run(path)
        rows = file.rows()
        trainer = file.at()
    except (ValueError, OSError, ArithmeticError) as problem:
        assert "\n" not in str(problem) and str(problem), problem
        return "refused"
    right = unbroken().up_to(file.last)
    assert (trainer.theta.tobytes(), trainer.phi.tobytes()) == unbroken().weights[file.last], "other weights"
    if not np.array_equal(without_seconds(rows), right, equal_nan=True):
        return "opened, a number is another (SQLite cannot tell)"
    return "opened, all is right" if file.last == LAST else "opened, the first steps are right"


def cut(length: int) -> str:
    with folder() as here:
        (here / "run.sqlite").write_bytes(whole()[:length])
        return looked_at(here / "run.sqlite")


def flipped(chance: random.Random) -> str:
    """One byte is another."""
    with folder() as here:
        data = bytearray(whole())
        data[chance.randrange(len(data))] ^= chance.randrange(1, 256)
        (here / "run.sqlite").write_bytes(data)
        return looked_at(here / "run.sqlite")


def fuzzed(chance: random.Random) -> str:
    """Damage of any kind, to the bytes or by SQL, and then every command that reads a run."""
    with folder() as here, contextlib.chdir(here):
        path = here / "run.sqlite"
        path.write_bytes(whole())
        what = chance.choice([_bytes, _pages, _cells, _tables, _cells])
        what(chance, path)
        command: list[str] = chance.choice(
            [["export", "run.sqlite", "--to", "csv", "--out", "a.csv"],
             ["resume", "run.sqlite", "--steps", f"{LAST + 3}"],
             ["export", "run.sqlite", "--to", "npz", "--out", "a.npz"], ["resume", "run.sqlite"], ["runs"]]
        )  # fmt: skip
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(command)
        said = err.getvalue()
        assert code in (0, 2, 3), f"exit code {code}"
        assert said.count("\n") <= 2 and "Traceback" not in said and (code == 0 or said), said
        return f"{what.__name__.strip('_')}: {'refused' if code else 'done'}"


def _bytes(chance: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 3, 20, 200])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    path.write_bytes(data)


def _pages(chance: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    a, b = (4096 * chance.randrange(len(data) // 4096) for _ in range(2))
    data[a : a + 4096] = chance.choice(
        [bytes(4096), data[b : b + 4096], chance.randbytes(4096), b"", data[a : a + 512]]
    )
    path.write_bytes(data)


VALUES = (
    None,
    0,
    -1,
    7,
    2**62,
    1e300,
    float("inf"),
    "",
    "x",
    "{}",
    "[1]",
    "null",
    b"",
    b"\xff" * 64,
    "9" * 5000,
)


def _cells(chance: random.Random, path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, contextlib.suppress(sqlite3.Error):
        table = chance.choice(["run", "steps", "changes", "snapshots"])
        names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        rows = [row[0] for row in db.execute(f"SELECT rowid FROM {table}")]
        where = f"WHERE rowid = {chance.choice(rows)}" if chance.random() < 0.9 else ""
        if chance.random() < 0.15:
            db.execute(f"DELETE FROM {table} {where}")
        else:
            db.execute(f"UPDATE {table} SET {chance.choice(names)} = ? {where}", (chance.choice(VALUES),))
        db.commit()


def _tables(chance: random.Random, path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        table = chance.choice(["run", "steps", "changes", "snapshots"])
        db.execute(
            chance.choice(
                [f"DROP TABLE {table}", f"ALTER TABLE {table} RENAME TO other", "PRAGMA user_version = 9",
                 "PRAGMA application_id = 1", "ALTER TABLE steps DROP COLUMN elbo", "PRAGMA journal_mode = WAL",
                 f"CREATE TRIGGER t AFTER INSERT ON {table} BEGIN SELECT 1; END",
                 "CREATE VIEW v AS SELECT * FROM steps", f"ALTER TABLE {table} ADD COLUMN more"]
            )
        )  # fmt: skip
        db.commit()


# ----- no room -----


def out_of_room(size: int, on_tmpfs: bool) -> str:
    """A run of 400 steps where a file, or (as root) a file system, has room for `size` bytes."""

    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    with folder() as here:
        inside = here / "small"
        inside.mkdir()
        path = inside / "run.sqlite"
        command = [
            sys.executable,
            "-c",
            HURRIED,
            "train",
            "--share",
            LINE,
            "--steps",
            "400",
            "--record",
            str(path),
        ]
        if on_tmpfs:  # what is there is copied out before the file system goes
            mount = f"mount -t tmpfs -o size={size} none {inside}"
            copy = f"cp -a {inside}/. {here}/out"
            script = f'mkdir {here}/out; {mount} || exit 9; "$@"; code=$?; {copy}; exit $code'
            command = ["unshare", "-rm", "bash", "-c", script, "bash", *command]
        made = subprocess.run(
            command, capture_output=True, text=True, timeout=60, preexec_fn=None if on_tmpfs else little_room
        )
        assert made.returncode in (0, 2) and "Traceback" not in made.stderr, made.stderr
        assert made.stderr.count("\n") == (made.returncode == 2), made.stderr
        if on_tmpfs:
            shutil.rmtree(inside)
            (here / "out").rename(inside)
        if not path.exists():
            assert made.returncode == 2 and os.listdir(inside) == [], os.listdir(inside)
            return "no file"
        last = goes_on(path, 5)
        return f"{'all' if made.returncode == 0 else 'some'} steps, goes on" if last else "at step 0, goes on"


# ----- size -----


def long(steps: int, evaluate_every: int, say: Callable[[str], Any]) -> tuple[float, float]:
    """MiB of memory after a tenth of the steps and after all, while recording."""
    from .memory import resident

    with folder() as here:
        trainer = tv.Config(evaluate_every=evaluate_every).open().trainer
        found = []
        with tv.record(trainer, here / "run.sqlite"):
            for tenth in range(10):
                for _ in trainer.steps(steps // 10):
                    pass
                found.append(resident())
                size = sum(part.stat().st_size for part in here.iterdir()) / 1e6
                say(
                    f"{(tenth + 1) * (steps // 10)} steps: {found[-1]:.1f} MiB of memory, {size:.1f} MB of file"
                )
        started = time.monotonic()
        file = tv.open_run(here / "run.sqlite")
        file.columns()
        size = (here / "run.sqlite").stat().st_size / 1e6
        took, snapshots = time.monotonic() - started, len(file.snapshots)
        say(f"closed: {size:.1f} MB with {snapshots} snapshots, opened and read in {took:.1f} s")
        return found[0], found[-1]


def counted(cases: Iterator[tuple[str, Callable[[], str]]], seconds: float) -> tuple[Counter[str], list[str]]:
    """What the cases ended in, and those that failed."""
    outcomes: Counter[str] = Counter()
    failures = []
    deadline = time.monotonic() + seconds
    for name, case in cases:
        if time.monotonic() > deadline:
            break
        try:
            outcomes[case()] += 1
        except Exception as problem:
            outcomes["FAILED"] += 1
            failures.append(f"{name}: {type(problem).__name__}: {problem}")
    return outcomes, failures


def prefixes(count: int, seconds: float) -> tuple[Counter[str], list[str]]:
    """Every prefix of a run file, at 512-byte steps, or so many of them."""
    lengths = range(0, len(whole()), max(512, len(whole()) // count // 512 * 512))
    return counted(((f"the first {n} bytes", lambda n=n: cut(n)) for n in lengths), seconds)  # type: ignore[misc]


def full(count: int, seconds: float, on_tmpfs: bool) -> tuple[Counter[str], list[str]]:
    """A disk that is full after 4 KiB, 8 KiB, …, of a small run."""
    sizes = range(4096, 4096 * (count + 1), 4096)
    return counted(((f"{n} bytes", lambda n=n: out_of_room(n, on_tmpfs)) for n in sizes), seconds)  # type: ignore[misc]
