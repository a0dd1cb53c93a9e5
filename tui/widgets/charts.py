"""Everything that is drawn over the steps of training."""

from typing import Any

import numpy as np
from textual import events
from textual.geometry import Size
from textual.message import Message

from ..history import History
from ..palette import background, colors, look
from ..plots import LINEAR, LOG, SYMLOG, Band, Mark, Plot, Range, Scale, Series, line_chart, mix
from ..session import Session, View
from .panel import Panel

WINDOWS = (0, 2000, 500, 100)  # how many of the last steps a chart shows; 0 is all of them
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

    COLUMNS: tuple[tuple[str, str], ...] = ()  # what to draw, and how the legend calls it
    SCALES: tuple[Scale, ...] = (LINEAR, SYMLOG)
    SMOOTHED = False

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.window = self.scale = 0
        self.smoothed = self.SMOOTHED
        self.pointed: int | None = None
        self._changed()

    def restart(self) -> None:
        self.y, self.x = Range(self.SCALES[self.scale]), Range()

    class Pointed(Message):
        """The mouse is over a step of a chart (None: it has left), or has clicked it."""

        def __init__(self, step: int | None, clicked: bool = False):
            super().__init__()
            self.step, self.clicked = step, clicked

    class Wheel(Message):
        """The wheel was turned over a chart: zoom in (1) or out (−1)."""

        def __init__(self, by: int):
            super().__init__()
            self.by = by

    def zoom(self, by: int = 1, around: bool = True) -> None:
        """The next window: all steps, or fewer of the last ones; past the last it begins anew if `around`."""
        window = self.window + by
        self.window = window % len(WINDOWS) if around else min(max(window, 0), len(WINDOWS) - 1)
        self._changed()

    def point_at(self, step: int | None) -> None:
        """Show the values at this step in place of the latest."""
        self.pointed, self.plot = step, None
        self.refresh()

    def smooth(self) -> None:
        """Running means over 25 steps, or the values themselves."""
        self.smoothed = not self.smoothed
        self._changed()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self.post_message(self.Pointed(self._step_at(event)))

    def on_leave(self) -> None:
        self.post_message(self.Pointed(None))

    def on_click(self, event: events.Click) -> None:
        self.post_message(self.Pointed(self._step_at(event), clicked=True))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self.post_message(self.Wheel(1))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self.post_message(self.Wheel(-1))

    def _step_at(self, event: events.MouseEvent) -> int | None:
        at = event.get_content_offset(self)
        x = self.plot.x_at(at.x) if self.plot is not None and at is not None else None
        return None if x is None or self.session is None else min(max(round(x), 0), self.session.step)

    def change_scale(self) -> None:
        """Linear or symlog."""
        self.scale = (self.scale + 1) % len(self.SCALES)
        self._changed()

    def _changed(self) -> None:
        self.restart()
        words = [f"last {WINDOWS[self.window]} steps"] if self.window else []
        words += [self.SCALES[self.scale].kind] if self.scale else []
        words += [f"mean of {SMOOTH} steps"] if self.smoothed else []
        self.border_subtitle = ", ".join(words)
        self.plot = None
        self.refresh()

    def draw(self, view: View, session: Session, size: Size) -> Plot:
        palette, ground = colors(self), background(self)
        series = []
        if session.other is not None:  # the run before the branch, dimmed
            steps = session.other.column("step")
            for name, _ in self.COLUMNS:
                color = mix(ground, self.color(name, palette), 0.45)
                values = self._drawn(session.other, name, session)
                series.append(Series("", steps, values, color, value="", connect=True))
        steps = session.history.column("step")
        for name, label in self.COLUMNS:
            values = self._drawn(session.history, name, session)
            series.append(Series(label, steps, values, self.color(name, palette), connect=True))
        series += self.extra(session, palette)
        # An axis of a fraction of a step would say nothing: show ten at least.
        tail = WINDOWS[self.window] or (10 if session.step < 10 else 0)
        crosshair = (
            self.pointed if self.pointed is not None else view.step if session.shown is not None else None
        )
        return line_chart(
            size.width,
            size.height,
            series,
            look=look(self),
            x=self.x,
            y=self.y,
            window=(max(0.0, view.step - float(tail)), float(max(view.step, tail))) if tail else None,
            band=self.band(palette),
            marks=[Mark(float(event.step), event.label) for event in session.history.events[-12:]],
            crosshair=crosshair,
            gutter=GUTTER,
        )

    def _drawn(self, history: History, name: str, session: Session) -> Any:
        values = self.values(history, name, session)
        return running_mean(values, SMOOTH) if self.smoothed else values

    def values(self, history: History, name: str, session: Session) -> Any:
        return history.column(name) * session.units.factor

    def extra(self, session: Session, palette: dict[str, str]) -> list[Series]:
        """What a chart shows besides columns of the history."""
        return []

    def color(self, name: str, palette: dict[str, str]) -> str:
        return palette[name]

    def band(self, palette: dict[str, str]) -> Band | None:
        return None


class BoundChart(StepChart):
    """log p(x) and the ELBO below it; the shaded gap between them is kl_posterior."""

    TITLE = "log p(x) and its bound"
    COLUMNS = (("elbo", "ELBO"), ("log_px", "log p(x)"))
    HELP = (
        "How well the model explains the data (log p) and the bound that training raises (ELBO). "
        "The shaded gap between them is KL(q‖pθ(z|x)): how far q is from the posterior of the present θ. "
        "A bound can never lie above what it bounds."
    )

    def band(self, palette: dict[str, str]) -> Band:
        return Band("log p(x)", "ELBO", mix(background(self), palette["kl_posterior"], 0.3))


class PartsChart(StepChart):
    """Reconstruction and the two KLs."""

    TITLE = "what they are made of"
    COLUMNS = (("reconstruction", "recon."), ("kl_prior", "KL prior"), ("kl_posterior", "KL posterior"))
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
    COLUMNS = (("target_moved", "target moved"), ("kl_posterior_by_phi", "q recovered"))
    SCALES = (LOG, SYMLOG, LINEAR)
    SMOOTHED = True  # minibatch noise would hide who is ahead
    HELP = (
        "In each step: the distance KL(pθ(z|x)‖pθ'(z|x)) by which θ moved the posterior, and by how much φ lowered "
        "KL(q‖pθ(z|x)). While the first is above the second, q chases a target that runs away. Where a step of φ "
        "recovered nothing the second curve has a gap."
    )

    def values(self, history: History, name: str, session: Session) -> Any:
        values = history.column(name)
        if name == "kl_posterior_by_phi":
            values = -values
        return np.where(values > 0, values, np.nan) * session.units.factor

    def color(self, name: str, palette: dict[str, str]) -> str:
        return palette["posterior" if name == "target_moved" else "q"]
