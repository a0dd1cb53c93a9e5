"""Pictures of the whole screen. After a change that was meant: pytest tests/tui/test_snapshots.py --snapshot-update

The run is the same everywhere but for its last bits; few steps keep them out of sight, and the sizes of the
rounding errors are replaced. Should a dot still differ on another machine, look at the picture and update it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from tinyvae.runs import Config
from tinyvae.tui.app import TinyVAE

CONFIG = Config(dataset="arc", n=40, hidden=(8,), batch_size=16, learning_rate=1e-2)
STEPS = 30


def prepared(
    *keys: str, theme: str = "textual-dark", theta_off_at: int = 20
) -> Callable[[Pilot[Any]], Awaitable[None]]:
    """Train for a few steps, θ frozen for the last of them; press keys; paint."""

    async def prepare(pilot: Pilot[Any]) -> None:
        app: Any = pilot.app
        app.theme = theme
        for step in range(STEPS):
            if step == theta_off_at:
                app.session.switch("theta")
            assert app.session.step_once()
        await pilot.press(*keys)
        for history in (app.session.history, app.session.other):
            if history is not None:
                history.column("residual")[:] = 3e-14
                history.column("error")[:] = 2e-12
        for panel in app.panels.all:
            panel.restart()  # how often it was painted so far is a matter of time
        app.paint(force=True)
        await pilot.pause(0)
        await pilot.pause(0)

    return prepare


@pytest.mark.parametrize(
    "columns, rows, theme", [(80, 24, "dark"), (120, 36, "dark"), (120, 36, "light"), (200, 55, "dark")]
)
def test_the_screen(snap_compare, columns, rows, theme):
    before = prepared(theme=f"textual-{theme}")
    assert snap_compare(TinyVAE(CONFIG, run=False), terminal_size=(columns, rows), run_before=before)


def test_the_help(snap_compare):
    before = prepared("question_mark")
    assert snap_compare(TinyVAE(CONFIG, run=False), terminal_size=(120, 36), run_before=before)


def test_a_branch_while_looking_back(snap_compare):
    keys = [*["left"] * 12, "b", "p", "S", "left", "left"]
    app = TinyVAE(CONFIG, run=False)
    assert snap_compare(app, terminal_size=(120, 36), run_before=prepared(*keys, theta_off_at=99))
