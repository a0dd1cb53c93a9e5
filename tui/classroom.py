"""Plays a lesson in the app: predict, watch, compare, phase by phase."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tinyvae.lessons import LESSONS, Lesson, Phase, TrueMeter

from .screens.lessons import Card

if TYPE_CHECKING:
    from .app import TinyVAE

LEAVE = "leave the lesson"


async def choose(app: "TinyVAE") -> Lesson | None:
    """The list of lessons."""
    names = [f"[b]{number}. {lesson.title}[/b]\n   {lesson.claim}" for number, lesson in enumerate(LESSONS, 1)]
    chosen = await app.push_screen_wait(Card("Lessons", "", names, "↑ ↓ enter opens · esc closes", wide=True))
    return None if chosen is None else LESSONS[chosen]


async def play(app: "TinyVAE", lesson: Lesson) -> None:
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
    app.session.meter = true_meter(app)
    if lesson.look_at:
        app.focus_panel(lesson.look_at[0])
    right = 0
    for number, phase in enumerate(lesson.phases, 1):
        heading = f"{lesson.title}: {number} of {len(lesson.phases)}"
        guess = await app.push_screen_wait(
            Card(heading, f"{phase.text}\n\n**{phase.question}**", phase.choices, "choose what you expect")
        )
        if guess is None:
            return
        rows = await watch(app, phase)
        if rows is None:
            app.notify("You have taken over: the lesson ends here, the run is yours.")
            return
        answer = phase.answer(rows)
        right += answer == guess
        verdict = "As you predicted" if answer == guess else f"You predicted: {phase.choices[guess]}"
        text = f"**{verdict}.** What happened: {phase.choices[answer]}.\n\n{phase.explain(rows)}"
        last = number == len(lesson.phases)
        go_on = [
            f"finish ({right} of {number} predicted)" if last else "go on",
            "measure all claims of this lesson",
        ]
        chosen = await app.push_screen_wait(Card(heading, text, go_on if last else [go_on[0], LEAVE]))
        if chosen is None or (chosen == 1 and not last):
            return
        if chosen == 1:
            await measure(app, lesson)


async def watch(app: "TinyVAE", phase: Phase) -> list[dict[str, float]] | None:
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


async def measure(app: "TinyVAE", lesson: Lesson) -> None:
    """The claims of the lesson against their numbers, as a table."""
    app.notify("Measuring; this can take some seconds.")
    measured = await asyncio.to_thread(lesson.measure, 0)
    rows = [
        f"| {c.claim.replace('|', '∣')} | {c.measured:.6g} | {c.expected} | {'✓' if c.ok else '✗'} |"
        for c in lesson.check(measured)
    ]
    table = "\n".join(["| claim | measured | expected | |", "|---|---|---|---|", *rows])
    await app.push_screen_wait(
        Card(lesson.title, f"{lesson.explain(measured)}\n\n{table}", ["close"], wide=True)
    )
    if lesson.name == "condition":  # its first part is a VAE of two parameters, small enough to be seen whole
        from .screens.surface import SurfaceScreen

        await app.push_screen_wait(SurfaceScreen())


def true_meter(app: "TinyVAE") -> TrueMeter | None:
    """Measures KL(q ‖ true posterior) of the run on screen, where the truth is known and can be aligned."""
    session = app.session
    try:
        return TrueMeter(session.data.truth, session.trainer.evaluation_x) if session.data.truth else None
    except ValueError:
        return None
