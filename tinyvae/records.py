"""What a step leaves behind: its record, and files with one record a row."""

import contextlib
import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .evaluation import Attribution
from .exact import TERMS, MeanTerms
from .settings import Update


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
    in CSV. Raises ValueError for another suffix and OSError where the file cannot be written; what was written
    before stays.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if self.path.suffix not in FORMATS:
            raise ValueError(f"out: expected a file ending in {' or '.join(FORMATS)}, got {str(path)!r}")
        self.count = 0
        self._file: IO[str] = open(self.path, "w", newline="", encoding="utf-8")  # noqa: SIM115 (close() does)

    def write(self, record: StepRecord) -> None:
        """The record is on disk when this returns."""
        self.write_row(record.as_row())
        self._file.flush()

    def write_row(self, row: Mapping[str, Any]) -> None:
        """A row as `StepRecord.as_row` gives it; numbers may have become floats and None NaN."""
        values = {name: _plain(name, value) for name, value in row.items()}
        if self.path.suffix == ".csv":
            writer = csv.DictWriter(self._file, values)
            if self.count == 0:
                writer.writeheader()
            writer.writerow({k: int(v) if isinstance(v, bool) else v for k, v in values.items()})
        else:
            finite = {k: v if v is None or math.isfinite(v) else None for k, v in values.items()}
            self._file.write(json.dumps(finite) + "\n")
        self.count += 1

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk was reported by `write`; closing would say it again
            self._file.close()

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _plain(name: str, value: Any) -> Any:
    if value is None or math.isnan(value):
        return None
    return bool(value) if name in SWITCHES else int(value) if name in COUNTS else float(value)
