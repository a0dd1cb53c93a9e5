"""The terms over the steps."""

from typing import Any

import numpy as np
from textual.binding import Binding
from textual.geometry import Size

from ..palette import background, colors, look
from ..plots import Band, Mark, Plot, Range, Series, line_chart, mix
from ..session import Session, View
from .panel import Panel

WINDOWS = (0, 2000, 500, 100)  # how many of the last steps a chart shows; 0 is all of them
GUTTER = 7


class TermChart(Panel):
    """Some of the terms over the steps, with a mark wherever the user changed something."""

    BINDINGS = [
        Binding("z", "window", "Zoom", show=False, tooltip="Show all steps, or the last 2000, 500 or 100")
    ]
    TERMS: tuple[str, ...] = ()
    SHORT = {
        "log_px": "log p(x)", "elbo": "ELBO", "reconstruction": "reconstruction", "kl_prior": "KL to prior",
        "kl_posterior": "KL to posterior",
    }  # fmt: skip

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.restart()

    def restart(self) -> None:
        self.y, self.x, self.window = Range(), Range(), 0

    def action_window(self) -> None:
        self.window = (self.window + 1) % len(WINDOWS)
        self.y.reset()
        self.border_subtitle = f"last {WINDOWS[self.window]} steps" if self.window else ""
        self.plot = None
        self.refresh()

    def draw(self, view: View, session: Session, size: Size) -> Plot:
        palette, history = colors(self), session.history
        steps = history.column("step")
        series = [
            Series(self.SHORT[term], steps, history.column(term), palette[term], connect=True)
            for term in self.TERMS
        ]
        if session.other is not None:
            old = session.other
            ghosts = [
                Series(
                    "",
                    old.column("step"),
                    old.column(t),
                    mix(background(self), palette[t], 0.45),
                    value="",
                    connect=True,
                )
                for t in self.TERMS
            ]
            series = ghosts + series
        marks = [Mark(float(event.step), event.label) for event in history.events[-12:]]
        tail = WINDOWS[self.window]
        window = (max(0.0, view.step - float(tail)), float(max(view.step, tail))) if tail else None
        return line_chart(
            size.width,
            size.height,
            series,
            look=look(self),
            x=self.x,
            y=self.y,
            window=window,
            band=self.band(palette),
            marks=marks,
            crosshair=float(view.step) if session.shown is not None else None,
            gutter=GUTTER,
        )

    def band(self, palette: dict[str, str]) -> Band | None:
        return None


class BoundChart(TermChart):
    """log p(x) and the ELBO below it; the shaded gap between them is kl_posterior."""

    TITLE = "log p(x) and its bound"
    TERMS = ("elbo", "log_px")
    HELP = (
        "How well the model explains the data (log p) and the bound that training raises (ELBO). "
        "The shaded gap between them is KL(q‖pθ(z|x)): how far q is from the posterior of the present θ. "
        "A bound can never lie above what it bounds."
    )

    def band(self, palette: dict[str, str]) -> Band:
        return Band(
            self.SHORT["log_px"], self.SHORT["elbo"], mix(background(self), palette["kl_posterior"], 0.3)
        )


class PartsChart(TermChart):
    """Reconstruction and the two KLs."""

    TITLE = "what they are made of"
    TERMS = ("reconstruction", "kl_prior", "kl_posterior")
    HELP = (
        "Reconstruction: how well x is explained from z drawn by q. KL to prior: what q spends on telling the data "
        "points apart; it usually rises while training, and that is no bug. KL to posterior: what q misses."
    )


class ChasePlane(Panel):
    """He et al. (2019), figure 2: the posterior's mean across, q's mean up; the diagonal is perfect inference."""

    TITLE = "who chases whom"
    HELP = (
        "Each dot is a data point: across the mean of its posterior pθ(z|x), up the mean of its q. On the diagonal q "
        "has caught up. A θ-step moves dots only sideways, a φ-step only up and down. (He et al. 2019)"
    )

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.restart()

    def restart(self) -> None:
        self.span = Range()

    def draw(self, view: View, session: Session, size: Size) -> Plot:
        from ..plots import Curve, Points, plane

        palette = colors(self)
        across = view.evaluation.target.posterior_mean[:, 0]
        up = view.evaluation.q.mean[:, 0]
        reach = float(np.nanmax(np.abs([across, up])))
        low, high = self.span.fit(-max(reach, 1.0), max(reach, 1.0))
        layers = [
            Curve([low, high], [low, high], palette["faint"]),
            Points(across, up, palette["q"]),
            Points(across[[view.chosen]], up[[view.chosen]], palette["text"], "◆"),
        ]
        index = "₁" if view.model.latent_dim == 2 else ""
        return plane(
            size.width,
            size.height,
            layers,
            look=look(self),
            x_range=(low, high),
            y_range=(low, high),
            x_name=f"mean of pθ(z{index}|x)",
            y_name=f"mean of q(z{index}|x)",
        )
