"""The coin VAE has two parameters: its whole ELBO surface in one picture (the lesson on the condition, part a)."""

from typing import Any

import numpy as np
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from tinyvae.lessons.coin import surface

from ..palette import background, colors, look
from ..plots import Contour, Curve, Heat, Plot, Points, plane, value_label
from ..terms import ELBO
from .dialog import Dialog

SAYS = (
    "t across: how likely heads are; p up: how far q leans. ◆ is the highest ELBO. The vertical line is the t of "
    "maximum likelihood: the ELBO's t lies beside it, because q's family does not contain the posterior."
)


class SurfaceScreen(Dialog[None]):
    """Map and contours of the ELBO over t and p."""

    BINDINGS = [Binding("escape,enter,q", "dismiss", "Close")]
    DEFAULT_CSS = """
    SurfaceScreen { align: center middle; }
    SurfaceScreen Vertical { width: 90%; max-width: 110; height: 90%; border: round $accent; background: $surface; }
    SurfaceScreen Static { height: auto; padding: 0 1; }
    """

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title, box.border_subtitle = "The ELBO of the coin VAE, all of it", "esc closes"
            yield CoinMap()
            yield Static(SAYS)


class CoinMap(Widget):
    """Drawn anew whenever its size changes."""

    DEFAULT_CSS = "CoinMap { height: 1fr; background: $surface; }"

    def __init__(self) -> None:
        super().__init__()
        self.found = surface()
        self.plot: Plot | None = None

    def on_resize(self) -> None:
        self.plot = None
        self.refresh()

    def render_line(self, y: int) -> Strip:
        if self.plot is None:
            self.plot = self._draw()
        if y < len(self.plot.strips):
            return self.plot.strips[y]
        return Strip.blank(self.size.width, self.rich_style)

    def _draw(self) -> Plot:
        palette, found = colors(self), self.found
        t, p = (float(found.t[0]), float(found.t[-1])), (float(found.p[0]), float(found.p[-1]))
        field = found.elbo.T
        low, high = float(np.quantile(field, 0.3)), float(field.max())
        levels = (high - (high - low) * np.linspace(0.02, 1, 8) ** 2).tolist()
        likelihood = found.likelihood_best
        layers: list[Any] = [
            Heat(field, palette["elbo"], background(self), low, high, (*t, *p)),
            Contour(field, levels, palette["text"], ELBO.short, extent=(*t, *p)),
            Curve([likelihood, likelihood], list(p), palette["log_px"], "maximum likelihood"),
            Points([found.best[0]], [found.best[1]], palette["bad"], "◆", "highest ELBO"),
        ]
        size = self.size
        key = (f"{ELBO.name} {value_label(low)} to {value_label(high)}", palette["elbo"])
        return plane(
            size.width, size.height, layers, look=look(self), x_range=t, y_range=p, x_name="t", y_name="p",
            shades=[key],
        )  # fmt: skip
