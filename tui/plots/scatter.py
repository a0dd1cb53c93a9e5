"""A plane with axes: clouds of points, curves, trails, a heat map and contours, and points set apart by a mark.

The data space with the decoder's curve through it, the latent plane with its densities, and the path of q after
its target are all this one plot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .axes import Range, step_label
from .canvas import Charset, mix
from .fields import Contour, Heat, draw_contour, draw_heat
from .frame import PLAIN, Entry, Frame, Look, Plot, open_frame

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Points:
    """Points (xs, ys): dots, or with a `marker` ("●", "◆", "+", "×") that character at each of them."""

    xs: ArrayLike
    ys: ArrayLike
    color: str = ""
    marker: str | None = None
    name: str = ""
    glyph: str = "."  # of a dot in ascii


@dataclass(frozen=True, eq=False)
class Curve:
    """A polyline (xs, ys), broken at NaN; a trail if its old end is to fade to the colour `fade`."""

    xs: ArrayLike
    ys: ArrayLike
    color: str = ""
    name: str = ""
    fade: str = ""
    glyph: str = "*"
    mark: str = "━"  # in the legend


def plane(
    width: int,
    height: int,
    layers: Sequence[Points | Curve | Contour | Heat],
    *,
    look: Look = PLAIN,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    equal: bool = False,
    x_name: str = "",
    y_name: str = "",
    shades: Sequence[tuple[str, str]] = (),
    hint: str = "no data yet",
) -> Plot:
    """Draw the layers, first at the back, on `width` × `height` cells.

    The axes show `x_range` and `y_range`, or all points and curves. `equal` makes a unit of x as long as a unit
    of y. The top line names the layers that have a name, and the (name, colour) of what `shades` the plane.
    """
    xs, ys = _coordinates(layers)
    x_ends = x_range or Range().fit(*_span(xs))
    y_ends = y_range or Range().fit(*_span(ys))
    frame = open_frame(width, height, look, x_ends, y_ends, x_name=x_name, equal=equal)
    named = [one for one in layers if not isinstance(one, Heat) and one.name]
    signs = [Entry(_sign(one, look.charset), one.name, "", one.color) for one in named]
    frame.legend([*(Entry("▒", name, "", color) for name, color in shades), *signs], y_name)
    for layer in layers:
        _draw(frame, layer)
    if not any(isinstance(one, Heat | Contour) for one in layers) and not np.isfinite(xs).any():
        frame.area.text(max((frame.area.width - len(hint)) // 2, 0), frame.area.height // 2, hint, look.faint)
        return frame.finish(hint)
    return frame.finish(", ".join(_describe(one) for one in named))


def _draw(frame: Frame, layer: Points | Curve | Contour | Heat) -> None:
    area = frame.area
    if isinstance(layer, Heat):
        draw_heat(area, layer, frame.x_axis, frame.y_axis)
    elif isinstance(layer, Contour):
        draw_contour(area, layer, frame.x_axis, frame.y_axis)
    elif isinstance(layer, Points):
        area.points(frame.x(layer.xs), frame.y(layer.ys), layer.color, layer.marker, layer.glyph)
    else:
        px, py = frame.x(layer.xs).ravel(), frame.y(layer.ys).ravel()
        if not (layer.fade and layer.color):
            return area.line(px, py, layer.color, glyph=layer.glyph)
        pieces = 6  # a colour each; they share their ends
        bounds = np.linspace(0, max(px.size - 1, 0), pieces + 1).astype(np.intp)
        for piece, (a, b) in enumerate(pairwise(bounds)):
            color = mix(layer.fade, layer.color, (piece + 1) / pieces)
            dash = (1, 1) if frame.look.colors or piece >= pieces // 2 else (1, 2)
            area.line(px[a : b + 1], py[a : b + 1], color, dash=dash, glyph=layer.glyph)


def _coordinates(layers: Sequence[Points | Curve | Contour | Heat]) -> tuple[Array, Array]:
    """All coordinates that the axes should show."""
    xs: list[Array] = [np.zeros(0)]
    ys: list[Array] = [np.zeros(0)]
    for layer in layers:
        if isinstance(layer, Points | Curve):
            xs.append(np.asarray(layer.xs, float).ravel())
            ys.append(np.asarray(layer.ys, float).ravel())
        elif layer.extent is not None:
            xs.append(np.array(layer.extent[:2]))
            ys.append(np.array(layer.extent[2:]))
    return np.concatenate(xs), np.concatenate(ys)


def _span(values: Array) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (float("nan"), float("nan"))


def _sign(layer: Points | Curve | Contour, charset: Charset) -> str:
    """The legend's mark."""
    if isinstance(layer, Points) and layer.marker:
        return layer.marker
    if charset == "ascii":
        return layer.glyph
    return "·" if isinstance(layer, Points) else layer.mark if isinstance(layer, Curve) else "○"


def _describe(layer: Points | Curve | Contour) -> str:
    """A layer in words: where a single point or the end of a curve is, how many points a cloud has."""
    if isinstance(layer, Contour):
        return f"{layer.name} {len(layer.levels)} contours"
    xs, ys = np.asarray(layer.xs, float).ravel(), np.asarray(layer.ys, float).ravel()
    if isinstance(layer, Points) and xs.size != 1:
        return f"{layer.name} {xs.size} points"
    if min(xs.size, ys.size) == 0:
        return f"{layer.name} –"
    return f"{layer.name} ({step_label(float(xs[-1]))}, {step_label(float(ys[-1]))})"
