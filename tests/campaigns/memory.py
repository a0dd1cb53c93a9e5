"""How much memory a long run takes: headless, and in the app."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyvae.runs import Config
from tinyvae.tui.app import TinyVAE


def resident() -> float:
    """MiB that this process has now."""
    import os

    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def headless(steps: int, say: Callable[[str], Any]) -> tuple[float, float]:
    """MiB after a tenth of the steps and after all; the terms are evaluated at every 1000th."""
    trainer = Config(n=64, hidden=(8,), evaluate_every=1000).open().trainer
    found = []
    for tenth in range(10):
        for _ in trainer.steps(steps // 10):
            pass
        found.append(resident())
        say(f"headless, {(tenth + 1) * (steps // 10)} steps: {found[-1]:.1f} MiB")
    return found[0], found[-1]


async def in_the_app(steps: int, say: Callable[[str], Any]) -> tuple[float, float]:
    """The same for the app at full speed, which keeps a row a step and at most 128 snapshots."""
    app: Any = TinyVAE(Config(n=12, hidden=(), batch_size=12), speed=float("inf"))
    found = []
    async with app.run_test(size=(120, 36)):
        for tenth in range(10):
            while app.session.step < (tenth + 1) * (steps // 10):
                await asyncio.sleep(0.05)
                assert app.is_running and not app.session.stopped
            rows = app.session.history._rows.nbytes / 2**20
            found.append(resident() - rows)
            say(f"app, {app.session.step} steps: {found[-1]:.1f} MiB and {rows:.1f} MiB of records")
    return found[0], found[-1]
