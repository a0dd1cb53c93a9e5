"""`tinyvae train`: the run of the app without its screen, and the one line that says how it ended."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tinyvae import Diverged, StepRecord
from tinyvae.records import RecordWriter
from tinyvae.references import references
from tinyvae.runs import Config, Run, Schedule, scheduled_steps

from .exit_codes import BAD_INPUT, DIVERGED, GOOD, INTERRUPTED
from .terms import ELBO, LOG_PX, TERMS

COLUMNS = sorted(TERMS, key=lambda key: key not in (LOG_PX.key, ELBO.key))  # the bound and what it bounds first


def one_line(row: dict[str, Any], name: str) -> str:
    """The terms of one record on one line."""
    if row.get("log_px") is None:
        return f"{name} step {int(row['step'])}: not evaluated"
    terms = "  ".join(f"{term} {row[term]:.4f}" for term in COLUMNS)
    return f"{name} step {int(row['step'])}: {terms}  residual {row['residual']:.0e}  error {row['error']:.0e}"


def train(config: Config, steps: int, out: str | None, schedule: Schedule = ()) -> int:
    """Train for `steps` steps; returns the exit code. Bad input raises ValueError or OSError."""
    run = config.open()
    trainer, name, console = run.trainer, run.data.name, Console()
    if out and Path(out).resolve() == Path(config.dataset).resolve():
        raise ValueError(f"out: expected another file than the data, got {out}")
    first = last = trainer.record()
    writer = RecordWriter(out) if out else None
    live = _LiveLines(console, name, steps) if console.is_terminal else _PlainLines(console, name, steps)
    worst_residual = abs(first.terms.residual) if first.terms else 0.0
    code, done = GOOD, 0
    try:
        if writer:
            writer.write(first)
        with live:
            for record in scheduled_steps(trainer, schedule, steps):
                if writer:
                    writer.write(record)
                done = record.step
                if record.terms:
                    last = record
                    worst_residual = max(worst_residual, abs(record.terms.residual))
                live.show(record)
    except KeyboardInterrupt:
        code = INTERRUPTED
        print(f"tinyvae: interrupted after step {done}", file=sys.stderr)
    except Diverged as problem:
        code = DIVERGED
        print(f"tinyvae: the run diverged at {problem}", file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError as problem:
        if writer is None:
            raise
        code = BAD_INPUT
        print(f"tinyvae: writing {out} failed after step {done}: {problem.strerror}", file=sys.stderr)
    finally:
        if writer:
            writer.close()
    _summary(console, run, first, last, worst_residual)
    if writer:
        print(f"{writer.count} records in {writer.path}")
    return code


def _summary(console: Console, run: Run, first: StepRecord, last: StepRecord, worst_residual: float) -> None:
    trainer, name = run.trainer, run.data.name
    if first.terms is None or last.terms is None:
        return
    table = Table(title=f"{name}: nats per data point", title_justify="left")
    for heading in ("term", f"step {first.step}", f"step {last.step}", "change"):
        table.add_column(heading, justify="left" if heading == "term" else "right")
    for term in COLUMNS:
        start, end = getattr(first.terms, term), getattr(last.terms, term)
        table.add_row(term, f"{start:.4f}", f"{end:.4f}", f"{end - start:+.4f}")
    table.add_section()
    fresh = trainer.held_out_log_px()
    if first.held_out_log_px is not None and fresh is not None:
        start, kind = first.held_out_log_px, "held-out rows" if run.data.truth is None else "fresh points"
        table.add_row(f"log_px of {kind}", f"{start:.4f}", f"{fresh:.4f}", f"{fresh - start:+.4f}")
    for reference in references(run.data, trainer.evaluation_x):
        table.add_row(f"log_px of {reference.name}", "", f"{reference.log_px:.4f}", "")
    console.print(table)
    console.print(
        f"the identity closed to {worst_residual:.0e} at every record; "
        f"last certified error {last.terms.error:.0e}",
        highlight=False,
    )


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
            TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=console,
        )  # fmt: skip
        self.task = self.progress.add_task(name, total=steps)
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
