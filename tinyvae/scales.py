"""The size of the numbers in a person's own columns: what to say about it, and data of unit scale.

    z_d = (x_d − m_d) / s_d,      log p(x) = log p(z) − Σ_d log s_d

with the mean m_d and the standard deviation s_d of each column: the density of the data as they are in the file
is that of the standardised data, less a constant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .checks import Array, Bools
from .datafiles import Table, shown, wrong

SCALES_APART = 10.0  # standard deviations of two columns: beyond, one noise scale does not suit both
FAR = 10.0  # standard deviations of a column between its mean and 0
LOST_POINT = 1e6  # a value so many times larger than the next smaller one of its column has lost its point
FEW = 0.05  # part of the rows that may be so


@dataclass(frozen=True, eq=False)
class Standardization:
    """The map from the data in a file to data of mean 0 and standard deviation 1: mean and scale are (D,)."""

    mean: Array
    scale: Array

    @property
    def log_scale(self) -> float:
        """Σ_d log s_d, nats: log p of a point in the file is that of the standardised point, less this."""
        return math.fsum(np.log(self.scale))

    def __call__(self, x: Array) -> Array:
        """The standardised points of x (N, D)."""
        z: Array = (x - self.mean) / self.scale
        return z

    def inverse(self, z: Array) -> Array:
        """The points (N, D) in the units of the file."""
        x: Array = self.mean + self.scale * z
        return x


def standardization(x: Array, table: Table) -> Standardization:
    """Of the data points x (N, D), the columns of `table`. Raises DataError for a constant column."""
    mean, scale, constant = _moments(x)
    bad = ~(np.isfinite(mean) & np.isfinite(scale) & (scale > np.finfo(float).tiny))
    for column in map(int, np.flatnonzero(constant)):
        place = f"{table.source}, {table.column(column)}"
        raise wrong(place, "values that differ, to standardize them", f"{x[0, column]:g} everywhere")
    for column in map(int, np.flatnonzero(bad)):
        place = f"{table.source}, {table.column(column)}"
        raise wrong(place, "values whose spread can be computed", f"a spread of {scale[column]:g}")
    return Standardization(mean, scale)


def expect_no_lost_point(x: Array, table: Table) -> None:
    """Raises DataError for a few values that are far above all others of their column.

    That is what is left of 9.96666667 where a point was taken for one that parts thousands.
    """
    rows = len(x)
    few = max(1, int(FEW * rows))
    for column, size in enumerate(np.abs(x).T if rows >= 4 else ()):
        order = np.argsort(size, kind="stable")[-few - 1 :]  # of the few largest, and one that is not of them
        top = size[order]
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            apart = np.flatnonzero((top[:-1] > 0) & (top[1:] / top[:-1] > LOST_POINT))
        if apart.size:
            row = int(order[apart[-1] + 1])
            expected = f"a number of the size of the others in the column (at most {top[apart[-1]]:g})"
            got = f"{x[row, column]:g} (a lost decimal point?)"
            raise wrong(f"{table.source}, {table.place(row, column)}", expected, got)


def notes_on(x: Array, columns: Sequence[str]) -> tuple[str, ...]:
    """What to say about continuous data x (N, D) before a run: a line each on constants, row numbers and scale."""
    names, (mean, scale, constant) = [shown(name) for name in columns], _moments(x)
    notes, far_apart = [], []
    if constant.any():
        column = int(constant.argmax())
        notes.append(f"column {names[column]} is {x[0, column]:g} everywhere: --skip-columns leaves it out")
    counts = (x - x[0] == np.arange(len(x))[:, None]).all(axis=0) & np.isin(x[0], (0, 1))
    if len(x) > 2 and counts.any():
        name = names[int(counts.argmax())]
        notes.append(f"column {name} counts the rows: if it is a row number, --skip-columns leaves it out")
    scale = np.where(constant, np.nan, scale)
    if constant.all():
        return tuple(notes)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        wide, narrow, distance = np.nanargmax(scale), np.nanargmin(scale), np.abs(mean) / scale
        ratio, far = scale[wide] / scale[narrow], np.nanargmax(distance)
    if ratio > SCALES_APART:
        spread = f"column {names[wide]} (std {scale[wide]:.3g})"
        far_apart.append(f"{spread} is {ratio:.3g} times as wide as {names[narrow]}")
    if distance[far] > FAR:
        where = f"mean {mean[far]:.6g}, std {scale[far]:.3g}"
        far_apart.append(f"column {names[far]} lies far from 0 ({where})")
    if far_apart:
        said = " and ".join(far_apart)
        notes.append(f"{said}; --standardize gives every column mean 0 and standard deviation 1")
    return tuple(notes)


def _moments(x: Array) -> tuple[Array, Array, Bools]:
    """Of the columns of x (N, D): mean, standard deviation (by 1/N), and whether they are constant up to rounding."""
    low, high, unit = x.min(axis=0), x.max(axis=0), np.abs(x).max(axis=0)
    divisor = np.where(unit == 0, 1.0, unit)  # in these units no square overflows
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        scaled = x / divisor
        middle = scaled.mean(axis=0)
        scaled -= middle
        scale = np.sqrt(np.square(scaled).mean(axis=0)) * divisor
        return middle * divisor, scale, high - low <= 4 * np.finfo(float).eps * unit
