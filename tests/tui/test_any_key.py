"""Every screen bears any key at any moment: random keys, clicks and sizes, with work in the background made slow."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.command import CommandPalette
from textual.geometry import Size

from tinyvae.runs import Config
from tinyvae.tui import app as app_module
from tinyvae.tui import classroom, keys, live, work
from tinyvae.tui.app import TinyVAE
from tinyvae.tui.screens import landscape

TINY = Config(dataset="arc", n=24, hidden=(6,), batch_size=8)
PLANE = Config(dataset="linear", n=24, hidden=(4,), batch_size=8)
SIZES = [(120, 36), (80, 24), (160, 48), (62, 19), (40, 10), (1, 1), (230, 60)]
# All of the app's keys, those of dialogs and lists, and those that nothing is bound to; no key that ends the app.
KEYS = [key for names, *_ in keys.TABLE for key in names.split(",") if key not in ("q", "e")]
KEYS += [*"123456789", "tab", "shift+tab", "enter", "escape", "pageup", "pagedown", "up", "down", "backspace"]
KEYS += [
    "ctrl+p",
    "ctrl+p",
    "f1",
    "escape",
    "delete",
    "ctrl+home",
    "ctrl+end",
    "x",
    "é",
    "ctrl+u",
    "[",
    "\\",
    "0",
    "ctrl+a",
]
DIALOGS = [
    "w",
    "g",
    "l",
    "M",
    "a",
    "v",
    "c",
    "d",
    "question_mark",
    "ctrl+p",
]  # opened more often than by chance


@contextmanager
def slowed_down(chance: random.Random) -> Iterator[None]:
    """Work in a thread takes up to 60 ms longer, so that its screen is often gone when it ends."""
    right = work.in_thread

    async def slow(function: Any, *arguments: Any) -> Any:
        pause = chance.uniform(0.0, 0.06)

        def late() -> Any:
            time.sleep(pause)
            return function(*arguments)

        return await right(late)

    places = (app_module, live, classroom, landscape)
    for place in places:
        place.in_thread = slow  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for place in places:
            place.in_thread = right  # type: ignore[attr-defined]


async def play(count: int, seed: int, config: Config = TINY, run: bool = True) -> int:
    """Press so many random keys; returns on how many different screens. The app must not end nor fail."""
    chance, seen = random.Random(seed), set()
    app: Any = TinyVAE(config, speed=200.0, run=run)
    with slowed_down(chance):
        async with app.run_test(size=SIZES[0]) as pilot:
            for k in range(count):
                draw = chance.random()
                if draw < 0.01:
                    width, height = chance.choice(SIZES)
                    app.post_message(events.Resize(Size(width, height), Size(width, height)))
                elif draw < 0.03:
                    x, y = chance.randrange(app.size.width or 1), chance.randrange(app.size.height or 1)
                    press = (app.screen, x, y, 0, 0, 1, False, False, False)
                    for kind in (events.MouseMove, events.MouseDown, events.MouseUp):
                        app.screen._forward_event(kind(*press, x, y))
                else:
                    key = chance.choice(DIALOGS if draw < 0.1 else KEYS)
                    app.post_message(key_event(key))
                seen.add(type(app.screen).__name__)
                assert app._exception is None and app.is_running, (k, seed)
                # Sometimes several keys meet one screen, sometimes each has its time
                await asyncio.sleep(0 if chance.random() < 0.6 else chance.choice([0.001, 0.004, 0.02]))
            await pilot.pause(0.2)
            assert app._exception is None
            assert app.is_running
    return len(seen)


def key_event(key: str) -> events.Key:
    return events.Key(key, key if len(key) == 1 else None)


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("seed, config", [(4, TINY), (2, PLANE)])
async def test_any_keys_at_any_moment(seed, config):
    assert await play(400, seed, config) >= 3  # how many there are depends on what had time to open


async def test_a_page_key_before_the_list_has_been_laid_out():
    app: Any = TinyVAE(TINY, run=False)
    async with app.run_test(size=(120, 36)) as pilot:
        for opener in ("ctrl+p", "l", "d"):
            for page in ("pageup", "pagedown", "down", "up", "home", "enter"):
                app.post_message(key_event(opener))
                for _ in range(12):
                    app.post_message(key_event(page))
                    await asyncio.sleep(0)
                await pilot.pause(0.1)
                if opener == "ctrl+p" and page != "enter":
                    assert isinstance(app.screen, CommandPalette)
                app.post_message(key_event("escape"))
                await pilot.pause(0.1)
        assert app.is_running and app._exception is None


@pytest.mark.parametrize("close", ["w", "q", "escape"])
async def test_the_landscape_closed_while_it_computes(close):
    app: Any = TinyVAE(TINY, run=False)
    with slowed_down(random.Random(0)):
        async with app.run_test(size=(120, 36)) as pilot:
            for pause in (0.0, 0.02, 0.06):
                await pilot.press("w")
                await asyncio.sleep(pause)
                await pilot.press(close)
                await pilot.pause(0.1)
            assert app.is_running and app._exception is None
            assert len(app.screen_stack) == 1


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (24, 6)])
async def test_any_dialog_on_any_size(size):
    """Textual would fail on a line of no width. Every other dialog opens on the small screen and grows with it."""
    app: Any = TinyVAE(TINY, run=False)
    async with app.run_test(size=(120, 36)) as pilot:
        for k, opener in enumerate(DIALOGS):
            app.post_message(key_event(opener))
            await pilot.pause(0.05)
            await resized(app, pilot, *((120, 36) if k % 2 else size))
            while len(app.screen_stack) > 1:
                app.post_message(key_event("escape"))
                await pilot.pause(0.05)
            assert app.is_running and app._exception is None, opener


async def test_a_size_that_no_screen_has_is_not_drawn():
    """A client of --serve may claim to have any."""
    app: Any = TinyVAE(TINY, run=False)
    async with app.run_test(size=(120, 36)) as pilot:
        await resized(app, pilot, 99_999, 99_999)
        assert app.size.area <= 300_000


async def resized(app: Any, pilot: Any, width: int, height: int) -> None:
    app.post_message(events.Resize(Size(width, height), Size(width, height)))
    await pilot.pause(0.05)
    assert app.is_running and app._exception is None


async def test_the_app_opens_on_the_smallest_terminal():
    app: Any = TinyVAE(TINY, run=True)
    async with app.run_test(size=(1, 1)) as pilot:
        await pilot.pause(0.2)
        assert app.is_running and app._exception is None


@pytest.mark.parametrize("opener", ["l", "c"])
async def test_the_app_ends_while_a_dialog_opens(opener):
    """A signal can come at any moment; what a half-made dialog then misses is no failure."""
    for turns in (0, 6, 12):
        app: Any = TinyVAE(TINY, run=False)
        async with app.run_test(size=(120, 36)):
            app.post_message(key_event(opener))
            for _ in range(turns):
                await asyncio.sleep(0)
            app.exit(return_code=143)
        assert app.return_code == 143, turns
