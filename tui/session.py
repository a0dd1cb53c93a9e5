"""A run with its history, as the screen sees it: advance, switch, scrub, branch. Knows no screen.

The engine and the screen share one thread: `advance` trains for a few milliseconds and returns, so that
switches and rewinding always land between two steps. All numbers that a panel shows come from here.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyvae import Diverged, StepRecord, Target
from tinyvae.evaluation import Evaluation
from tinyvae.exact.gap import GapSplit, split_gap
from tinyvae.records import FORMATS
from tinyvae.references import TOLERANCE, Reference, references
from tinyvae.runfile import Recorder, RunFile, create
from tinyvae.runs import Config, Run, Schedule, share
from tinyvae.settings import Settings

from .history import Event, History
from .notes import Invariant, invariants, note
from .view import Units, View

Array = NDArray[Any]

PHASES = (  # of one step, for slow motion
    "draw a minibatch of {batch} data points",
    "encode: φ turns each x into q(z|x)",
    "sample z = mean + std·ε from q",
    "decode: θ turns each z into p(x|z)",
    "gradient of the ELBO, backwards through both",
    "update φ",
    "update θ",
)
OF_ALL_RUNS = ("clock", "units", "speed", "gap_every", "record_to", "unrecorded", "before")
SPEEDS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, np.inf)  # steps per second


class Session:
    """One run on screen. `speed` is in steps per second; `viewed` is the step looked at, None for the live end."""

    def __init__(
        self,
        config: Config,
        speed: float = 50.0,
        clock: Callable[[], float] = perf_counter,
        schedule: Schedule = (),
        make: Callable[[], Run] | None = None,
    ):
        self.clock, self.units = clock, Units()
        self.speed, self.running = speed, False
        self.gap_every = 0  # split the gap at every so many steps; 0: only when asked
        self.record_to: Callable[[str], Path] | None = (
            None  # a new file for a run of these data; None: not recorded
        )
        self.unrecorded = ""  # why no more is recorded
        self.before: dict[str, Any] = {}  # the run before this one, to come back to
        self.open_run(make or config.open, schedule)

    @classmethod
    def of_file(cls, recorded: RunFile, speed: float, append: bool = False) -> "Session":
        """A recorded run with its whole history, at its end; `append`: what it does next is recorded in its file."""
        run = recorded.open()
        session = cls(run.config, speed, make=run.config.open if recorded.as_said else recorded.open)
        if append:
            session.file, session.recorder = recorded.path, recorded.resume(session.trainer)
        else:
            recorded.at(trainer=session.trainer)
        session.history = History.of(recorded)
        session._replayed = (-1, session._replayed[1])
        return session

    def open(self, config: Config, schedule: Schedule = ()) -> None:
        """Begin another run. Raises ValueError and keeps the present run if the config is not good.

        The changes of `schedule` are made when their steps come.
        """
        self.open_run(config.open, schedule)

    def open_run(self, make: Callable[[], Run], schedule: Schedule = ()) -> None:
        """Begin the run that `make` makes; it is called twice, the second one is for looking back."""
        run, again = make(), make()
        run.trainer.evaluate()  # if this fails, the present run goes on
        self.before = self._put_aside() if hasattr(self, "trainer") else {}
        self._make = make
        self.config, self.resolved, self.data = run.config, run.resolved, run.data
        self.model, self.trainer = run.model, run.trainer
        self.replayer = again.trainer
        self.replayer.evaluate_every = 0
        self.other: History | None = None
        self.selected, self.units = self._first_point(), replace(self.units, total=0)
        self.references: list[Reference] | None = (
            None  # until somebody looks for them: on a plane they take a while
        )
        self._truth: Target | None = None
        if self.model.latent_dim == 1:
            self.find_references()
        self._first_settings = self.trainer.settings
        self._begin()
        self.planned.extend(schedule)

    def _put_aside(self) -> dict[str, Any]:
        """All that this run is; its file is closed meanwhile."""
        self.close()
        return {name: value for name, value in vars(self).items() if name not in OF_ALL_RUNS}

    def return_to(self, run: dict[str, Any]) -> None:
        """Go on with a run that was `before`; this one then is."""
        self.before = self._put_aside()
        vars(self).update(run, units=replace(self.units, total=0))
        self.run(False)

    def reset(self) -> None:
        """Back to step 0 with the same initial weights and the present settings."""
        settings = self.trainer.settings
        self.open_run(self._make)
        if settings != self._first_settings:
            self._apply(settings, "")

    def _first_point(self) -> int:
        """The data point that the set recommends to look at: the nearest to a place, or the first."""
        place = self.data.recommended.look_at
        if place is None:
            return 0
        return int(np.square(self.trainer.evaluation_x - np.array(place)).sum(axis=1).argmin())

    def find_references(self) -> None:
        """What log p(x) is held against; on bars this takes about a second."""
        data = self.data
        found = references(data, self.trainer.evaluation_x)
        if data is self.data:  # no other run has begun meanwhile
            self.references = found

    @property
    def truth(self) -> Target | None:
        """The true posterior of each evaluated point, where it can be laid beside the model's: for z ∈ R¹."""
        truth = self.data.truth
        if self._truth is None and truth is not None and truth.latent_dim == self.model.latent_dim == 1:
            self._truth = Target(truth, None, self.trainer.evaluation_x, TOLERANCE)
        return self._truth

    def _begin(self) -> None:
        self.meter: Any = None
        self.stopped = ""  # why the run cannot go on
        self.gaps: dict[int, GapSplit] = {}  # means over the data, by step
        self.planned: list[tuple[int, Settings]] = []  # changes of a shared run that are still to come
        self.until: int | None = None  # where a shared run or a lesson's phase waits
        self.viewed: int | None = None
        self._exported = 0  # up to which step the records were saved
        self._steps_owed, self._last, self.rate = 1.0, self.clock(), 0.0
        evaluation = self.trainer.evaluate()
        self.history = History(self.trainer.record())
        self.history.keep(self.trainer.snapshot())
        self._replayed: tuple[int, Evaluation] = (0, evaluation)
        self.certificate = (-1, 0.0, np.inf)  # a step, the share of points proven there, and to within what
        self.recorder: Recorder | None = None
        self.file: Path | None = None  # in which the run is recorded

    # ----- going on -----

    @property
    def step(self) -> int:
        """The last step of the run (not the one that is viewed)."""
        return len(self.history) - 1

    def step_once(self, publish: Callable[[StepRecord], Any] | None = None) -> bool:
        """One step; False if the run has diverged (then `stopped` says why).

        In a thread: `publish` has `take` called where the screen is drawn, which reads several columns one by one.
        """
        if self.stopped:
            return False
        if self.until is not None and self.step >= self.until:
            self.until, self.running = None, False
            return False
        while self.planned and self.planned[0][0] == self.step:
            self._apply(self.planned.pop(0)[1], "shared")
        self._begin_to_record()
        try:
            record = self.trainer.step()
        except Diverged as problem:
            self.stopped, self.running = str(problem), False
            return False
        except OSError as problem:  # of the file: the step itself was made
            assert self.recorder is not None and self.recorder.latest is not None
            record = self.recorder.latest
            self._stop_recording(problem)
        (publish or self.take)(record)
        return True

    def take(self, record: StepRecord) -> None:
        """The record of the step that the trainer has made goes into the history."""
        self.history.append(record)
        if self.history.wants_snapshot(record.step):
            self.history.keep(self.trainer.snapshot())

    @property
    def wants_certificate(self) -> bool:
        """Whether the terms where the run stands are only checked, and nobody has tried to prove them."""
        unproven = self.history.row(self.step)["certified"] < 1
        return self.model.latent_dim == 2 and unproven and self.certificate[0] != self.step and not self.stopped

    # ----- the file -----

    def _begin_to_record(self) -> None:
        """With its first step a run gets a file; where it had been put aside, it goes on in the file that it has."""
        if self.record_to is None or self.recorder is not None:
            return
        try:
            if self.file is None or not self.file.exists():
                self.file = self.record_to(self.data.name)
                create(
                    self.trainer, self.file, self.history.rows(), self.history.snapshots, self.history.changes
                )
            self.recorder = Recorder(self.trainer, self.file)
        except (OSError, ValueError) as problem:
            self._stop_recording(problem)

    def _stop_recording(self, problem: Exception) -> None:
        self.record_to = self.recorder = None
        self.unrecorded = (
            f"{problem.filename}: {problem.strerror}" if isinstance(problem, OSError) else f"{problem}"
        )

    def save(self) -> None:
        """While the run stands still: write what is left of its last second."""
        try:
            if self.recorder is not None:
                self.recorder.flush(when_due=True)
        except OSError as problem:
            self._stop_recording(problem)

    def close(self) -> None:
        """Write what there is, and let go of the file."""
        recorder, self.recorder = self.recorder, None
        try:
            if recorder is not None:
                recorder.close()
        except OSError as problem:
            self._stop_recording(problem)

    def advance(self, seconds: float, publish: Callable[[StepRecord], Any] | None = None) -> int:
        """Train for about so long, at no more than `speed`; returns the number of steps taken.

        With `publish`, as in `step_once`, it is one step at most, and the gap is not split.
        """
        start, taken = self.clock(), 0
        # An absence (a long frame, a closed lid) earns no more than a quarter of a second's worth of steps.
        if start > self._last:
            owed = self._steps_owed + (start - self._last) * self.speed
            self._steps_owed = min(owed, max(1.0, self.speed / 4))
        self._last = start
        while self.running and self._steps_owed >= 1 and self.step_once(publish):
            taken += 1
            self._steps_owed -= 1
            if publish is not None:
                break
            if self.gap_is_due:
                self.split_gap()
            if self.clock() - start >= seconds:
                break
        return taken

    def run(self, on: bool) -> None:
        """Start or pause; starting returns to the live end."""
        self.running = on and not self.stopped
        self._steps_owed, self._last = 1.0, self.clock()
        if self.running:
            self.viewed = None

    def change(self, label: str, **changes: Any) -> None:
        """Other settings from the next step on: fields of Settings, or of its Update. ValueError if not good."""
        now = self.trainer.settings
        update = {name: changes.pop(name) for name in tuple(changes) if hasattr(now.update, name)}
        self._apply(replace(now, update=replace(now.update, **update), **changes), label)
        self.until, self.planned = None, []  # a run that was shared ends where the user takes over

    def switch(self, group: str) -> None:
        """Turn the updates of "theta" or "phi" on or off, from the next step on."""
        on = not getattr(self.trainer.update, group)
        self.change(f"{'θ' if group == 'theta' else 'φ'} {'on' if on else 'off'}", **{group: on})

    def _apply(self, settings: Settings, label: str) -> None:
        self.viewed = None
        if self.file is not None:
            self._begin_to_record()
        before, self.trainer.settings = self.trainer.update, settings
        self.history.schedule.append((self.step, self.trainer.settings))
        now = self.trainer.update
        self.history.events.append(Event(self.step, label, (before.theta, before.phi) != (now.theta, now.phi)))
        if self.recorder is not None:
            self.recorder.changed(None, label)

    def change_speed(self, by: int) -> None:
        place = int(np.argmin([abs(np.log(min(s, 1e4) / min(self.speed, 1e4))) for s in SPEEDS]))
        self.speed = SPEEDS[min(max(place + by, 0), len(SPEEDS) - 1)]

    def change_units(self, what: str) -> None:
        """Flip "bits", "total" or "loss": only what is written changes, never what is computed."""
        now = getattr(self.units, what)
        other = (0 if now else len(self.trainer.evaluation_x)) if what == "total" else not now
        self.units = replace(self.units, **{what: other})  # type: ignore[arg-type]

    def select(self, point: int) -> None:
        """Which data point the latent panel shows."""
        self.selected = point % len(self.trainer.evaluation_x)

    # ----- looking back -----

    def scrub(self, by: int) -> None:
        """Look at an earlier or later step of the history."""
        self.look_at((self.step if self.viewed is None else self.viewed) + by)

    def look_at(self, step: int) -> None:
        """Pause and show this step; at or past the end of the history, the live end."""
        self.running = False
        self.viewed = None if step >= self.step else max(step, 0)

    def view(self) -> View:
        """The run at the step that is viewed."""
        if self.viewed is None:
            step, evaluation = self.step, self.trainer.evaluate()
        else:
            step, evaluation = self.viewed, self._replay(self.viewed)
        row = self.history.row(step)
        if np.isnan(row["log_px"]):  # of a recorded run that was not evaluated at every step
            row |= vars(evaluation.terms)
        return View(step, row, evaluation, self.model, self.selected, self.truth, self.meter)

    def _replay(self, step: int) -> Evaluation:
        if self._replayed[0] != step:
            self._replay_to(step)
            self._replayed = (step, self.replayer.evaluate())
        return self._replayed[1]

    def _replay_to(self, step: int) -> None:
        """Bring the replayer to a step: the same bits as the run had there, by the same settings."""
        snapshot = self.history.snapshot_before(step)
        self.replayer.restore(snapshot)
        while self.replayer.step_count < step:
            self._replay_on()

    def _replay_on(self) -> None:
        for at, settings in self.history.schedule:
            if at == self.replayer.step_count:
                self.replayer.settings = settings
        self.replayer.step()

    def branch(self) -> bool:
        """Go on from the step that is viewed; the run so far stays as `other`, to compare with."""
        if self.viewed is None:
            return False
        step = self.viewed
        self.close()
        self.file = None  # the branch gets one of its own
        self._replay_to(step)
        self.other = self.history.copy()
        self.history.truncate(step)
        self.gaps = {at: split for at, split in self.gaps.items() if at <= step}
        self.trainer.restore(self.replayer.snapshot())
        self.history.events.append(Event(step, "branch"))
        self.viewed, self.stopped, self.planned, self._exported = None, "", [], 0
        self._replayed = (-1, self._replayed[1])
        return True

    # ----- around the present point -----

    def path(self, steps: int) -> tuple[Array, Array]:
        """θ (K, P_θ) and φ (K, P_φ) over the last steps up to the one that is viewed, replayed."""
        last = self.step if self.viewed is None else self.viewed
        thetas: list[Array] = []
        phis: list[Array] = []
        for step in range(max(0, last - steps), last + 1):
            if thetas:
                self._replay_on()
            else:
                self._replay_to(step)
            thetas.append(self.replayer.theta.copy())
            phis.append(self.replayer.phi.copy())
        self._replayed = (-1, self._replayed[1])
        return np.array(thetas), np.array(phis)

    def split_gap(self) -> GapSplit:
        """kl_posterior of each data point = what the best q of the family misses + what this q misses of that."""
        view = self.view()
        split = split_gap(view.evaluation.target, view.evaluation.q)
        self.gaps = self.gaps | {view.step: split.mean()}  # another one: the screen may be reading the old one
        return split

    @property
    def gap_is_due(self) -> bool:
        return self.gap_every > 0 and self.step % self.gap_every == 0 and self.step not in self.gaps

    # ----- words -----

    @property
    def caption(self) -> str:
        """In slow motion: the part of the coming step that is being done."""
        if not self.running or self.speed > 2:
            return ""
        done = min(self._steps_owed + (self.clock() - self._last) * self.speed, 0.999)
        on = {"update φ": self.trainer.update.phi, "update θ": self.trainer.update.theta}
        phases = [phase for phase in PHASES if on.get(phase, True)]
        place = int(max(done, 0.0) * len(phases))
        return f"{place + 1}/{len(phases)} " + phases[place].format(batch=self.trainer.settings.batch_size)

    def note(self, step: int) -> str:
        """A sentence on what is confusing and right in the steps before this one, or ""."""
        return note(self.history, self.other, step)

    def invariants(self) -> tuple[Invariant, Invariant]:
        """θ frozen ⇒ log_px constant; φ frozen ⇒ kl_prior constant: to the last bit, over the whole run."""
        return invariants(self.history, self.trainer.update)

    # ----- keeping -----

    @property
    def share_string(self) -> str:
        """The run as one line, `tinyvae --share …` opens it again; "" where a lesson has chosen the start."""
        return self._shared(self.history)

    @property
    def share_string_of_other(self) -> str:
        """The same of the run before the branch, "" if there is none."""
        return "" if self.other is None else self._shared(self.other)

    def _shared(self, history: History) -> str:
        if self._make != self.config.open:
            return ""
        return share(self.resolved, tuple(history.schedule), len(history) - 1)

    @property
    def would_be_lost(self) -> bool:
        """Whether closing now would lose steps that no line of text brings back and no export has saved."""
        return not self.share_string and self._exported != self.step and self.recorder is None

    def export_records(self, folder: Path) -> None:
        """All records so far as records.csv, .jsonl and .npz, and the share string; NaN is empty or null."""
        for suffix in (*FORMATS, ".npz"):
            self.history.write(folder / f"records{suffix}")
        if self.share_string:
            (folder / "share.txt").write_text(f"tinyvae --share {self.share_string}\n", encoding="utf-8")
        self._exported = self.step
