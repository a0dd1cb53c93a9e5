"""`tinyvae train`: the run of the app without its screen, and the one line that says how it ended."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tinyvae import Diverged, StepRecord
from tinyvae import record as begin_to_record
from tinyvae.records import RecordWriter
from tinyvae.references import references
from tinyvae.runfile import Recorder, RunFile
from tinyvae.runs import Config, Run, Schedule, scheduled_steps, share

from .console import Console
from .exit_codes import BAD_INPUT, DIVERGED, GOOD
from .output import last_words, printable
from .signals import SAYS, exit_code
from .terms import ELBO, LOG_PX, TERMS, error_of, standing

COLUMNS = sorted(TERMS, key=lambda key: key not in (LOG_PX.key, ELBO.key))  # the bound and what it bounds first


def one_line(row: dict[str, Any], name: str) -> str:
    """The terms of one record on one line."""
    name = printable(name)
    if row.get("log_px") is None:
        return f"{name} step {int(row['step'])}: not evaluated"
    terms = "  ".join(f"{term} {row[term]:.4f}" for term in COLUMNS)
    errors = f"residual {row['residual']:.0e}  {standing(row) or 'uncertain'} to {error_of(row):.0e}"
    return f"{name} step {int(row['step'])}: {terms}  {errors}"


def opening_lines(run: Run) -> list[str]:
    """Of a person's own file: what was taken of it, and what to know about it, a line each."""
    return [] if run.data.truth is not None else [run.data.description, *run.data.notes]


def train(
    config: Config,
    steps: int,
    out: str | None,
    schedule: Schedule = (),
    force: bool = False,
    into: str | None = None,
) -> int:
    """Train for `steps` steps; returns the exit code. Bad input raises ValueError or OSError.

    out: a file for one record a step; into: the file in which the run is recorded.
    """
    run = config.open()
    for line in opening_lines(run):
        print(printable(line))
    file = None if into is None else new_file(into)
    if out is not None and file is not None and Path(out).expanduser().resolve() == file.resolve():
        raise ValueError(f"out: expected another file than that of --record, got {out}")
    writer = None if out is None else _open(out, config.dataset, force)
    recorder = None if file is None else begin_to_record(run.trainer, file, goal=steps)
    for at, settings in schedule:
        if at == 0:
            run.trainer.settings = settings
    return _train(run, steps, schedule, writer, recorder)


def new_file(name: str) -> Path:
    """A path where nothing is yet."""
    if (path := Path(name).expanduser()).exists():
        raise ValueError(
            f"record: expected a new file, got {name}, which is there already (tinyvae resume goes on)"
        )
    return path


def go_on(recorded: RunFile, goal: int) -> int:
    """The rest of a recorded run, up to its step `goal`."""
    recorder = recorded.resume(goal=goal)
    assert recorder.run is not None
    steps = goal - recorded.last
    return _train(recorder.run, steps, recorded.schedule, None, recorder, recorded.as_said)


def _train(
    run: Run,
    steps: int,
    schedule: Schedule,
    writer: RecordWriter | None,
    recorder: Recorder | None,
    as_said: bool = True,
) -> int:
    trainer, name, console = run.trainer, run.data.name, Console()
    first = last = trainer.record()
    files = [str(one.path) for one in (writer, recorder) if one is not None]
    begun, end = trainer.step_count, trainer.step_count + steps
    live = _LiveLines(console, name, end) if console.is_terminal else _PlainLines(console, name, steps)
    tally, code, done, problem = Tally(), GOOD, begun, ""
    tally.add(first)
    try:
        if writer:
            writer.write(first)
        with live:
            if steps == 1:
                trainer.certify_every = 1
            for record in scheduled_steps(trainer, schedule, steps):
                if record.step == end - 1:  # the last record says what can be proven
                    trainer.certify_every = 1
                if writer:
                    writer.write(record)
                done = record.step
                tally.add(record)
                last = record if record.terms else last
                live.show(record)
            if last.step < done:  # the terms of the end, whatever was looked at on the way
                last = replace(trainer.record(), terms=trainer.certified().terms)
                tally.add(last)
        if recorder:
            recorder.close()
    except KeyboardInterrupt as stop:
        code, problem = exit_code(stop), f"{SAYS[exit_code(stop)]} after step {done}"
    except Diverged as diverged:
        code, problem = DIVERGED, f"the run diverged at {diverged}"
    except OSError as failed:
        if failed.filename not in files:  # it is the output that fails
            raise
        code = BAD_INPUT
        problem = f"writing {printable(failed.filename)} failed after step {done}: {failed.strerror}"
    finally:
        for file in (writer, recorder):
            if file is not None:
                file.close()
    with last_words(code):
        if problem:
            print(f"tinyvae: {problem}", file=sys.stderr)
        _summary(console, run, first, last, tally)
        if writer:
            print(f"{writer.count} records in {printable(writer.path)}")
        if recorder:
            print(f"recorded up to step {recorder.last}: tinyvae replay {printable(recorder.path)}")
        if as_said:
            changes = tuple(change for change in schedule if change[0] < trainer.step_count)
            print(f"the same run again: tinyvae --share {share(run.resolved, changes, trainer.step_count)}")
    return code


def certify(config: Config, schedule: Schedule, steps: int) -> int:
    """Train without looking, and prove the terms at the end; returns the exit code."""
    run = config.open()
    run.trainer.evaluate_every = 0
    for at, settings in schedule:
        if at == 0:
            run.trainer.settings = settings
    try:
        for _ in scheduled_steps(run.trainer, schedule, steps):
            pass
        return say_what_is_proven(run)
    except Diverged as diverged:
        return complain_of(diverged)


def complain_of(diverged: Diverged) -> int:
    print(f"tinyvae: the run diverged at {diverged}", file=sys.stderr)
    return DIVERGED


def say_what_is_proven(run: Run) -> int:
    """The terms where the run stands, and within what they are proven."""
    terms, step = run.trainer.certified().terms, run.trainer.step_count
    points, tolerance = len(run.trainer.evaluation_x), run.trainer.tolerance
    table = Table(
        title=Text(f"{printable(run.data.name)}, step {step}: nats per data point"), title_justify="left"
    )
    table.add_column("term")
    table.add_column("mean", justify="right")
    for term in COLUMNS:
        table.add_row(term, f"{getattr(terms, term):.6f}")
    console = Console()
    console.print(table)
    proven = round(terms.certified * points)
    within = f"every term of every point is proven to within {terms.proven_error:.0e}"
    if proven < points:
        within = f"the worst of the others to within {terms.proven_error:.0e}"
    console.print(f"certified to {tolerance:.0e}: {proven} of {points} points; {within}", highlight=False)
    return GOOD


def _open(out: str, data: str, force: bool) -> RecordWriter:
    """The file for the records. What is in it already is never lost without a word, the data never at all."""
    path = Path(out).expanduser()
    source = Path(data).expanduser()
    if path.exists() and source.exists() and os.path.samefile(path, source):  # a link to it is it, too
        raise ValueError(f"out: expected another file than the data, got {out}")
    try:
        return RecordWriter(path, overwrite=force)
    except FileExistsError:
        if not _agreed(f"{printable(out)} is there already. Overwrite it?"):
            raise ValueError(f"out: expected a new file, got {out}, which is there already (--force)") from None
        return RecordWriter(path, overwrite=True)


def _agreed(question: str) -> bool:
    """Whether a person at a terminal says yes; without one it is no."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _summary(console: Console, run: Run, first: StepRecord, last: StepRecord, tally: "Tally") -> None:
    trainer, name = run.trainer, run.data.name
    if first.terms is None or last.terms is None:
        return
    table = Table(title=Text(f"{printable(name)}: nats per data point"), title_justify="left")
    for heading in ("term", f"step {first.step}", f"step {last.step}", "change"):
        table.add_column(heading, justify="left" if heading == "term" else "right")
    for term in COLUMNS:
        start, end = getattr(first.terms, term), getattr(last.terms, term)
        table.add_row(term, f"{start:.4f}", f"{end:.4f}", f"{end - start:+.4f}")
    table.add_section()
    fresh = trainer.held_out_log_px() if last.step == trainer.step_count else None
    if first.held_out_log_px is not None and fresh is not None:
        start, kind = first.held_out_log_px, "held-out rows" if run.data.truth is None else "fresh points"
        table.add_row(f"log_px of {kind}", f"{start:.4f}", f"{fresh:.4f}", f"{fresh - start:+.4f}")
    for reference in references(run.data, trainer.evaluation_x):
        table.add_row(f"log_px of {reference.name}", "", f"{reference.log_px:.4f}", "")
    console.print(table)
    console.print(tally.says(trainer.tolerance), highlight=False)


@dataclass
class Tally:
    """What can be said of the errors of all records of a run."""

    residual: float = 0.0  # the worst
    certified: int = 0  # records of which every data point is,
    checked: int = 0  # and those of which the others are checked
    neither: int = 0
    points: float = 0.0  # the largest share of data points in a record that were neither

    def add(self, record: StepRecord) -> None:
        if record.terms is None:
            return
        self.residual = max(self.residual, abs(record.terms.residual))
        self.points = max(self.points, 1 - record.terms.checked)
        word = standing(vars(record.terms)) or "neither"
        setattr(self, word, getattr(self, word) + 1)

    def says(self, tolerance: float) -> str:
        words = [f"{self.certified} certified"] if self.certified else []
        words += [f"{self.checked} checked"] if self.checked else []
        if self.neither:
            words += [f"{self.neither} neither (up to {100 * self.points:.0f} % of the points)"]
        closes = (
            "the identity closed to" if self.residual <= tolerance else "the identity does not close: it misses"
        )
        return f"{closes} {self.residual:.0e}; evaluated records: {', '.join(words)}"


class _PlainLines:
    """For a file or a pipe: about twenty lines, without control characters."""

    def __init__(self, console: Console, name: str, steps: int):
        self.console, self.name, self.every, self.next = console, name, max(1, steps // 20), 1

    def show(self, record: StepRecord) -> None:
        if record.terms and record.step >= self.next:
            print(one_line(record.as_row(), self.name), flush=True)
            self.next = record.step - record.step % self.every + self.every

    def __enter__(self) -> "_PlainLines":
        return self

    def __exit__(self, *_: Any) -> None:
        pass


class _LiveLines:
    """For a terminal: a progress bar with the terms below it."""

    def __init__(self, console: Console, name: str, steps: int):
        self.progress = Progress(
            TextColumn("{task.description}", style="bold", markup=False), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), console=console,
        )  # fmt: skip
        self.task = self.progress.add_task(printable(name), total=steps)
        self.live = Live(self.progress, console=console, refresh_per_second=10)

    def show(self, record: StepRecord) -> None:
        self.progress.update(self.task, completed=record.step)
        if record.terms is None:
            return
        table = Table.grid(padding=(0, 2))
        table.add_row(*(f"[dim]{term}" for term in COLUMNS), "[dim]residual")
        values = (f"{getattr(record.terms, term):.4f}" for term in COLUMNS)
        table.add_row(*values, f"{record.terms.residual:.0e}")
        whole = Table.grid()
        whole.add_row(self.progress)
        whole.add_row(table)
        self.live.update(whole)

    def __enter__(self) -> "_LiveLines":
        self.live.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.live.__exit__(*exc)
