"""Everything that is drawn over the steps of training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from textual import events
from textual.geometry import Size
from textual.message import Message

from ..history import History
from ..palette import background, colors, look
from ..plots import LINEAR, LOG, SYMLOG, Band, Level, Mark, Plot, Range, Scale, Series, Window, line_chart, mix
from ..session import Session
from ..terms import (
    ELBO,
    HELD_OUT,
    KL_POSTERIOR,
    KL_PRIOR,
    LOG_PX,
    Q_RECOVERED,
    RECONSTRUCTION,
    TARGET_MOVED,
    Quantity,
)
from ..view import View
from .panel import Panel

WHEEL = 1.5  # times as many steps, or as few, with each turn of the wheel
# The first steps change by nats, all later ones by hundredths: the y axis is for those, or nothing could be seen.
SETTLED, SETTLED_FROM = 0.05, 40
PAN = 0.1  # of the width, with each turn sideways
GUTTER = 7
SMOOTH = 25  # steps
FINE = 1000  # the most points of a smooth line: more could not be told apart


def running_mean(values: Any, cuts: Sequence[int] = (), at: Any = None, steps: int = SMOOTH) -> Any:
    """The mean of the known values among the `steps` around each step, on its own side of each step in `cuts`.

    A matter of steps, so that zooming never changes it; and what a switch has stopped stands still at once. `at`
    are the steps to compute it for, all by default.
    """
    size, known = len(values), np.isfinite(values)
    at = np.arange(size) if at is None else at
    total = np.concatenate([[0.0], np.cumsum(values if known.all() else np.where(known, values, 0.0))])
    count = np.arange(size + 1) if known.all() else np.concatenate([[0], np.cumsum(known)])
    half = np.minimum(steps // 2, at // 5)  # the first steps change by nats: a mean would hide them
    ends = np.array([0, *sorted({cut + 1 for cut in cuts if 0 <= cut < size - 1}), size])
    side = np.searchsorted(ends, at, "right")
    start, stop = np.maximum(at - half, ends[side - 1]), np.minimum(at + half + 1, ends[side])
    found = count[stop] - count[start]
    return np.divide(total[stop] - total[start], found, out=np.full(len(at), np.nan), where=found > 0)


class StepChart(Panel):
    """Columns of the history over the steps, with a mark wherever the user changed something."""

    COLUMNS: tuple[Quantity, ...] = ()  # what to draw, the last one over the others
    RIGHT: Quantity | None = None  # has an axis of its own, on the right
    FROM_ZERO = False  # whether the axes show 0
    SCALES: tuple[Scale, ...] = (LINEAR, SYMLOG)

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.window, self.scale = Window(), 0
        self.smoothed = True
        self.pointed: int | None = None
        self.until = 0  # how many rows of the history are shown
        self._grabbed: int | None = None  # the column at which the mouse holds the chart
        self._dragged = False
        self.changed()

    def restart(self) -> None:
        scale = self.SCALES[self.scale]
        self.x, self.y, self.right = Range(), *(Range(scale, zero=self.FROM_ZERO) for _ in range(2))
        self._seen: tuple[float, float] | None = None  # the steps in sight; None is all
        self._since: int | None = None  # the switch whose effect the y axes are for

    class Pointed(Message):
        """The mouse is over a step of a chart (None: it has left), or has clicked it."""

        def __init__(self, step: int | None, clicked: bool = False):
            super().__init__()
            self.step, self.clicked = step, clicked

    class Wheel(Message):
        """The wheel was turned over a chart: show `factor` times as many steps around the step `at`."""

        def __init__(self, factor: float, at: int | None):
            super().__init__()
            self.factor, self.at = factor, at

    class Dragged(Message):
        """The chart was dragged along x by a part of its width."""

        def __init__(self, part: float):
            super().__init__()
            self.part = part

    def point_at(self, step: int | None) -> None:
        """Show the values at this step in place of the latest."""
        self.pointed, self.plot = step, None
        self.refresh()

    def smooth(self) -> None:
        """The mean of 25 steps as a line through what each step gave, or the values themselves."""
        self.smoothed = not self.smoothed
        self.changed()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._grabbed is None or self.drawn is None:
            self.post_message(self.Pointed(self._step_at(event)))
        elif event.x != self._grabbed:
            self.post_message(self.Dragged((self._grabbed - event.x) / max(self.drawn.columns, 1)))
            self._grabbed, self._dragged = event.x, True

    def on_leave(self) -> None:
        self.post_message(self.Pointed(None))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if event.button == 1 and self.drawn is not None:
            self.capture_mouse()
            self._grabbed, self._dragged = event.x, False

    def on_mouse_up(self, event: events.MouseUp) -> None:
        self.release_mouse()
        if self._grabbed is not None and not self._dragged:
            self.post_message(self.Pointed(self._step_at(event), clicked=True))
        self._grabbed = None

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self.post_message(self.Wheel(1 / WHEEL, self._step_at(event)))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self.post_message(self.Wheel(WHEEL, self._step_at(event)))

    def on_mouse_scroll_left(self, event: events.MouseScrollLeft) -> None:
        self.post_message(self.Dragged(-PAN))

    def on_mouse_scroll_right(self, event: events.MouseScrollRight) -> None:
        self.post_message(self.Dragged(PAN))

    def _step_at(self, event: events.MouseEvent) -> int | None:
        at = event.get_content_offset(self)
        x = self.drawn.x_at(at.x) if self.drawn is not None and at is not None else None
        return None if x is None or self.session is None else min(max(round(x), 0), self.session.step)

    def change_scale(self) -> None:
        """Linear or symlog."""
        self.scale = (self.scale + 1) % len(self.SCALES)
        self.changed()

    def changed(self) -> None:
        """Another window, scale or smoothing: say so, and draw again."""
        self.restart()
        self._say()
        self.plot = None
        self.refresh()

    def show(self, view: View, session: Session) -> None:
        self.until = len(session.history)
        if session.viewed is not None:
            self.window.reveal(float(view.step))
            self._say()
        super().show(view, session)

    def _say(self) -> None:
        words = [self.window.label] if self.window.label else []
        words += [self.SCALES[self.scale].kind] if self.scale else []
        words += [] if self.smoothed else ["each step"]
        self.border_subtitle = ", ".join(words)

    def draw(self, view: View, session: Session, size: Size) -> Plot:
        palette, ground = colors(self), background(self)
        last, now = self.until - 1.0, float(view.step)
        self._seen = ends = self.window.ends(last, now)
        series = []
        if session.other is not None:  # the run before the branch, dimmed
            for one in self.COLUMNS:
                color = mix(ground, palette[one.key], 0.45)
                series.append(self._series(session.other, one, session, color, ""))
        series += self.extra(session, palette)  # below the columns, which nothing may hide
        for one in self.COLUMNS:
            series.append(self._series(session.history, one, session, palette[one.key], one.name))
        looked_at = None if session.viewed is None else view.step
        crosshair = looked_at if self.pointed is None else self.pointed
        first, end = ends or (0.0, last)
        settled = SETTLED * end if first == 0 and end >= SETTLED_FROM else 0.0
        since = self._last_switch(session)
        if since != self._since:
            self.restart()
            self._since = since
        if since is not None:
            settled = max(settled, float(since - SMOOTH // 2))
        return line_chart(
            size.width, size.height, series, look=look(self), x=self.x, y=self.y, right=self.right, window=ends,
            gutter=GUTTER, settled=settled, band=self.band(session),
            marks=[Mark(float(event.step), event.label) for event in session.history.events[-12:]],
            levels=self.levels(session), crosshair=crosshair,
        )  # fmt: skip

    def _last_switch(self, session: Session) -> int | None:
        """The step at which θ or φ was switched last, where the live end is looked at: the y axes are for what
        has happened since."""
        if session.viewed is not None or self.window.end is not None:
            return None
        return max((e.step for e in session.history.events if e.switch and e.step < session.step), default=None)

    def _series(self, history: History, what: Quantity, session: Session, color: str, name: str) -> Series:
        """The column as it is, or the mean of 25 steps with what each step gave in faint behind it."""
        values, trend, units = self.values(history, what, session), None, session.units
        if self.smoothed:
            low, high = self._seen or (0.0, len(values) - 1.0)
            stride = max(1, int(high - low) // FINE)
            at = np.arange(max(int(low) - stride, 0), min(int(high) + 2, len(values)), stride)
            trend = (at, running_mean(values, [event.step for event in history.events], at))
        faint, short = mix(background(self), color, 0.35), units.name_of(what, what.short)
        return Series(
            units.name_of(what, name) if name else "", history.column("step")[: len(values)], values, color,
            value=None if name else "", connect=True, trend=trend, faint=faint, right=what is self.RIGHT,
            short=short if name else "",
        )  # fmt: skip

    def values(self, history: History, what: Quantity, session: Session) -> Any:
        """As far as the whole screen shows them: the engine may be some steps ahead."""
        return history.column(what.key)[
            : self.until if history is session.history else None
        ] * session.units.factor_of(what)

    def extra(self, session: Session, palette: dict[str, str]) -> list[Series]:
        """What a chart shows besides columns of the history."""
        return []

    def levels(self, session: Session) -> list[Level]:
        """Horizontal lines to hold the curves against."""
        return []

    def band(self, session: Session) -> Band | None:
        return None


class BoundChart(StepChart):
    """log p(x) and the ELBO below it; the shaded gap between them is kl_posterior."""

    TITLE = "log p(x) and its bound"
    COLUMNS = (RECONSTRUCTION, LOG_PX, ELBO)
    RIGHT = RECONSTRUCTION
    HELP = (
        "How well the model explains the data (log p) and the bound that training raises (ELBO). "
        f"The shaded gap between them is {KL_POSTERIOR.symbol}: how far q is from the posterior of the present θ. "
        "A bound can never lie above what it bounds. After a switch the axis is for what has happened since. "
        "Reconstruction, on the axis on the right: how well x is explained from z drawn by q. Held out: log p of "
        "points that are not trained on; where it "
        "falls behind, the model learns its data by heart. The level lines: the truth's log p, and that of one "
        "Gaussian (for bits: of independent bits), which any model with a z should pass."
    )

    def extra(self, session: Session, palette: dict[str, str]) -> list[Series]:
        """log p of points that are not trained on."""
        one = self._series(session.history, HELD_OUT, session, palette[HELD_OUT.key], HELD_OUT.name)
        return [one] if np.isfinite(np.asarray(one.ys)).any() else []

    def levels(self, session: Session) -> list[Level]:
        """The truth's log p, which the axis shows until a switch, and that of a model without z, if it lies there."""
        of, room, factor = session.references or (), self._since is None, session.units.factor_of(LOG_PX)
        return [Level(one.log_px * factor, one.name, room and one.name == "the truth") for one in of]

    def band(self, session: Session) -> Band:
        upper, lower = (session.units.name_of(one, one.name) for one in (LOG_PX, ELBO))
        return Band(upper, lower, mix(background(self), colors(self)[KL_POSTERIOR.key], 0.3))


class KLChart(StepChart):
    """The two KLs, each on an axis of its own that begins at 0."""

    TITLE = "the two KLs"
    COLUMNS = (KL_PRIOR, KL_POSTERIOR)
    RIGHT, FROM_ZERO = KL_PRIOR, True
    HELP = (
        f"{KL_POSTERIOR.symbol}, on the axis on the left: what q misses. With θ frozen it falls by every nat that "
        f"the ELBO gains. {KL_PRIOR.symbol}, on the axis on the right: what q spends on telling the data points "
        "apart; it usually rises while training, and that is no bug. A line is the mean of 25 steps, the faint "
        "scribble behind it what each step gave."
    )

    def extra(self, session: Session, palette: dict[str, str]) -> list[Series]:
        if not session.gaps:
            return []
        steps = np.array(sorted(session.gaps))
        values = np.array([session.gaps[step].approximation for step in steps]) * session.units.factor
        return [
            Series(
                f"approximation part of {KL_POSTERIOR.name}",
                steps,
                values,
                palette["text"],
                connect=True,
                short="approx.",
            )
        ]


class PursuitChart(StepChart):
    """How far θ moved the target in each step, and how far φ brought q towards it."""

    TITLE = "the target moves, q follows"
    COLUMNS = (TARGET_MOVED, Q_RECOVERED)
    SCALES = (LOG, SYMLOG, LINEAR)
    HELP = (
        f"*{TARGET_MOVED.name}*: {TARGET_MOVED.sentence} *{Q_RECOVERED.name}*: {Q_RECOVERED.sentence} "
        "While the first is above the second, q chases a target that runs away. Where a step of φ recovered nothing "
        "the second curve has a gap."
    )

    def values(self, history: History, what: Quantity, session: Session) -> Any:
        values = super().values(history, what, session) * (-1 if what is Q_RECOVERED else 1)
        return np.where(values > 0, values, np.nan)
