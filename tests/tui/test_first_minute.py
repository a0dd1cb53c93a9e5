"""What the README's "The first minute" promises to somebody who has never seen the app, key by key."""

import re
from pathlib import Path

import numpy as np
import pytest
from textual.widgets import Static

from tinyvae.runs import Config
from tinyvae.tui.app import TinyVAE
from tinyvae.tui.screens.code import Code
from tinyvae.tui.screens.help import Help
from tinyvae.tui.widgets.identity import Identity

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_has_these_keys_in_this_order():
    text = README.read_text(encoding="utf-8").split("## The first minute")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")][1:]
    assert [re.findall("`([^`]+)`", row) for row in rows] == [
        [], ["t"], ["t", "p"], ["p"], ["←"], ["shift+←", "b", "space"], ["c"], ["?", "l"]
    ]  # fmt: skip


async def test_each_key_of_the_first_minute_shows_what_the_readme_says():
    app = TinyVAE(Config(), run=False)
    async with app.run_test(size=(160, 48)) as pilot:

        async def press(*keys):
            await pilot.press(*keys)
            await pilot.pause(0)

        def words():
            return str(app.query_one(Identity).render())

        def last(term, steps):
            return app.session.history.column(term)[-steps:]

        session = app.session
        await press(*["S"] * 4)  # the run that is already training
        assert session.history.column("log_px")[-1] > session.history.column("log_px")[0]
        gap = session.history.column("log_px") - session.history.column("elbo")
        assert gap == pytest.approx(session.history.column("kl_posterior"), abs=1e-9)

        await press("t", "S")
        assert len(set(last("log_px", 11))) == 1
        assert "✓ θ frozen ⇒ log p constant in all 10 steps" in words()
        assert "θ is frozen, log p stands still" in words()
        gained, lost = np.diff(last("elbo", 11)), -np.diff(last("kl_posterior", 11))
        assert gained == pytest.approx(lost, abs=1e-9)

        await press("t", "p", "S")
        assert len(set(last("kl_prior", 11))) == 1 and len(set(last("log_px", 11))) == 11
        assert "✓ φ frozen ⇒ KL prior constant in all 10 steps" in words()
        assert "φ is frozen: q" in words()

        await press("p", "S", "6")
        assert app.focused.id == "pursuit" and app.focused.display
        assert (last("target_moved", 10) > 0).all()

        step = session.step
        await press("left")
        assert f"step {step - 1} of {step}" in str(app.query_one("#title", Static).content)
        assert "by θ" in words() and "by φ" in words()

        await press("shift+left", "b")
        assert session.other is not None and session.other.column("step")[-1] == step == session.step + 51
        await press("S")
        assert "This branch minus the old run" in words()

        await press("c")
        assert isinstance(app.screen, Code)
        await press("escape", "question_mark")
        assert isinstance(app.screen, Help)


def test_the_notes_say_what_is_frozen():
    from tinyvae.tui.session import Session

    session = Session(Config(n=30, hidden=(6,), batch_size=10))
    assert "Nothing has been learned yet" in session.note(0)
    for _ in range(3):
        session.step_once()
    assert "frozen" not in session.note(3)
    session.switch("theta")
    session.step_once()
    assert session.note(4).startswith("θ is frozen, log p stands still")
    session.switch("phi")
    session.step_once()
    assert session.note(5) == "Both are frozen: nothing can move."
    session.switch("theta")
    session.step_once()
    assert session.note(6).startswith("φ is frozen: q")
    session.change("", phi=True, theta_steps=0)
    session.step_once()
    assert session.note(7).startswith("θ is frozen")  # no updates of θ: frozen as well
