"""The latent space of one chosen x, and the data space with the decoder's picture of it."""

from collections import deque
from typing import Any

import numpy as np
from rich.text import Text
from textual import events
from textual.geometry import Size
from textual.markup import escape
from textual.message import Message

from tinyvae.datasets import Dataset

from ..palette import background, colors, kinds, look
from ..plots import (
    Contour,
    Curve,
    Heat,
    Picture,
    Plot,
    Points,
    Range,
    Series,
    density_levels,
    line_chart,
    mix,
    pictures,
    plane,
)  # fmt: skip
from ..session import Session
from ..view import GRID, Latent, View
from .panel import Panel

GHOST = 24  # how many frames back the ghost of the posterior stands
VIEWS = ("", "q as the map", "all encodings")
PRIOR_RADII = tuple(float(np.sqrt(-2 * np.log(1 - mass))) for mass in (0.5, 0.9))  # of p(z) in a plane


class LatentPanel(Panel):
    """p(z), q(z|x) and pθ(z|x) of the chosen x, and the ghost of the posterior as it was; or all encodings."""

    TITLE = "latent space of the chosen x ◆"
    HELP = (
        "Where the chosen data point can come from: the prior p(z) before seeing x, the posterior pθ(z|x) that the "
        "decoder implies, and the encoder's q(z|x) that tries to match it. The axes show where those two are. The "
        "pale curve is the posterior some "
        "steps ago: while θ learns, the target moves. The faint one is the true posterior, where it is known and z "
        "is one number (z and −z are the same to any data: it is drawn on the model's side). n and N choose another "
        "x. f makes a map of q in place of the posterior, and then shows where all data points are encoded, over "
        "the prior (contours hold 50 and 90 % of the mass)."
    )

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.shown = 0  # of VIEWS
        self.restart()

    def restart(self) -> None:
        self.y, self.ends = Range(zero=True), (Range(), Range())
        self._past: deque[tuple[int, int, Latent]] = deque(maxlen=GHOST)

    def flip(self) -> None:
        """Another view: the posterior as the map, or q, or where all data points are encoded."""
        self.shown = (self.shown + 1) % len(VIEWS)
        self.border_subtitle, self.y, self.ends, self.plot = (
            VIEWS[self.shown],
            Range(zero=True),
            (Range(), Range()),
            None,
        )
        self.refresh()

    def show(self, view: View, session: Session) -> None:
        while self._past and (self._past[-1][0] >= view.step or self._past[-1][1] != view.selected):
            self._past.pop()  # looking back, or at another x
        if self.shown < 2 and self.is_on_screen:
            ends = np.array([span.fit(*each) for span, each in zip(self.ends, view.where)])
            self._past.append((view.step, view.selected, view.latent(ends)))
        super().show(view, session)

    def draw(self, view: View, session: Session, size: Size) -> Plot:
        if self.shown == 2 or not self._past:
            return self._all(view, session, size)
        palette, ground = colors(self), background(self)
        now, (then, _, ghost) = self._past[-1][2], self._past[0]
        of = [("pθ(z|x)", palette["posterior"], now.posterior), ("q(z|x)", palette["q"], now.q)]
        (name, color, field), (other, ink, contours) = of[:: -1 if self.shown else 1]
        if view.model.latent_dim == 2:
            x_range, y_range = (tuple(each) for each in now.ends.tolist())
            extent = (*x_range, *y_range)
            layers: list[Any] = [
                Heat(field, color, ground, extent=extent),
                *self._prior(palette["prior"]),
                Contour(contours, density_levels(contours), ink, other, extent=extent),
            ]
            return plane(
                size.width, size.height, layers, look=look(self), x_range=x_range, y_range=y_range, equal=True,
                x_name="z₁", y_name="z₂", shades=[(name, color)],
            )  # fmt: skip
        series = [Series("p(z)", now.ticks, now.prior, palette["prior"], value="")]
        if then < view.step:
            pale = mix(ground, palette["posterior"], 0.7)
            series.append(Series(f"{view.step - then} ago", ghost.ticks, ghost.posterior, pale, value=""))
        if now.true_posterior is not None:
            series.append(Series("true p(z|x)", now.ticks, now.true_posterior, palette["faint"], value=""))
        series.append(Series(name, now.ticks, field, color, fill=mix(ground, color, 0.3), value=""))
        series.append(Series(other, now.ticks, contours, ink, value=""))
        return self._curves(series, size, now.ends[0])

    def _curves(self, series: list[Series], size: Size, ends: Any) -> Plot:
        window = (float(ends[0]), float(ends[1]))
        return line_chart(
            size.width, size.height, series, look=look(self), y=self.y, window=window, x_name="z", gutter=5
        )

    def _prior(self, color: str) -> list[Curve]:
        turn = np.linspace(0, 2 * np.pi, 181)
        radii = enumerate(PRIOR_RADII)
        return [
            Curve(r * np.cos(turn), r * np.sin(turn), color, "" if k else "p(z)", mark="○") for k, r in radii
        ]

    def _all(self, view: View, session: Session, size: Size) -> Plot:
        """The means of all q (and in one dimension the mean of their densities) over the prior."""
        palette, means = colors(self), view.evaluation.q.mean
        low, high = np.minimum(means.min(axis=0), -2.5), np.maximum(means.max(axis=0), 2.5)
        ends = np.array([span.fit(*each) for span, each in zip(self.ends, np.stack([low, high], axis=1))])
        here = means[view.selected]
        if view.model.latent_dim == 1:
            ticks = np.linspace(ends[0, 0], ends[0, 1], GRID[1])
            prior = np.exp(-(ticks**2) / 2) / np.sqrt(2 * np.pi)
            density, top = view.aggregate(ticks), float(view.aggregate(here)[0])
            fill = mix(background(self), palette["q"], 0.3)
            series = [
                Series("p(z)", ticks, prior, palette["prior"], value=""),
                Series("mean of all q", ticks, density, palette["q"], fill=fill, value=""),
                Series("mean of this q", [here[0]] * 2, [0.0, top], palette["text"], value=""),
            ]
            return self._curves(series, size, ends[0])
        layers: list[Any] = [
            *self._prior(palette["prior"]),
            *points_by_kind(self, session, means, "means of all q", palette["q"]),
            Points([here[0]], [here[1]], palette["text"], "◆", "this x"),
        ]
        return plane(
            size.width, size.height, layers, look=look(self), x_range=tuple(ends[0]), y_range=tuple(ends[1]),
            equal=True, x_name="z₁", y_name="z₂",
        )  # fmt: skip


def points_by_kind(widget: Panel, session: Session, points: Any, name: str, color: str) -> list[Points]:
    """A point for each data point, each kind in its colour where a column tells them apart."""
    labels = session.data.labels
    if labels is None or len(labels) != len(points):
        return [Points(points[:, 0], points[:, 1], color, name=name)]
    layers = []
    for kind, (own, sign) in zip(sorted(set(labels)), kinds(widget)):
        chosen = points[np.array(labels) == kind]
        layers.append(Points(chosen[:, 0], chosen[:, 1], own, name=kind, glyph=sign))
    return layers


DATA_VIEWS = ("data", "data and draws", "draws", "columns")
OTHER_NAMES = {"data": "", "data and draws": "data and draws from pθ(x)", "draws": "draws from pθ(x)"}


class DataPanel(Panel):
    """The data points, the decoder's mean over z, and the chosen x with its reconstruction; or draws from pθ(x)."""

    TITLE = "data and decoder"
    HELP = (
        "Dots are the data, ◆ is the chosen x, + what the decoder makes of q's mean for it. The line is the "
        "decoder's mean as z runs from −2.5 to 2.5: the shape that the model has learned. Click a dot to choose it. "
        "i shows draws from pθ(x) beside the data, then draws alone, then the decoder's mean of each column over z. "
        "With more than two columns the axes are those in which the data vary most; [ and ] choose others. "
        "With --color a column of your file colours the dots; it is never trained on. "
        "Bits that make a square are shown as pictures: x, and how probable the decoder finds each bit."
    )

    class Selected(Message):
        """A data point was clicked."""

        def __init__(self, point: int):
            super().__init__()
            self.point = point

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.shown = 0  # of DATA_VIEWS
        self.restart()

    def restart(self) -> None:
        self.x_range, self.y_range, self.curves = Range(), Range(), Range()
        self.axes = [0, 1]  # of the directions
        self._points = (np.zeros(0), np.zeros(0))
        self._directions_of: Dataset | None = None

    def turn(self) -> None:
        """Data, data and draws, draws, the decoder by column."""
        self.shown = (self.shown + 1) % len(DATA_VIEWS)

    def choose_axis(self, which: int) -> None:
        """Another direction on the axis across (0) or up (1)."""
        if self.session is not None:
            count = len(self._directions(self.session.data)[0])
            self.axes[which] = (self.axes[which] + 1) % count
            self.x_range, self.y_range = Range(), Range()

    def show(self, view: View, session: Session) -> None:
        """Of a person's own file the border says which columns are seen, and the values of the chosen x by name."""
        of, row, title = session.data, OTHER_NAMES.get(DATA_VIEWS[self.shown], ""), DataPanel.TITLE
        if of.likelihood == "gaussian" and (of.truth is None or of.x.shape[1] > 2):
            names = self._directions(of)[0]
            title = escape(f"data: ↑ {names[self.axes[1]]} → {names[self.axes[0]]}")
        if of.truth is None and of.likelihood == "gaussian":
            row = f"◆ {view.named(of)}"
        if DATA_VIEWS[self.shown] == "columns":
            title = "decoder over z"
        if title != self.TITLE:
            number = str(self.border_title).partition(" ")[0]
            self.TITLE, self.border_title = title, f"{number} {title}"
        if row or self.border_subtitle:
            self.border_subtitle = Text(row)
        super().show(view, session)

    def _directions(self, of: Dataset) -> tuple[list[str], Any, Any]:
        """The axes that can be shown: their names, directions (D, K) and what to take off along each (K,).

        With more than two columns the first two are those in which the data vary most; of a file each has the name
        of the column with the largest part in it.
        """
        if self._directions_of is not of:
            D = of.x.shape[1]
            names, axes, off = list(of.columns), np.eye(D), np.zeros(D)
            if D > 2:
                centre = of.x.mean(axis=0)
                principal = np.linalg.svd(of.x - centre, full_matrices=False)[2][:2].T
                mostly = [f"mostly {of.columns[i]}" for i in np.abs(principal).argmax(axis=0)]
                names = (["1st principal axis", "2nd principal axis"] if of.truth else mostly) + names
                axes, off = np.hstack([principal, axes]), np.concatenate([centre @ principal, off])
            self._directions_of, self._found = of, (names, axes, off)
        return self._found

    def draw(self, view: View, session: Session, size: Size) -> Plot:
        side, shows = int(np.sqrt(len(view.x))), DATA_VIEWS[self.shown]
        self._points = (np.zeros(0), np.zeros(0))
        if view.model.likelihood == "bernoulli" and side > 1 and side * side == len(view.x):
            return self._images(view, session, size, side)
        if shows == "columns":
            return self._by_column(view, session, size)
        palette = colors(self)
        names, axes, off = self._directions(session.data)

        def project(points: Any) -> Any:
            return points @ axes[:, self.axes] - off[self.axes]

        data, decoded = project(session.data.x), project(view.decoded)
        lines = decoded if decoded.ndim == 3 else decoded[None]
        broken = np.concatenate([np.vstack([line, [[np.nan, np.nan]]]) for line in lines])
        candidates = project(view.evaluation.target.x)
        mine, again = candidates[view.selected], project(view.reconstruction[None])[0]
        layers: list[Any] = []
        if "data" in shows:
            self._points = (candidates[:, 0], candidates[:, 1])
            layers += points_by_kind(self, session, data, "data", palette["axis"])
        if "draws" in shows:
            draws = project(view.draws)
            layers.append(Points(draws[:, 0], draws[:, 1], palette["log_px"], name="draws", glyph="o"))
        if shows == "data":
            layers.append(Curve(broken[:, 0], broken[:, 1], palette["reconstruction"], "decoder"))
        layers.append(Points([mine[0]], [mine[1]], palette["text"], "◆", "x"))
        layers.append(Points([again[0]], [again[1]], palette["q"], "+", "from q's mean"))
        low, high = data.min(axis=0), data.max(axis=0)
        x_range, y_range = self.x_range.fit(low[0], high[0]), self.y_range.fit(low[1], high[1])
        x_name, y_name = (names[axis] for axis in self.axes)
        same = session.data.truth is not None or self.axes == [
            0,
            1,
        ]  # columns of different units have no aspect
        return plane(
            size.width, size.height, layers, look=look(self), x_range=x_range, y_range=y_range, equal=same,
            x_name=x_name, y_name=y_name,
        )  # fmt: skip

    def _by_column(self, view: View, session: Session, size: Size) -> Plot:
        """The decoder's mean of each column as z (of a plane z₁, at z₂ = 0) runs from −2.5 to 2.5."""
        line = view.decoded if view.decoded.ndim == 2 else view.decoded[8]
        ticks, of = np.linspace(-2.5, 2.5, len(line)), zip(session.data.columns, line.T, kinds(self))
        series = [Series(name, ticks, values, color, value="") for name, values, (color, _) in of]
        z = "z" if view.model.latent_dim == 1 else "z₁ at z₂ = 0"
        return line_chart(
            size.width,
            size.height,
            series,
            look=look(self),
            y=self.curves,
            window=(-2.5, 2.5),
            x_name=z,
            gutter=5,
        )

    def _images(self, view: View, session: Session, size: Size, side: int) -> Plot:
        """The chosen x and the decoder's probabilities at q's mean; data and draws; or what is decoded over z."""
        palette, ground, shows = colors(self), background(self), DATA_VIEWS[self.shown]
        if shows == "columns" and view.model.latent_dim == 2:
            grid = np.pad(
                view.decoded_grid.reshape(7, 7, side, side)[:, :, ::-1], [(0, 0), (0, 0), (1, 0), (0, 1)]
            )
            field = np.kron(grid.transpose(0, 2, 1, 3).reshape(7 * (side + 1), -1), np.ones((4, 4)))
            heat, reach = Heat(field, palette["q"], ground, 0.0, 1.0), (-2.625, 2.625)
            return plane(
                size.width, size.height, [heat], look=look(self), x_range=reach, y_range=reach, x_name="z₁",
                y_name="z₂", shades=[("probability of a bit, at z", palette["q"])],
            )  # fmt: skip
        if shows == "columns":
            images = [Picture(one.reshape(side, side), palette["q"], ground) for one in view.decoded_grid]
            return pictures(size.width, size.height, images, look=look(self))
        data = (_mosaic(session.data.x, side), palette["text"], "data")
        draws = (_mosaic(view.draws, side), palette["log_px"], "draws")
        chosen = (view.x.reshape(side, side), palette["text"], "◆ x")
        again = (view.reconstruction.reshape(side, side), palette["q"], "+ from q's mean")
        of = {"data": [chosen, again], "data and draws": [data, draws], "draws": [draws]}[shows]
        images = [Picture(pixels, color, ground, caption) for pixels, color, caption in of]
        return pictures(size.width, size.height, images, look=look(self))

    def on_click(self, event: events.Click) -> None:
        at = event.get_content_offset(self)
        if self.drawn is not None and at is not None:
            point = self.drawn.nearest(*self._points, at.x, at.y)
            if point is not None:
                self.post_message(self.Selected(point))


def _mosaic(images: Any, side: int) -> Any:
    """Three rows of three pictures as one, with a dark line between them."""
    padded = np.pad(np.asarray(images[:9]).reshape(-1, side, side), [(0, 0), (0, 1), (0, 1)])
    return padded.reshape(3, 3, side + 1, side + 1).transpose(0, 2, 1, 3).reshape(3 * (side + 1), -1)[:-1, :-1]
