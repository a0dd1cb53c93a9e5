"""The column store: what goes in comes out, and what rewinding needs stays, in bounded memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinyvae import StepRecord, Update
from tinyvae.settings import Settings
from tinyvae.tui.history import MAX_SNAPSHOTS, Event, History


def record(step: int, **changes: Any) -> StepRecord:
    values: dict[str, Any] = dict.fromkeys(StepRecord.__annotations__)
    values |= {"step": step, "update": Update(), "beta": 1.0, "grad_norm_phi": step / 7, "seconds": 0.25}
    return StepRecord(**(values | changes))


def snapshot(step: int) -> Any:
    return SimpleNamespace(step_count=step)


def filled(steps: int) -> History:
    history = History(record(0))
    history.keep(snapshot(0))
    for step in range(1, steps + 1):
        history.append(record(step))
        if history.wants_snapshot(step):
            history.keep(snapshot(step))
    return history


def test_rows_come_back_and_none_is_nan():
    history = filled(3)
    row = history.row(2)
    assert row["step"] == 2
    assert row["grad_norm_phi"] == 2 / 7
    assert row["theta_on"] == 1
    assert np.isnan(row["log_px"])
    assert np.isnan(row["grad_norm_theta"])
    assert tuple(row) == history.names


def test_the_names_are_those_of_the_record_files():
    assert History(record(0)).names == tuple(record(0).as_row())


def test_growing_past_the_first_block_loses_nothing():
    history = filled(3000)
    np.testing.assert_array_equal(history.column("step"), np.arange(3001))
    np.testing.assert_array_equal(history.column("grad_norm_phi"), np.arange(3001) / 7)


def test_a_column_is_a_view_and_not_a_copy():
    history = filled(5)
    assert history.column("seconds").base is history.column("step").base is history._rows


def test_memory_is_one_number_a_column_and_a_bounded_number_of_snapshots():
    history = filled(5000)
    assert history.bytes_per_step == 8 * len(history.names) <= 400
    assert history._rows.nbytes <= 2 * history.bytes_per_step * len(history)
    assert len(history.snapshots) <= MAX_SNAPSHOTS


def test_thinning_keeps_the_start_and_an_even_spacing():
    history = filled(20 * MAX_SNAPSHOTS * 16)
    kept = [kept.step_count for kept in history.snapshots]
    assert kept[0] == 0
    assert set(np.diff(kept)) == {history.interval}
    assert len(kept) > MAX_SNAPSHOTS // 2 - 1


@pytest.mark.parametrize("step, at", [(0, 0), (15, 0), (16, 16), (31, 16), (99, 96)])
def test_the_snapshot_before_a_step_is_the_last_one_not_after_it(step, at):
    assert filled(100).snapshot_before(step).step_count == at


def test_truncating_forgets_what_came_later_and_goes_on():
    history = filled(50)
    history.events = [Event(10, "θ off"), Event(20, "θ on"), Event(40, "φ off")]
    history.schedule = [(10, Settings()), (20, Settings()), (40, Settings())]
    history.truncate(20)
    assert len(history) == 21
    assert history.events == [Event(10, "θ off")]  # a change after step 20 acts from step 21 on
    assert [at for at, _ in history.schedule] == [10]
    assert max(kept.step_count for kept in history.snapshots) == 16
    history.append(record(21, seconds=9.0))
    assert history.column("seconds").tolist() == [0.25] * 21 + [9.0]


def test_a_copy_and_the_original_do_not_touch():
    history = filled(30)
    copy = history.copy()
    history.truncate(10)
    history.append(record(11, seconds=9.0))
    history.events.append(Event(11, "branch"))
    assert len(copy) == 31
    assert copy.column("seconds").tolist() == [0.25] * 31
    assert copy.events == []
    assert [kept.step_count for kept in copy.snapshots] == [0, 16]
    copy.append(record(31))  # a copy has no room left: it must grow
    assert copy.column("step").tolist() == list(range(32))
