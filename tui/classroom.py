"""Plays a lesson in the app: predict, watch, compare, phase by phase."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from textual.screen import Screen

from tinyvae.lessons import LESSONS, Lesson, Phase, TrueMeter
from tinyvae.runs import Run

from .screens.lessons import Card
from .session import Session
from .work import in_thread

LEAVE = "leave the lesson"


class Stage(Protocol):
    """What a lesson needs of the app."""

    session: Session

    def begin(self, make: Callable[[], Run]) -> None: ...
    async def go_back(self, run: dict[str, Any] | None = None) -> None: ...
    def focus_panel(self, name: str) -> None: ...
    def paint(self) -> None: ...
    def notify(self, message: str) -> None: ...
    async def push_screen_wait(self, screen: Screen[Any]) -> Any: ...


async def choose(app: Stage) -> Lesson | None:
    """The list of lessons."""
    names = [f"[b]{number}. {lesson.title}[/b]\n   {lesson.claim}" for number, lesson in enumerate(LESSONS, 1)]
    chosen = await app.push_screen_wait(Card("Lessons", "", names, "↑ ↓ enter opens · esc closes", wide=True))
    return None if chosen is None else LESSONS[chosen]


async def play(app: Stage, lesson: Lesson) -> None:
    """Introduce the lesson, then play its phases; where it has no run, only measure it."""
    text = f"{lesson.claim}\n\n*Source: {lesson.source}*"
    ways = ["watch and predict"] if lesson.phases else []
    chosen = await app.push_screen_wait(Card(lesson.title, text, [*ways, "measure the claims", LEAVE]))
    if chosen is None or chosen == len(ways) + 1:
        return
    if chosen == len(ways):
        await measure(app, lesson)
        return
    app.begin(lesson.open)
    home = app.session.before
    if await play_phases(app, lesson):
        await app.go_back(home)
        app.notify("Back at your run; R returns to that of the lesson.")


async def play_phases(app: Stage, lesson: Lesson) -> bool:
    """Predict, watch, compare; False if the user has taken the run over."""
    app.session.meter = true_meter(app.session)
    if lesson.look_at:
        app.focus_panel(lesson.look_at[0])
    right = 0
    for number, phase in enumerate(lesson.phases, 1):
        heading = f"{lesson.title}: {number} of {len(lesson.phases)}"
        text = f"{phase.text}\n\n**{phase.question}**"
        guess = await app.push_screen_wait(Card(heading, text, phase.choices, "choose what you expect"))
        if guess is None:
            return True
        rows = await watch(app, phase)
        if rows is None:
            app.notify(
                "You have taken over: the lesson ends here, the run is yours. R returns to yours of before."
            )
            return False
        answer = phase.answer(rows)
        right += answer == guess
        verdict = "As you predicted" if answer == guess else f"You predicted: {phase.choices[guess]}"
        text = f"**{verdict}.** What happened: {phase.choices[answer]}.\n\n{phase.explain(rows)}"
        if number < len(lesson.phases):
            if await app.push_screen_wait(Card(heading, text, ["go on", LEAVE])) != 0:
                return True
            continue
        finish = f"finish ({right} of {number} predicted)"
        if await app.push_screen_wait(Card(heading, text, [finish, "measure all claims of this lesson"])) == 1:
            await measure(app, lesson)
    return True


async def watch(app: Stage, phase: Phase) -> list[dict[str, float]] | None:
    """Run one phase on screen; None if the user took over before its end."""
    session, start = app.session, app.session.step
    if phase.settings:
        session.change(_label(phase.settings), **phase.settings)
    end = session.until = start + phase.steps
    session.speed = np.inf
    session.run(True)
    while session.until == end and not session.stopped:
        await asyncio.sleep(0.05)
    app.paint()
    if session is not app.session or session.step < end:
        return None
    return [session.history.row(step) for step in range(start, end + 1)]


def _label(settings: Mapping[str, object]) -> str:
    groups = {"theta": "θ", "phi": "φ"}
    parts = []
    for name, value in settings.items():
        parts.append(f"{groups[name]} {'on' if value else 'off'}" if name in groups else f"{name} {value}")
    return ", ".join(parts)


async def measure(app: Stage, lesson: Lesson) -> None:
    """The claims of the lesson against their numbers, as a table."""
    app.notify("Measuring; this can take some seconds.")
    measured = await in_thread(lesson.measure, 0)
    rows = [
        f"| {c.claim.replace('|', '∣')} | {c.measured:.6g} | {c.expected} | {'✓' if c.ok else '✗'} |"
        for c in lesson.check(measured)
    ]
    table = "\n".join(["| claim | measured | expected | |", "|---|---|---|---|", *rows])
    text = f"{lesson.explain(measured)}\n\n{table}"
    await app.push_screen_wait(Card(lesson.title, text, ["close"], wide=True))
    if lesson.name == "condition":  # its first part is a VAE of two parameters, small enough to be seen whole
        from .screens.surface import SurfaceScreen

        await app.push_screen_wait(SurfaceScreen())


def true_meter(session: Session) -> TrueMeter | None:
    """Measures KL(q ‖ true posterior) of the run on screen, where the truth is known and can be aligned."""
    try:
        return TrueMeter(session.data.truth, session.trainer.evaluation_x) if session.data.truth else None
    except ValueError:
        return None
