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

from .checks import Array
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
    mean, scale = _moments(x)
    for column in map(int, np.flatnonzero(_constant(x))):
        place = f"{table.source}, {table.column(column)}"
        raise wrong(place, "values that differ, to standardize them", f"{x[0, column]:g} everywhere")
    bad = ~(np.isfinite(mean) & np.isfinite(scale) & (scale > np.finfo(float).tiny))
    for column in map(int, np.flatnonzero(bad)):
        place = f"{table.source}, {table.column(column)}"
        raise wrong(place, "values whose spread can be computed", f"a spread of {scale[column]:g}")
    return Standardization(mean, scale)


def expect_no_lost_point(x: Array, table: Table) -> None:
    """Raises DataError for values that are far apart from all others of their column, and above them.

    That is what is left of 9.96666667 where a point was taken for one that parts thousands.
    """
    rows = len(x)
    if rows < 4:
        return
    for column, values in enumerate(np.abs(x).T):
        order = np.argsort(values, kind="stable")
        top = values[
            order[rows - 1 - max(1, int(FEW * rows)) :]
        ]  # the few largest, and one that is not of them
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            apart = np.flatnonzero((top[:-1] > 0) & (top[1:] / top[:-1] > LOST_POINT))
        if apart.size:
            largest, row = top[apart[-1]], int(order[rows - len(top) + apart[-1] + 1])
            expected = f"a number of the size of the others in the column (at most {largest:g})"
            got = f"{x[row, column]:g} (a lost decimal point?)"
            raise wrong(f"{table.source}, {table.place(row, column)}", expected, got)


def notes_on(x: Array, columns: Sequence[str]) -> tuple[str, ...]:
    """What to say about continuous data x (N, D) before a run: a line each on constants, row numbers and scale."""
    mean, scale = _moments(x)
    constant, notes = _constant(x), []
    if constant.any():
        column = int(constant.argmax())
        notes.append(
            f"column {shown(columns[column])} is {x[0, column]:g} everywhere: --skip-columns leaves it out"
        )
    counting = np.arange(len(x))[:, None]
    if len(x) > 2 and (counts := (x - x[0] == counting).all(axis=0) & np.isin(x[0], (0, 1))).any():
        name = shown(columns[int(counts.argmax())])
        notes.append(f"column {name} counts the rows: if it is a row number, --skip-columns leaves it out")
    varying = np.flatnonzero(~constant)
    if not varying.size:
        return tuple(notes)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        distance = np.abs(mean[varying]) / scale[varying]
        ratio = scale[varying].max() / scale[varying].min()
    said = []
    if ratio > SCALES_APART:
        wide, narrow = varying[scale[varying].argmax()], varying[scale[varying].argmin()]
        spread = f"column {shown(columns[wide])} (std {scale[wide]:.3g})"
        said.append(f"{spread} is {ratio:.3g} times as wide as {shown(columns[narrow])}")
    if distance.max() > FAR:
        far = varying[distance.argmax()]
        where = f"mean {mean[far]:.6g}, std {scale[far]:.3g}"
        said.append(f"column {shown(columns[far])} lies far from 0 ({where})")
    if said:
        notes.append(" and ".join(said) + "; --standardize gives every column mean 0 and standard deviation 1")
    return tuple(notes)


def _moments(x: Array) -> tuple[Array, Array]:
    """Mean and standard deviation (by 1/N) of the columns of x (N, D), in units in which no square overflows."""
    unit = np.abs(x).max(axis=0)
    unit[unit == 0] = 1.0
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        scaled = x / unit
        middle = scaled.mean(axis=0)
        scaled -= middle
        return middle * unit, np.sqrt(np.square(scaled).mean(axis=0)) * unit


def _constant(x: Array) -> np.ndarray:
    """Which columns hold one value, up to rounding: (D,) of bool."""
    low, high = x.min(axis=0), x.max(axis=0)
    with np.errstate(over="ignore"):
        same: np.ndarray = high - low <= 4 * np.finfo(float).eps * np.maximum(np.abs(low), np.abs(high))
    return same
