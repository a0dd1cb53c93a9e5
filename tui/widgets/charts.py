"""Everything that is drawn over the steps of training."""

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


def running_mean(values: Any, steps: int) -> Any:
    """The mean of the last `steps` values at each step: a matter of steps, so that zooming never changes it."""
    known = np.isfinite(values)
    total = np.cumsum(np.where(known, values, 0.0))
    count = np.cumsum(known).astype(float)
    total[steps:], count[steps:] = total[steps:] - total[:-steps], count[steps:] - count[:-steps]
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


class StepChart(Panel):
    """Columns of the history over the steps, with a mark wherever the user changed something."""

    COLUMNS: tuple[Quantity, ...] = ()  # what to draw
    SCALES: tuple[Scale, ...] = (LINEAR, SYMLOG)
    SMOOTHED = False

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.window, self.scale = Window(), 0
        self.smoothed = self.SMOOTHED
        self.pointed: int | None = None
        self._grabbed: int | None = None  # the column at which the mouse holds the chart
        self._dragged = False
        self.changed()

    def restart(self) -> None:
        self.y, self.x = Range(self.SCALES[self.scale]), Range()

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
        """Running means over 25 steps, or the values themselves."""
        self.smoothed = not self.smoothed
        self.changed()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._grabbed is None or self.plot is None:
            self.post_message(self.Pointed(self._step_at(event)))
        elif event.x != self._grabbed:
            self.post_message(self.Dragged((self._grabbed - event.x) / max(self.plot.columns, 1)))
            self._grabbed, self._dragged = event.x, True

    def on_leave(self) -> None:
        self.post_message(self.Pointed(None))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if event.button == 1 and self.plot is not None:
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
        x = self.plot.x_at(at.x) if self.plot is not None and at is not None else None
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
        if session.viewed is not None:
            self.window.reveal(float(view.step))
            self._say()
        super().show(view, session)

    def _say(self) -> None:
        words = [self.window.label] if self.window.label else []
        words += [self.SCALES[self.scale].kind] if self.scale else []
        words += [f"mean of {SMOOTH} steps"] if self.smoothed else []
        self.border_subtitle = ", ".join(words)

    def draw(self, view: View, session: Session, size: Size) -> Plot:
        palette, ground = colors(self), background(self)
        series = []
        if session.other is not None:  # the run before the branch, dimmed
            steps = session.other.column("step")
            for one in self.COLUMNS:
                color = mix(ground, palette[one.key], 0.45)
                values = self._drawn(session.other, one, session)
                series.append(Series("", steps, values, color, value="", connect=True))
        series += self.extra(session, palette)  # below the columns, which nothing may hide
        steps = session.history.column("step")
        for one in self.COLUMNS:
            values = self._drawn(session.history, one, session)
            series.append(Series(one.short, steps, values, palette[one.key], connect=True))
        looked_at = None if session.viewed is None else view.step
        crosshair = looked_at if self.pointed is None else self.pointed
        last, now = float(session.step), float(view.step)
        ends = self.window.ends(last, now)
        first, end = ends or (0.0, last)
        return line_chart(
            size.width, size.height, series, look=look(self), x=self.x, y=self.y, window=ends, gutter=GUTTER,
            settled=SETTLED * end if first == 0 and end >= SETTLED_FROM else 0.0, band=self.band(palette),
            marks=[Mark(float(event.step), event.label) for event in session.history.events[-12:]],
            levels=self.levels(session), crosshair=crosshair,
        )  # fmt: skip

    def _drawn(self, history: History, what: Quantity, session: Session) -> Any:
        values = self.values(history, what, session)
        return running_mean(values, SMOOTH) if self.smoothed else values

    def values(self, history: History, what: Quantity, session: Session) -> Any:
        return history.column(what.key) * session.units.factor

    def extra(self, session: Session, palette: dict[str, str]) -> list[Series]:
        """What a chart shows besides columns of the history."""
        return []

    def levels(self, session: Session) -> list[Level]:
        """Horizontal lines to hold the curves against."""
        return []

    def band(self, palette: dict[str, str]) -> Band | None:
        return None


class BoundChart(StepChart):
    """log p(x) and the ELBO below it; the shaded gap between them is kl_posterior."""

    TITLE = "log p(x) and its bound"
    COLUMNS = (ELBO, LOG_PX)
    HELP = (
        "How well the model explains the data (log p) and the bound that training raises (ELBO). "
        f"The shaded gap between them is {KL_POSTERIOR.symbol}: how far q is from the posterior of the present θ. "
        "A bound can never lie above what it bounds. Held out: log p of points that are not trained on; where it "
        "falls behind, the model learns its data by heart. The level lines: the truth's log p, and that of one "
        "Gaussian (for bits: of independent bits), which any model with a z should pass."
    )

    def extra(self, session: Session, palette: dict[str, str]) -> list[Series]:
        """log p of points that are not trained on."""
        values = self.values(session.history, HELD_OUT, session)
        if not np.isfinite(values).any():
            return []
        steps = session.history.column("step")
        return [Series(HELD_OUT.short, steps, values, palette[HELD_OUT.key], connect=True)]

    def levels(self, session: Session) -> list[Level]:
        """The truth's log p, which the axis always shows, and that of a model without z, if it lies there."""
        of = session.references or ()
        return [Level(one.log_px * session.units.factor, one.name, one.name == "the truth") for one in of]

    def band(self, palette: dict[str, str]) -> Band:
        return Band(LOG_PX.short, ELBO.short, mix(background(self), palette[KL_POSTERIOR.key], 0.3))


class PartsChart(StepChart):
    """Reconstruction and the two KLs."""

    TITLE = "what they are made of"
    COLUMNS = (RECONSTRUCTION, KL_PRIOR, KL_POSTERIOR)
    HELP = (
        "Reconstruction: how well x is explained from z drawn by q. KL to prior: what q spends on telling the data "
        "points apart; it usually rises while training, and that is no bug. KL to posterior: what q misses."
    )

    def extra(self, session: Session, palette: dict[str, str]) -> list[Series]:
        if not session.gaps:
            return []
        steps = np.array(sorted(session.gaps))
        values = np.array([session.gaps[step].approximation for step in steps]) * session.units.factor
        return [Series("of it approximation", steps, values, palette["text"], connect=True)]


class PursuitChart(StepChart):
    """How far θ moved the target in each step, and how far φ brought q towards it."""

    TITLE = "the target moves, q follows"
    COLUMNS = (TARGET_MOVED, Q_RECOVERED)
    SCALES = (LOG, SYMLOG, LINEAR)
    SMOOTHED = True  # minibatch noise would hide who is ahead
    HELP = (
        f"*{TARGET_MOVED.short}*: {TARGET_MOVED.sentence} *{Q_RECOVERED.short}*: {Q_RECOVERED.sentence} "
        "While the first is above the second, q chases a target that runs away. Where a step of φ recovered nothing "
        "the second curve has a gap."
    )

    def values(self, history: History, what: Quantity, session: Session) -> Any:
        values = history.column(what.key)
        if what is Q_RECOVERED:
            values = -values
        return np.where(values > 0, values, np.nan) * session.units.factor
