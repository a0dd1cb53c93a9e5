"""What a step leaves behind: its record, and files with one record a row."""

import contextlib
import csv
import errno
import io
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .evaluation import Attribution
from .exact import TERMS, MeanTerms
from .settings import Update

try:
    import fcntl
except ImportError:  # Windows: there two writers are not told of each other
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class StepRecord:
    """What one step did. `terms` and what is derived from them are None where nothing was evaluated."""

    step: int  # counted from 1: the state after this many steps
    update: Update
    beta: float  # the weight of kl_prior in what the step followed
    terms: MeanTerms | None  # after the step, over the evaluation set
    attribution: Attribution | None  # what θ and what φ changed in this step
    target_moved: float | None  # mean KL(p_θ(z|x) ‖ p_θ'(z|x)) over this step, nats
    held_out_log_px: float | None  # mean over points that are not trained on, where it was taken
    grad_norm_theta: float | None  # of the (last) minibatch gradient; None for a group that did not move
    grad_norm_phi: float | None
    seconds: float  # the step alone, without the evaluation

    def as_row(self) -> dict[str, Any]:
        """One flat row for a table or a file, always with the same keys; None where nothing was evaluated."""
        row: dict[str, Any] = {"step": self.step}
        row |= {name: getattr(self.terms, name, None) for name in MeanTerms.__annotations__}
        for group in ("theta", "phi"):
            changes = getattr(self.attribution, group, None)
            row |= {f"{term}_by_{group}": getattr(changes, term, None) for term in TERMS}
        row |= {"target_moved": self.target_moved, "held_out_log_px": self.held_out_log_px}
        row |= {"theta_on": self.update.theta, "phi_on": self.update.phi}
        row |= {"theta_steps": self.update.theta_steps, "phi_steps": self.update.phi_steps, "beta": self.beta}
        row |= {"grad_norm_theta": self.grad_norm_theta, "grad_norm_phi": self.grad_norm_phi}
        return row | {"seconds": self.seconds}


FORMATS = (".jsonl", ".csv")
SWITCHES = ("theta_on", "phi_on")  # columns that are true or false,
COUNTS = ("step", "theta_steps", "phi_steps")  # and those that are whole numbers; the others are floats


class RecordWriter:
    """Writes one record a step to a .jsonl or .csv file.

    What was not evaluated is empty in CSV and null in JSON, which knows no infinity either; switches are 1 and 0
    in CSV. Raises ValueError for another suffix, FileExistsError where something is written there already (unless
    `overwrite`), BlockingIOError while another writer has the file open, and OSError where it cannot be written: the
    file then ends with its last whole record.
    """

    def __init__(self, path: str | Path, overwrite: bool = False):
        self.path = Path(path)
        if self.path.suffix not in FORMATS:
            raise ValueError(f"out: expected a file ending in {' or '.join(FORMATS)}, got {str(path)!r}")
        self.count = self._length = 0
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            self._take(overwrite)
        except BaseException:
            os.close(self._file)
            raise

    def _take(self, overwrite: bool) -> None:
        """Lock the file and make it empty; a device or a pipe is written to as it is."""
        found = os.fstat(self._file)
        self._regular = stat.S_ISREG(found.st_mode)
        if not self._regular:
            return
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                says = "another program is writing to it"
                raise BlockingIOError(errno.EWOULDBLOCK, says, str(self.path)) from None
        if os.fstat(self._file).st_size and not overwrite:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.path))
        os.ftruncate(self._file, 0)

    def write(self, record: StepRecord) -> None:
        """The record is with the system when this returns: whole, or an OSError says why not at all."""
        self.write_row(record.as_row())

    def write_row(self, row: Mapping[str, Any]) -> None:
        """A row as `StepRecord.as_row` gives it; numbers may have become floats and None NaN."""
        self._append(self._text(row))
        self.count += 1

    def _append(self, text: str) -> None:
        rest = text.encode()
        end = self._length + len(rest)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except BaseException as problem:  # a full disk takes a part of a row; so would a signal leave one
            if self._regular:
                os.ftruncate(self._file, self._length)
                os.lseek(self._file, self._length, os.SEEK_SET)
            if isinstance(problem, OSError):
                problem.filename = str(self.path)
            raise
        self._length = end

    def _text(self, row: Mapping[str, Any]) -> str:
        values = {name: _plain(name, value) for name, value in row.items()}
        if self.path.suffix == ".csv":
            text = io.StringIO()
            writer = csv.DictWriter(text, values)
            if self.count == 0:
                writer.writeheader()
            writer.writerow({k: int(v) if isinstance(v, bool) else v for k, v in values.items()})
            return text.getvalue()
        finite = {k: v if v is None or math.isfinite(v) else None for k, v in values.items()}
        return json.dumps(finite) + "\n"

    def close(self) -> None:
        if self._file >= 0:
            with contextlib.suppress(
                OSError
            ):  # a full disk was reported by `write`; closing would say it again
                os.close(self._file)
            self._file = -1

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _plain(name: str, value: Any) -> Any:
    if value is None or math.isnan(value):
        return None
    return bool(value) if name in SWITCHES else int(value) if name in COUNTS else float(value)
