"""The latent space of one chosen x, and the data space with the decoder's picture of it."""

from typing import Any

import numpy as np
from textual import events
from textual.geometry import Size
from textual.message import Message

from ..palette import background, colors, look
from ..plots import Contour, Curve, Heat, Plot, Points, Range, Series, density_levels, line_chart, mix, plane
from ..session import Session, View
from .panel import Panel


class LatentPanel(Panel):
    """p(z), q(z|x) and pθ(z|x) of the chosen x."""

    TITLE = "latent space of the chosen x ◆"
    HELP = (
        "Where the chosen data point can come from: the prior p(z) before seeing x, the posterior pθ(z|x) that the "
        "decoder implies, and the encoder's q(z|x) that tries to match it. n and N choose another x."
    )

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.restart()

    def restart(self) -> None:
        self.y = Range()

    def draw(self, view: View, session: Session, size: Size) -> Plot:
        palette, latent, ground = colors(self), view.latent, background(self)
        if view.model.latent_dim == 1:
            series = [
                Series("p(z)", latent.ticks, latent.prior, palette["prior"], value=""),
                Series(
                    "pθ(z|x)",
                    latent.ticks,
                    latent.posterior,
                    palette["posterior"],
                    fill=mix(ground, palette["posterior"], 0.3),
                    value="",
                ),
                Series("q(z|x)", latent.ticks, latent.q, palette["q"], value=""),
            ]
            window = (float(latent.ticks[0]), float(latent.ticks[-1]))
            return line_chart(
                size.width, size.height, series, look=look(self), y=self.y, window=window, x_name="z", gutter=5
            )
        reach = float(latent.ticks[-1])
        extent = (-reach, reach, -reach, reach)
        layers = [
            Heat(latent.posterior, palette["posterior"], ground, extent=extent),
            Contour(latent.prior, density_levels(latent.prior), palette["prior"], "p(z)", extent=extent),
            Contour(
                latent.posterior,
                density_levels(latent.posterior),
                palette["posterior"],
                "pθ(z|x)",
                extent=extent,
            ),
            Contour(latent.q, density_levels(latent.q), palette["q"], "q(z|x)", extent=extent),
        ]
        ends = (-reach, reach)
        return plane(
            size.width,
            size.height,
            layers,
            look=look(self),
            x_range=ends,
            y_range=ends,
            equal=True,
            x_name="z₁",
            y_name="z₂",
        )


class DataPanel(Panel):
    """The data points, the decoder's mean over z, and the chosen x with its reconstruction."""

    TITLE = "data and decoder"
    HELP = (
        "Dots are the data, ◆ is the chosen x, + what the decoder makes of q's mean for it. The line is the "
        "decoder's mean as z runs from −2.5 to 2.5: the shape that the model has learned. Click a dot to choose it."
    )

    class Chosen(Message):
        """A data point was clicked."""

        def __init__(self, point: int):
            super().__init__()
            self.point = point

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.restart()

    def restart(self) -> None:
        self.x_range, self.y_range = Range(), Range()
        self._points = (np.zeros(0), np.zeros(0))

    def draw(self, view: View, session: Session, size: Size) -> Plot:
        palette, x = colors(self), view.evaluation.target.x
        names, project = ("x₁", "x₂"), lambda points: points
        if x.shape[1] != 2:  # the two directions in which the data vary most
            centre = x.mean(axis=0)
            axes = np.linalg.svd(x - centre, full_matrices=False)[2][:2].T
            names, project = ("first principal axis", "second"), lambda points: (points - centre) @ axes
        data, decoded = project(x), project(view.decoded)
        if data.shape[-1] == 1:
            data, decoded = (np.column_stack([a.ravel(), np.zeros(a.size)]) for a in (data, decoded))
        lines = decoded if decoded.ndim == 3 else decoded[None]
        broken = np.concatenate([np.vstack([line, [[np.nan, np.nan]]]) for line in lines])
        mine, again = data[view.chosen], project(view.reconstruction[None])[0]
        self._points = (data[:, 0], data[:, 1])
        low, high = data.min(axis=0), data.max(axis=0)
        layers = [
            Points(data[:, 0], data[:, 1], palette["axis"], name="data"),
            Curve(broken[:, 0], broken[:, 1], palette["reconstruction"], "decoder"),
            Points([mine[0]], [mine[1]], palette["text"], "◆", "x"),
            Points([again[0]], [again[1]], palette["q"], "+", "its reconstruction"),
        ]
        air = 0.12 * (high - low) + 1e-9
        return plane(
            size.width,
            size.height,
            layers,
            look=look(self),
            x_range=self.x_range.fit(low[0] - air[0], high[0] + air[0]),
            y_range=self.y_range.fit(low[1] - air[1], high[1] + air[1]),
            equal=True,
            x_name=names[0],
            y_name=names[1],
        )

    def on_click(self, event: events.Click) -> None:
        at = event.get_content_offset(self)
        if self.plot is not None and at is not None:
            point = self.plot.nearest(*self._points, at.x, at.y)
            if point is not None:
                self.post_message(self.Chosen(point))
