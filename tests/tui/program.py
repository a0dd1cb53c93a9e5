"""The program as tests call it: in process, its one line of complaint, and the records that it wrote."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tinyvae.tui.cli import main

QUICK = ["--points", "40", "--hidden", "8", "--batch", "16"]


def run(*arguments: str) -> int:
    """The exit code of `tinyvae ARGUMENTS`."""
    try:
        return main(arguments)
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        return stop.code


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The one line that a mistake must be answered with."""
    assert run(*arguments) == code
    line = capsys.readouterr().err
    assert re.fullmatch(r"tinyvae: \S.*\n", line), line
    return line


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a .csv or .jsonl file; an empty CSV cell is None."""
    with open(path, encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in file]
        rows = list(csv.DictReader(file))
    return [{name: float(cell) if cell else None for name, cell in row.items()} for row in rows]


class Child:
    """`python -m tinyvae` as a user starts it, its stdout and stderr going to pipes."""

    def __init__(self, *arguments: str):
        # Where SIGINT is ignored (a job in the background), a child would ignore it, too.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        command = [sys.executable, "-m", "tinyvae", *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, encoding="utf-8"
        )
        signal.signal(signal.SIGINT, before)

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err
