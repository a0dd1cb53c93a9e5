"""The frame around a plot: legend above, y labels on the left, x labels below, and the plot area inside.

All plots share it, so that they line up: `open_frame` lays out the cells, draws the axes and returns a `Frame`
whose `area` is a canvas clipped to the plot area; `Frame.finish` returns the `Plot`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.style import Style
from textual.strip import Strip

from .axes import LINEAR, Axis, Scale
from .canvas import Canvas, Charset, plain


@dataclass(frozen=True)
class Look:
    """What all plots of a theme share: the characters, and the colours of what is not data.

    `base` lies under every cell. Textual does not put a widget's colours under the strips of its `render_line`,
    so give `widget.rich_style` here; with "" the terminal's own colours show.
    """

    charset: Charset = "braille"
    colors: bool = True
    text: str = ""
    axis: str = "#808080"  # axis lines and their labels
    faint: str = "#707070"  # hints and marks
    base: str | Style = ""

    def canvas(self, width: int, height: int) -> Canvas:
        return Canvas(width, height, self.charset, self.colors, self.base)


PLAIN = Look()


@dataclass(frozen=True)
class Plot:
    """A finished plot: its strips, its content as one line of text, and the way back from cells to data."""

    strips: list[Strip]
    text: str
    left: int  # the plot area, in cells
    top: int
    columns: int
    rows: int
    x_axis: Axis
    y_axis: Axis

    def x_at(self, column: int) -> float | None:
        """The x in the middle of a cell column of the strips, or None beside the plot area."""
        inside = 0 <= column - self.left < self.columns
        dots = self.x_axis.dots / max(self.columns, 1)
        return self.x_axis.value((column - self.left + 0.5) * dots) if inside else None

    @np.errstate(all="ignore")
    def nearest(self, xs: ArrayLike, ys: ArrayLike, column: int, row: int, within: float = 3.0) -> int | None:
        """The index of the point (xs, ys) nearest to a cell, if one is `within` that many columns."""
        if self.columns < 1 or self.rows < 1:
            return None
        across = self.x_axis.at(xs) * self.columns / self.x_axis.dots - (column - self.left + 0.5)
        down = self.y_axis.at(ys) * self.rows / self.y_axis.dots - (row - self.top + 0.5)
        distance = np.hypot(across, 2 * down)  # a cell is about twice as tall as wide
        distance = np.where(np.isfinite(distance), distance, np.inf).ravel()
        if distance.size == 0 or distance.min() > within:
            return None
        return int(distance.argmin())


@dataclass(frozen=True)
class Entry:
    """Of a legend."""

    mark: str
    name: str
    value: str
    style: str
    short: str = ""  # the name where there is no room for it

    def written(self, charset: Charset, mark: bool, value: bool, length: int | None) -> str:
        """`length` None is the whole name; else the short one, of at most so many characters."""
        name = self.name if length is None else (self.short or self.name)[:length].rstrip()
        parts = (self.mark if mark else "", name, self.value if value else "")
        return plain(" ".join(part for part in parts if part), charset)


# From much room to little: (mark, value, length of the name, gap). The marks go before the values and those before
# the names, of which something always stays; where colours do not tell curves apart the marks do.
_LEGENDS = [
    (True, True, None, 3), (True, True, None, 2), (True, True, 99, 2), (False, True, 99, 2), (False, True, 99, 1),
    (False, False, None, 2), *((False, False, length, 1) for length in (99, 8, 6, 4, 3, 2)),
]  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """A canvas with axes on it and the data still to come: draw on `area` at `x(values)`, `y(values)`."""

    canvas: Canvas
    area: Canvas
    look: Look
    left: int
    top: int
    x_axis: Axis
    y_axis: Axis
    right_axis: Axis

    def x(self, values: ArrayLike) -> NDArray[Any]:
        return self.x_axis.at(values)

    def y(self, values: ArrayLike, right: bool = False) -> NDArray[Any]:
        return (self.right_axis if right else self.y_axis).at(values)

    def legend(self, entries: Sequence[Entry], note: str = "") -> None:
        """The top line: mark, name and value of each series, and a note (the name of the y axis) on the right."""
        if self.top == 0:
            return
        width = self.canvas.width - self.left
        note = plain(note, self.look.charset)[: max(width // 3, 2)]
        room = width - len(note) - 2 if note else width
        for mark, value, length, gap in _LEGENDS:
            mark = mark or not self.look.colors
            fits = [(one.written(self.look.charset, mark, value, length), one.style) for one in entries]
            used = sum(len(text) + gap for text, _ in fits) - gap
            if used <= room:
                break
        column = self.left
        for text, style in fits:
            self.canvas.text(column, 0, text, style)
            column += len(text) + gap
        if note and column <= self.canvas.width - len(note):
            self.canvas.text(self.canvas.width - len(note), 0, note, self.look.axis)

    def finish(self, text: str) -> Plot:
        area = self.area
        return Plot(
            self.canvas.strips(), text, self.left, self.top, area.width, area.height, self.x_axis, self.y_axis
        )


def open_frame(
    width: int,
    height: int,
    look: Look,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    *,
    y_scale: Scale = LINEAR,
    x_name: str = "",
    gutter: int = 0,
    equal: bool = False,
    right: tuple[float, float] | None = None,
    colors: tuple[str, str] = ("", ""),
) -> Frame:
    """Lay out the cells of a plot and draw its axes.

    What does not fit is left out: below 5 rows the x labels, below 9 rows the axis line, below 3 the legend,
    below 20 columns the y labels. `gutter` is the least number of cells left of the y axis: give panels in one
    column the same and their axes line up. `equal` widens one range until both axes have the same scale. `right`
    is the range of a second y axis on the right; `colors` are those of the labels of the two, if not the look's.
    """
    x_range, y_range = proper_range(x_range), proper_range(y_range)
    canvas = look.canvas(width, height)
    top = 1 if height >= 3 else 0
    bottom = 2 if height >= 9 else 1 if height >= 5 else 0
    rows = max(height - top - bottom, 0)
    left = beside = 0
    if width >= 20:
        left = _gutter(y_scale, y_range, rows, gutter, width)
        beside = _gutter(y_scale, right := proper_range(right), rows, gutter - 1, width) if right else 0
    columns = max(width - left - beside, 0)
    area = canvas.region(left, top, columns, rows)
    if equal:
        x_range, y_range = _equal(x_range, y_range, columns, rows)
    x_axis = Axis(*x_range, max(area.dots_wide, 1))
    y_axis = Axis(*y_range, max(area.dots_high, 1), y_scale, flip=True)
    right_axis = Axis(*(right or y_range), max(area.dots_high, 1), y_scale, flip=True)
    frame = Frame(canvas, area, look, left, top, x_axis, y_axis, right_axis)
    if left:
        _draw_y(frame, y_axis, left - 1, colors[0] or look.axis)
    if beside:
        _draw_y(frame, right_axis, left + columns, colors[1] or look.axis, beside)
    if bottom:
        _draw_x(frame, x_name, line=bottom == 2)
    return frame


def proper_range(ends: tuple[float, float]) -> tuple[float, float]:
    """The range itself, or one an axis can be drawn for: finite, and wider than a rounding error."""
    low, high = (0.0 if math.isnan(end) else float(min(max(end, -1e300), 1e300)) for end in ends)
    low, high = min(low, high), max(low, high)
    if high - low > 1e-13 * max(abs(low), abs(high)):
        return low, high
    air = 0.1 * abs(low) or 1.0
    return low - air, high + air


def _y_count(rows: int) -> int:
    return max(rows // 4, 2)


def _gutter(scale: Scale, ends: tuple[float, float], rows: int, least: int, width: int) -> int:
    """The cells that an axis takes with its labels."""
    labels = scale.labels(scale.ticks(*ends, _y_count(rows)))
    return min(max([len(label) for label in labels] + [least, 3]) + 1, width // 3)


def _draw_y(frame: Frame, axis: Axis, column: int, style: str, beside: int = 0) -> None:
    """The axis in this column with its labels: left of it, or in the `beside` cells from it to the right."""
    rows = frame.area.height
    edge = frame.canvas.region(column, frame.top, 1, rows)
    edge.points(np.full(rows, 0.5), (np.arange(rows) + 0.5) * edge.down, frame.look.axis, "│")
    values = axis.scale.ticks(axis.low, axis.high, _y_count(rows))
    taken = -2
    for value, label in sorted(zip(values, axis.scale.labels(values), strict=True), reverse=True):
        row = int(axis.at(value) // frame.area.down)
        if not taken + 2 <= row < rows:  # a blank row between two labels
            continue
        taken = row
        text = f"├{label[: beside - 1]}" if beside else f"{label[:column]}┤"
        frame.canvas.text(column if beside else column + 1 - len(text), frame.top + row, text, style)


def _draw_x(frame: Frame, name: str, line: bool) -> None:
    axis, canvas, style = frame.x_axis, frame.canvas, frame.look.axis
    row = frame.top + frame.area.height
    columns = frame.area.width
    if line:
        canvas.text(frame.left - 1, row, "└" + "─" * columns, style)
    values = axis.scale.ticks(axis.low, axis.high, max(columns // 12, 2))
    free = 0  # the first cell of the label row that is not taken
    gaps = [(0, 0)]
    for value, label in zip(values, axis.scale.labels(values), strict=True):
        column = frame.left + int(axis.at(value) // frame.area.across)
        start = min(max(column - len(label) // 2, 0), canvas.width - len(label))
        if line and frame.left <= column < canvas.width:
            canvas.text(column, row, "┬", style)
        if start < free:
            continue
        canvas.text(start, row + line, label, style)
        gaps.append((free, start))
        free = start + len(label) + 1
    gaps.append((free, canvas.width + 1))
    # The axis name goes where it disturbs least: the last gap between labels that has room for it, else the end.
    name = plain(name, canvas.charset)
    roomy = [(a, b) for a, b in gaps if b - a >= len(name) + 3]
    if name and roomy:
        a, b = roomy[-1]
        canvas.text((a + b - len(name)) // 2, row + line, name, style)
    elif name:
        name = f" {name[: max(columns - 4, 1)]}"
        canvas.text(canvas.width - len(name), row + line, name, style)


def _equal(
    x_range: tuple[float, float], y_range: tuple[float, float], columns: int, rows: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Widen one range around its middle until a unit of x is as long as a unit of y (cells are 1 × 2)."""
    wide, high = max(columns, 1), 2 * max(rows, 1)
    unit = max((x_range[1] - x_range[0]) / wide, (y_range[1] - y_range[0]) / high)
    xm, ym = sum(x_range) / 2, sum(y_range) / 2
    return (xm - unit * wide / 2, xm + unit * wide / 2), (ym - unit * high / 2, ym + unit * high / 2)
