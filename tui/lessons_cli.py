"""`tinyvae lessons`: the list, one lesson played without the app, or all claims checked."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from time import perf_counter

from rich.markup import escape
from rich.table import Table

from tinyvae.lessons import LESSONS, Check, Lesson, play

from .console import Console
from .exit_codes import FAILED, GOOD
from .signals import ignore_interrupts

EVALUATIONS = 40  # how often a phase of z ∈ R² is evaluated; there an evaluation costs more than many steps


def lessons(what: str, names: list[str], seed: int) -> int:
    """List, run or check; returns the exit code, 1 if a claim failed. Raises ValueError for an unknown name."""
    known = {lesson.name: lesson for lesson in LESSONS}
    for name in names:
        if name not in known:
            raise ValueError(f"lessons: expected one of {', '.join(known)}, got {name!r}")
    if what == "list":
        return show_list()
    if what == "check":
        return check(names or list(known), seed)
    if len(names) != 1:
        raise ValueError(f"lessons run: expected the name of one lesson, got {len(names)}")
    return run(known[names[0]], seed)


def show_list() -> int:
    console = Console(highlight=False)
    for number, lesson in enumerate(LESSONS, 1):
        console.print(f"{number:2}  [bold]{lesson.name:16}[/bold]  {escape(lesson.title)}")
    console.print(
        "\ntinyvae lessons run NAME plays one; tinyvae lessons check holds all claims against their numbers"
    )
    return GOOD


# ----- one lesson -----


def run(lesson: Lesson, seed: int) -> int:
    """Play the phases, each with its question; then measure the claims."""
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    console.print(
        f"[bold]{escape(lesson.title)}[/bold]\n{escape(lesson.claim)}\nSource: {escape(lesson.source)}"
    )
    if lesson.phases:
        started = lesson.open(seed)
        for number, phase in enumerate(lesson.phases, 1):
            console.print(
                f"\n{number}. {escape(phase.text)} ({phase.steps} steps)\n   [bold]{escape(phase.question)}[/bold]"
            )
            guess = ask(console, phase.choices)
            every = 1 if started.model.latent_dim == 1 else max(1, phase.steps // EVALUATIONS)
            rows = play(started, phase, every)
            answer = phase.answer(rows)
            if guess is not None:
                console.print("   as you predicted" if guess == answer else "   not as you predicted")
            console.print(f"   -> {escape(phase.choices[answer])}. {escape(phase.explain(rows))}")
    console.print("")
    started_at = perf_counter()
    measured = lesson.measure(seed)
    console.print(escape(lesson.explain(measured)) + "\n")
    return report([Outcome(lesson.name, lesson.check(measured), perf_counter() - started_at)])


def ask(console: Console, choices: tuple[str, ...]) -> int | None:
    """The choice that a person at a terminal predicts; None without one, or for an empty line."""
    for number, choice in enumerate(choices, 1):
        console.print(f"   {number}  {escape(choice)}")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    while True:
        answer = console.input("   your prediction (enter to skip): ").strip()
        if not answer:
            return None
        if answer.isdigit() and 1 <= int(answer) <= len(choices):
            return int(answer) - 1


# ----- all claims -----


@dataclass(frozen=True)
class Outcome:
    """What measuring one lesson gave."""

    name: str
    checks: list[Check]
    seconds: float


def measure(name: str, seed: int) -> Outcome:
    lesson, started = next(lesson for lesson in LESSONS if lesson.name == name), perf_counter()
    return Outcome(name, lesson.run(seed), perf_counter() - started)


def outcomes(names: list[str], seed: int) -> Iterator[Outcome]:
    """In the order of the names; two at a time where there are two cores."""
    if len(names) == 1 or (os.cpu_count() or 1) < 2:
        for name in names:
            yield measure(name, seed)
        return
    pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=ignore_interrupts)
    try:
        yield from pool.map(measure, names, [seed] * len(names))
    except BaseException:  # Ctrl-C, or a reader that has left: nobody waits for the rest
        for child in active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def check(names: list[str], seed: int) -> int:
    started = perf_counter()
    code = report(outcomes(names, seed))
    print(f"{perf_counter() - started:.0f} seconds")
    return code


def report(found: "Iterator[Outcome] | list[Outcome]") -> int:
    """A table on a terminal, else one line for each claim as soon as it is known; and how many held."""
    console, held, count = Console(highlight=False), 0, 0
    table = Table(title="The claims of the lessons", title_justify="left")
    for heading in ("lesson", "claim", "measured", "expected", "verdict"):
        table.add_column(heading, justify="right" if heading == "measured" else "left", overflow="fold")
    for outcome in found:
        for n, one in enumerate(outcome.checks):
            held, count = held + one.ok, count + 1
            name = outcome.name if n == 0 else ""
            if console.is_terminal:
                verdict = "[green]holds[/green]" if one.ok else "[bold red]FAILS[/bold red]"
                table.add_row(name, escape(one.claim), f"{one.measured:.6g}", escape(one.expected), verdict)
            else:
                verdict = "holds" if one.ok else "FAILS"
                print(
                    f"{verdict}  {outcome.name}: {one.claim}: {one.measured:.6g} (expected {one.expected})",
                    flush=True,
                )
        if console.is_terminal:
            table.add_section()
    if console.is_terminal:
        console.print(table)
    print(f"{held} of {count} claims hold")
    return GOOD if held == count else FAILED
