"""The records of a run as columns: what the charts read, and what rewinding needs.

One row a step in one float64 array that doubles when it is full: row k is the state after step k, row 0 the
start. Snapshots of the parameters are kept at intervals; when there are many, every second one goes, so
that rewinding stays exact and memory grows by little more than the columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyvae import StepRecord
from tinyvae.records import RecordWriter
from tinyvae.runfile import RunFile, columns
from tinyvae.settings import Settings
from tinyvae.training import Snapshot

Array = NDArray[np.float64]
MAX_SNAPSHOTS = 128


@dataclass(frozen=True)
class Event:
    """Something the user changed after a step, for a mark in the charts."""

    step: int
    label: str
    switch: bool = False  # θ or φ was turned on or off


class History:
    """Rows of numbers by step; None in a record becomes NaN."""

    name = ""  # of a run that another one is compared with

    def __init__(self, first: StepRecord | None = None):
        self.names = tuple(columns())
        self._place = {name: k for k, name in enumerate(self.names)}
        self._rows: Array = np.empty((1024, len(self.names)))
        self._length = 0
        self.events: list[Event] = []
        self.snapshots: list[Snapshot] = []
        self.schedule: list[tuple[int, Settings]] = []  # after which step which settings came into force
        self.interval = 16
        if first is not None:
            self.append(first)

    @classmethod
    def of(cls, recorded: RunFile) -> "History":
        """All that a file holds of a run."""
        history = cls()
        history._rows, history._length = np.asarray(recorded.rows(), float), recorded.last + 1
        history.name = recorded.path.stem
        history.events, history.schedule = [Event(*event) for event in recorded.events], [*recorded.schedule]
        for step in recorded.snapshots:
            history.keep(recorded.snapshot(step)[0])
        return history

    @property
    def changes(self) -> list[tuple[int, str, Settings | None]]:
        """Settings and events, in the order of their steps."""
        both = [(at, "", settings) for at, settings in self.schedule]
        return sorted([*both, *((e.step, e.label, None) for e in self.events)], key=lambda change: change[0])

    def __len__(self) -> int:
        return self._length

    @property
    def bytes_per_step(self) -> int:
        return self._rows.itemsize * len(self.names)

    def append(self, record: StepRecord) -> None:
        if self._length == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        values = record.as_row().values()
        self._rows[self._length] = [np.nan if value is None else value for value in values]
        self._length += 1

    def column(self, name: str) -> Array:
        """All values of one column, (steps + 1,): a view, not a copy."""
        return self._rows[: self._length, self._place[name]]

    def row(self, step: int) -> dict[str, Any]:
        """The record after `step` steps; NaN where nothing was recorded."""
        return dict(zip(self.names, self._rows[step].tolist()))

    def rows(self) -> Iterator[dict[str, Any]]:
        """All of them, one after the other."""
        return map(self.row, range(len(self)))

    def write(self, path: Path) -> None:
        """All records to a new .csv, .jsonl or .npz file; NaN is empty or null."""
        if path.suffix == ".npz":
            columns: dict[str, Any] = {name: self.column(name) for name in self.names}
            np.savez(path, **columns)
            return
        with RecordWriter(path, overwrite=True) as writer:
            for row in self.rows():
                writer.write_row(row)

    def truncate(self, step: int) -> None:
        """Forget everything after `step`, and the changes that were to act on the step after it."""
        self._length = step + 1
        self.schedule = [(at, settings) for at, settings in self.schedule if at < step]
        self.events = [event for event in self.events if event.step < step]
        self.snapshots = [snapshot for snapshot in self.snapshots if snapshot.step_count <= step]

    def copy(self) -> "History":
        """A branch that can grow on its own."""
        other = object.__new__(History)
        other.__dict__.update(self.__dict__)
        other._rows = self._rows[: self._length].copy()
        other.events, other.snapshots, other.schedule = [*self.events], [*self.snapshots], [*self.schedule]
        return other

    # ----- rewinding -----

    def wants_snapshot(self, step: int) -> bool:
        return step % self.interval == 0

    def keep(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        if len(self.snapshots) > MAX_SNAPSHOTS:
            self.interval *= 2
            self.snapshots = [s for s in self.snapshots if s.step_count % self.interval == 0]

    def snapshot_before(self, step: int) -> Snapshot:
        """The last snapshot at or before a step."""
        return max((s for s in self.snapshots if s.step_count <= step), key=lambda s: s.step_count)
