"""Curves over a common x: the terms over the training steps, or densities over z.

A run has more steps than the screen has columns. `decimate` keeps of each column the first, lowest, highest and
last value (M4, Jugel et al. 2014, VLDB 7(10)): the picture is the one that all points would give, no spike is
lost, and what follows costs the same for 2,000 and 100,000 points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .axes import Range, Scale, step_label, value_label
from .canvas import plain
from .frame import PLAIN, Entry, Frame, Look, Plot, open_frame, proper_range

Array = NDArray[Any]

# Without colours a series is told by its dashes (on, period), in ascii by its character.
_DASHES = ((1, 1), (5, 8), (1, 3), (1, 6))
_DASH_MARKS = "━╍┅┉"
_GLYPHS = "*+ox"


@dataclass(frozen=True, eq=False)
class Series:
    """A curve (xs, ys); a NaN in ys breaks it, unless `connect`: then the curve goes on to the next value.

    `fill` shades the area between the curve and zero in that (background) colour. The legend shows `value`, or
    by default the latest y. With a `trend` (xs, ys) that is the line, and the curve a scribble in `faint` behind it.
    `right`: its y axis is the one on the right.
    """

    name: str
    xs: ArrayLike
    ys: ArrayLike
    color: str = ""
    fill: str = ""
    value: str | None = None
    connect: bool = False
    trend: tuple[ArrayLike, ArrayLike] | None = None
    faint: str = ""
    right: bool = False
    short: str = ""  # its name where there is no room for it


@dataclass(frozen=True)
class Band:
    """Shade the area between two series, given by name, in a (background) colour."""

    upper: str
    lower: str
    color: str


@dataclass(frozen=True)
class Level:
    """A labelled horizontal line at y, to hold curves against; with `room` the y axis stretches to show it."""

    y: float
    label: str
    room: bool = False


@dataclass(frozen=True)
class Mark:
    """A labelled vertical line at x: a switch was toggled here, or the truth lies here."""

    x: float
    label: str


def line_chart(
    width: int,
    height: int,
    series: Sequence[Series],
    *,
    look: Look = PLAIN,
    x: Range | None = None,
    y: Range | None = None,
    right: Range | None = None,
    window: tuple[float, float] | None = None,
    settled: float = -np.inf,
    band: Band | None = None,
    marks: Sequence[Mark] = (),
    levels: Sequence[Level] = (),
    crosshair: float | None = None,
    hint: str = "no data yet",
    x_name: str = "step",
    gutter: int = 0,
) -> Plot:
    """Draw the series on `width` × `height` cells; see `Plot` for what comes back.

    The x axis shows `window`, or all data; `x`, `y` and `right` are the axes' `Range`s, kept by the caller from
    frame to frame; `y` brings its scale. `crosshair` draws a line at that x, and the legend shows the values there
    in place of the latest. A y axis has room for the lines at x >= `settled`; what was before, and what is faint,
    may leave the plot.
    """
    curves = [_ordered(one.xs, one.ys, one.connect) for one in series]
    trends = [
        curve if one.trend is None else _ordered(*one.trend, True)
        for one, curve in zip(series, curves, strict=True)
    ]
    y, right = y or Range(), right or Range()
    x_ends = _x_range(curves, x, window)
    if x_ends is None:
        return _empty(width, height, series, look, hint)

    # The gutter depends on y, y on what is visible, and that on x alone: count the columns generously for a start.
    edges = np.linspace(*x_ends, max(width, 1) * look.canvas(0, 0).across + 1)
    visible = [decimate(xs, ys, edges) for xs, ys in trends]
    if not any(np.isfinite(ys).any() for _, ys in visible):
        return _empty(width, height, series, look, hint)
    start, levels_shown = max(x_ends[0], settled), [level.y for level in levels if level.room]
    shown = [ys[(xs >= start) & (xs <= x_ends[1])] for xs, ys in visible]
    sides = [one.right for one in series]
    on_left = [ys for ys, other in zip(shown, sides, strict=True) if not other]
    on_left += [np.zeros(1) for one in series if one.fill and y.scale.kind != "log"]
    y_span, right_span = (
        _span(on_left, y.scale),
        _span([ys for ys, o in zip(shown, sides, strict=True) if o], y.scale),
    )
    if y_span is None and right_span is None:
        return _empty(width, height, series, look, hint)
    y_ends = y.fit(*_span([np.array([*(y_span or ()), *levels_shown])], y.scale) or (np.nan, np.nan))
    right_ends = right.fit(*right_span) if right_span else None

    at = crosshair if crosshair is not None and np.isfinite(crosshair) else None
    values = [_value_at(xs, ys, at) for xs, ys in curves]
    labels = [value_label(v) if one.value is None else one.value for one, v in zip(series, values, strict=True)]
    latest = max((float(xs[-1]) for xs, _ in curves if xs.size), default=np.nan)
    where = f"{x_name} {step_label(latest if at is None else at)}".strip()

    # An axis that is there for one curve alone has its colour.
    colors = [[one.color for one in series if one.right == side] for side in (False, True)]
    own = [of[0] if right_ends and len(of) == 1 else "" for of in colors]
    frame = open_frame(
        width, height, look, x_ends, y_ends, y_scale=y.scale, x_name=x_name, gutter=gutter, right=right_ends,
        colors=(own[0], own[1]),
    )  # fmt: skip
    frame.legend(_entries(series, labels, look), "" if at is None else where)
    for one, (xs, ys) in zip(series, curves, strict=True):
        if one.trend is not None:
            px, py = (
                frame.x(v) if k == 0 else frame.y(v, one.right) for k, v in enumerate(decimate(xs, ys, edges))
            )
            frame.area.line(px, py, one.faint, dash=(1, 1) if look.colors else (1, 2), glyph=".")
    for mark in marks:
        _vertical(frame, mark.x, look.faint)
    for level in levels:
        _horizontal(frame, level.y, look.faint)
    if at is not None:
        _vertical(frame, at, look.text)
    drawn = {}
    with frame.area.over():
        for index, (one, (xs, ys)) in enumerate(zip(series, visible, strict=True)):
            drawn[one.name] = px, py = frame.x(xs), frame.y(ys, one.right)
            dash = (1, 1) if look.colors or look.charset == "ascii" else _DASHES[index % len(_DASHES)]
            frame.area.line(px, py, one.color, dash=dash, glyph=_GLYPHS[index % len(_GLYPHS)])
    zero = np.full(frame.area.dots_wide, float(frame.y(0.0)))
    for one in series:
        if one.fill:
            frame.area.fill_between(_by_column(frame, *drawn[one.name]), zero, one.fill)
    if band is not None and band.upper in drawn and band.lower in drawn:
        upper, lower = (_by_column(frame, *drawn[name]) for name in (band.upper, band.lower))
        frame.area.fill_between(upper, lower, band.color)
    _mark_labels(frame, marks)
    _level_labels(frame, levels, list(drawn.values()))
    if at is not None:
        for one, value in zip(series, values, strict=True):
            frame.area.points(frame.x(at), frame.y(value, one.right), one.color, "●")
    text = ", ".join(f"{one.name} {label}".strip() for one, label in zip(series, labels, strict=True))
    text += "".join(f", {level.label} {value_label(level.y)}" for level in levels)
    return frame.finish(f"{where}: {text}")


def decimate(xs: ArrayLike, ys: ArrayLike, edges: ArrayLike) -> tuple[Array, Array]:
    """At most four points for each column [edges[k], edges[k+1]): its first, lowest, highest and last value.

    `xs` must not decrease. One point before and one after the edges stay, so that the line leaves the plot
    where it should; columns with missing (NaN) values between them stay unconnected.
    """
    x, y, bounds = np.asarray(xs, float), np.asarray(ys, float), np.asarray(edges, float)
    start, stop = np.searchsorted(x, bounds[0]), np.searchsorted(x, bounds[-1], "right")
    near = slice(max(int(start) - 1, 0), int(stop) + 1)
    x, y = x[near], y[near]
    if x.size <= 4 * (bounds.size - 1):
        return x, y
    finite = np.isfinite(y)
    missing = np.zeros(y.size, np.intp) if finite.all() else np.cumsum(~finite)
    if missing[-1]:
        x, y, missing = x[finite], y[finite], missing[finite]
    starts = np.searchsorted(x, bounds)
    column = np.flatnonzero(np.diff(starts))
    if column.size == 0:
        return x, y
    first, last = starts[:-1][column], starts[1:][column] - 1
    inner = y[: last[-1] + 1]
    four = [y[first], np.minimum.reduceat(inner, first), np.maximum.reduceat(inner, first), y[last]]
    centre = (bounds[:-1] + bounds[1:])[column] / 2
    dx, dy = np.repeat(centre, 4), np.stack(four, 1).ravel()
    broken = np.flatnonzero((np.diff(column) > 1) & (missing[first[1:]] > missing[last[:-1]])) * 4 + 4
    if broken.size:
        dx, dy = np.insert(dx, broken, dx[broken]), np.insert(dy, broken, np.nan)
    before, after = slice(0, first[0]), slice(last[-1] + 1, None)
    return np.concatenate([x[before], dx, x[after]]), np.concatenate([y[before], dy, y[after]])


def _ordered(xs: ArrayLike, ys: ArrayLike, connect: bool) -> tuple[Array, Array]:
    """The points of a curve by ascending x, without those that have no x (or, if connected, no y)."""
    x, y = np.asarray(xs, float).ravel(), np.asarray(ys, float).ravel()
    length = min(x.size, y.size)
    x, y = x[:length], y[:length]
    keep = np.isfinite(x) & np.isfinite(y) if connect else np.isfinite(x)
    if not keep.all():
        x, y = x[keep], y[keep]
    if (x[1:] < x[:-1]).any():
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
    return x, y


def _span(values: Sequence[Array], scale: Scale) -> tuple[float, float] | None:
    """The least and the largest value that the scale can show; None if there is none."""
    every = np.concatenate([np.zeros(0), *values])
    every = every[np.isfinite(scale.forward(every))]
    return (float(every.min()), float(every.max())) if every.size else None


def _x_range(
    curves: Sequence[tuple[Array, Array]],
    x: Range | None,
    window: tuple[float, float] | None,
) -> tuple[float, float] | None:
    """What the x axis shows; None where there is no data."""
    ends = [(float(xs[0]), float(xs[-1])) for xs, _ in curves if xs.size]
    if not ends:
        return None
    low, high = min(a for a, _ in ends), max(b for _, b in ends)
    if window is not None:
        return proper_range(window)
    return proper_range(x.fit(low, high) if x is not None else (low, high))


@np.errstate(all="ignore")
def _value_at(xs: Array, ys: Array, at: float | None) -> float:
    """The y of the point nearest to `at`; without `at` the last finite y."""
    if at is not None:
        return float(ys[np.abs(xs - at).argmin()]) if xs.size else float("nan")
    recent = ys[-1:] if np.isfinite(ys[-1:]).all() else ys[np.isfinite(ys)]
    return float(recent[-1]) if recent.size else float("nan")


@np.errstate(all="ignore")
def _by_column(frame: Frame, px: Array, py: Array) -> Array:
    """The curve's mean y in each dot column, NaN where it is not drawn."""
    columns = np.arange(frame.area.dots_wide)
    if px.size == 0:
        return np.full(columns.size, np.nan)
    column = np.floor(px)
    start = np.flatnonzero(np.diff(column, prepend=-np.inf))
    mean = np.add.reduceat(py, start) / np.diff(start, append=px.size)
    return np.interp(columns, column[start], mean, left=np.nan, right=np.nan)


def _entries(series: Sequence[Series], labels: Sequence[str], look: Look) -> list[Entry]:
    if look.charset == "ascii":
        marks = _GLYPHS
    else:
        marks = _DASH_MARKS[0] if look.colors else _DASH_MARKS
    named = enumerate(zip(series, labels, strict=True))
    return [
        Entry(marks[i % len(marks)], one.name, label, one.color, one.short)
        for i, (one, label) in named
        if one.name
    ]


def _vertical(frame: Frame, x: float, style: str) -> None:
    """A dotted vertical line."""
    rows = np.arange(0, frame.area.dots_high, 2 if frame.area.down > 1 else 1) + 0.5
    frame.area.points(np.full(rows.size, float(frame.x(x))), rows, style, glyph=":")


def _horizontal(frame: Frame, y: float, style: str) -> None:
    """A dotted horizontal line."""
    columns = np.arange(0, frame.area.dots_wide, 4 if frame.area.across > 1 else 2) + 0.5
    frame.area.points(columns, np.full(columns.size, float(frame.y(y))), style, glyph="-")


def _level_labels(frame: Frame, levels: Sequence[Level], curves: Sequence[tuple[Array, Array]]) -> None:
    """Each level's label and value at its right end, on the line or near it where a curve is; never out of order.

    An arrow points to a level that lies beyond the axis.
    """
    area, free = frame.area, 0
    for level in sorted(levels, key=lambda level: -level.y):
        row = int(float(frame.y(level.y)) // area.down)
        arrow = "↑ " if row < 0 else "↓ " if row >= area.height else ""
        row = min(max(row, 0), area.height - 1)
        label = plain(f"{arrow}{level.label} {value_label(level.y)}", area.charset)
        column = area.width - len(label) - 1
        if column < 0:
            continue
        hidden = [(py // area.down)[px >= column * area.across] for px, py in curves]
        taken = set(np.concatenate([np.zeros(0), *hidden]).astype(int).tolist())
        near = [r for r in (row, row - 1, row + 1, row + 2) if free <= r < area.height and r not in taken]
        if near:
            area.text(column, near[0], label, frame.look.axis)
            free = near[0] + 1


def _mark_labels(frame: Frame, marks: Sequence[Mark]) -> None:
    """Each mark's label beside its line, on the top row, or on the bottom row where the top one hides data."""
    area, taken = frame.area, 0
    for mark in sorted(marks, key=lambda mark: mark.x):
        place, length = float(frame.x(mark.x)) / area.across, len(plain(mark.label, area.charset))
        if not length or not 0 <= place < area.width:
            continue
        column = int(place) + 1 if int(place) + 1 + length <= area.width else int(place) - length
        if column < taken:
            continue
        taken = column + length + 1
        free = [row for row in (0, area.height - 1) if area.is_blank(column, row, length)]
        area.text(column, free[0] if free else 0, mark.label, frame.look.faint)


def _empty(width: int, height: int, series: Sequence[Series], look: Look, hint: str) -> Plot:
    """A chart without data: the legend's names and the hint in the middle, no axes to mislead."""
    canvas = look.canvas(width, height)
    top = 1 if height >= 3 else 0
    area = canvas.region(0, top, width, height - top)
    unit = open_frame(0, 0, look, (0.0, 1.0), (0.0, 1.0))
    frame = Frame(canvas, area, look, 0, top, unit.x_axis, unit.y_axis, unit.y_axis)
    frame.legend(_entries(series, [""] * len(series), look))
    area.text(max((width - len(hint)) // 2, 0), area.height // 2, hint, look.faint)
    return frame.finish(hint)
