"""A person's own data: a file as an array of data points, or one line that says what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .checks import Array, Bools


class DataError(ValueError):
    """The data cannot be used; the message is one line: what was expected and what came."""


def wrong(what: str | Path, expected: str, got: str) -> DataError:
    return DataError(f"{what}: expected {expected}, got {got}")


def check_data(x: Any, likelihood: str | None = None, source: str | Path = "data") -> Array:
    """The data as a fresh (N, D) float64 array, or a `DataError` that says what is wrong with it.

    Expected: two dimensions, at least one row and one column, real numbers, all finite. With likelihood
    "bernoulli" only 0 and 1. With "gaussian" not only 0 and 1: on such data the density grows without bound
    as the noise shrinks. `source` is what the message calls the data; it counts rows and columns from 1.
    """
    if likelihood not in (None, "gaussian", "bernoulli"):
        raise wrong("likelihood", "'gaussian' or 'bernoulli'", repr(likelihood))
    try:
        array = np.asarray(x)
    except ValueError:
        raise wrong(source, "a rectangular array of numbers", "rows of unequal length") from None
    if array.dtype.kind not in "biuf":
        kind = "complex numbers" if array.dtype.kind == "c" else "something else"
        raise wrong(source, "real numbers", f"{kind} (dtype {array.dtype})")
    if array.ndim != 2 or 0 in array.shape:
        hint = " (for images: x.reshape(len(x), -1))" if array.ndim > 2 else ""
        raise wrong(source, "rows and columns, shape (N, D)", f"shape {array.shape}{hint}")
    values = np.array(array, dtype=np.float64, order="C")  # a copy: the caller's array may change, this not
    bad, other = ~np.isfinite(values), (values != 0) & (values != 1)
    if bad.any():
        got = f"{bad.sum()} NaN or infinite of {values.size}, the first {_first(values, bad)}"
        raise wrong(source, "finite numbers", got)
    if likelihood == "bernoulli" and other.any():
        got = f"{_first(values, other)} (use likelihood='gaussian', or make the data 0 and 1)"
        raise wrong(source, "only 0 and 1 for likelihood 'bernoulli'", got)
    if likelihood == "gaussian" and not other.any():
        got = "only 0 and 1 (use likelihood='bernoulli')"
        raise wrong(source, "continuous values for likelihood 'gaussian'", got)
    return values


def _first(values: Array, where: Bools) -> str:
    row, column = np.argwhere(where)[0]
    return f"{float(values[row, column])} in data row {row + 1}, column {column + 1}"


def _read_text(path: Path) -> list[list[float]]:
    """The rows of a delimited text file; blank lines and lines that start with # are skipped.

    The first line tells the delimiter (tab, else semicolon, else comma, else white space). It is a header if
    none of its cells is a number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # -sig: spreadsheets put a byte order mark in front
    except UnicodeDecodeError:
        raise wrong(path, "UTF-8 text", "other bytes") from None
    numbered = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    lines = [(i, line) for i, line in numbered if not line.lstrip().startswith("#")]
    if not lines:
        raise wrong(path, "rows of numbers", "an empty file")
    delimiter = next((mark for mark in "\t;," if mark in lines[0][1]), None)
    # "1.5" in quotes is how some spreadsheets write every cell
    table = [(i, [cell.strip().strip('"') for cell in line.split(delimiter)]) for i, line in lines]
    width = len(table[0][1])
    if not any(_is_number(cell) for cell in table[0][1]):
        _, header = table.pop(0)
        if not header[0] and width > 1:
            # pandas and R write row numbers so; taken as data they would be the largest column of all
            raise wrong(path, "a name over column 1", "none in the header (row numbers? leave them out)")
        if not table:
            raise wrong(path, "rows of numbers", "only a header")
    for i, cells in table:
        if len(cells) != width:
            raise wrong(f"{path}, line {i}", f"{width} columns as in the first line", f"{len(cells)}")
        for column, cell in enumerate(cells, start=1):
            if not _is_number(cell):
                shown = cell if len(cell) <= 40 else cell[:39] + "…"
                raise wrong(f"{path}, line {i}, column {column}", "a number", repr(shown))
    return [[float(cell) for cell in cells] for _, cells in table]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # float("1_0") is 10 in Python, and a name in a data file


def _read_numpy(path: Path) -> Any:
    """The array of an .npy file, or of an .npz file that holds one array or one that is named x."""
    with path.open("rb") as file:
        # NumPy takes whatever is not its own format for a pickle; look first, so that the message is right
        if not file.read(6).startswith((b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")):
            raise wrong(path, "a NumPy file", "another format (pickles are not read: they can run code)")
        file.seek(0)
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            names = loaded.files
            if "x" in names or len(names) == 1:
                return loaded["x" if "x" in names else names[0]]
        except Exception as error:  # a damaged archive can raise almost anything
            if "Object arrays" in str(error):
                raise wrong(path, "plain numbers", "Python objects (not read: they can run code)") from None
            reason = " ".join(str(error).split())
            raise wrong(path, "a NumPy file", f"a damaged one ({reason})") from None
    raise wrong(path, "one array, or one named x", ", ".join(names) or "none")


READERS: dict[str, Callable[[Path], Any]] = {
    ".csv": _read_text,
    ".tsv": _read_text,
    ".txt": _read_text,
    ".npy": _read_numpy,
    ".npz": _read_numpy,
}
