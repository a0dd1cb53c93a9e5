"""The latent space and the data space: what is there to be seen fills the panel, and each view shows what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyvae.runs import Config
from tinyvae.tui.app import TinyVAE
from tinyvae.tui.session import Session
from tinyvae.tui.widgets.chase import ChasePlane
from tinyvae.tui.widgets.spaces import DATA_VIEWS, DataPanel, LatentPanel

LINE = Config(dataset="arc", n=40, hidden=(8,), batch_size=16, evaluate_every=0)
PLANE = Config(dataset="linear", n=12, hidden=(8,), evaluate_every=0)


async def painted(app: TinyVAE, pilot: Any, panel: Any) -> None:
    """A frame has been drawn, however long that takes on a busy machine."""
    app.paint(force=True)
    await pilot.pause(0.05)
    while panel.plot is None:
        await pilot.pause(0.05)


def text(panel: Any) -> str:
    return "\n".join(strip.text for strip in panel.plot.strips)


async def test_the_latent_panel_shows_where_q_and_the_posterior_are_and_does_not_jitter():
    app = TinyVAE(LINE, run=False)
    async with app.run_test(size=(140, 42)) as pilot:
        panel, seen = app.query_one(LatentPanel), []
        for _ in range(120):
            app.session.step_once()
            if app.session.step > 80:
                app.paint(force=True)
                await pilot.pause(0)
                view = app.session.view()
                axis, n = panel.plot.x_axis, view.selected
                posterior, q = view.evaluation.target, view.evaluation.q
                means = np.array([posterior.posterior_mean[n, 0], q.mean[n, 0]])
                stds = np.sqrt([posterior.posterior_cov[n, 0, 0], q.cov[n, 0, 0]])
                low, high = (means - 4 * stds).min(), (means + 4 * stds).max()
                assert axis.low <= low and high <= axis.high
                assert high - low > 0.55 * (axis.high - axis.low)
                seen.append((axis.low, axis.high))
        assert len(set(seen)) <= 8  # of 40 frames


@pytest.mark.parametrize("config", [LINE, PLANE])
async def test_f_goes_through_the_posterior_as_the_map_q_as_the_map_and_all_encodings(config):
    app = TinyVAE(config, run=False)
    async with app.run_test(size=(200, 55)) as pilot:
        panel, seen = app.query_one(LatentPanel), []
        for _ in range(4):
            await painted(app, pilot, panel)
            seen.append(text(panel))
            await pilot.press("f")
        assert ("▒ pθ(z|x)" in seen[0]) == (config is PLANE)
        assert ("▒ q(z|x)" in seen[1]) == (config is PLANE)
        assert "q(z|x)" in seen[1] and "pθ(z|x)" in seen[1]
        assert "of all q" in seen[2] and "p(z)" in seen[2] and "pθ" not in seen[2]
        assert seen[3].splitlines()[0] == seen[0].splitlines()[0]


def test_the_aggregate_posterior_is_the_mean_of_the_densities_of_all_q():
    view = Session(LINE).view()
    ticks, q = np.linspace(-3, 3, 7), view.evaluation.q
    each = [np.exp(q[[k]].log_prob(ticks[:, None, None]))[:, 0] for k in range(40)]
    assert view.aggregate(ticks) == pytest.approx(np.mean(each, axis=0))


async def test_the_chase_shows_both_coordinates_of_a_plane():
    app = TinyVAE(PLANE, run=False)
    async with app.run_test(size=(200, 55)) as pilot:
        panel = app.query_one(ChasePlane)
        await painted(app, pilot, panel)
        assert all(sign in text(panel) for sign in ("z₁", "z₂", "◆", "◇"))
        view = app.session.view()
        n = view.selected
        ends = [view.evaluation.target.posterior_mean[n, 1], view.evaluation.q.mean[n, 1]]
        rows = [strip.text for strip in panel.plot.strips]
        (row, column) = next((k, line.index("◇")) for k, line in enumerate(rows) if "◇" in line)
        plot = panel.plot
        assert plot.x_at(column) == pytest.approx(
            ends[0], abs=(plot.x_axis.high - plot.x_axis.low) / plot.columns
        )
        height = (plot.y_axis.high - plot.y_axis.low) / plot.rows
        assert plot.y_axis.high - (row - plot.top + 0.5) * height == pytest.approx(ends[1], abs=1.5 * height)


def test_draws_are_those_of_the_model_from_the_same_noise_each_time():
    session = Session(LINE)
    view, rng = session.view(), np.random.default_rng(0)
    z = rng.standard_normal((256, 1))
    mean, theta = view.model.decode(view.evaluation.theta, z), view.evaluation.theta
    expected = mean + np.exp(view.model.log_noise_std(theta)) * rng.standard_normal(mean.shape)
    assert view.draws == pytest.approx(expected) and (session.view().draws == view.draws).all()
    bits = Session(Config(dataset="bars", n=12, hidden=(8,), evaluate_every=0)).view().draws
    assert bits.shape == (256, 16) and set(np.unique(bits)) == {0.0, 1.0}


async def test_i_goes_through_data_draws_and_the_decoder_by_column_and_looking_changes_no_bit():
    app = TinyVAE(PLANE, run=False)
    async with app.run_test(size=(200, 55)) as pilot:
        panel, legends, theta = app.query_one(DataPanel), [], app.session.trainer.theta.tobytes()
        for _ in DATA_VIEWS:
            await painted(app, pilot, panel)
            legends.append(text(panel).splitlines()[0])
            await pilot.press("i")
        assert ["data" in one for one in legends] == [True, True, False, False]
        assert ["draws" in one for one in legends] == [False, True, True, False]
        assert ["decoder" in one for one in legends] == [True, False, False, False]
        assert all(name in legends[3] for name in app.session.data.columns)
        app.session.step_once()
        other = Session(PLANE)
        other.step_once()
        assert theta != app.session.trainer.theta.tobytes() == other.trainer.theta.tobytes()


async def test_pictures_are_shown_as_draws_and_as_a_grid_over_z():
    app = TinyVAE(Config(dataset="bars", n=12, hidden=(8,), evaluate_every=0), run=False)
    async with app.run_test(size=(160, 48)) as pilot:
        panel, seen = app.query_one(DataPanel), []
        for _ in DATA_VIEWS:
            await painted(app, pilot, panel)
            seen.append(text(panel))
            await pilot.press("i")
        assert "◆ x" in seen[0] and "data" in seen[1] and "draws" in seen[1] and "draws" in seen[2]
        assert all(part in seen[3] for part in ("z₁", "z₂", "probability of a bit"))
    view = app.session.view()
    corner = view.model.decode(view.evaluation.theta, np.array([[-2.25, 2.25]]))[0]
    assert view.decoded_grid[6, 0] == pytest.approx(1 / (1 + np.exp(-corner)))


async def test_the_columns_on_the_axes_can_be_chosen_and_are_always_named():
    app = TinyVAE(PLANE, run=False)
    async with app.run_test(size=(100, 30)) as pilot:
        panel, x = app.query_one(DataPanel), app.session.data.x
        for across, up in ((2, 3), (4, 3)):  # x₁ and x₂, x₃ and x₂; 0 and 1 are the principal axes
            while panel.axes != [across, up]:
                await pilot.press(
                    *["left_square_bracket"] * (panel.axes[0] != across),
                    *["right_square_bracket"] * (panel.axes[1] != up),
                )
            await painted(app, pilot, panel)
            names = [app.session.data.columns[axis - 2] for axis in (across, up)]
            rows = text(panel).splitlines()
            assert names[0] in rows[-1] and names[1] in rows[0]
            for axis, column in ((panel.plot.x_axis, across - 2), (panel.plot.y_axis, up - 2)):
                assert axis.low <= x[:, column].min() and x[:, column].max() <= axis.high
