"""Recorded runs: where the app keeps them, and the commands that list, go on with, replay and export them."""

import argparse
import os
import re
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from tinyvae import open_run
from tinyvae.runfile import RunFile, alone, columns
from tinyvae.runs import Config

from .console import Console
from .exit_codes import GOOD
from .history import History
from .output import printable
from .session import Session

KEPT = 10  # of the runs that nobody has given a name
ENDING = ".sqlite"
UNNAMED = re.compile(r".*-\d{8}-\d{6}(-\d+)?\.sqlite")  # as `automatic` names them


def folder() -> Path:
    """Where the app's runs are: $TINYVAE_RUNS, or the user's state folder."""
    if chosen := os.environ.get("TINYVAE_RUNS"):
        return Path(chosen)
    from platformdirs import user_state_path

    return user_state_path("tinyvae") / "runs"


def free(path: Path) -> Path:
    """This path, or the first of PATH-2, PATH-3, … that is not taken."""
    taken, count = path, 1
    while taken.exists():
        count += 1
        taken = path.with_stem(f"{path.stem}-{count}")
    return taken


def automatic(name: str) -> Path:
    """A new file for a run of this data in the folder, where older unnamed ones make room for it."""
    folder().mkdir(parents=True, exist_ok=True)
    prune()
    name = re.sub(r"[^\w.]+", "-", Path(name).stem)[:40]
    return free(folder() / f"{name}-{datetime.now():%Y%m%d-%H%M%S}{ENDING}")


def prune() -> None:
    """Leave room for one among the last ten unnamed runs; those that are being recorded stay in any case."""
    unnamed = [path for path in listed() if UNNAMED.fullmatch(path.name)]
    for path in unnamed[: max(0, len(unnamed) - KEPT + 1)]:
        with suppress(BlockingIOError), alone(path):
            for part in (
                path,
                *path.parent.glob(f"{path.name}-*"),
            ):  # a kill has left its newest part beside it
                part.unlink(missing_ok=True)


def listed() -> list[Path]:
    """The runs in the folder, the oldest first."""
    with suppress(OSError):
        return sorted(folder().glob(f"[!.]*{ENDING}"), key=lambda path: path.stat().st_mtime)
    return []


def find(name: str | None) -> Path:
    """The file of a run: a path, or the name of one in the folder; None for the last of them."""
    if name is None:
        if not (runs := listed()):
            raise ValueError(f"replay: expected a recorded run, there is none in {folder()}")
        return runs[-1]
    inside = folder() / (name if name.endswith(ENDING) else name + ENDING)
    return (
        inside if not os.path.exists(os.path.expanduser(name)) and inside.exists() else Path(name).expanduser()
    )


def is_open(path: Path) -> bool:
    try:
        with alone(path):
            return False
    except BlockingIOError:
        return True


# ----- commands -----


def runs(args: argparse.Namespace) -> int:
    """`tinyvae runs`: list them, give one a name, or say what the columns of a file mean."""
    if args.what == "columns":
        show_columns()
    elif args.what == "keep":
        if len(args.names) != 2:
            raise ValueError(f"runs keep: expected a run and a name for it, got {len(args.names)} words")
        keep(*args.names)
    else:
        show_list()
    return GOOD


def keep(run: str, name: str) -> None:
    """Give a run a name, under which it stays for good."""
    path = find(run)
    new = path.with_name(Path(name).name + ("" if name.endswith(ENDING) else ENDING))
    if UNNAMED.fullmatch(new.name) or not new.stem:
        raise ValueError(f"runs keep: expected a name that is not a date, got {name!r}")
    if new.exists():
        raise ValueError(f"runs keep: expected a new name, got {name}, which is there already")
    with alone(path) as db:
        db.execute("ROLLBACK")
        db.execute("PRAGMA journal_mode = DELETE")  # what a kill has left beside it comes into it
    path.rename(new)
    print(f"kept: {printable(new)}")


def show_list() -> None:
    table = Table(box=None, header_style="bold")
    for heading in ("run", "data", "steps", "begun (UTC)", "size", ""):
        table.add_column(heading, justify="right" if heading in ("steps", "size") else "left", overflow="fold")
    for path in reversed(listed()):
        name, size = Text(printable(path.stem)), f"{path.stat().st_size / 1e6:.1f} MB"
        try:
            run = open_run(path)
        except (ValueError, OSError):
            table.add_row(name, "", "", "", size, "damaged")
            continue
        state = "being recorded" if is_open(path) else "" if UNNAMED.fullmatch(path.name) else "kept"
        data = Text(printable("?" if run.config is None else run.config.dataset))
        table.add_row(name, data, f"{run.last}", str(run.about["created"])[:16].replace("T", " "), size, state)
    console = Console(highlight=False)
    console.print(table if table.rows else f"no runs in {printable(folder())}", markup=False)


def show_columns() -> None:
    """The tables of a file (the documentation of `runfile`), and each column of its records."""
    from tinyvae import runfile

    print(runfile.__doc__)
    rows = [(f"steps.{name}", unit, meaning) for name, (unit, meaning) in columns().items()]
    rows += [(f"run: {name}", "", meaning) for name, meaning in runfile.ABOUT.items()]
    table = Table("column", "unit", "meaning", box=None, header_style="bold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def export(args: argparse.Namespace) -> int:
    """`tinyvae export FILE --to KIND --out PATH`."""
    path, history = Path(args.out).expanduser(), History.of(open_run(find(args.file)))
    if path.suffix != f".{args.to}":
        raise ValueError(f"export: expected a file ending in .{args.to}, got {args.out}")
    if path.exists() and not args.force:
        raise ValueError(f"export: expected a new file, got {args.out}, which is there already (--force)")
    history.write(path)
    print(f"{len(history)} records in {printable(path)}")
    return GOOD


def resume(args: argparse.Namespace) -> int:
    """`tinyvae resume FILE` without a screen."""
    from .headless import go_on

    recorded = open_run(find(args.file))
    name, asked = printable(recorded.path), recorded.about["goal"]
    if args.steps is None and asked is None:
        raise ValueError(f"resume: {name} stands at step {recorded.last}; --steps N says how far to go")
    if (args.steps or asked) <= recorded.last:
        print(f"{name} is finished: it stands at step {recorded.last}. --steps N goes further.")
        return GOOD
    warn(recorded)
    return go_on(recorded, args.steps or asked)


def certify(args: argparse.Namespace) -> int:
    """`tinyvae certify RUN`: what is proven at its end, or after `--steps`."""
    from .headless import say_what_is_proven

    recorded = open_run(find(args.file))
    run = recorded.open()
    recorded.at(args.steps, run.trainer)
    return say_what_is_proven(run)


def warn(recorded: RunFile) -> None:
    """Where a run goes on in other surroundings than it began in."""
    if differing := recorded.differences():
        print(f"tinyvae: the bits may differ from here on: {printable(differing)}", file=sys.stderr)


def session_of(args: argparse.Namespace) -> tuple[Session, Config]:
    """For the app: the run of `tinyvae replay RUN OTHER` or `tinyvae resume RUN --app`, with its whole history."""
    append = args.command == "resume"
    recorded = open_run(find(args.file))
    session = Session.of_file(recorded, args.speed, append)
    if append:
        session.until = args.steps
        warn(recorded)
    elif args.other is not None:
        session.other = History.of(open_run(find(args.other)))
    return session, session.config
