"""Numbers along an axis: scales, ticks at 1-2-5 steps, their labels, and ranges that hold still.

A plot that follows a running optimiser must not rescale at every frame. `Range` remembers the range it showed:
it grows at once when the data leave it, and shrinks only when they use less than 60% of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
_HUGE = 1e300  # differences of numbers within ±_HUGE do not overflow
_TINY = 1e-300


@dataclass(frozen=True)
class Scale:
    """How values lie along an axis: linear, log, or symlog = sign(v)·log10(1 + |v|/threshold).

    Symlog is linear within about ±threshold and logarithmic beyond, so it shows values of either sign.
    """

    kind: Literal["linear", "symlog", "log"] = "linear"
    threshold: float = 0.01

    @np.errstate(all="ignore")
    def forward(self, values: ArrayLike) -> Array:
        """Positions along the axis; NaN for what the scale cannot show."""
        v = np.asarray(values, float)
        if self.kind == "log":
            return np.log10(np.where(v > 0, v, np.nan))
        if self.kind == "symlog":
            return np.sign(v) * np.log10(1 + np.abs(v) / self.threshold)
        return v

    @np.errstate(all="ignore")
    def inverse(self, positions: ArrayLike) -> Array:
        """The values at these positions."""
        p = np.asarray(positions, float)
        if self.kind == "log":
            return np.clip(10**p, _TINY, _HUGE)
        if self.kind == "symlog":
            return np.sign(p) * np.clip(self.threshold * (10 ** np.abs(p) - 1), 0, _HUGE)
        return p

    def ticks(self, low: float, high: float, count: int) -> list[float]:
        """About `count` round values within [low, high]: 1-2-5 multiples, powers of ten where they suffice."""
        if self.kind == "linear" or not (math.isfinite(low) and math.isfinite(high)):
            return ticks(low, high, count)
        smallest = max(self.threshold if self.kind == "symlog" else low, _TINY)
        largest = max(abs(low), abs(high), smallest)
        powers = 10.0 ** np.arange(math.floor(math.log10(smallest)), math.floor(math.log10(largest)) + 1)
        for digits in ([1.0], [1.0, 2.0, 5.0]):  # the second where there are few powers of ten in sight
            values = np.outer(powers, digits).ravel()
            if self.kind == "symlog":
                values = np.concatenate([-values[::-1], [0.0], values])
            values = values[(values >= low) & (values <= high)]
            if values.size >= 3:
                stride = max(round(values.size / max(count, 1)), 1)
                zero = int(np.argmax(values == 0)) if (values == 0).any() else values.size - 1
                return [float(v) for v in values[zero % stride :: stride]]
        return [t for t in ticks(low, high, count) if self.kind == "symlog" or t > 0]

    def labels(self, values: list[float]) -> list[str]:
        """The labels of ticks: with equal digits on a linear scale, each in its own shortest form on the others."""
        return tick_labels(values) if self.kind == "linear" else [_short(v) for v in values]


LINEAR, LOG, SYMLOG = Scale(), Scale("log"), Scale("symlog")


def round_step(raw: float, way: Literal["nearest", "below"] = "nearest") -> float:
    """The 1, 2 or 5 × 10^k nearest to `raw` (by ratio), or the largest not above it."""
    raw = min(max(raw, _TINY), _HUGE)
    power = 10.0 ** math.floor(math.log10(raw))
    steps = [m * power for m in (1, 2, 5, 10)]
    if way == "nearest":
        return min(steps, key=lambda step: abs(math.log(step / raw)))
    return max(step for step in steps if step <= raw * (1 + 1e-9) or step == power)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` multiples of a 1-2-5 step within [low, high], at least two if there is room for numbers."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return []
    step = round_step((high / 2 - low / 2) / max(count, 1) * 2)
    for _ in range(3):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last > first:
            break
        step = round_step(0.99 * step, "below")
    if last - first > 1000 or max(abs(first), abs(last)) > 1e15:  # the range is a rounding error wide
        return []
    return [k * step for k in range(first, last + 1)]


def tick_labels(values: list[float]) -> list[str]:
    """Short labels with as many digits as it takes to tell the values apart, and no more.

    >>> tick_labels([-0.5, 0.0, 0.5]), tick_labels([0.0, 10000.0, 20000.0])
    (['−0.5', '0', '0.5'], ['0', '10k', '20k'])
    """
    largest = max((abs(v) for v in values), default=0.0)
    gaps = [b - a for a, b in pairwise(values) if b > a]
    if largest >= 1e9 or 0 < largest < 1e-3:
        return [_short(v) for v in values]
    unit, suffix = (1e6, "M") if largest >= 1e6 else (1e3, "k") if largest >= 1e4 else (1.0, "")
    step = (min(gaps) if gaps else largest or 1.0) / unit
    digits = min(max(0, -math.floor(math.log10(step) + 1e-9)), 9)
    return ["0" if v == 0 else _minus(f"{v / unit:.{digits}f}{suffix}") for v in values]


def value_label(value: float) -> str:
    """A value for a legend: about five figures, in a width that hardly changes while the value does."""
    size = abs(value)
    if not math.isfinite(value):
        return "–" if math.isnan(value) else _minus(f"{value}")
    if 0 < size < 1e-4 or size >= 1e6:
        return _minus(f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e"))
    digits = 4 if size < 10 else 3 if size < 100 else 2 if size < 1000 else 1
    return _minus(f"{value:.{digits}f}")


def step_label(value: float) -> str:
    """A step or coordinate: an integer where it is one."""
    return _minus(f"{value:.0f}") if math.isfinite(value) and value == round(value) else value_label(value)


def _short(value: float) -> str:
    for unit, suffix in ((1e6, "M"), (1e3, "k")):
        if unit <= abs(value) < 1000 * unit and (unit > 1e3 or abs(value) >= 1e3):
            return _minus(f"{value / unit:g}{suffix}")
    text = f"{value:g}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"
    return _minus(text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e"))


def _minus(text: str) -> str:
    return text.replace("-", "−")


@dataclass(frozen=True)
class Axis:
    """One direction of a plot: the values [low, high] on a scale, and their place among `dots` dots.

    `low` lies in the centre of the first dot and `high` in the centre of the last; `flip` counts from the end
    (y grows upwards, rows grow downwards).
    """

    low: float
    high: float
    dots: int
    scale: Scale = LINEAR
    flip: bool = False

    @np.errstate(all="ignore")
    def at(self, values: ArrayLike) -> Array:
        """Dot coordinates of the values (not clipped to the plot)."""
        if self.scale.kind == "linear":  # as below, in a third of the time
            part = (np.asarray(values, float) - self.low) / (self.high - self.low)
        else:
            start, stop = self.scale.forward([self.low, self.high])
            part = (self.scale.forward(values) - start) / (stop - start)
        part = 1 - part if self.flip else part
        return np.asarray(part * (self.dots - 1) + 0.5)

    def value(self, dot: float) -> float:
        """The value at a dot coordinate."""
        part = (dot - 0.5) / max(self.dots - 1, 1)
        part = 1 - part if self.flip else part
        if self.scale.kind == "linear":
            return self.low * (1 - part) + self.high * part
        start, stop = self.scale.forward([self.low, self.high])
        return float(self.scale.inverse(start * (1 - part) + stop * part))


class Range:
    """The range an axis shows, with a memory, so that it does not jitter while data stream in.

    `fit(low, high)` grows at once, shrinks only when the data use less than `shrink` of it, and rounds its ends
    to a 1-2-5 step. With `zero` it always shows 0. Keep one Range per axis for as long as the axis lives.
    """

    def __init__(self, scale: Scale = LINEAR, shrink: float = 0.6, zero: bool = False) -> None:
        self.scale, self.shrink = scale, shrink
        self.zero = zero and scale.kind != "log"
        self.ends: tuple[float, float] | None = None
        self._flat = False  # fitted to a single value: how wide the range is says nothing about the data

    def fit(self, low: float, high: float) -> tuple[float, float]:
        """The range to show for data within [low, high]; without data (NaN) the last one, or (0, 1)."""
        if self.zero:
            low, high = min(low, 0.0), max(high, 0.0)
        start, stop = (float(v) for v in self.scale.forward(np.clip([low, high], -_HUGE, _HUGE)))
        if not (math.isfinite(start) and math.isfinite(stop) and start <= stop):
            return self.ends or ((1.0, 10.0) if self.scale.kind == "log" else (0.0, 1.0))
        flat = stop - start <= 1e-12 * max(abs(start), abs(stop))  # rounding errors are no range
        if self.ends is not None:
            shown = self.scale.forward(list(self.ends))
            filled = stop - start >= self.shrink * (shown[1] - shown[0]) or (flat and self._flat)
            if shown[0] <= start and stop <= shown[1] and filled:
                return self.ends
        self._flat = flat
        self.ends = self._round_out(start, stop)
        return self.ends

    def _round_out(self, start: float, stop: float) -> tuple[float, float]:
        """The ends for data within [start, stop] (positions), rounded outwards.

        With 5% of air the data must change by that much before the range moves again, and steps of at most a
        tenth leave the data on more than 60% of it, or the next fit would shrink what this one grew.
        """
        span = stop - start
        if self._flat:
            span = 0.2 * max(abs(start), abs(stop)) or 1.0
            start, stop = start - span / 2, stop + span / 2
        air = 0.0 if self._flat else 0.05 * span
        low, high = start - air, stop + air
        if low < 0 <= start:  # what never was negative (a KL) gets no air below zero
            low = 0.0
        if stop <= 0 < high:
            high = 0.0
        step = round_step(span / 10, "below")
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        ends = self.scale.inverse([low, high])
        return float(ends[0]), float(ends[1])
