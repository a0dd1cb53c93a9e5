"""A person's own data: a file as an array of data points, or one line that says what is wrong with it.

This file: what a file is read into, which of its columns are taken, and what NumPy writes. `textfiles.py` reads
what is text, `scales.py` looks at the size of the numbers.
"""

from __future__ import annotations

import difflib
import os
import stat
import zipfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .checks import Array, Bools

LARGEST = 2**24  # numbers in a file, 128 MiB as float64: with its copies a run stays below 1 GiB
KINDS = 8  # different values of a column that colours the points: more could not be told apart


class DataError(ValueError):
    """The data cannot be used; the message is one line: what was expected and what came."""


def wrong(what: str | Path, expected: str, got: str) -> DataError:
    return DataError(f"{what}: expected {expected}, got {got}")


@dataclass(frozen=True)
class Choice:
    """Which columns of a file are data, and whether its first line names them; None: as the file looks.

    columns: their names, in the order wanted. skip_columns: the names of those that are not data. color: the
    column that colours the points; it is never trained on. header: whether the first line of a text is one.
    """

    columns: tuple[str, ...] | None = None
    skip_columns: tuple[str, ...] | None = None
    color: str | None = None
    header: bool | None = None

    def pick(self, source: str | Path, names: Sequence[str], named: bool) -> tuple[list[int], int | None]:
        """The places of the columns to train on, and of the one that colours the points.

        Raises DataError where a name is not there, or stands for two columns.
        """
        if self.columns is not None and self.skip_columns is not None:
            raise wrong("columns", "columns or skip_columns", "both")

        found: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            for said in (name,) if named else (name, f"x{i + 1}", f"{i + 1}"):
                found.setdefault(said, []).append(i)

        def place(option: str, name: str) -> int:
            if name not in found:
                close = difflib.get_close_matches(name, names, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise wrong(option, f"names out of {listed(names)}", f"{shown(name)}{hint}")
            if len(found[name]) > 1:
                numbers = " and ".join(str(i + 1) for i in found[name])
                raise wrong(source, f"one column {name!r} ({option})", f"columns {numbers} of that name")
            return found[name][0]

        color = None if self.color is None else place("color", self.color)
        if self.columns is not None:
            kept = [place("columns", name) for name in self.columns]
            if len(set(kept)) < len(kept):
                raise wrong("columns", "each column once", ", ".join(self.columns))
            if color in kept:
                raise wrong("color", "a column that is not trained on", f"{self.color!r}, which columns names")
            return kept, color
        left_out = {place("skip_columns", name) for name in self.skip_columns or ()} | {color}
        return [i for i in range(len(names)) if i not in left_out], color


@dataclass(frozen=True, eq=False)
class Table:
    """What was taken of a file."""

    source: str | Path
    values: Any  # (N, D)
    columns: tuple[str, ...]  # the names of the D columns: the header's, or x₁, x₂, …
    numbers: tuple[int, ...]  # where they stand in the file, counted from 1
    header: bool
    left_out: tuple[str, ...] = ()  # the columns that were not taken, and why
    labels: tuple[str, ...] | None = None  # (N,) cells of the column that colours the points
    lines: Sequence[int] | None = None  # in which line of a text each row stands

    def place(self, row: int, column: int) -> str:
        """Where a value stands, for a message."""
        at = f"data row {row + 1}" if self.lines is None else f"line {self.lines[row]}"
        return f"{at}, {self.column(column)}"

    def column(self, column: int) -> str:
        name = f" {shown(self.columns[column])}" if self.header else ""
        return f"column {self.numbers[column]}{name}"

    @property
    def taken(self) -> str:
        """One sentence: rows, columns, header yes or no, what was left out."""
        said = f"{len(self.values)} rows, {len(self.columns)} columns ({', '.join(cut(self.columns))})"
        if self.lines is not None:
            said += f", header {'yes' if self.header else 'no'}"
        return said + (f"; left out: {', '.join(cut(self.left_out))}" if self.left_out else "")


def cut(names: Sequence[str], most: int = 8) -> list[str]:
    """A list that fits into a line."""
    short = [name if len(name) <= 40 else name[:39] + "…" for name in names]
    short = [repr(name) if "," in name else name for name in short]
    return short if len(short) <= most else [*short[: most - 2], "…", short[-1]]


def listed(names: Sequence[str]) -> str:
    return ", ".join(cut(names))


def shown(cell: str) -> str:
    """A cell of a file as a message quotes it."""
    return repr(cell if len(cell) <= 40 else cell[:39] + "…")


SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def nameless(count: int) -> tuple[str, ...]:
    """The names of columns that have none: x₁, x₂, …"""
    return tuple(f"x{i}".translate(SUBSCRIPTS) for i in range(1, count + 1))


def check_data(
    x: Any,
    likelihood: str | None = None,
    source: str | Path = "data",
    place: Callable[[int, int], str] | None = None,
) -> Array:
    """The data as a fresh (N, D) float64 array, or a `DataError` that says what is wrong with it.

    Expected: two dimensions, at least one row and one column, real numbers, all finite. With likelihood
    "bernoulli" only 0 and 1. With "gaussian" not only 0 and 1: on such data the density grows without bound
    as the noise shrinks. `source` is what the message calls the data; it counts rows and columns from 1, or
    says `place(row, column)`.
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
    with np.errstate(over="ignore", invalid="ignore"):  # a long double may be infinite as a double
        values = np.array(array, dtype=np.float64, order="C")  # a copy: the caller's may change, this not
    bad, other = ~np.isfinite(values), (values != 0) & (values != 1)
    if bad.any():
        got = f"{bad.sum()} NaN or infinite of {values.size}, the first {_first(values, bad, place)}"
        raise wrong(source, "finite numbers", got)
    if likelihood == "bernoulli" and other.any():
        got = f"{_first(values, other, place)} (use likelihood='gaussian', or make the data 0 and 1)"
        raise wrong(source, "only 0 and 1 for likelihood 'bernoulli'", got)
    if likelihood == "gaussian" and not other.any():
        got = "only 0 and 1 (use likelihood='bernoulli')"
        raise wrong(source, "continuous values for likelihood 'gaussian'", got)
    return values


def _first(values: Array, where: Bools, place: Callable[[int, int], str] | None) -> str:
    row, column = map(int, np.argwhere(where)[0])
    at = f"data row {row + 1}, column {column + 1}" if place is None else place(row, column)
    return f"{float(values[row, column])} in {at}"


def check_file(path: Path) -> None:
    """Raises DataError unless this is a file, or a link to one: a pipe would wait, /dev/zero never ends."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
        raise wrong(
            path, "a file", "a pipe" if stat.S_ISFIFO(mode) else "a device" if device else "something else"
        )


def too_large(source: str | Path, got: str) -> DataError:
    return wrong(source, f"at most {LARGEST:,} numbers (take part of the rows or columns)", got)


def expect_few(kinds: Collection[str], source: Path, column: str) -> None:
    """Raises DataError where the column that colours the points holds too many kinds of cells."""
    if len(kinds) > KINDS:
        raise wrong(
            "color", f"a column with at most {KINDS} different values", f"more in {shown(column)} of {source}"
        )


def read_numpy(path: Path, choice: Choice) -> Table:
    """The array of an .npy file, or of an .npz file that holds one array or one that is named x."""
    array = _array(path)
    if array.size > LARGEST:
        raise too_large(path, f"{array.size:,}")
    if choice.header is not None:
        raise wrong("header", "nothing for a NumPy file, which has none", "yes" if choice.header else "no")
    if array.ndim != 2:  # check_data says what is wrong
        return Table(path, array, (), (), False)
    names, labels = nameless(array.shape[1]), None
    kept, color = choice.pick(path, names, named=False)
    if color is not None:
        values = array[:, color].tolist()
        labels = tuple(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
        expect_few(set(labels), path, names[color])
    left_out = tuple(names[i] + " (colour)" * (i == color) for i in range(len(names)) if i not in kept)
    columns, numbers = tuple(names[i] for i in kept), tuple(i + 1 for i in kept)
    return Table(path, array[:, kept], columns, numbers, False, left_out, labels)


def _array(path: Path) -> Any:
    with path.open("rb") as file:
        # NumPy takes whatever is not its own format for a pickle; look first, so that the message is right
        if not file.read(6).startswith((b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")):
            raise wrong(path, "a NumPy file", "another format (pickles are not read: they can run code)")
        file.seek(0)
        try:
            _expect_room(path, file)
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            names = loaded.files
            if "x" in names or len(names) == 1:
                return loaded["x" if "x" in names else names[0]]
        except DataError:
            raise
        except Exception as error:  # a damaged archive can raise almost anything
            if "Object arrays" in str(error):
                raise wrong(path, "plain numbers", "Python objects (not read: they can run code)") from None
            reason = " ".join(str(error).split())
            raise wrong(path, "a NumPy file", f"a damaged one ({reason})") from None
    raise wrong(path, "one array, or one named x", listed(names) or "none")


def _expect_room(path: Path, file: Any) -> None:
    """Raises DataError where what is in the file, unpacked, is more than is read: 1 MB can unpack to 1 GiB."""
    room = LARGEST * 8 + 2**16
    if file.read(2) != b"PK":
        size = os.fstat(file.fileno()).st_size
        if size > room:
            raise too_large(path, f"a file of {size:,} bytes")
        return
    for member in zipfile.ZipFile(file).infolist():  # it unpacks no more than is declared here
        if member.file_size > room:
            raise too_large(path, f"{member.file_size:,} bytes in {shown(member.filename)}")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise wrong(
                path, "an archive as NumPy writes it", f"another compression of {shown(member.filename)}"
            )
