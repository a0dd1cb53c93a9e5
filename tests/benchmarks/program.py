"""The program in a terminal: steps a second beside headless, frames, key to painted frame, start-up, memory."""

import asyncio
import os
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator

import numpy as np

from tinyvae.runs import Config
from tinyvae.tui.app import TinyVAE
from tinyvae.tui.history import MAX_SNAPSHOTS, History
from tinyvae.tui.session import Session

from .timing import ratio, side_by_side, table

SIZE = (160, 48)
STEPS = 2000  # of the run whose speed is measured; its cost grows a little as it learns
KEYS = 60
RECORDS = 100_000
IMPORTS = "import textual.app, textual.widgets, numpy, autograd"


def in_terminal(*arguments: str):  # type: ignore[no-untyped-def]
    from tests.tui.terminal import Terminal

    return Terminal("--speed", "max", *arguments, columns=SIZE[0], rows=SIZE[1])


def headless_seconds() -> float:
    trainer = Config().open().trainer
    trainer.evaluate()
    began = time.perf_counter()
    for _ in trainer.steps(STEPS):
        pass
    return time.perf_counter() - began


def on_screen() -> tuple[float, list[float]]:
    """Seconds for the steps in the app, and the times at which its frames came: each shows another step."""
    terminal, times, seen = in_terminal("--paused"), [], set()
    try:
        terminal.wait_for("paused", "the identity closes to")
        terminal.send(" ")
        began = time.perf_counter()
        while not seen or max(seen) < STEPS:
            terminal.read(0.005)
            for step in map(int, re.findall(r"step (\d+)", terminal.text)):
                if step and step not in seen:
                    seen.add(step)
                    times.append(time.perf_counter() - began)
            terminal.raw = terminal.raw[-64:]
        return times[-1] * STEPS / max(seen), times
    finally:
        terminal.close()


def key_to_frame() -> list[float]:
    """Seconds from a key to the frame that shows what it did, while training flat out."""
    terminal, waits = in_terminal(), []
    try:
        terminal.wait_for("▶", "the identity closes to")
        time.sleep(2)
        for k in range(KEYS):
            terminal.read(0.0)
            words = ("θ ○ frozen", "θ ● training")[k % 2].encode()
            terminal.send("t")
            began = time.perf_counter()
            while words not in terminal.raw:
                terminal.read(0.001)
            waits.append(time.perf_counter() - began)
            time.sleep(0.13 + 0.01 * (k % 7))  # not in step with the frames
        return waits
    finally:
        terminal.close()


def first_frame() -> float:
    began = time.perf_counter()
    terminal = in_terminal()
    try:
        terminal.wait_for("log pθ(x)", "the identity closes to")
        return time.perf_counter() - began
    finally:
        terminal.close()


def redraws() -> dict[str, list[float]]:
    """Seconds of a whole repaint with a history of RECORDS steps: the latest, all of it, and one looked back at."""

    async def measure() -> dict[str, list[float]]:
        app = TinyVAE(Config(), run=False)
        async with app.run_test(size=SIZE) as pilot:
            await pilot.pause()
            fill(app.session.history)
            found: dict[str, list[float]] = {}
            for name, key in (("all of it", ""), ("the last 2,000", "z"), ("looking back", "left")):
                await pilot.press(*([key] if key else []))
                found[name] = []
                for _ in range(15):
                    began = time.perf_counter()
                    app.paint(force=True)
                    await pilot.pause(0)
                    found[name].append(time.perf_counter() - began)
            return found

    return asyncio.run(measure())


def fill(history: History) -> None:
    """More rows, as a run would have added them (the last row again and again, with some noise)."""
    first, rng = history._rows[0].copy(), np.random.default_rng(0)
    while len(history) <= RECORDS:
        if history._length == len(history._rows):
            history._rows = np.concatenate([history._rows, np.empty_like(history._rows)])
        history._rows[history._length] = first + 0.1 * rng.standard_normal(len(first))
        history._rows[history._length, 0] = history._length
        history._length += 1


def bytes_per_step() -> tuple[int, float, float]:
    """What the columns take for a step, what all else takes, and the megabytes of the most snapshots there can be."""
    session = Session(Config(evaluate_every=0), speed=np.inf)
    history = session.history
    tracemalloc.start()
    for _ in range(2000):
        session.step_once()
    before, kept = tracemalloc.get_traced_memory()[0] - history._rows.nbytes, len(history.snapshots)
    for _ in range(20_000):
        session.step_once()
    after, more = tracemalloc.get_traced_memory()[0] - history._rows.nbytes, len(history.snapshots) - kept
    tracemalloc.stop()
    one = 3 * (session.trainer.theta.nbytes + session.trainer.phi.nbytes)  # with both moments
    return history.bytes_per_step, (after - before - more * one) / 20_000, MAX_SNAPSHOTS * one / 1e6


def tables(quick: bool) -> Iterator[str]:
    rounds = 2 if quick else 5
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # our modules are kept compiled, as the libraries are
    seconds: dict[str, list[float]] = {"headless": [], "app": []}
    gaps: list[float] = []
    for _ in range(rounds):
        seconds["headless"].append(headless_seconds())
        took, times = on_screen()
        seconds["app"].append(took)
        gaps += list(np.diff(times[3:]))
    share = float(np.median(np.array(seconds["headless"]) / np.array(seconds["app"])))
    rates = {name: STEPS / float(np.median(took)) for name, took in seconds.items()}
    waits = [wait for _ in range(rounds) for wait in key_to_frame()]
    starts = {
        "imports": lambda: subprocess.run([sys.executable, "-c", IMPORTS], check=True),
        "app": first_frame,
        "help": lambda: subprocess.run(
            [sys.executable, "-m", "tinyvae", "--help"], capture_output=True, check=True
        ),
    }
    start = side_by_side(starts, 3 if quick else 9)
    rows = [
        ["steps a second, all terms at each, headless", f"{rates['headless']:.0f}"],
        ["the same in the app, flat out", f"{rates['app']:.0f} ({100 * share:.0f} %)"],
        ["frames a second meanwhile (median, slowest tenth)",
         f"{1 / np.median(gaps):.1f}, {1 / np.quantile(gaps, 0.9):.1f}"],
        ["key to painted frame meanwhile, ms (median, p95)",
         f"{1e3 * np.median(waits):.0f}, {1e3 * np.quantile(waits, 0.95):.0f}"],
        ["start to first frame, s (times the imports alone)",
         f"{np.median(start['app']):.2f} ({ratio(start['app'], start['imports']):.2f}×)"],
        ["`tinyvae --help`, s", f"{np.median(start['help']):.2f}"],
    ]  # fmt: skip
    columns, grown, snapshots = bytes_per_step()
    rows.append(["bytes a recorded step: the columns, and all else", f"{columns}, {grown:.1f}"])
    rows.append(["MB of all snapshots for rewinding, at most", f"{snapshots:.1f}"])
    for name, took in redraws().items():
        rows.append([f"a frame with {RECORDS:,} steps recorded, {name}, ms", f"{1e3 * np.median(took):.0f}"])
    yield table(
        f"The program, in a terminal of {SIZE[0]}×{SIZE[1]}, the default run", ["what", "measured"], rows
    )
