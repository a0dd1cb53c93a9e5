"""Fields over a plane: heat maps in half-cells, and contours in dots over them.

A field is a 2-D array whose element [i, j] belongs to (x_j, y_i), both ascending and evenly spaced from one end
of its extent to the other; row 0 is drawn at the bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .axes import Axis
from .canvas import Canvas, mix
from .frame import proper_range

Array = NDArray[Any]
Extent = tuple[float, float, float, float]


@lru_cache(64)
def color_ramp(background: str, color: str, levels: int = 32) -> tuple[str, ...]:
    """`levels` colours from "#rrggbb" `background` to `color`."""
    return tuple(mix(background, color, i / (levels - 1)) for i in range(levels))


@dataclass(frozen=True, eq=False)
class Heat:
    """A field shown by colour, from `background` at `low` to `color` at `high` (the field's own by default).

    Give as `background` what the widget has; cells at `low` keep the terminal's.
    """

    field: ArrayLike
    color: str
    background: str
    low: float = 0.0
    high: float | None = None
    extent: Extent | None = None  # x from, x to, y from, y to; None: the whole plot


@dataclass(frozen=True, eq=False)
class Contour:
    """The lines on which a field takes the given levels (for a density: `density_levels`)."""

    field: ArrayLike
    levels: Sequence[float]
    color: str = ""
    name: str = ""
    glyph: str = "o"  # in ascii
    extent: Extent | None = None


@np.errstate(all="ignore")
def density_levels(density: ArrayLike, masses: Sequence[float] = (0.5, 0.9)) -> list[float]:
    """The levels whose highest-density regions hold these shares of a gridded density's mass.

    The region {density ≥ level} is the smallest one with that mass (Hyndman 1996, The American Statistician 50).
    """
    values = np.nan_to_num(np.asarray(density, float)).ravel().clip(0, 1e300)
    values = np.sort(values / (values.max(initial=0.0) or 1.0))[::-1] * (peak := values.max(initial=0.0))
    if peak <= 0:
        return []
    share = np.cumsum(values / peak) / (values / peak).sum()
    index = np.searchsorted(share, np.asarray(masses, float)).clip(0, values.size - 1)
    return sorted({float(values[i]) for i in index})


def resample(field: ArrayLike, rows: ArrayLike, columns: ArrayLike) -> Array:
    """The field at fractional indices; linear in between, NaN outside, the maximum where many fall on one."""
    values = np.asarray(field, float)
    if values.ndim != 2 or values.size == 0:
        return np.full((np.size(rows), np.size(columns)), np.nan)
    return _along(_along(values, np.asarray(rows, float)).T, np.asarray(columns, float)).T


@np.errstate(all="ignore")
def _along(values: Array, at: Array) -> Array:
    """Resample the first axis of `values` at ascending or descending fractional indices `at`."""
    last = len(values) - 1
    inside = (at >= -0.5) & (at <= last + 0.5)
    place = np.where(inside, at, 0.0).clip(0, last)
    step = abs(at[1] - at[0]) if at.size > 1 else 1.0
    if step > 2:  # a peak between two samples must not be lost: take the maximum of each sample's share
        low = np.rint(place - step / 2).clip(0, last).astype(np.intp)
        high = np.rint(place + step / 2).clip(0, last).astype(np.intp) + 1
        bounds = np.stack([low, np.minimum(high, last)], 1).ravel()
        result = np.maximum.reduceat(values, bounds)[::2]
    else:
        below = np.floor(place).astype(np.intp)
        above = np.minimum(below + 1, last)
        weight = (place - below)[:, None]
        result = values[below] * (1 - weight) + values[above] * weight
    return np.where(inside[:, None], result, np.nan)


@np.errstate(all="ignore")
def draw_heat(canvas: Canvas, heat: Heat, x: Axis, y: Axis) -> None:
    """Shade the whole canvas, whose dots lie on the two axes, with a field."""
    row = (np.arange(2 * canvas.height) + 0.5) * canvas.down / 2
    column = (np.arange(canvas.width) + 0.5) * canvas.across
    field = _on_canvas(heat.field, heat.extent, x, y, row, column)
    finite = field[np.isfinite(field)]
    high = heat.high if heat.high is not None else float(finite.max()) if finite.size else 1.0
    canvas.heat((field - heat.low) / (high - heat.low), color_ramp(heat.background, heat.color))


def draw_contour(canvas: Canvas, contour: Contour, x: Axis, y: Axis) -> None:
    """Draw the contours of a field: the dots above a level with a neighbour below it.

    That is the inner rim of each region, a chain of dots without gaps, and needs no marching squares.
    """
    if canvas.width == 0 or canvas.height == 0:
        return
    row, column = np.arange(canvas.dots_high) + 0.5, np.arange(canvas.dots_wide) + 0.5
    field = _on_canvas(contour.field, contour.extent, x, y, row, column)
    levels = np.sort(np.asarray(contour.levels, float).ravel())
    above = np.searchsorted(levels, np.nan_to_num(field, nan=-np.inf, posinf=np.inf, neginf=-np.inf), "right")
    around = np.pad(above, 1, mode="edge")  # a region that leaves the plot stays open there
    lowest = np.minimum.reduce([around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]])
    canvas.dots(above > lowest, contour.color, contour.glyph)


@np.errstate(all="ignore")
def _on_canvas(field: ArrayLike, extent: Extent | None, x: Axis, y: Axis, row: Array, column: Array) -> Array:
    """The field at the given dot rows and columns of a canvas."""
    shape = np.shape(field)
    if len(shape) != 2:
        return np.full((row.size, column.size), np.nan)
    x0, x1, y0, y1 = extent or (x.low, x.high, y.low, y.high)
    (x0, x1), (y0, y1) = proper_range((x0, x1)), proper_range((y0, y1))
    xs = np.array([x.value(float(c)) for c in column[[0, -1]]]) if column.size else np.zeros(2)
    ys = np.array([y.value(float(r)) for r in row[[0, -1]]]) if row.size else np.zeros(2)
    across = ((xs - x0) / (x1 - x0)).clip(-1e6, 1e6) * (shape[1] - 1)  # fractional indices of the ends
    up = ((ys - y0) / (y1 - y0)).clip(-1e6, 1e6) * (shape[0] - 1)
    return resample(field, np.linspace(up[0], up[1], row.size), np.linspace(across[0], across[1], column.size))
