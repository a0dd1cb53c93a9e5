"""A run as a file: an SQLite database, which `sqlite3` and `pandas.read_sql` read without us.

| table | one row for | columns |
|---|---|---|
| run | each fact | name, value (`ABOUT` says which) |
| steps | each step, 0 is the start | those of `StepRecord.as_row` (`columns()` says unit and meaning) |
| blocks | some steps | last, of the steps since the last one of the block before; crc, of their columns as doubles |
| changes | each change on the way | id; step, after which; label; settings from then on, JSON, or null; crc |
| snapshots | each snapshot | step; draws, of minibatches so far; evaluate_every; settings, JSON; theta_count and |
| | | phi_count, how often each was updated; the vectors theta, phi and their moments theta_m, theta_v, |
| | | phi_m, phi_v, as bytes of little-endian numbers of the run's precision; crc |

A file appears with its first snapshot in it, and grows by about one transaction a second. While it is written its
newest part is in FILE-wal beside it, where every reader of SQLite looks; after a kill, too, until the run goes on.
A run goes on from its last snapshot: the steps that were recorded after it are made again, with the changes of then.
"""

import atexit
import contextlib
import errno
import json
import os
import platform
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from .checks import Array, digest, expect, is_whole
from .datafiles import DataError, wrong
from .datasets import DATASETS
from .exact import TERMS
from .model import VAE
from .optimizers import State
from .records import COUNTS, SWITCHES, StepRecord
from .runs import OF_UPDATE, Config, Run, Schedule, flat, scheduled_steps
from .settings import Settings, Update
from .threads import kernel
from .training import Origin, Snapshot, Trainer

APPLICATION, VERSION = 0x74764145, 1  # of the file: "tvAE", and what its tables are like
CHUNK = 4096  # records in a transaction's checksum, at most
SECONDS = 1.0  # between two transactions, about
SNAPSHOT_STEPS, SNAPSHOT_SECONDS = 1000, 10.0  # between two snapshots, at most
ABOUT = {
    "config": "JSON of the Config with nothing left to recommend; null: the run was made from arrays",
    "data_file": "JSON of the absolute path of the data, if they came from a file",
    "model": "JSON of the VAE",
    "seed": "of weights, minibatches and noise",
    "precision": "of the steps and of the vectors in snapshots",
    "gradients": "fused or autograd",
    "data": "digest of the data points",
    "evaluated": "digest of the data points over which the terms are means",
    "held_out": "digest of those that are not trained on",
    "goal": "how many steps were asked for; null: nobody said",
    "created": "UTC",
    "tinyvae": "versions", "python": "", "numpy": "", "autograd": "",
    "machine": "the processor's kind", "kernel": "of OpenBLAS", "threads": "of OpenBLAS, as it was told",
    "crc": "CRC-32 of all these but the goal",
}  # fmt: skip
MAY_DIFFER = ("tinyvae", "python", "numpy", "autograd", "machine", "kernel", "threads")
BLIND = (
    "step",
    "theta_on",
    "phi_on",
    "theta_steps",
    "phi_steps",
    "beta",
    "grad_norm_theta",
    "grad_norm_phi",
    "seconds",
)
SCHEMA = """\
CREATE TABLE run (name TEXT PRIMARY KEY, value);
CREATE TABLE steps ({});
CREATE TABLE blocks (last INTEGER PRIMARY KEY, crc INTEGER);
CREATE TABLE changes (id INTEGER PRIMARY KEY, step INTEGER, label TEXT, settings TEXT, crc INTEGER);
CREATE TABLE snapshots (step INTEGER PRIMARY KEY, draws INTEGER, evaluate_every INTEGER, settings TEXT,
    theta_count INTEGER, phi_count INTEGER, theta BLOB, phi BLOB,
    theta_m BLOB, theta_v BLOB, phi_m BLOB, phi_v BLOB, crc INTEGER);
"""


def columns() -> dict[str, tuple[str, str]]:
    """Of each column of the table steps: its unit, and what it means."""
    nats, groups = "nats per data point", ("theta", "phi")
    found = {"step": ("steps", "the state after so many")}
    found |= dict.fromkeys(TERMS, (nats, "mean over the evaluated points"))
    found["residual"] = (nats, "log_px − (reconstruction − kl_prior + kl_posterior), of the worst point")
    found["error"] = (nats, "the largest error of a term of a point")
    found |= {f"{term}_error": (nats, f"the largest error of {term}") for term in TERMS[:-1]}
    found |= {name: ("0 to 1", f"share of the points that are {name}") for name in ("checked", "certified")}
    found |= {
        "proven_error": ("nats", "what is proven of the worst term of any point; infinite where nothing is")
    }
    found |= {f"{t}_by_{g}": (nats, f"what {g} changed in {t} in this step") for g in groups for t in TERMS}
    found["target_moved"] = (nats, "KL of p(z|x) before this step to p(z|x) after it")
    found["held_out_log_px"] = (nats, "mean log p(x) of points that are not trained on")
    found |= {f"{group}_on": ("0 or 1", f"whether {group} was to move") for group in groups}
    found |= {f"{group}_steps": ("updates", f"of {group} in this step") for group in groups}
    found["beta"] = ("", "weight of kl_prior in what was followed")
    found |= {f"grad_norm_{g}": ("nats", f"length of the last minibatch gradient for {g}") for g in groups}
    return found | {"seconds": ("s", "of the step, without its evaluation")}


# ----- errors, in one line -----


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What SQLite says becomes an OSError with the file's name."""
    try:
        yield
    except sqlite3.Error as problem:
        code = getattr(problem, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            says = "another program is writing to it"
            raise BlockingIOError(errno.EWOULDBLOCK, says, str(path)) from None
        full = code == sqlite3.SQLITE_FULL
        number, says = (errno.ENOSPC, os.strerror(errno.ENOSPC)) if full else (errno.EIO, str(problem))
        raise OSError(number, says, str(path)) from None


def _connect(path: Path, mode: str, patience: float = 5.0) -> sqlite3.Connection:
    if mode != "rwc" and not path.is_file():
        number = errno.EISDIR if path.is_dir() else errno.ENOENT
        raise OSError(number, os.strerror(number), str(path))
    where = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(where, patience, isolation_level=None, check_same_thread=False, uri=True)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, while nobody records to it. Raises BlockingIOError where somebody does."""
    with _writing(path), contextlib.closing(_connect(path, "rw", 0.0)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield db


# ----- writing -----


def record(trainer: Trainer, path: str | Path, *, goal: int | None = None) -> "Recorder":
    """Record every step of a trainer, which stands at its step 0, in a new file, until the recorder is closed.

        with tv.record(run.trainer, "run.sqlite"):
            for record in run.trainer.steps(1000): ...

    goal: how many steps the run is to have, for `tinyvae resume`. Raises ValueError for a trainer at another step,
    FileExistsError where the file is there already, and OSError where it cannot be written, then or in a step.
    """
    expect(trainer.step_count == 0, "record", "a trainer at step 0", trainer.step_count)
    create(trainer, path, [trainer.record().as_row()], [trainer.snapshot()], goal=goal)
    return Recorder(trainer, path)


def create(
    trainer: Trainer,
    path: str | Path,
    rows: Iterable[Mapping[str, Any]],
    snapshots: Iterable[Snapshot],
    changes: Sequence[tuple[int, str, Settings | None]] = (),
    goal: int | None = None,
) -> None:
    """A new file with a run so far; it appears when all of that is in it."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        with _writing(path), contextlib.closing(_connect(part, "rwc")) as db:
            db.execute("PRAGMA journal_mode = OFF")
            db.execute(f"PRAGMA application_id = {APPLICATION}")
            db.execute(f"PRAGMA user_version = {VERSION}")
            db.execute("BEGIN")
            kinds = {name: "INTEGER" if name in (*SWITCHES, *COUNTS) else "REAL" for name in columns()}
            declared = (f"{name} {kind}{' PRIMARY KEY' * (name == 'step')}" for name, kind in kinds.items())
            for statement in SCHEMA.format(", ".join(declared)).split(";\n")[:-1]:
                db.execute(statement)
            db.executemany("INSERT INTO run VALUES (?, ?)", _about(trainer, goal).items())
            values = ([row[name] for name in kinds] for row in rows)
            while some := list(islice(values, CHUNK)):
                _insert_rows(db, tuple(kinds), some)
            _insert_changes(db, [(k, at, label, _text(of)) for k, (at, label, of) in enumerate(changes, 1)])
            for snapshot in snapshots:
                _insert_snapshot(db, snapshot, trainer.evaluate_every)
            db.execute("COMMIT")
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        try:
            os.link(part, path)  # unlike renaming it never overwrites
        except OSError:
            if path.exists():
                raise FileExistsError(errno.EEXIST, "it is there already", str(path)) from None
            part.rename(path)  # a file system without links
    finally:
        part.unlink(missing_ok=True)


def _about(trainer: Trainer, goal: int | None) -> dict[str, Any]:
    config, origin, held_out = trainer.config, trainer.origin, trainer.held_out
    model = {field.name: getattr(origin.model, field.name) for field in fields(origin.model) if field.init}
    file = config and config.dataset not in DATASETS and os.path.abspath(os.path.expanduser(config.dataset))
    found = {"config": config and json.dumps(asdict(config)), "data_file": json.dumps(file) if file else None}
    found |= {"model": json.dumps(model), "seed": str(origin.seed), "precision": origin.precision}
    found |= {"gradients": trainer.gradients, "data": origin.data, "evaluated": digest(trainer.evaluation_x)}
    found |= {"held_out": None if held_out is None else digest(held_out), "goal": goal}
    found["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    found |= surroundings()
    found["crc"] = _crc(*(found[name] for name in ABOUT if name not in ("goal", "crc")))
    return {name: found[name] for name in ABOUT}


def surroundings() -> dict[str, Any]:
    """What the bits of a run may depend on, besides what it is."""
    packages = {name: version(name) for name in ("tinyvae", "numpy", "autograd")}
    name, threads = kernel()
    more = {"python": platform.python_version(), "machine": platform.machine()}
    return packages | more | {"kernel": name, "threads": threads}


def _crc(*values: Any) -> int:
    """CRC-32 of numbers, texts and bytes."""
    crc = 0
    for value in values:
        crc = zlib.crc32(value if isinstance(value, bytes) else repr(value).encode(), crc)
    return crc


def _crc_of_rows(rows: Array) -> int:
    as_read = np.where(np.isnan(rows), np.nan, rows + 0.0)  # SQLite knows one NaN, and no −0.0
    return zlib.crc32(as_read.astype("<f8").tobytes())


def _text(settings: Settings | None) -> str | None:
    return None if settings is None else json.dumps(flat(settings))


def _settings(text: str) -> Settings:
    values = json.loads(text)
    update = Update(**{name: values.pop(name) for name in OF_UPDATE})
    return Settings(update, **values)


def _blind(record: StepRecord) -> tuple[Any, ...]:
    """Of a record without terms, which has to be quick, the columns BLIND."""
    on, norms = record.update, (record.grad_norm_theta, record.grad_norm_phi)
    return record.step, on.theta, on.phi, on.theta_steps, on.phi_steps, record.beta, *norms, record.seconds


def _insert_rows(db: sqlite3.Connection, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Rows of all columns `names`, or of BLIND, and their CRC."""
    block = np.full((len(rows), len(names)), np.nan)
    for some in (names, BLIND):
        at = [k for k, row in enumerate(rows) if len(row) == len(some)]
        values = [rows[k] for k in at]
        marks = ", ".join("?" * len(some))
        db.executemany(f"INSERT OR REPLACE INTO steps ({', '.join(some)}) VALUES ({marks})", values)
        if values:
            block[np.ix_(at, [names.index(name) for name in some])] = np.array(values, dtype=float)
    db.execute("DELETE FROM blocks WHERE last >= ?", (rows[0][0],))
    db.execute("INSERT INTO blocks VALUES (?, ?)", (rows[-1][0], _crc_of_rows(block)))


def _insert_changes(db: sqlite3.Connection, changes: Iterable[tuple[int, int, str, str | None]]) -> None:
    with_crc = ((*change, _crc(*change)) for change in changes)
    db.executemany("INSERT OR REPLACE INTO changes VALUES (?, ?, ?, ?, ?)", with_crc)


def _insert_snapshot(db: sqlite3.Connection, one: Snapshot, evaluate_every: int) -> None:
    theta, phi = one.theta_state, one.phi_state
    vectors = (one.theta, one.phi, theta.m, theta.v, phi.m, phi.v)
    row = (one.step_count, one.draw_count, evaluate_every, _text(one.settings), theta.count, phi.count)
    row += tuple(vector.astype(vector.dtype.newbyteorder("<")).tobytes() for vector in vectors)  # type: ignore[assignment]
    db.execute(f"INSERT OR REPLACE INTO snapshots VALUES ({', '.join('?' * 13)})", (*row, _crc(*row)))


class Recorder:
    """Appends what a trainer does to the file of its run, which ends where the trainer stands; see `record`."""

    def __init__(self, trainer: Trainer, path: str | Path, run: Run | None = None):
        self.trainer, self.path, self.run = trainer, Path(path), run
        self._rows: list[Sequence[Any]] = []
        self._changes: list[tuple[int, int, str, str | None]] = []
        self._snapshots: list[tuple[Snapshot, int]] = []
        self._passing: int | None = None  # the step of a snapshot that the next one replaces
        self._every = trainer.evaluate_every
        self.latest: StepRecord | None = None
        with _writing(self.path):
            self._db: sqlite3.Connection | None = _connect(self.path, "rw", 1.0)
            try:
                self._open(self._db)
            except BaseException:
                self._db.close()
                raise
        self._due, self._snapshot_due = perf_counter() + SECONDS, perf_counter() + SNAPSHOT_SECONDS
        trainer.watcher = self
        atexit.register(self.close)

    def _open(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")  # held as long as the file is open: so a second writer is told
        self.last, changes = db.execute("SELECT max(step), (SELECT max(id) FROM changes) FROM steps").fetchone()
        at = self.trainer.step_count
        expect(at == self.last, "record", f"a trainer at step {self.last}", at)
        self._next_change = 1 + (changes or 0)
        self._names = [row[1] for row in db.execute("PRAGMA table_info(steps)") if row[1] in columns()]
        db.execute("ROLLBACK")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("BEGIN IMMEDIATE")

    # What the trainer tells.

    def step(self, record: StepRecord) -> None:
        """Keep the record of the step that was just made. Raises OSError where the file can no longer be written."""
        if record.step != self.last + 1:
            raise ValueError(f"record: expected step {self.last + 1} of the recorded run, got {record.step}")
        self.last, self.latest = record.step, record
        if record.terms is None:
            self._rows.append(_blind(record))
        else:
            row = record.as_row()
            self._rows.append([row[name] for name in self._names])
        now, every = perf_counter(), self.trainer.evaluate_every
        if self.last % SNAPSHOT_STEPS == 0 or now > self._snapshot_due or every != self._every:
            self._snapshots.append((self.trainer.snapshot(), every))
            self._snapshot_due, self._every = now + SNAPSHOT_SECONDS, every
        if now > self._due:
            self.flush()

    def changed(self, settings: Settings | None, label: str = "") -> None:
        """Other settings from the next step on, or (None) something else to remember of this moment."""
        self._changes.append((self._next_change, self.last, label, _text(settings)))
        self._next_change += 1

    def aim(self, goal: int) -> None:
        """How many steps the run is to have."""
        if self._db is not None:
            self._db.execute("UPDATE run SET value = ? WHERE name = 'goal'", (goal,))

    # What becomes of it.

    def flush(self, when_due: bool = False) -> None:
        """Write what there is; `when_due`: if the last time was a second ago."""
        if self._db is None or (when_due and perf_counter() < self._due):
            return
        self._due = perf_counter() + SECONDS
        if not (self._rows or self._changes):
            return
        try:
            with _writing(self.path):
                self._write(self._db)
        except OSError:
            self._leave()
            raise
        self._rows, self._changes, self._snapshots = [], [], []

    def _write(self, db: sqlite3.Connection) -> None:
        """One transaction. Repeating it changes nothing: a signal may come between its end and the forgetting."""
        try:
            if not db.in_transaction:
                db.execute("BEGIN IMMEDIATE")
            if self._rows:
                _insert_rows(db, self._names, self._rows)
            _insert_changes(db, self._changes)
            for snapshot, every in self._snapshots:
                db.execute("DELETE FROM snapshots WHERE step = ?", (self._passing,))
                _insert_snapshot(db, snapshot, every)
                self._passing = snapshot.step_count if snapshot.step_count % SNAPSHOT_STEPS else None
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        db.execute("BEGIN IMMEDIATE")

    def close(self) -> None:
        """Write the rest and let go of the trainer and the file, which is then one file."""
        try:
            self.flush()
        finally:
            self._leave()

    def _leave(self) -> None:
        db, self._db = self._db, None
        if db is None:
            return
        atexit.unregister(self.close)
        if self.trainer.watcher is self:
            self.trainer.watcher = None
        with contextlib.suppress(sqlite3.Error):  # while another program reads it, or the disk is full
            db.rollback()
            db.execute("PRAGMA journal_mode = DELETE")
        db.close()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


# ----- reading -----


def open_run(path: str | Path) -> "RunFile":
    """The run in a file, to read, to go to any of its steps and to go on.

    Raises OSError where there is no such file, DataError where it is none of ours, damaged, or of a newer version.
    """
    return RunFile(path)


class RunFile:
    """A recorded run: what it is, `about`; its records, and trainers that stand at any of its steps.

    `last` is its last step; `schedule` and `events` say what was changed after which step, `snapshots` at which there
    are some.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with self._reading() as db:
            if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
                raise wrong(self.path, "a run that tinyvae has recorded", "another database")
            if (found := db.execute("PRAGMA user_version").fetchone()[0]) != VERSION:
                older = f"a run file of version {VERSION} or older"
                raise wrong(self.path, older, f"version {found}: tinyvae is too old")
            says = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            count, first, last = db.execute("SELECT count(*), min(step), max(step) FROM steps").fetchone()
            kinds = {kind for (kind,) in db.execute("SELECT type FROM sqlite_master WHERE sql IS NOT NULL")}
            if says != "ok" or first != 0 or count != last + 1 or kinds != {"table"}:
                raise ValueError(says if says != "ok" else "steps are missing")
            self.last = int(last)
            self.about: dict[str, Any] = dict(db.execute("SELECT name, value FROM run"))
            goal = self.about["goal"]
            expect(goal is None or is_whole(goal, 1), "goal", "a number of steps", goal)
            said = [self.about[name] for name in ABOUT if name not in ("goal", "crc")]
            self._unchanged("what it says of the run", (*said, self.about["crc"]))
            changes = db.execute("SELECT * FROM changes ORDER BY id").fetchall()
            for change in changes:
                self._unchanged(f"change {change[0]}", change)
            self.schedule: Schedule = tuple((at, _settings(text)) for _, at, _, text, _ in changes if text)
            self.events = [(at, label) for _, at, label, *_ in changes if label]
            self.snapshots = [int(at) for (at,) in db.execute("SELECT step FROM snapshots ORDER BY step")]
            model = json.loads(self.about["model"])
            model["hidden"] = tuple(model["hidden"])
            precision = self.about["precision"]
            self.origin = Origin(VAE(**model), int(self.about["seed"]), precision, self.about["data"])
            self.config: Config | None = None
            self.as_said = True  # whether the run began with the weights of its config; once `open` has looked
            if self.about["config"] is not None:
                said = json.loads(self.about["config"])
                lists = {k: tuple(v) for k, v in said.items() if isinstance(v, list)}
                self.config = Config(**{**said, **lists, "update": Update(**said["update"])})
            expect(self.snapshots[:1] == [0], "snapshots", "one of step 0", self.snapshots[:1])

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the file, whoever writes to it meanwhile; what is damaged becomes a DataError."""
        try:
            with contextlib.closing(_connect(self.path, "ro")) as db:
                db.execute("BEGIN")
                yield db
        except DataError:
            raise
        except (sqlite3.Error, ValueError, TypeError, LookupError, ArithmeticError) as problem:
            says = " ".join(str(problem).split())
            got = f"a damaged file, or none: {says}"
            raise wrong(self.path, "a run that tinyvae has recorded", got) from None

    def _unchanged(self, what: str, row: tuple[Any, ...]) -> None:
        if _crc(*row[:-1]) != row[-1]:
            raise ValueError(f"{what} is not as it was written")

    # ----- what was recorded -----

    def columns(self) -> dict[str, Array]:
        """The records as columns, (steps + 1,) each; row k is the state after k steps, NaN what was not evaluated."""
        return dict(zip(columns(), self.rows().T))

    def rows(self) -> Array:
        """The same as one array, (steps + 1, columns)."""
        found, first, wanted = np.full((self.last + 1, len(columns())), np.nan), 0, list(columns())
        with self._reading() as db:
            names = [row[1] for row in db.execute("PRAGMA table_info(steps)")]
            known = [k for k, name in enumerate(names) if name in wanted]
            places = [wanted.index(names[k]) for k in known]
            blocks = db.execute("SELECT last, crc FROM blocks WHERE last <= ? ORDER BY last", (self.last,))
            rows = db.execute(f"SELECT {', '.join(names)} FROM steps ORDER BY step")
            for last, crc in blocks:
                block = np.array(rows.fetchmany(last + 1 - first), dtype=float)
                if _crc_of_rows(block) != crc:
                    raise ValueError(f"the records of steps {first} to {last} are not as they were written")
                found[first : last + 1, places] = block[:, known]
                first = last + 1
            if first != self.last + 1:
                raise ValueError(f"the records from step {first} on have no CRC")
        return found

    def snapshot(self, step: int | None = None) -> tuple[Snapshot, int]:
        """The last snapshot at or before a step (None: the last step), and evaluate_every of then."""
        step = self.last if step is None else step
        expect(0 <= step <= self.last, "step", f"one from 0 to {self.last}", step)
        query = "SELECT * FROM snapshots WHERE step <= ? ORDER BY step DESC LIMIT 1"
        with self._reading() as db:
            row = db.execute(query, (step,)).fetchone()
            self._unchanged(f"the snapshot of step {row[0]}", row)
            at, draws, every, settings, theta_count, phi_count, *blobs, _ = row
            kind = np.dtype(self.origin.precision)
            vectors = [np.frombuffer(blob, kind.newbyteorder("<")).astype(kind) for blob in blobs]
            theta, phi, theta_m, theta_v, phi_m, phi_v = vectors
            states = State(theta_m, theta_v, theta_count), State(phi_m, phi_v, phi_count)
            return Snapshot(self.origin, _settings(settings), theta, phi, *states, at, draws), every

    # ----- the run itself -----

    def open(self) -> Run:
        """The run at its step 0. Raises DataError where its data are no longer what they were, OSError where gone."""
        config = self.config
        if config is None:
            raise wrong(self.path, "a run made by a Config", "one made from arrays: give a trainer of the same")
        if (file := self.about["data_file"]) and not os.path.exists(os.path.expanduser(config.dataset)):
            config = replace(config, dataset=json.loads(file))
        run = config.open()
        first = run.trainer.theta.tobytes(), run.trainer.phi.tobytes()
        self._go_to(0, run.trainer)
        start, _ = self.snapshot(0)
        run.trainer.settings = start.settings  # what was changed before the first step comes later
        self.as_said = first == (run.trainer.theta.tobytes(), run.trainer.phi.tobytes())
        return run

    def at(self, step: int | None = None, trainer: Trainer | None = None) -> Trainer:
        """A trainer as the run was after `step` steps (None: the last), bit for bit, with the settings from then on.

        trainer: one of the same model, data and seed, where the run was not made by a Config.
        """
        trainer = self.open().trainer if trainer is None else trainer
        self._go_to(self.last if step is None else step, trainer)
        return trainer

    def _go_to(self, step: int, trainer: Trainer) -> None:
        snapshot, every = self.snapshot(step)
        for vector, found in ((trainer.theta, snapshot.theta), (trainer.phi, snapshot.phi)):
            expect(vector.shape == found.shape, str(self.path), f"{vector.size} parameters", found.size)
        trainer.restore(snapshot)
        held_out = None if trainer.held_out is None else digest(trainer.held_out)
        mine = {"evaluated": digest(trainer.evaluation_x), "held_out": held_out, "gradients": trainer.gradients}
        for name, value in mine.items():
            expect(value == self.about[name], name, f"as in {self.path.name}, {self.about[name]}", value)
        trainer.evaluate_every = 0
        for _ in scheduled_steps(trainer, self.schedule, step - trainer.step_count):
            pass
        trainer.evaluate_every = every
        for at, settings in self.schedule:
            if at == step:
                trainer.settings = settings

    def resume(self, trainer: Trainer | None = None, goal: int | None = None) -> Recorder:
        """Go on bit for bit as if the run had never stopped, and record that in the file; `.trainer` is what goes on.

        Raises BlockingIOError where another program is recording to it, and what `at` and `open` raise.
        """
        self.rows()  # are as they were written, or nothing is added to them
        run = None if trainer else self.open()
        trainer = trainer or run.trainer  # type: ignore[union-attr]
        self._go_to(self.last, trainer)
        recorder = Recorder(trainer, self.path, run)
        if goal is not None:
            recorder.aim(goal)
        if differing := self.differences():
            recorder.changed(None, f"resumed ({differing})")
        return recorder

    def differences(self) -> str:
        """What is not as it was when the run began, and may change its bits from here on; "" if nothing is."""
        now = {name: str(value) for name, value in surroundings().items()}
        then = {name: str(self.about.get(name)) for name in MAY_DIFFER}
        return ", ".join(f"{k} {then[k]} then and {now[k]} now" for k in MAY_DIFFER if then[k] != now[k])
