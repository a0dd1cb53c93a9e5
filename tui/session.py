"""A run with its history, as the screen sees it: advance, switch, scrub, branch. Knows no screen.

The engine and the screen share one thread: `advance` trains for a few milliseconds and returns, so that
switches and rewinding always land between two steps. All numbers that a panel shows come from here.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyvae import TERMS, Diverged, StepRecord
from tinyvae.gap import GapSplit, split_gap
from tinyvae.model import VAE
from tinyvae.runs import Config, Run, Schedule, share
from tinyvae.training import Evaluation, Settings

from .history import Event, History

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
RECENT = 50  # steps over which a note counts
SPEEDS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, np.inf)  # steps per second
GRID = 240  # values of z at which the latent panel draws a density; 56 per side on a plane
PLANE = 56


@dataclass(frozen=True)
class Units:
    """How the terms are written: in nats or bits, per data point or summed over the data, ELBO or loss."""

    bits: bool = False
    total: int = 0  # how many data points to sum over; 0 is the mean
    loss: bool = False

    @property
    def factor(self) -> float:
        return (1 / float(np.log(2)) if self.bits else 1.0) * (self.total or 1)

    @property
    def unit(self) -> str:
        return ("bits" if self.bits else "nats") + (", sum" if self.total else " per")

    @property
    def of(self) -> str:
        return f"of {self.total} points" if self.total else "data point"


@dataclass(frozen=True)
class View:
    """The run at one step: everything that the panels show."""

    step: int
    row: dict[str, Any]
    evaluation: Evaluation
    model: VAE
    chosen: int
    meter: Any = None  # measures KL(q ‖ true posterior), in lessons

    @cached_property
    def true_kl(self) -> float | None:
        """Mean KL of q to the true posterior, nats, as it is best aligned; None where nobody asks."""
        return None if self.meter is None else float(self.meter.kl(self.evaluation.q))

    @property
    def x(self) -> Array:
        """The chosen data point, (D,)."""
        return np.asarray(self.evaluation.target.x[self.chosen])

    @cached_property
    def latent(self) -> "Latent":
        """Prior, q and posterior of the chosen x on a grid of z."""
        target, q, L = self.evaluation.target, self.evaluation.q, self.model.latent_dim
        pick = [self.chosen]
        reach = max(
            3.5, *(np.abs(target.posterior_mean[pick]) + 3).ravel(), *(np.abs(q.mean[pick]) + 3).ravel()
        )
        reach = min(float(np.ceil(2 * reach) / 2), 12.0)
        ticks = np.linspace(-reach, reach, GRID if L == 1 else PLANE)
        z = ticks[:, None] if L == 1 else np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
        shape = (len(ticks),) * L
        density = target.posterior_density(z, pick)[0]
        return Latent(
            ticks,
            np.exp(target.joint.log_prior(z)).reshape(shape),
            np.exp(q[pick].log_prob(z[:, None]))[:, 0].reshape(shape),
            density.reshape(shape),
        )

    @cached_property
    def decoded(self) -> Array:
        """The decoder's mean along z: a curve for z ∈ R¹ (G, D), the lines of a net for z ∈ R² (K, G, D)."""
        ticks = np.linspace(-2.5, 2.5, 121)
        if self.model.latent_dim == 1:
            return self._mean_of(ticks[:, None])
        lines = []
        for fixed in np.linspace(-2, 2, 9):
            still = np.full_like(ticks, fixed)
            lines += [np.stack([ticks, still], 1), np.stack([still, ticks], 1)]
        return np.stack([self._mean_of(line) for line in lines])

    @cached_property
    def reconstruction(self) -> Array:
        """The decoder's mean at the mean of q of the chosen x, (D,)."""
        return np.asarray(self._mean_of(self.evaluation.q.mean[[self.chosen]])[0])

    def _mean_of(self, z: Array) -> Array:
        out = np.asarray(self.model.decode(self.evaluation.theta, z))
        return 1 / (1 + np.exp(-out)) if self.model.likelihood == "bernoulli" else out


@dataclass(frozen=True)
class Latent:
    """Densities over a grid of z, `ticks` along each axis: (G,) or (G, G)."""

    ticks: Array
    prior: Array
    q: Array
    posterior: Array


@dataclass(frozen=True)
class Lamp:
    """An invariant: what must not change while a group is frozen, and whether it held."""

    says: str
    watching: bool  # the group is frozen now
    steps: int  # how many steps with the group frozen were watched
    broken_at: int | None


class Session:
    """One run on screen. `speed` is in steps per second; `shown` is the step looked at, None for the live end."""

    def __init__(self, config: Config, speed: float = 50.0, clock: Callable[[], float] = perf_counter):
        self.clock, self.units = clock, Units()
        self.speed, self.running = speed, False
        self.gap_every = 0  # split the gap at every so many steps; 0: only when asked
        self.open(config)

    def open(self, config: Config, schedule: Schedule = ()) -> None:
        """Begin another run. Raises ValueError and keeps the present run if the config is not good.

        The changes of `schedule` are made when their steps come.
        """
        self.open_run(config.open, schedule)

    def open_run(self, make: Callable[[], Run], schedule: Schedule = ()) -> None:
        """Begin the run that `make` makes; it is called twice, the second one is for looking back."""
        run, again = make(), make()
        run.trainer.evaluate()  # if this fails, the present run goes on
        self._make = make
        self.config, self.data, self.model, self.trainer = run.config, run.data, run.model, run.trainer
        self.replayer = again.trainer
        self.replayer.evaluate_every = 0
        self.other: History | None = None
        self.chosen, self.units = 0, replace(self.units, total=0)
        self._first_settings = self.trainer.settings
        self._begin()
        self.planned.extend(schedule)

    def reset(self) -> None:
        """Back to step 0 with the same initial weights and the present settings."""
        settings = self.trainer.settings
        self.open_run(self._make)
        if settings != self._first_settings:
            self._apply(settings, "")

    def _begin(self) -> None:
        self.meter: Any = None
        self.stopped = ""  # why the run cannot go on
        self.gaps: dict[int, GapSplit] = {}  # means over the data, by step
        self.planned: list[tuple[int, Settings]] = []  # changes of a shared run that are still to come
        self.until: int | None = None  # where a shared run or a lesson's phase waits
        self.shown: int | None = None
        self._exported = 0  # up to which step the records were saved
        self._credit, self._last, self.rate = 1.0, self.clock(), 0.0
        evaluation = self.trainer.evaluate()
        self.history = History(
            StepRecord(0, self.trainer.update, evaluation.terms, None, None, None, None, 0.0)
        )
        self.history.keep(self.trainer.snapshot())
        self._replayed: tuple[int, Evaluation] = (0, evaluation)

    # ----- going on -----

    @property
    def step(self) -> int:
        """The last step of the run (not the one that is shown)."""
        return len(self.history) - 1

    def step_once(self) -> bool:
        """One step; False if the run has diverged (then `stopped` says why)."""
        if self.stopped:
            return False
        if self.until is not None and self.step >= self.until:
            self.until, self.running = None, False
            return False
        while self.planned and self.planned[0][0] == self.step:
            self._apply(self.planned.pop(0)[1], "shared")
        try:
            record = self.trainer.step()
        except Diverged as problem:
            self.stopped, self.running = str(problem), False
            return False
        self.history.append(record)
        if self.history.wants_snapshot(record.step):
            self.history.keep(self.trainer.snapshot())
        return True

    def advance(self, seconds: float) -> int:
        """Train for about so long, at no more than `speed`; returns the number of steps taken."""
        start, taken = self.clock(), 0
        # An absence (a long frame, a closed lid) earns no more than a quarter of a second's worth of steps.
        if start > self._last:
            self._credit = min(self._credit + (start - self._last) * self.speed, max(1.0, self.speed / 4))
        self._last = start
        while self.running and self._credit >= 1 and self.step_once():
            taken += 1
            self._credit -= 1
            if self.gap_is_due:
                self.split_gap()
            if self.clock() - start >= seconds:
                break
        return taken

    def run(self, on: bool) -> None:
        """Start or pause; starting returns to the live end."""
        self.running = on and not self.stopped
        self._credit, self._last = 1.0, self.clock()
        if self.running:
            self.shown = None

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
        self.shown = None
        self.trainer.settings = settings
        self.history.schedule.append((self.step, self.trainer.settings))
        self.history.events.append(Event(self.step, label))

    def change_speed(self, by: int) -> None:
        place = int(np.argmin([abs(np.log(min(s, 1e4) / min(self.speed, 1e4))) for s in SPEEDS]))
        self.speed = SPEEDS[min(max(place + by, 0), len(SPEEDS) - 1)]

    def change_units(self, what: str) -> None:
        """Flip "bits", "total" or "loss": only what is written changes, never what is computed."""
        now = getattr(self.units, what)
        other = (0 if now else len(self.trainer.evaluation_x)) if what == "total" else not now
        self.units = replace(self.units, **{what: other})  # type: ignore[arg-type]

    def choose(self, point: int) -> None:
        """Which data point the latent panel looks at."""
        self.chosen = point % len(self.trainer.evaluation_x)

    # ----- looking back -----

    def scrub(self, by: int) -> None:
        """Look at an earlier or later step of the history."""
        self.look_at((self.step if self.shown is None else self.shown) + by)

    def look_at(self, step: int) -> None:
        """Pause and show this step; at or past the end of the history, the live end."""
        self.running = False
        self.shown = None if step >= self.step else max(step, 0)

    def view(self) -> View:
        """The run at the step that is shown."""
        if self.shown is None:
            step, evaluation = self.step, self.trainer.evaluate()
        else:
            step, evaluation = self.shown, self._replay(self.shown)
        return View(step, self.history.row(step), evaluation, self.model, self.chosen, self.meter)

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
        """Go on from the step that is shown; the run so far stays as `other`, to compare with."""
        if self.shown is None:
            return False
        step = self.shown
        self._replay_to(step)
        self.other = self.history.copy()
        self.history.truncate(step)
        self.gaps = {at: split for at, split in self.gaps.items() if at <= step}
        self.trainer.restore(self.replayer.snapshot())
        self.history.events.append(Event(step, "branch"))
        self.shown, self.stopped, self.planned, self._exported = None, "", [], 0
        self._replayed = (-1, self._replayed[1])
        return True

    # ----- around the present point -----

    def path(self, steps: int) -> tuple[Array, Array]:
        """θ (K, P_θ) and φ (K, P_φ) over the last steps up to the one that is shown, replayed."""
        last = self.step if self.shown is None else self.shown
        thetas: list[Array] = []
        phis: list[Array] = []
        for step in range(max(0, last - steps), last + 1):
            self._replay_to(step) if not thetas else self._replay_on()
            thetas.append(self.replayer.theta.copy())
            phis.append(self.replayer.phi.copy())
        self._replayed = (-1, self._replayed[1])
        return np.array(thetas), np.array(phis)

    def split_gap(self) -> GapSplit:
        """kl_posterior of each data point = what the best q of the family misses + what this q misses of that."""
        view = self.view()
        split = split_gap(view.evaluation.target, view.evaluation.q)
        self.gaps[view.step] = split.mean()
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
        done = min(self._credit + (self.clock() - self._last) * self.speed, 0.999)
        frozen = [
            p
            for p, on in (("update φ", self.trainer.update.phi), ("update θ", self.trainer.update.theta))
            if not on
        ]
        phases = [phase for phase in PHASES if phase not in frozen]
        place = int(max(done, 0.0) * len(phases))
        return f"{place + 1}/{len(phases)} " + phases[place].format(batch=self.trainer.settings.batch_size)

    def note(self, step: int) -> str:
        """A sentence on what is confusing and right in the steps before this one, or ""."""
        if self.other is not None and step < len(self.other):
            mine, old = self.history.row(step), self.other.row(step)
            pairs = (("log p", "log_px"), ("ELBO", "elbo"), ("KL to posterior", "kl_posterior"))
            changes = ", ".join(f"{name} {mine[t] - old[t]:+.4f}" for name, t in pairs).replace("-", "−")
            return f"This branch minus the old run at this step: {changes}."
        if step == 0:
            return "Nothing has been learned yet: q and the decoder are random."
        row = self.history.row(step)
        theta_on, phi_on = on = np.stack([self._moves("theta"), self._moves("phi")])[:, :step]
        others = np.flatnonzero((on != on[:, -1:]).any(axis=0))  # steps with other switches than this one
        steps = min(RECENT, step - (int(others[-1]) + 1 if len(others) else 0))
        change = {t: np.diff(self.history.column(t)[step - steps : step + 1]) for t in TERMS}
        if not theta_on[-1]:
            if not phi_on[-1]:
                return "Both are frozen: nothing can move."
            return "θ is frozen, log p stands still: each nat the ELBO gains, KL to the posterior loses."
        if not phi_on[-1]:
            if change["kl_posterior"].sum() > 0:
                return "φ is frozen: q stays where it is while θ moves the posterior away from it."
            return "φ is frozen: q and KL to the prior stand still, θ moves log p and the posterior."
        both = int(((change["elbo"] > 0) & (change["kl_posterior"] > 0)).sum())
        if both >= max(1, steps // 10):
            return (
                f"In {both} of the last {steps} steps the ELBO and KL to the posterior both rose: θ outran φ."
            )
        if row["elbo"] > 0:
            return "The ELBO is above 0: x is continuous, a density can exceed 1 and so its log can exceed 0."
        if change["kl_prior"].sum() > 0.01:
            return "KL to the prior rises: q spends nats on telling data points apart. That is learning, not a bug."
        return ""

    # ----- what must hold -----

    def lamps(self) -> tuple[Lamp, Lamp]:
        """θ frozen ⇒ log_px constant; φ frozen ⇒ kl_prior constant: to the last bit, over the whole run."""
        return (
            self._lamp("θ frozen ⇒ log p constant", "theta", "log_px"),
            self._lamp("φ frozen ⇒ KL to prior constant", "phi", "kl_prior"),
        )

    def _moves(self, group: str) -> Array:
        """Whether the group was to move in each step, (steps,)."""
        on, steps = self.history.column(f"{group}_on")[1:], self.history.column(f"{group}_steps")[1:]
        return np.asarray((on > 0) & (steps > 0))

    def _lamp(self, says: str, group: str, term: str) -> Lamp:
        values, frozen = self.history.column(term), ~self._moves(group)
        broken = np.flatnonzero(frozen & (values[1:] != values[:-1]))
        update = self.trainer.update
        now = not getattr(update, group) or getattr(update, f"{group}_steps") == 0
        return Lamp(says, now, int(frozen.sum()), int(broken[0]) + 1 if len(broken) else None)

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
        return share(self.config, tuple(history.schedule), len(history) - 1)

    @property
    def would_be_lost(self) -> bool:
        """Whether closing now would lose steps that no line of text brings back and no export has saved."""
        return not self.share_string and self._exported != self.step

    def export_records(self, folder: Path) -> None:
        """All records so far as records.csv, .jsonl and .npz, and the share string; NaN is empty or null."""
        names, rows = self.history.names, [self.history.row(step) for step in range(len(self.history))]
        with open(folder / "records.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows([["" if np.isnan(v) else repr(v) for v in row.values()] for row in rows])
        with open(folder / "records.jsonl", "w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps({k: v if np.isfinite(v) else None for k, v in row.items()}) + "\n")
        columns: dict[str, Any] = {name: self.history.column(name) for name in names}
        np.savez(folder / "records.npz", **columns)
        if self.share_string:
            (folder / "share.txt").write_text(f"tinyvae --share {self.share_string}\n", encoding="utf-8")
        self._exported = self.step
