"""A lesson in the app: predict, watch, compare."""

from dataclasses import replace

import pytest
from textual.widgets import Markdown

from tinyvae.lessons import LESSONS
from tinyvae.runs import Config
from tinyvae.tui import classroom
from tinyvae.tui.app import TinyVAE
from tinyvae.tui.screens.lessons import Card
from tinyvae.tui.screens.surface import CoinMap, SurfaceScreen


async def settled(pilot, done, tries=400):
    for _ in range(tries):
        await pilot.pause(0.01)
        if pilot.app.screen.is_mounted and done():
            return
    raise AssertionError("it did not come to pass")


def text_of(app):
    return app.screen.query_one(Markdown).source if app.screen.query(Markdown) else ""


@pytest.mark.parametrize(("guess", "verdict"), [(2, "As you predicted"), (0, "You predicted: it rises")])
async def test_a_prediction_is_compared_with_what_happened(monkeypatch, guess, verdict):
    lesson = next(one for one in LESSONS if one.name == "original")
    short = replace(lesson, phases=(replace(lesson.phases[0], steps=3),))
    monkeypatch.setattr(classroom, "LESSONS", (short,))
    app = TinyVAE(Config(n=20, hidden=(4,)), run=False)
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("l")
        await settled(pilot, lambda: isinstance(app.screen, Card) and app.screen.heading == "Lessons")
        app.screen.dismiss(0)
        await settled(pilot, lambda: lesson.claim in text_of(app))
        app.screen.dismiss(0)  # watch and predict
        await settled(pilot, lambda: short.phases[0].question in text_of(app))
        assert app.session.step == 0 and app.session.meter is not None
        app.screen.dismiss(guess)
        await settled(pilot, lambda: "What happened" in text_of(app), 2000)
        assert verdict in text_of(app) and "What happened: it does not move at all" in text_of(app)
        assert app.session.step == 3 and not app.session.running
        assert len(set(app.session.history.column("log_px"))) == 1


async def test_taking_over_ends_the_lesson_and_keeps_the_run():
    lesson = next(one for one in LESSONS if one.name == "wrong-posterior")
    long = replace(lesson.phases[0], steps=100_000)  # not over before somebody takes over
    lesson = replace(lesson, phases=(long, *lesson.phases[1:]))
    app = TinyVAE(Config(n=20, hidden=(4,)), run=False)
    async with app.run_test(size=(120, 36)) as pilot:
        worker = app.run_worker(classroom.play(app, lesson))
        await settled(pilot, lambda: lesson.claim in text_of(app))
        app.screen.dismiss(0)
        await settled(pilot, lambda: lesson.phases[0].question in text_of(app))
        app.screen.dismiss(0)
        await settled(pilot, lambda: app.session.step > 2)
        await app.run_action("switch('phi')")
        await settled(pilot, lambda: worker.is_finished)
        assert not isinstance(app.screen, Card) and app.session.step > 2
        app.session.run(False)


async def test_the_meter_shows_both_distances_where_the_truth_is_known():
    app = TinyVAE(Config(n=20, hidden=(4,)), run=False)
    async with app.run_test(size=(120, 36)) as pilot:
        app.session.meter = classroom.true_meter(app.session)
        app.paint(force=True)
        await pilot.pause()
        line = app.query_one("#identity").render().plain
        view = app.session.view()
        assert "to the true posterior" in line and f"{view.true_kl:.4f}" in line
        assert view.true_kl == pytest.approx(app.session.meter.kl(view.evaluation.q))


async def test_the_whole_surface_of_the_coin_is_drawn_with_its_two_optima():
    app = TinyVAE(Config(n=20, hidden=(4,)), run=False)
    async with app.run_test(size=(120, 36)) as pilot:
        await app.push_screen(SurfaceScreen())
        await pilot.pause()
        found = app.screen.query_one(CoinMap)
        assert found.plot is not None and "◆" in "".join(strip.text for strip in found.plot.strips)
        assert found.found.best[0] > found.found.likelihood_best


async def test_quitting_asks_only_where_something_would_be_lost(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    lesson = next(one for one in LESSONS if one.name == "wrong-posterior")
    app = TinyVAE(Config(n=20, hidden=(4,)), run=False)
    async with app.run_test(size=(120, 36)) as pilot:
        assert not app.session.would_be_lost
        app.begin(lesson.open)
        assert app.session.share_string == "" and not app.session.would_be_lost  # nothing has been done yet
        app.session.step_once()
        await pilot.press("q")
        await settled(pilot, lambda: isinstance(app.screen, Card))
        app.screen.dismiss(0)
        await settled(pilot, lambda: not isinstance(app.screen, Card))
        assert not app._exit
        app.action_export()
        assert not app.session.would_be_lost
        app.session.look_at(0)
        app.session.branch()
        app.session.step_once()  # the same step again, of a branch that is not saved
        assert app.session.would_be_lost
        await pilot.press("q")
        await settled(pilot, lambda: isinstance(app.screen, Card))
        app.screen.dismiss(1)
        await settled(pilot, lambda: app._exit)
