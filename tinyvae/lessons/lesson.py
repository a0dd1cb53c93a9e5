"""What a lesson is: something to watch and to predict, a measurement, and the claims that it must meet.

A lesson is data. The app plays its phases; `measure` computes its numbers without a screen, from a seed;
each claim is an interval in which one of these numbers has to lie.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from ..runs import Config, Run

Measured = Mapping[str, float]
Rows = Sequence[Mapping[str, Any]]  # StepRecord.as_row(), one a step
PANELS = ("bound", "parts", "latent", "chase", "data", "pursuit")


@dataclass(frozen=True)
class Phase:
    """One stretch of a run: what will happen in it is to be predicted before, and told after.

    `answer` and `explain` get the rows of the phase that were evaluated: the first is the state before it, the
    last that at its end.
    """

    text: str  # what is done in it
    question: str
    choices: tuple[str, ...]
    answer: Callable[[Rows], int]  # the number of the choice that came true
    explain: Callable[[Rows], str]
    steps: int
    settings: Mapping[str, Any] = field(default_factory=dict)  # {"theta": False}, {"phi_steps": 5}, …


@dataclass(frozen=True)
class Check:
    """One claim held against one measured number."""

    claim: str
    measured: float
    expected: str
    ok: bool


@dataclass(frozen=True)
class Claim:
    """That the number called `name` lies from `low` to `high`. `seen`: its range over the seeds 0 to 5."""

    text: str
    name: str
    low: float = -inf
    high: float = inf
    seen: str = ""

    @property
    def expected(self) -> str:
        if self.low == self.high:
            return f"= {self.low:g}"
        if self.low == -inf:
            return f"<= {self.high:g}"
        return f">= {self.low:g}" if self.high == inf else f"{self.low:g} to {self.high:g}"

    def check(self, measured: Measured) -> Check:
        value = float(measured[self.name])
        return Check(self.text, value, self.expected, self.low <= value <= self.high)  # NaN is never ok


@dataclass(frozen=True)
class Lesson:
    """One claim of the essay, or one condition that it needs."""

    name: str
    title: str
    claim: str  # one or two plain sentences
    source: str  # paper and equation
    look_at: tuple[str, ...]  # of PANELS
    measure: Callable[[int], Measured]  # seed -> the numbers of the lesson
    claims: tuple[Claim, ...]
    explain: Callable[[Measured], str]  # the outcome in words, with the measured numbers
    config: Config | None = None  # the run that the app plays; None if there is nothing to train
    phases: tuple[Phase, ...] = ()
    prepare: Callable[[Run], None] | None = None  # what to do to a run before its first step

    def open(self, seed: int = 0, evaluate_every: int = 1) -> Run:
        """The run of this lesson at step 0; the seed is that of the data too. Raises ValueError if it has none."""
        if self.config is None:
            raise ValueError(f"lesson {self.name}: expected one with a run, it has none")
        run = replace(self.config, seed=seed, data_seed=seed, evaluate_every=evaluate_every).open()
        if self.prepare is not None:
            self.prepare(run)
        return run

    def check(self, measured: Measured) -> list[Check]:
        """Hold every claim against these numbers."""
        return [claim.check(measured) for claim in self.claims]

    def run(self, seed: int = 0) -> list[Check]:
        """Measure and check: the same seed gives the same numbers."""
        return self.check(self.measure(seed))


def play(run: Run, phase: Phase, every: int = 1) -> list[dict[str, Any]]:
    """Play one phase of a run, looking at every so many steps and at the last: the rows, first the state before."""
    trainer, update = run.trainer, run.trainer.update
    flat = {name: value for name, value in phase.settings.items() if hasattr(update, name)}
    other = {name: value for name, value in phase.settings.items() if name not in flat}
    trainer.settings = replace(trainer.settings, update=replace(update, **flat), **other)
    rows = [trainer.record().as_row()]
    for k in range(1, phase.steps + 1):
        trainer.evaluate_every = int(k % every == 0 or k == phase.steps)
        record = trainer.step()
        if record.terms:
            rows.append(record.as_row())
    return rows


# ----- words for what happened to a term in a phase -----


def change(rows: Rows, term: str) -> float:
    return float(rows[-1][term] - rows[0][term])


def from_to(rows: Rows, term: str) -> str:
    return f"{rows[0][term]:.4f} to {rows[-1][term]:.4f}"


UP_DOWN = ("it rises", "it falls", "it does not move at all")


def direction(term: str) -> Callable[[Rows], int]:
    """Which of UP_DOWN came true of this term."""

    def answer(rows: Rows) -> int:
        moved = change(rows, term)
        return 2 if moved == 0 else int(moved < 0)

    return answer
