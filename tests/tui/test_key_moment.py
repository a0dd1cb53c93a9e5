"""What the app is there for: with θ frozen, each nat that the ELBO gains is seen to leave KL(q‖pθ(z|x))."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tinyvae.runs import Config
from tinyvae.tui.app import TinyVAE
from tinyvae.tui.palette import DARK
from tinyvae.tui.plots import Plot
from tinyvae.tui.session import Session
from tinyvae.tui.widgets.charts import BoundChart, KLChart, running_mean

AFTER = 200  # steps with θ frozen
BITS = [[1, 8], [2, 16], [4, 32], [64, 128]]  # of the dots in a Braille cell


def dots(plot: Plot, color: str) -> Iterator[tuple[int, int]]:
    """(column, row) of each dot of this colour in the plot area, in dots."""
    for row, strip in enumerate(plot.strips[plot.top : plot.top + plot.rows]):
        cells = [(c, segment.style) for segment in strip for c in segment.text]
        for column, (character, style) in enumerate(cells[plot.left : plot.left + plot.columns]):
            if style is not None and style.color is not None and style.color.name == color.lower():
                bits = ord(character) - 0x2800
                for y, pair in enumerate(BITS):
                    yield from (
                        (2 * column + x, 4 * row + y) for x, bit in enumerate(pair) if bits > 0 and bits & bit
                    )


def height_at(plot: Plot, color: str, step: int) -> float:
    """How high the line of this colour stands at a step, as a share of the plot area's height."""
    at = float(plot.x_axis.at(step))
    near = [(abs(x + 0.5 - at), y) for x, y in dots(plot, color)]
    nearest = min(distance for distance, _ in near)
    return 1 - float(np.mean([y for distance, y in near if distance == nearest])) / (4 * plot.rows)


def froze_at(session: Session, step: int, seed: int) -> None:
    """Train, freeze θ after this step, train on; the terms are known at every fourth from a little before."""
    session.open(Config(seed=seed, evaluate_every=0))
    while session.step < step + AFTER:
        session.trainer.evaluate_every = 4 * int(session.step >= step - 30)
        if session.step == step:
            session.switch("theta")
        session.step_once()


@pytest.mark.parametrize("step", [100, 500])
async def test_after_t_the_fall_of_kl_posterior_is_drawn_as_large_as_an_axis_from_0_can_show_it(step):
    app = TinyVAE(Config(), run=False)
    async with app.run_test(size=(140, 42)) as pilot:
        for seed in range(5):
            froze_at(app.session, step, seed)
            app._restart_panels()
            app.paint(force=True)
            await pilot.pause(0)
            plot: Any = app.query_one(KLChart).plot
            fell = np.subtract(*(height_at(plot, DARK["kl_posterior"], at) for at in (step, step + AFTER)))
            line = running_mean(app.session.history.column("kl_posterior"), [step])
            highest = np.nanmax(line[step - 12 :])
            assert plot.y_axis.low == 0 and highest <= plot.y_axis.high <= 1.2 * highest, seed
            if step == 100:  # at 500 q has all but caught up with θ: the records hold no such fall
                assert fell >= 1 / 3, (seed, fell)


async def test_the_bound_lies_below_log_p_by_much_of_the_panel_and_over_it_where_they_meet():
    app = TinyVAE(Config(), run=False)
    async with app.run_test(size=(140, 42)) as pilot:
        froze_at(app.session, 100, 0)
        app.paint(force=True)
        await pilot.pause(0)
        plot: Any = app.query_one(BoundChart).plot
        above, below = (height_at(plot, DARK[name], 105) for name in ("log_px", "elbo"))
        assert above - below > 1 / 3
        await pilot.press("home")  # at the start one cell holds both; it has the colour of the bound
        await pilot.pause(0)
        plot = app.query_one(BoundChart).plot
        last = {color: max(x for x, _ in dots(plot, DARK[color])) for color in ("log_px", "elbo")}
        assert last["elbo"] == last["log_px"] or last["elbo"] > last["log_px"]


def test_the_note_says_what_the_elbo_gained_and_kl_posterior_lost_since_the_switch():
    session = Session(Config(n=30, hidden=(6,), batch_size=10))
    for _ in range(5):
        session.step_once()
    session.switch("theta")
    for _ in range(60):
        session.step_once()
    elbo, kl = (session.history.column(name) for name in ("elbo", "kl_posterior"))
    gained = elbo[65] - elbo[5]
    assert gained == pytest.approx(kl[5] - kl[65], abs=1e-9)
    says = f"since step 5 ELBO {gained:+.4f}, KL posterior {-gained:+.4f}".replace("-", "−")
    assert says in session.note(65)


def test_a_running_mean_is_the_mean_of_what_is_known_around_a_step_and_never_looks_across_a_switch():
    rng = np.random.default_rng(0)
    values = rng.normal(size=90)
    values[rng.random(90) < 0.2] = np.nan
    found = running_mean(values, [40])
    sides = (values[:41], values[41:])
    half = [min(12, k // 5) for k in range(90)]  # few at first, where a mean would hide what happens
    expected = []
    for side, first in zip(sides, (0, 41)):
        for k in range(len(side)):
            values_around = side[max(0, k - half[first + k]) : k + half[first + k] + 1]
            expected.append(np.nanmean(values_around) if np.isfinite(values_around).any() else np.nan)
    assert found == pytest.approx(expected, nan_ok=True)
    frozen = np.concatenate([values[:41], np.full(49, values[40])])
    assert running_mean(frozen, [40])[41:] == pytest.approx(np.full(49, values[40]), abs=1e-12)
