"""The app: every key does what it says, every number shown is a number of the record, nothing ever crashes it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.segment import Segment
from textual.events import MouseScrollUp
from textual.pilot import Pilot
from textual.theme import BUILTIN_THEMES
from textual.widgets import Footer, Input, Markdown, OptionList, Static

from tinyvae import DATASETS
from tinyvae.presets import RECOMMENDED
from tinyvae.runs import Config
from tinyvae.tui import keys
from tinyvae.tui.app import TinyVAE
from tinyvae.tui.history import History
from tinyvae.tui.palette import DARK, LIGHT, background
from tinyvae.tui.terms import ELBO, KL_POSTERIOR, KL_PRIOR, LOG_PX, TERMS
from tinyvae.tui.widgets.charts import BoundChart, StepChart
from tinyvae.tui.widgets.identity import Identity
from tinyvae.tui.widgets.identity import size as size_of
from tinyvae.tui.widgets.panel import Panel
from tinyvae.tui.widgets.spaces import DataPanel, LatentPanel

SMALL = Config(dataset="arc", n=40, hidden=(8,), batch_size=16)
WIDE = (120, 36)
SIZES = [(80, 24), WIDE, (200, 55), (240, 64)]


@asynccontextmanager
async def opened(
    config: Config = SMALL, size: tuple[int, int] = WIDE, **options: Any
) -> AsyncIterator[tuple[Any, Pilot[None]]]:
    """The app in a terminal of this size, its engine at rest unless `run=True`."""
    app = TinyVAE(config, **{"run": False, **options})
    async with app.run_test(size=size) as pilot:
        await until(lambda: app.query_one(Identity).view is not None)
        await pilot.pause(0)
        yield app, pilot


async def press(pilot: Pilot[None], *names: str) -> None:
    if names:
        await pilot.press(*names)
    await pilot.pause(0)
    await pilot.pause(0)


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.01)


def lines(app: Any) -> list[str]:
    """The characters on the screen."""
    return [strip.text for strip in app.screen._compositor.render_strips()]


def shown(app: Any) -> str:
    return "\n".join(lines(app))


def segments(app: Any, rows: slice = slice(None)) -> Iterator[Segment]:
    """What is on the screen and can be seen, with its colours."""
    for strip in app.screen._compositor.render_strips()[rows]:
        yield from (segment for segment in strip if segment.text.strip())


def identity(app: Any) -> str:
    return str(app.query_one(Identity).render().plain)


def title(app: Any) -> str:
    return lines(app)[0]


def notices(app: Any) -> list[str]:
    return [notice.message for notice in app._notifications]


def minus(text: str) -> str:
    return text.replace("-", "−")


def state_of(app: Any) -> tuple[Any, ...]:
    session = app.session
    return (
        session.step,
        session.viewed,
        session.selected,
        session.trainer.update,
        session.trainer.theta.tobytes(),
    )


# ----- every key -----


def screen_name(app: Any) -> str:
    return type(app.screen).__name__


def subtitle(app: Any) -> str:
    return app.query_one(BoundChart).border_subtitle or ""


EXPORTED = {"records.csv", "records.jsonl", "records.npz", "screen.svg", "share.txt"}


def files(_: Any) -> set[str]:
    return {path.name for path in Path.cwd().glob("*/*")}


# key: the keys before it, what to look at, what is there before, what is there after
EFFECTS: dict[str, tuple[tuple[str, ...], Callable[[Any], Any], Any, Any]] = {
    "space": ((), lambda app: app.session.running, False, True),
    "s": ((), lambda app: app.session.step, 0, 1),
    "S": (("s",), lambda app: app.session.step, 1, 11),
    "t": ((), lambda app: app.session.trainer.update.theta, True, False),
    "p": ((), lambda app: app.session.trainer.update.phi, True, False),
    "plus": ((), lambda app: app.session.speed, 50.0, 100.0),
    "equals_sign": ((), lambda app: app.session.speed, 50.0, 100.0),
    "minus": ((), lambda app: app.session.speed, 50.0, 20.0),
    "left": (("s", "s"), lambda app: app.session.viewed, None, 1),
    "right": (("s", "s", "home"), lambda app: app.session.viewed, 0, 1),
    "shift+left": (("S",), lambda app: app.session.viewed, None, 0),
    "shift+right": (("S", "home"), lambda app: app.session.viewed, 0, None),
    "home": (("S",), lambda app: app.session.viewed, None, 0),
    "end": (("S", "left", "left"), lambda app: app.session.viewed, 8, None),
    "question_mark": ((), screen_name, "Screen", "Help"),
    "q": ((), lambda app: app._exit, False, True),
    "b": (("S", "left", "left"), lambda app: (app.session.step, app.session.viewed), (10, 8), (8, None)),
    "n": ((), lambda app: app.session.selected, 0, 1),
    "N": ((), lambda app: app.session.selected, 0, 39),
    "f": ((), lambda app: app.query_one(LatentPanel).border_subtitle or "", "", "q as the map"),
    "i": ((), lambda app: app.query_one(DataPanel).shown, 0, 1),
    "left_square_bracket": ((), lambda app: app.query_one(DataPanel).axes, [0, 1], [1, 1]),
    "right_square_bracket": ((), lambda app: app.query_one(DataPanel).axes, [0, 1], [0, 0]),
    "u": ((), lambda app: "bits per" in identity(app), False, True),
    "m": ((), lambda app: "of 40 points" in identity(app), False, True),
    "o": ((), lambda app: "loss" in identity(app), False, True),
    "z": ((), subtitle, "", "last 2000 steps"),
    "y": ((), subtitle, "", "symlog"),
    "v": ((), screen_name, "Screen", "Values"),
    "a": ((), screen_name, "Screen", "Adjust"),
    "l": ((), screen_name, "Screen", "Card"),
    "g": ((), screen_name, "Screen", "Card"),
    "G": ((), lambda app: app.session.gap_every, 0, 50),
    "w": ((), screen_name, "Screen", "LandscapeScreen"),
    "x": ((), lambda app: app.clipboard == app.session.share_string, False, True),
    "r": (("S",), lambda app: app.session.step, 10, 0),
    "R": (("S", "r"), lambda app: app.session.step, 0, 10),
    "d": ((), screen_name, "Screen", "Choose"),
    "c": ((), screen_name, "Screen", "Code"),
    "e": ((), files, set(), EXPORTED),
    "up": (("S", "S"), subtitle, "", "last 10 steps"),
    "down": (("S", "S", "S", "up"), subtitle, "last 15 steps", ""),
    "comma": (("S", "S", "S", "up"), subtitle, "last 15 steps", "steps 11–26"),
    "full_stop": (("S", "S", "S", "up", "comma"), subtitle, "steps 11–26", "last 15 steps"),
    "M": ((), screen_name, "Screen", "NewRun"),
    "k": ((), lambda app: "each step" in subtitle(app), False, True),
} | {
    str(number): (("2",) if number == 1 else (), lambda app: app.focused.id, "latent" if number == 1 else "bound", id)
    for number, id in enumerate(("bound", "latent", "chase", "parts", "data", "pursuit"), 1)
}  # fmt: skip


def test_the_table_of_effects_names_every_key():
    bound = {key.strip() for binding in TinyVAE.BINDINGS for key in binding.key.split(",")}
    assert bound == set(EFFECTS)


@pytest.mark.parametrize("key", EFFECTS)
async def test_a_key_does_what_it_says(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, look, old, new = EFFECTS[key]
    async with opened() as (app, pilot):
        await press(pilot, *before)
        assert look(app) == old
        await press(pilot, key)
        await until(lambda: look(app) == new, 5.0)


@pytest.mark.parametrize(
    "key, times", [("space", 2), ("t", 2), ("p", 2), ("u", 2), ("m", 2), ("o", 2), ("y", 2)]
)
async def test_a_switch_pressed_twice_is_back_where_it_was(key, times):
    _, look, old, _ = EFFECTS[key]
    async with opened(speed=0.5) as (app, pilot):
        await press(pilot, *[key] * times)
        assert look(app) == old


async def test_zoom_goes_round():
    async with opened() as (app, pilot):
        seen = []
        for _ in range(4):
            await press(pilot, "z")
            seen.append(subtitle(app))
    assert seen == ["last 2000 steps", "last 500 steps", "last 100 steps", ""]


@pytest.mark.parametrize("key", ["question_mark", "c", "d", "v"])
@pytest.mark.parametrize("closing", ["escape", "the same key"])
async def test_a_dialog_closes_and_leaves_the_run_alone(key, closing):
    async with opened() as (app, pilot):
        await press(pilot, "s", key)
        before = state_of(app)
        assert screen_name(app) != "Screen"
        await press(pilot, key if closing == "the same key" else closing)
        assert screen_name(app) == "Screen"
        assert state_of(app) == before


async def test_a_dialog_does_not_stop_a_run():
    async with opened(speed=200, run=True) as (app, pilot):
        await until(lambda: app.session.step > 2)
        app.action_dataset()
        await until(lambda: screen_name(app) == "Choose" and app.screen.is_mounted)
        app.screen.dismiss(None)
        await until(lambda: screen_name(app) == "Screen")
        assert app.session.running
        app.session.run(False)


async def test_the_help_names_every_key_and_begins_with_the_focused_panel():
    async with opened() as (app, pilot):
        await press(pilot, "5", "question_mark")
        source = app.screen.query_one(Markdown).source
    assert source.startswith(f"# {DataPanel.TITLE}\n\n{DataPanel.HELP}")
    for key, _, _, what, _ in keys.TABLE:
        assert f"| {keys.SHOWN_AS.get(key, key)} | {what} |" in source
    for name in (term.symbol for term in TERMS.values()):
        assert name in source


@pytest.mark.parametrize("number, expected", [("1", "def "), ("2", "def terms"), ("4", "log"), ("5", "decode")])
async def test_the_code_behind_a_panel_is_shown_with_file_and_line(number, expected):
    async with opened() as (app, pilot):
        await press(pilot, number, "c")
        text = shown(app)
        assert "tinyvae/" in text
        assert ".py, line " in text
        assert expected in text


# ----- what is shown -----


async def test_the_identity_shows_the_numbers_of_the_record():
    async with opened() as (app, pilot):
        await press(pilot, "s", "s", "s")
        row, text = app.session.history.row(3), identity(app)
        for term in TERMS:
            assert TERMS[term].symbol in text
            assert minus(f"{row[term]:.4f}") in text.splitlines()[1]
        for group, line in (("theta", 2), ("phi", 3)):
            assert minus(f"{row[f'elbo_by_{group}']:+.4f}") in text.splitlines()[line]
        assert "✓ the identity closes to" in text
        assert "✓ every term certified" in text
        assert text in "\n".join(line[1:].rstrip() for line in lines(app)) or text.splitlines()[1] in shown(app)


async def test_bits_sums_and_the_loss_are_only_another_way_to_write():
    async with opened() as (app, pilot):
        await press(pilot, "s")
        before, row = state_of(app), app.session.history.row(1)
        await press(pilot, "u")
        assert minus(f"{row['log_px'] / np.log(2):.4f}") in identity(app)
        await press(pilot, "m")
        assert minus(f"{40 * row['log_px'] / np.log(2):.4f}") in identity(app)
        await press(pilot, "o")
        assert minus(f"{-40 * row['elbo'] / np.log(2):.4f}") in identity(app)
        assert state_of(app) == before


async def test_header_and_legends_of_a_frame_are_of_one_step_while_the_engine_is_ahead():
    async with opened() as (app, pilot):
        await press(pilot, "S")
        for _ in range(3):
            app.session.step_once()  # the plots are drawn a little after the panels were told to
        app.paint(panels=False)  # as a switch does while running
        chart = app.query_one(BoundChart)
        chart.plot = None
        row, legend = app.session.history.row(10), chart.render_line(0).text
        assert minus(f"{row['elbo']:.4f}") in identity(app).splitlines()[1]
        assert minus(f"ELBO {row['elbo']:.4f}")[:10] in legend


async def test_the_loss_is_written_in_the_identity_the_charts_and_the_table():
    async with opened() as (app, pilot):
        await press(pilot, "s", "o")
        row = app.session.history.row(1)
        first, second = identity(app).splitlines()[:2]
        assert first.split()[0] == "−log" and "loss" in first
        for name in ("log_px", "reconstruction", "elbo"):
            assert minus(f"{-row[name]:.4f}") in second
        assert first.count("+") == 1 and first.index("+") < first.index(
            "KL(q‖p(z))"
        )  # −recon + KL prior − KL posterior
        legend = app.query_one(BoundChart).plot.strips[0].text
        assert all(name in legend for name in ("−log p", "loss"))
        await press(pilot, "v")
        assert "loss" in shown(app) and minus(f"{-row['elbo']:.4f}") in shown(app)


async def test_the_footer_says_what_the_space_key_does_now():
    async with opened(speed=0.5) as (app, pilot):
        for word in ("Run", "Pause", "Run"):
            await until(lambda word=word: f"space {word}" in lines(app)[-1])
            await press(pilot, "space")
        app.session.run(False)


async def test_the_bars_say_how_much_a_full_one_is():
    async with opened(size=(150, 40)) as (app, pilot):
        await press(pilot, "s")
        row = app.session.history.row(1)
        largest = max(abs(row[f"{t}_by_{g}"]) for t in TERMS if t != "elbo" for g in ("theta", "phi"))
        assert f"a full bar: {size_of(largest)}" in identity(app).splitlines()[2]


@pytest.mark.parametrize("size", SIZES)
async def test_a_legend_says_names_of_the_table_of_terms_however_narrow(size):
    async with opened(size=size) as (app, pilot):
        await press(pilot, "s")
        for number, named in (("1", (LOG_PX, ELBO)), ("4", (KL_PRIOR, KL_POSTERIOR))):
            await press(pilot, number)
            await until(lambda: app.focused.plot is not None)
            legend = app.focused.plot.strips[0].text
            assert all(term.name in legend or term.short in legend for term in named), legend


async def test_the_app_sleeps_until_the_next_step_is_due(monkeypatch):
    async with opened() as (app, _):
        looks = []
        advance = app.session.advance
        monkeypatch.setattr(app.session, "advance", lambda *given: looks.append(given) or advance(*given))
        app.session.speed = 0.5
        app.session.run(True)
        await until(lambda: app.session.step == 1)
        looks.clear()
        await asyncio.sleep(0.2)
        assert app.session.step == 1  # the next is due after two seconds
        assert len(looks) < 250  # and not some thousands, which would keep a processor busy


async def test_freezing_theta_shows_its_invariant_and_freezes_log_px_on_screen():
    async with opened() as (app, pilot):
        await press(pilot, "s", "s", "t")
        assert "θ ○ frozen" in title(app)
        assert "φ ● training" in title(app)
        value = identity(app).splitlines()[1].split()[0]
        await press(pilot, "S")
        assert identity(app).splitlines()[1].split()[0] == value
        assert len(set(app.session.history.column("log_px")[2:])) == 1
        assert "✓ θ frozen ⇒ log p constant in all 10 steps" in identity(app)
        assert "○ φ frozen" in identity(app)
        assert "θ off" in shown(app)  # a mark in the charts


async def test_a_broken_invariant_is_shown_in_words():
    async with opened() as (app, pilot):
        await press(pilot, "p", "s", "s", "s")
        app.session.history.column("kl_prior")[2:] += 1e-15
        await press(pilot, "s")
        assert "✗ φ frozen ⇒ KL prior constant broken at step 2" in identity(app)


async def test_certified_checked_and_neither_are_said_as_what_they_are():
    async with opened() as (app, pilot):
        await press(pilot, "s")
        history = app.session.history
        for certified, checked, error, said in (
            (1.0, 1.0, 1e-12, "✓ every term certified ±1e-12"),
            (0.75, 1.0, 1e-9, "✓ every term checked ±1e-9"),
            (0.5, 0.75, 1e-3, "✗ 25 % of the points neither certified nor checked, worst error ±1e-3"),
        ):
            known = {"certified": certified, "checked": checked, "error": error, "proven_error": error}
            for name, value in known.items():
                history.column(name)[1] = value
            app.paint(force=True)
            assert said in identity(app)
        history.column("residual")[1] = -0.4
        app.paint(force=True)
        assert "✗ the identity closes to 4e-1" in identity(app)


async def test_on_a_plane_the_terms_are_proven_where_the_run_stands_still():
    config = replace(SMALL, dataset="pinwheel", n=12, hidden=(4,))
    async with opened(config) as (app, pilot):
        await press(pilot, "s")
        assert "✓ every term checked" in identity(app)
        await until(lambda: "✓ every term certified ±" in identity(app))
        assert app.session.certificate[0] == 1 and app.session.history.row(1)["certified"] == 0
        await press(pilot, "s")
        assert "✓ every term checked" in identity(app)


async def test_looking_back_shows_the_old_numbers_and_says_so():
    async with opened() as (app, pilot):
        await press(pilot, "S", "left", "left", "left")
        assert "step 7 of 10, looking back" in title(app)
        assert minus(f"{app.session.history.row(7)['log_px']:.4f}") in identity(app)
        await press(pilot, "s")  # one step goes on at the end
        assert "step 11" in title(app)
        assert "looking back" not in title(app)


async def test_a_branch_says_what_it_does_and_without_looking_back_what_to_do():
    async with opened() as (app, pilot):
        await press(pilot, "S", "b")
        assert any("Look back" in notice for notice in notices(app))
        await press(pilot, "left", "b")
        assert any("branch begins here" in notice for notice in notices(app))
        await press(pilot, "t", "s")
        assert app.session.step == 10
        assert len(app.session.other) == 11
        assert "This branch minus the old run" in identity(app)


async def test_a_click_on_a_data_point_chooses_it():
    async with opened() as (app, pilot):
        panel = app.query_one(DataPanel)
        x, plot = app.session.trainer.evaluation_x, panel.plot
        gaps = np.linalg.norm(x[:, None] - x[None], axis=-1) + 1e9 * np.eye(len(x))
        for point in np.argsort(-gaps.min(axis=1))[:3].tolist():  # the loneliest, which nothing else can claim
            column = plot.left + int(plot.x_axis.at(x[point, 0]) * plot.columns / plot.x_axis.dots)
            row = plot.top + int(plot.y_axis.at(x[point, 1]) * plot.rows / plot.y_axis.dots)
            await pilot.click(panel, offset=(column + 1, row + 1))  # 1 for the border
            await pilot.pause(0)
            assert app.session.selected == point


async def test_a_click_beside_the_data_chooses_nothing():
    async with opened() as (app, pilot):
        await press(pilot, "n", "n")
        await pilot.click(DataPanel, offset=(1, 1))
        await pilot.click(DataPanel, offset=(0, 0))
        assert app.session.selected == 2


async def test_the_first_click_on_a_panel_acts_though_the_focus_has_it_drawn_anew():
    async with opened() as (app, pilot):
        await press(pilot, "S", "2")  # the focus is elsewhere
        chart = app.query_one(BoundChart)
        column = next(c for c in range(chart.size.width) if round(chart.plot.x_at(c) or 0) == 4)
        await pilot.mouse_down(chart, offset=(column + 1, 5))
        chart.plot = None  # what the colour of the border of the focus does
        await pilot.mouse_up(chart, offset=(column + 1, 5))
        await press(pilot)
        assert app.session.viewed == 4


async def test_z_shows_no_steps_that_are_not_there():
    async with opened() as (app, pilot):
        await press(pilot, "S", "S", "z")
        assert subtitle(app) == "last 2000 steps"
        assert 20 <= app.query_one(BoundChart).plot.x_axis.high <= 25


async def test_a_click_in_the_footer_is_the_key():
    async with opened() as (app, pilot):
        await pilot.click(Footer, offset=(2, 0))
        await pilot.pause(0)
        assert app.session.running
        app.session.run(False)


async def test_the_mouse_over_a_chart_points_at_a_step_and_a_click_looks_at_it():
    async with opened() as (app, pilot):
        await press(pilot, "S")
        panel = app.query_one(BoundChart)
        column = next(c for c in range(panel.size.width) if round(panel.plot.x_at(c) or 0) == 4)
        await pilot.hover(panel, offset=(column + 1, 5))
        await pilot.pause(0)
        assert (app.session.step, app.session.viewed) == (10, None)
        await pilot.click(panel, offset=(column + 1, 5))
        await press(pilot)
        assert app.session.viewed == 4
        assert "step 4 of 10" in title(app)


async def fill_in(app: Any, pilot: Pilot[None], **texts: str) -> None:
    for name, text in texts.items():
        app.screen.query_one(f"#{name}", Input).value = text
    await press(pilot, "enter")


async def test_another_model_begins_a_new_run():
    async with opened() as (app, pilot):
        await press(pilot, "S", "M")
        await fill_in(
            app, pilot, latent_dim="2", hidden="6,5", covariance="full", seed="3", precision="float32"
        )
        await until(lambda: screen_name(app) == "Screen")
        app.session.run(False)
        config, model = app.session.config, app.session.model
        assert config == replace(
            SMALL, latent_dim=2, hidden=(6, 5), covariance="full", seed=3, precision="float32"
        )
        assert app.session.trainer.theta.dtype == np.float32
        assert (model.latent_dim, model.hidden, model.covariance) == (2, (6, 5), "full")
        assert "z∈R²" in title(app)


@pytest.mark.parametrize(
    "field, text, complaint",
    [
        ("dataset", "nowhere.csv", "nowhere.csv"),
        ("n", "1", "expected a whole number >= 2, got '1'"),
        ("latent_dim", "3", "expected 1 or 2"),
        ("hidden", "8,x", "expected widths such as 32,32"),
        ("likelihood", "bernoulli", "expected only 0 and 1"),
        ("noise_std", "-1", "expected a number > 0, got '-1'"),
        ("covariance", "round", "expected diagonal or full, got 'round'"),
        ("precision", "half", "expected float64 or float32, got 'half'"),
    ],
)
async def test_a_model_that_cannot_be_is_refused_and_the_run_stays(field, text, complaint):
    async with opened() as (app, pilot):
        await press(pilot, "S", "M")
        before = state_of(app)
        await fill_in(app, pilot, **{field: text})
        assert screen_name(app) == "NewRun"
        assert complaint in str(app.screen.query_one("#problem", Static).content)
        await press(pilot, "escape")
        assert state_of(app) == before


def shown_steps(app: Any) -> list[tuple[float, float]]:
    axes = [chart.plot.x_axis for chart in app.query(StepChart) if chart.plot is not None]
    return [(axis.low, axis.high) for axis in axes]


async def test_the_wheel_zooms_all_charts_around_the_step_under_the_mouse():
    async with opened(size=(160, 48)) as (app, pilot):
        await press(pilot, *["S"] * 6)
        panel = app.query_one(BoundChart)
        column = next(c for c in range(panel.size.width) if round(panel.plot.x_at(c) or 0) == 40)
        x, y = panel.region.x + column + 1, panel.region.y + 6
        at = MouseScrollUp(panel, column + 1, 6, 0, 0, 0, False, False, False, x, y)
        panel.on_mouse_scroll_up(at)
        await press(pilot)
        assert shown_steps(app) == [(13.0, 53.0)] * 3  # 40 steps, of which 40 is at two thirds as before
        assert app.session.viewed is None
        for _ in range(3):
            panel.on_mouse_scroll_down(at)
        await press(pilot)
        assert subtitle(app) == "" and all(low <= 0 and high >= 60 for low, high in shown_steps(app))


async def test_dragging_a_chart_shows_earlier_steps_and_looks_at_none():
    async with opened(size=(160, 48)) as (app, pilot):
        await press(pilot, *["S"] * 6, "up")
        assert shown_steps(app) == [(30.0, 60.0)] * 3
        panel = app.query_one(BoundChart)
        third = panel.plot.columns // 3
        await pilot.mouse_down(panel, offset=(20, 5))
        await pilot.hover(panel, offset=(20 + third, 5))
        await pilot.mouse_up(panel, offset=(20 + third, 5))
        await press(pilot)
        assert shown_steps(app) == [(20.0, 50.0)] * 3
        assert subtitle(app) == "steps 20–50"
        assert app.session.viewed is None
        await press(pilot, "S")
        assert shown_steps(app) == [(20.0, 50.0)] * 3  # a part that was chosen stays while the run goes on


async def test_looking_back_beyond_what_is_shown_brings_it_into_view():
    async with opened(size=(160, 48)) as (app, pilot):
        await press(pilot, *["S"] * 6, "up", "comma", "home")
        assert all(low <= 0 <= high for low, high in shown_steps(app))
        assert subtitle(app) == "steps 0–30"


# ----- the command palette -----


async def test_the_command_palette_lists_every_command():
    async with opened() as (app, _):
        commands = {command.title: command.help for command in app.get_system_commands(app.screen)}
        for _, action, name, what, _ in keys.TABLE:
            assert name in commands
            assert action == "quit" or commands[name] == what


async def test_a_command_of_the_palette_is_carried_out():
    async with opened() as (app, pilot):
        await press(pilot, "ctrl+p")
        await press(pilot, *"Ten steps")
        await until(lambda: app.screen.query_one(OptionList).option_count > 0)
        await press(pilot, "enter")
        await until(lambda: app.session.step == 10)


# ----- training -----


async def test_a_running_app_trains_and_shows_it_and_takes_the_steps_of_a_plain_trainer():
    async with opened(speed=1e6, run=True) as (app, pilot):
        assert "▶" in title(app)
        await until(lambda: app.session.step >= 12)
        app.session.run(False)
        await until(lambda: not app._busy.locked())
        app.paint()
        await pilot.pause(0)
        assert f"step {app.session.step} " in title(app)
        assert "‖ paused" in title(app)
        trainer = SMALL.open().trainer
        list(trainer.steps(app.session.step))
        assert app.session.trainer.theta.tobytes() == trainer.theta.tobytes()
        assert app.session.trainer.phi.tobytes() == trainer.phi.tobytes()


async def test_the_speed_holds_back_the_run():
    async with opened(speed=10, run=True) as (app, _):
        began, first = time.monotonic(), app.session.step
        await until(lambda: app.session.step - first >= 6)
        assert app.session.step - first <= 10 * (time.monotonic() - began) + 3


async def test_what_the_screen_reads_never_changes_in_a_thread(monkeypatch):
    """A chart reads one column after the other: a step that comes between them made the app end."""
    places, append = [], History.append

    def watched(self, record):
        places.append(threading.current_thread())
        append(self, record)

    monkeypatch.setattr(History, "append", watched)
    monkeypatch.setattr("tinyvae.tui.app.SLOW_STEP", -1.0)  # each step in a thread
    async with opened(speed=1e6) as (app, pilot):
        app.session.gap_every = 4
        await press(pilot, "s", "s")
        assert app.session.step == 2
        app.session.run(True)
        await until(lambda: app.session.step >= 9)
        await app.between_steps(app.session.run, False)
        assert set(places) == {threading.main_thread()} and {4, 8} <= app.session.gaps.keys()
        trainer = SMALL.open().trainer
        list(trainer.steps(app.session.step))
        assert app.session.trainer.theta.tobytes() == trainer.theta.tobytes()


async def test_slow_steps_do_not_starve_the_screen(monkeypatch):
    async with opened(speed=1e6) as (app, _):
        step_once, painted = app.session.step_once, []

        def slow(*publish: Any) -> bool:
            time.sleep(0.04)
            return step_once(*publish)

        monkeypatch.setattr(app.session, "step_once", slow)
        monkeypatch.setattr(app, "_title", lambda step, make=app._title: painted.append(step) or make(step))
        app.session.run(True)
        await until(lambda: app.session.step >= 25)
        app.session.run(False)
        await until(lambda: not app._busy.locked())
        assert len(set(painted)) >= 8


async def test_a_switch_during_a_slow_step_takes_effect_after_it(monkeypatch):
    async with opened(speed=1e6) as (app, _):
        trainer = app.session.trainer
        move, bits = trainer._move, [trainer.theta.tobytes()]

        def slow(*groups: bool) -> Any:
            out = move(*groups)
            time.sleep(0.03)
            bits.append(trainer.theta.tobytes())
            return out

        monkeypatch.setattr(trainer, "_move", slow)
        app._step_seconds = 1.0  # so that it trains in a thread
        app.session.run(True)
        for _ in range(6):
            await asyncio.sleep(0.07)
            await app.run_action("switch('theta')")
        app.session.run(False)
        await until(lambda: not app._busy.locked())
        history = app.session.history
        moved = [old != new for old, new in zip(bits, bits[1:])]
        assert history.column("theta_on")[1:].astype(bool).tolist() == moved
        assert [one.broken_at for one in app.session.invariants()] == [None, None]


@pytest.mark.parametrize("optimizer, rate", [("sgd", 1.0), ("adam", 5.0)])
async def test_a_diverged_run_stays_on_screen_and_says_so(optimizer, rate):
    config = replace(SMALL, optimizer=optimizer, learning_rate=rate)
    async with opened(config, speed=1e6, run=True) as (app, pilot):
        await until(lambda: bool(app.session.stopped))
        await until(lambda: any("is not finite" in notice for notice in notices(app)))
        app.paint()
        await press(pilot)
        assert "■ diverged" in title(app)
        assert minus(f"{app.session.history.row(app.session.step)['log_px']:.4f}") in identity(app)
        await press(pilot, "space")
        assert not app.session.running
        assert any("r resets" in notice for notice in notices(app))
        await press(pilot, "left")
        assert "looking back" in title(app)
        await press(pilot, "r")
        assert "diverged" not in title(app)


async def test_a_single_step_that_diverges_is_shown_too():
    async with opened(replace(SMALL, learning_rate=5.0)) as (app, pilot):
        for _ in range(10):
            await press(pilot, "s")
            if app.session.stopped:
                break
        assert app.session.stopped
        assert "■ diverged" in title(app)
        assert any("is not finite" in notice for notice in notices(app))


# ----- another run -----


@pytest.mark.parametrize("name", DATASETS)
async def test_every_dataset_opens_and_every_panel_draws_it(name):
    async with opened(Config(dataset=name, n=12, hidden=(8,)), size=(200, 55)) as (app, pilot):
        await press(pilot, "s", "n")
        assert f"· {name} · 12 points" in title(app)
        for panel in app.query(Panel):
            assert panel.plot is not None
            assert any(strip.text.strip() for strip in panel.plot.strips)


async def test_choosing_another_dataset_begins_a_run_on_it():
    async with opened() as (app, pilot):
        await press(pilot, "s", "d")
        options = app.screen.query_one(OptionList)
        assert [options.get_option_at_index(k).id for k in range(options.option_count)] == DATASETS
        assert options.highlighted == DATASETS.index("arc")
        await press(pilot, "down", "enter")
        await until(lambda: app.session.data.name == DATASETS[DATASETS.index("arc") + 1])
        app.session.run(False)
        await until(lambda: not app._busy.locked())
        assert app.session.selected == 0
        assert screen_name(app) == "Screen"


async def test_another_dataset_takes_what_is_recommended_for_it_and_keeps_the_rest():
    async with opened(replace(SMALL, optimizer="sgd", learning_rate=1e-4, seed=3)) as (app, _):
        await app._open("crossing")
        app.session.run(False)
        await until(lambda: not app._busy.locked())
        config, recommended = app.session.resolved, RECOMMENDED["crossing"]
        assert (config.hidden, config.learning_rate) == (recommended.hidden, recommended.learning_rate)
        assert (config.optimizer, config.seed) == ("sgd", 3)
        nearest = np.linalg.norm(app.session.trainer.evaluation_x, axis=1).argmin()
        assert app.session.selected == nearest  # it opens at the crossing


async def test_a_file_of_the_user_opens(tmp_path):
    rng = np.random.default_rng(0)
    np.savetxt(tmp_path / "mine.csv", rng.normal(size=(30, 5)), delimiter=",")
    config = Config(dataset=str(tmp_path / "mine.csv"), hidden=(8,), latent_dim=1)
    async with opened(config, size=(200, 55)) as (app, pilot):
        await press(pilot, "s", "n", "left")
        assert "mine.csv · 30 points" in title(app)


# ----- export -----


async def test_export_saves_the_records_and_a_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with opened() as (app, pilot):
        await press(pilot, "s", "s", "e")
        (folder,) = tmp_path.iterdir()
        assert any(str(folder) in notice for notice in notices(app))
    assert {file.name for file in folder.iterdir()} == EXPORTED
    assert len((folder / "records.csv").read_text(encoding="utf-8").splitlines()) == 4  # names, steps 0 to 2
    assert (folder / "screen.svg").read_text(encoding="utf-8").startswith("<svg")


async def test_export_that_cannot_write_says_so_and_nothing_else_happens(tmp_path, monkeypatch):
    if os.geteuid() == 0:  # root may write everywhere but in here
        monkeypatch.chdir("/proc")
    else:
        tmp_path.chmod(0o500)
        monkeypatch.chdir(tmp_path)
    async with opened() as (app, pilot):
        await press(pilot, "s", "e")
        assert any("saved: " in notice for notice in notices(app))
        assert app.session.step == 1


# ----- sizes -----


def assert_fits(app: Any, size: tuple[int, int]) -> None:
    screen = lines(app)
    assert len(screen) == size[1]
    for panel in app.query(Panel):
        if panel.display and panel.region:
            assert panel.plot is not None, panel.id
            assert [strip.cell_length for strip in panel.plot.strips] == [panel.size.width] * panel.size.height


@pytest.mark.parametrize("size", SIZES)
async def test_a_size_shows_title_identity_panels_and_footer(size):
    async with opened(size=size) as (app, pilot):
        await press(pilot, "s", "s")
        assert_fits(app, size)
        text = shown(app)
        assert "step 2" in title(app)
        assert all(name in text for name in (term.symbol for term in TERMS.values()))
        assert all(minus(f"{app.session.history.row(2)[term]:.4f}") in text for term in TERMS)
        assert "space" in lines(app)[-1]
        assert "quit" in lines(app)[-1].lower()
        visible = [panel.id for panel in app.query(Panel) if panel.display]
        assert len(visible) == {80: 1, 120: 4, 200: 6, 240: 6}[size[0]]


@pytest.mark.parametrize("latent_dim", [1, 2])
async def test_resizing_between_any_sizes_never_fails(latent_dim):
    path = [
        (80, 24),
        (240, 64),
        (60, 18),
        (200, 55),
        (120, 36),
        (99, 30),
        (100, 30),
        (150, 40),
        (80, 24),
        (149, 20),
    ]
    config = replace(SMALL, n=12, latent_dim=latent_dim)
    async with opened(config) as (app, pilot):
        await press(pilot, "s", "s", "left")
        for size in path:
            await pilot.resize_terminal(*size)
            await press(pilot)
            assert app.size == size
            await until(lambda: all(panel.plot for panel in app.query(Panel) if panel.display), 3.0)
            await until(lambda: "looking back" in title(app))  # the title is painted at the next frame
            assert_fits(app, size)


async def test_below_60_by_18_only_a_hint_is_shown_until_there_is_room():
    async with opened(size=(80, 24)) as (app, pilot):
        for size in ((59, 24), (80, 17), (10, 5), (1, 1), (40, 12)):
            await pilot.resize_terminal(*size)
            await press(pilot)
            assert "log p(x)" not in shown(app)
        assert "at least 60 × 18" in " ".join(shown(app).split())
        await press(pilot, "s")  # the keys still work
        assert app.session.step == 1
        await pilot.resize_terminal(60, 18)
        await press(pilot)
        assert "log pθ(x)" in shown(app)
        assert "at least" not in shown(app)


async def test_a_size_that_changes_while_a_dialog_is_open_is_right_when_it_closes():
    async with opened() as (app, pilot):
        await press(pilot, "question_mark")
        await pilot.resize_terminal(50, 15)
        await press(pilot, "escape")
        assert "at least" in shown(app)
        await press(pilot, "question_mark")
        await pilot.resize_terminal(*WIDE)
        await press(pilot, "escape")
        assert "log pθ(x)" in shown(app)


@pytest.mark.parametrize("size", [(80, 24), WIDE, (200, 55)])
async def test_a_panel_that_has_the_focus_can_be_seen(size):
    async with opened(size=size) as (app, pilot):
        for number in "123456":
            await press(pilot, number)
            assert app.focused.display, number
            assert app.focused.region, number
            assert app.focused.TITLE[:12] in shown(app)
        for _ in range(8):
            await press(pilot, "tab")
            assert app.focused is not None
            assert app.focused.region


# ----- colours and characters -----


def contrast(segment: Segment) -> float:
    """WCAG's ratio between the colours of a segment, 1 to 21."""

    def light(color: Any) -> float:
        parts = np.array(color.get_truecolor()) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    assert segment.style is not None
    one, two = light(segment.style.color), light(segment.style.bgcolor)
    return (max(one, two) + 0.05) / (min(one, two) + 0.05)


@pytest.mark.parametrize("theme, palette", [("textual-dark", DARK), ("textual-light", LIGHT)])
async def test_each_term_has_its_colour_and_can_be_read(theme, palette):
    async with opened() as (app, pilot):
        app.theme = theme
        await press(pilot, "s")
        values = {term: minus(f"{app.session.history.row(1)[term]:.4f}") for term in TERMS}
        found = {
            term: [s for s in segments(app, slice(2, 4)) if s.text.strip() == v] for term, v in values.items()
        }
        for term, hits in found.items():
            assert hits, term
            assert hits[0].style.color.get_truecolor().hex == palette[term].lower()
        for segment in segments(app, slice(0, 8)):
            assert contrast(segment) > 3, segment


async def test_the_theme_can_be_changed_while_running_and_the_plots_follow():
    async with opened() as (app, pilot):
        await press(pilot, "s")
        for theme, color in (("textual-light", LIGHT["elbo"]), ("textual-dark", DARK["elbo"])):
            app.theme = theme
            await press(pilot)
            await until(lambda: app.query_one(BoundChart).plot is not None)  # it is drawn anew
            inks = {
                segment.style.color.get_truecolor().hex
                for strip in app.query_one(BoundChart).plot.strips
                for segment in strip
                if segment.style.color is not None
            }
            assert color.lower() in inks


@pytest.mark.parametrize("theme", BUILTIN_THEMES)
async def test_in_every_theme_all_words_and_numbers_can_be_read(theme):
    async with opened() as (app, pilot):
        app.theme = theme
        await press(pilot, "s", "t", "s")
        await until(lambda: app.query_one(BoundChart).plot is not None)
        read = 0
        for segment in segments(app):
            color, ground = segment.style.color, segment.style.bgcolor
            if not any(letter.isalnum() for letter in segment.text) or color is None or ground is None:
                continue
            if ground.is_default:  # the terminal's own, in the themes that leave it alone
                assert "ansi" in theme
                continue
            read += 1
            assert contrast(segment) > 2.5, segment
        assert read > 50 or "ansi" in theme


@pytest.mark.parametrize("key", ["question_mark", "c", "l", "w", "v", "a", "M", "d"])
async def test_the_title_and_the_hints_of_a_dialog_can_be_read_in_the_light_theme(key):
    async with opened() as (app, pilot):
        app.theme = "textual-light"
        await press(pilot, "S", key)
        await until(lambda: screen_name(app) != "Screen")
        box = app.screen.query("Vertical, VerticalScroll").first()
        assert box.border_title and box.border_subtitle
        strips = app.screen._compositor.render_strips()
        for row in (box.region.y, box.region.bottom - 1):
            words = [s for s in strips[row].crop(box.region.x, box.region.right) if s.text.strip(" ─╭╮╰╯")]
            assert words and all(contrast(segment) > 4.5 for segment in words), words


@pytest.mark.parametrize(("theme", "ground"), [("ansi-dark", "#000000"), ("ansi-light", "#FFFFFF")])
async def test_shades_are_mixed_for_a_dark_or_a_light_terminal_where_its_colours_are_its_own(theme, ground):
    async with opened() as (app, pilot):
        app.theme = theme
        await press(pilot, "s")
        assert background(app.query_one(BoundChart)) == ground


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "textual-ansi"])
async def test_without_colours_there_are_only_greys_and_all_can_be_read(monkeypatch, theme):
    monkeypatch.setenv("NO_COLOR", "1")
    async with opened() as (app, pilot):
        if theme not in app.available_themes:
            theme = next(name for name in app.available_themes if "ansi" in name)
        app.theme = theme
        await press(pilot, "s", "t", "s")
        for segment in segments(app, slice(0, 8)):
            color, ground = segment.style.color, segment.style.bgcolor
            if color is None or ground is None or color.is_default or ground.is_default:
                continue
            assert len(set(color.get_truecolor())) == 1, segment
            assert contrast(segment) > 2, segment


@pytest.mark.parametrize("dataset", ["arc", "bars"])
async def test_ascii_means_ascii(dataset):
    async with opened(replace(SMALL, dataset=dataset, n=12), size=(200, 55), charset="ascii") as (app, pilot):
        await press(pilot, "s", "t", "s", "left")
        for panel in app.query(Panel):
            text = "\n".join(strip.text for strip in panel.plot.strips)
            assert text.isascii(), (panel.id, sorted(set(text) - set(map(chr, range(128)))))


@pytest.mark.parametrize("charset", ["braille", "block"])
async def test_the_other_characters_are_used_when_asked_for(charset):
    async with opened(charset=charset) as (app, pilot):
        await press(pilot, "s", "s")
        text = "".join(strip.text for strip in app.query_one(BoundChart).plot.strips)
        assert any("\u2801" <= character <= "\u28ff" for character in text) == (charset == "braille")


# ----- what a run is held against -----


async def test_the_truth_and_one_gaussian_are_labelled_lines_and_fresh_points_a_curve():
    async with opened() as (app, pilot):
        await press(pilot, "s")
        text = shown(app)
        assert "the truth −" in text and "held out −" in text
        assert "true p(z|x)" in text


async def test_on_a_plane_the_references_come_while_the_run_goes_on():
    async with opened(replace(SMALL, dataset="linear", n=12)) as (app, pilot):
        await until(lambda: app.session.references is not None)
        await press(pilot, "s")
        assert "the truth" in shown(app)


async def test_another_weight_of_the_prior_is_seen_in_the_title_and_as_a_mark():
    async with opened() as (app, pilot):
        await app._adjust({"beta": 2.0})
        await press(pilot, "s", "s")
        assert "β 2" in title(app) and "beta 2.0" in shown(app)
