"""Everything that is drawn over the steps of training."""

from typing import Any

import numpy as np
from textual.geometry import Size

from ..history import History
from ..palette import background, colors, look
from ..plots import LINEAR, LOG, SYMLOG, Band, Mark, Plot, Range, Scale, Series, line_chart, mix
from ..session import Session, View
from .panel import Panel

WINDOWS = (0, 2000, 500, 100)  # how many of the last steps a chart shows; 0 is all of them
GUTTER = 7


class StepChart(Panel):
    """Columns of the history over the steps, with a mark wherever the user changed something."""

    COLUMNS: tuple[tuple[str, str], ...] = ()  # what to draw, and how the legend calls it
    SCALES: tuple[Scale, ...] = (LINEAR, SYMLOG)

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.window = self.scale = 0
        self.restart()

    def restart(self) -> None:
        self.y, self.x = Range(self.SCALES[self.scale]), Range()

    def zoom(self) -> None:
        """The next window: all steps, or fewer of the last ones."""
        self.window = (self.window + 1) % len(WINDOWS)
        self._changed()

    def change_scale(self) -> None:
        """Linear or symlog."""
        self.scale = (self.scale + 1) % len(self.SCALES)
        self._changed()

    def _changed(self) -> None:
        self.restart()
        words = [f"last {WINDOWS[self.window]} steps"] if self.window else []
        words += [self.SCALES[self.scale].kind] if self.scale else []
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
                values = self.values(session.other, name, session)
                series.append(Series("", steps, values, color, value="", connect=True))
        steps = session.history.column("step")
        for name, label in self.COLUMNS:
            values = self.values(session.history, name, session)
            series.append(Series(label, steps, values, self.color(name, palette), connect=True))
        tail = WINDOWS[self.window]
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
            crosshair=float(view.step) if session.shown is not None else None,
            gutter=GUTTER,
        )

    def values(self, history: History, name: str, session: Session) -> Any:
        return history.column(name) * session.units.factor

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


class PursuitChart(StepChart):
    """How far θ moved the target in each step, and how far φ brought q towards it."""

    TITLE = "the target moves, q follows"
    COLUMNS = (("target_moved", "target moved"), ("kl_posterior_by_phi", "q recovered"))
    SCALES = (LOG, SYMLOG, LINEAR)
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
