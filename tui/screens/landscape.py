"""The landscape around the present point: θ's direction across, φ's direction up, and the way that led here."""

from typing import Any

import numpy as np
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from tinyvae.exact.landscape import Landscape, landscape

from ..palette import background, colors, look
from ..plots import Contour, Curve, Heat, Plot, Points, plane, value_label
from ..session import Session
from ..terms import TERMS
from ..work import in_thread
from .dialog import Dialog

SAYS = {  # what the picture of a term shows
    "elbo": "What training climbs: it depends on both directions, and the ridge runs aslant.",
    "log_px": "Vertical lines only: moving φ cannot change log p.",
    "kl_posterior": "The distance of q from the posterior: its valley is where φ has caught up with θ.",
    "kl_prior": "Horizontal lines only: moving θ cannot change KL prior.",
}
PICTURES = tuple(SAYS)
PATH = 40  # steps whose way is shown, and whose length is the unit of both axes
POINTS = {1: 64, 2: 12}  # data points over which the terms are averaged here


class LandscapeScreen(Dialog[None]):
    """Computes column by column, so that something is seen at once."""

    BINDINGS = [
        Binding("escape,w,q", "dismiss", "Close"),
        Binding("tab,right,down", "term(1)", "Next term"),
        Binding("shift+tab,left,up", "term(-1)", "Previous term"),
    ]
    DEFAULT_CSS = """
    LandscapeScreen { align: center middle; }
    LandscapeScreen Vertical { width: 90%; max-width: 120; height: 90%; border: round $accent; background: $surface; }
    LandscapeScreen Static { height: auto; padding: 0 1; }
    """

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.term = 0

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_subtitle = "← → another term · esc closes"
            yield Map()
            yield Static(id="says")

    def on_mount(self) -> None:
        self._show_term()
        self.compute()

    def action_term(self, by: int) -> None:
        self.term = (self.term + by) % len(PICTURES)
        self._show_term()

    def _show_term(self) -> None:
        term = PICTURES[self.term]
        self.query_one(Vertical).border_title = f"Landscape: {TERMS[term].name}"
        self.query_one("#says", Static).update(SAYS[term])
        self.query_one(Map).show(term)

    @work(exclusive=True, group="landscape")
    async def compute(self) -> None:
        session, canvas = self.session, self.query_one(Map)  # later there may be no Map: the screen was closed
        view = session.view()
        thetas, phis = session.path(PATH)
        theta, phi = thetas[-1], phis[-1]
        rng = np.random.default_rng(0)  # a group that has not moved has no direction: take any
        directions: list[Any] = []
        for way in (thetas, phis):
            direction = way[-1] - way[0]
            if not direction.any():
                direction = rng.standard_normal(direction.size)
                direction *= 0.05 * np.linalg.norm(way[-1]) / np.linalg.norm(direction)
            directions.append(direction)
        ahead = [(way - way[-1]) @ d / (d @ d) for way, d in zip((thetas, phis), directions)]
        x = view.evaluation.target.x[: POINTS[session.model.latent_dim]]
        columns = landscape(session.model, theta, phi, directions[0], directions[1], x, reach=1.5)
        while (found := await in_thread(next, columns, None)) is not None:
            canvas.fill(found, ahead)


class Map(Widget):
    """One term as colours and contours, with the path."""

    DEFAULT_CSS = "Map { height: 1fr; background: $surface; }"

    def __init__(self) -> None:
        super().__init__()
        self.term = PICTURES[0]
        self.found: Landscape | None = None
        self.path: list[Any] = []
        self.plot: Plot | None = None

    def show(self, term: str) -> None:
        self.term, self.plot = term, None
        self.refresh()

    def fill(self, found: Landscape, path: list[Any]) -> None:
        self.found, self.path, self.plot = found, path, None
        self.refresh()

    def on_resize(self) -> None:
        self.plot = None

    def render_line(self, y: int) -> Strip:
        if self.plot is None:
            self.plot = self._draw(self.size)
        if y < len(self.plot.strips):
            return self.plot.strips[y]
        return Strip.blank(self.size.width, self.rich_style)

    def _draw(self, size: Size) -> Plot:
        palette, ground = colors(self), background(self)
        layers: list[Any] = []
        shades: list[tuple[str, str]] = []
        reach = 1.5
        if self.found is not None:
            reach = float(self.found.a[-1])
            field = self.found.terms[self.term]
            known = field[np.isfinite(field)]
            rises = self.term in ("elbo", "log_px")  # its worst values, of no interest, are the lowest
            low, high = np.quantile(known, [0.02, 1.0] if rises else [0.0, 0.98])
            extent = (-reach, reach, -reach, reach)
            levels = np.linspace(low, high, 9)[1:-1]
            color = palette[self.term]
            shades = [(f"{TERMS[self.term].name} {value_label(low)} to {value_label(high)}", color)]
            layers = [
                Heat(field, color, ground, float(low), float(high) + 1e-12, extent),
                Contour(field, levels.tolist(), palette["text"], "", extent=extent),
                Curve(self.path[0], self.path[1], palette["bad"], f"the last {len(self.path[0]) - 1} steps"),
                Points([0.0], [0.0], palette["bad"], "◆", "now"),
            ]
        return plane(
            size.width, size.height, layers, look=look(self), x_range=(-reach, reach), y_range=(-reach, reach),
            x_name="θ: 1 is the way of these steps", y_name="φ", shades=shades, hint="computing …",
        )  # fmt: skip
