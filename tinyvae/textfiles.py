"""A person's own data as text: quoting as RFC 4180 says, and one clear line where a file can be read in two ways.

What is decided here, so that the program can say it: the delimiter, whether the first line is a header, which
columns are row numbers or row names, and whether a comma is a decimal one.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np

from .datafiles import LARGEST, Choice, Labels, Table, nameless, shown, too_large, wrong

LONGEST = 2**20  # characters in a line
TRUTH = {"true": 1.0, "false": 0.0}  # as pandas writes columns of Booleans

Record = tuple[int, list[str]]  # the line in which it begins, and its cells


def read_text(path: Path, choice: Choice) -> Table:
    """The columns of a delimited text that are data. Raises DataError, with line and column, where one is not.

    The first line tells the delimiter: tab, else semicolon, else comma, else white space. Blank lines and lines
    that start with # are skipped.
    """
    try:
        return _read(path, choice)
    except UnicodeDecodeError:
        raise wrong(path, "UTF-8 text", "other bytes") from None


def _read(path: Path, choice: Choice) -> Table:
    records = _Records(path)
    first = next(records, None)
    if first is None:
        raise wrong(path, "rows of numbers", "an empty file")
    second = next(records, None)
    header = _is_header(path, first, second) if choice.header is None else choice.header
    width, names = len(first[1]), nameless(len(first[1]))
    row_names: set[int] = set()
    if header:
        if second is None:
            raise wrong(path, "rows of numbers", "only a header")
        cells = first[1]
        if len(second[1]) == width + 1 and second[1][-1]:  # R: no name over the row names
            cells, width = ["", *cells], width + 1
        names = tuple(_name(cell, place) for place, cell in enumerate(cells, start=1))
        row_names = {i for i, cell in enumerate(cells) if _may_count_rows(cell, i)}
    kept, color = choice.pick(path, names, header)
    row_names = set() if choice.columns is not None else row_names & set(kept)
    rows = chain([second] if header else [first, second], records)
    return _Reader(path, names, width, kept, color, row_names, header, records.delimiter).read(rows)


class _Reader:
    """The cells of the columns that were chosen, as numbers."""

    def __init__(
        self, path: Path, names: tuple[str, ...], width: int, kept: list[int], color: int | None,
        row_names: set[int], header: bool, delimiter: str,
    ):  # fmt: skip
        self.path, self.names, self.width, self.kept, self.color = path, names, width, kept, color
        self.row_names, self.header, self.delimiter = row_names, header, delimiter
        self.comma = self.comma_cell = ""  # where the first decimal comma stands, and in what
        self.comma_is_sure = False  # 1,25 can only be a decimal comma; 1,250 could be 1250
        self.point = False  # a decimal point was seen
        self.logical: dict[int, str] = {}  # the columns that hold True and False, and where the first stands
        self.numeric: set[int] = set()
        self.texts: set[int] = set()  # of the row names: those that are not numbers

    def read(self, rows: Iterator[Record | None]) -> Table:
        values, lines = array("d"), array("q")
        labels = None if self.color is None else Labels(self.path, self.names[self.color])
        for record in rows:
            if record is None:  # the file has only one
                continue
            line, cells = record
            if len(cells) != self.width:
                expected = f"{self.width} columns as in the first line"
                raise wrong(f"{self.path}, line {line}", expected, str(len(cells)))
            for column in self.kept:
                values.append(self._number(cells[column], line, column))
            lines.append(line)
            if labels is not None and self.color is not None:
                labels.add(_name(cells[self.color], 0) if cells[self.color].strip() else "(empty)")
            if len(values) > LARGEST:
                raise too_large(self.path, f"more, at line {line:,}")
        self._expect_one_reading()
        x = np.frombuffer(values).reshape(len(lines), -1) if values else np.empty((len(lines), 0))
        counts = {c for c in self.row_names if self._counts_rows(x[:, self.kept.index(c)], c)}
        taken = [i for i, column in enumerate(self.kept) if column not in counts]
        columns = [self.kept[i] for i in taken]
        left_out = []
        for place in sorted(set(range(self.width)) - set(columns)):
            why = " (row names)" if place in self.texts else " (row numbers)" if place in counts else ""
            left_out.append(self.names[place] + (" (colour)" if place == self.color else why))
        return Table(
            self.path, x[:, taken] if counts else x, tuple(self.names[c] for c in columns),
            tuple(c + 1 for c in columns), self.header, tuple(left_out),
            None if labels is None else labels.all, lines,
        )  # fmt: skip

    def _number(self, cell: str, line: int, column: int) -> float:
        try:
            value = float(cell)
        except ValueError:
            return self._unusual(cell.strip(" "), line, column)
        if "_" in cell or not cell.isascii():  # float("1_0") is 10 in Python, and a name in a data file
            return self._unusual(cell.strip(" "), line, column)
        if self.delimiter != "," and not self.point and "." in cell:
            self.point = True
        self.numeric.add(column)
        return value

    def _unusual(self, cell: str, line: int, column: int) -> float:
        """A cell that Python does not take for a number."""
        if self.delimiter != "," and _DECIMAL_COMMA.fullmatch(cell):
            if not self.comma:
                self.comma, self.comma_cell = self._place(line, column), cell
            self.comma_is_sure |= not _THOUSANDS.fullmatch(cell)
            self.numeric.add(column)
            return float(cell.replace(",", "."))
        if cell.lower() in TRUTH:
            self.logical.setdefault(column, self._place(line, column))
            return TRUTH[cell.lower()]
        if column in self.row_names:
            self.texts.add(column)
            return np.nan
        hint = ""
        if _DECIMAL_COMMA.fullmatch(cell):
            hint = " (a decimal comma? put semicolons between the cells, or a point into the number)"
        elif cell and column not in self.numeric:
            name = _word(self.names[column].translate(_PLAIN))
            hint = (
                f" (not a column of numbers? leave it out: --skip-columns {name}, or show it: --color {name})"
            )
        raise wrong(self._place(line, column), "a number", shown(cell) + hint)

    def _place(self, line: int, column: int) -> str:
        name = f" {shown(self.names[column])}" if self.header else ""
        return f"{self.path}, line {line}, column {column + 1}{name}"

    def _expect_one_reading(self) -> None:
        if self.comma and self.point:
            raise wrong(self.comma, "a decimal point as in other cells", shown(self.comma_cell))
        if self.comma and not self.comma_is_sure:
            readings = f"{self.comma_cell.replace(',', '.')} or {self.comma_cell.replace(',', '')}"
            raise wrong(self.comma, "a number", f"{shown(self.comma_cell)}, which can be {readings}: say which")
        for column in sorted(set(self.logical) & self.numeric):
            raise wrong(self.logical[column], "a number as in the rest of the column", "True or False")

    def _counts_rows(self, values: np.ndarray, column: int) -> bool:
        """Whether a column that is named as row numbers holds them, or names: left out, or the person says."""
        whole = not np.isnan(values).any() and bool((values == np.round(values)).all())
        if column in self.texts or (whole and len(np.unique(values)) == len(values)):
            return True
        name = self.names[column]
        expected = "row numbers or row names, which are left out, or a column that is chosen"
        got = (
            f"other numbers in column {column + 1} (say --skip-columns {_word(name)}, or choose with --columns)"
        )
        raise wrong(self.path, expected, got)


# ---------------------------------------- header and row names ----------------------------------------

_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?(\d+,\d*|,\d+)([eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
_UNNAMED = re.compile(r"Unnamed: 0(\.\d+)*(_level_\d+)?")  # row numbers that went through pandas twice
_ROW_NAMES = {
    "id", "index", "row", "rows", "rowid", "row_id", "rowname", "rownames", "row_names", "row.names",
    "row number", "rownumber", "row_number", "no", "no.", "nr", "nr.", "#",
}  # fmt: skip
_PLAIN = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


def _name(cell: str, place: int) -> str:
    printable = "".join(c if c.isprintable() else " " for c in cell)
    return " ".join(printable.split()) or f"column {place}"


def _word(name: str) -> str:
    """A name as one writes it in a list of names on a command line."""
    quoted = '"' + name.replace('"', '""') + '"' if set(name) & set('",') else name
    return f"'{quoted}'" if set(quoted) & set(" \"'()&|;<>$*?#") else quoted


def _may_count_rows(cell: str, place: int) -> bool:
    name = " ".join(cell.split())
    return (place == 0 and not name) or bool(_UNNAMED.fullmatch(name)) or name.lower() in _ROW_NAMES


def _like_a_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return bool(_DECIMAL_COMMA.fullmatch(cell.strip())) or cell.strip().lower() in TRUTH
    return "_" not in cell


def _is_header(path: Path, first: Record, second: Record | None) -> bool:
    """Whether the first record is names: none of its cells is a number, or it counts columns as pandas does.

    Raises DataError where it can be either.
    """
    line, cells = first
    numeric = [_like_a_number(cell) for cell in cells]
    if not any(numeric):
        return True
    counts = [str(i) for i in range(len(cells))]
    if _may_count_rows(cells[0], 0) and cells[1:] == counts[:-1]:
        return True
    if not all(numeric):
        column = numeric.index(False)
        if second and len(second[1]) > column and cells[column].strip() and _like_a_number(second[1][column]):
            got = f"{shown(cells[column])} (is this line the header? say --header yes)"
            raise wrong(f"{path}, line {line}, column {column + 1}", "a number", got)
        return False
    # Whole numbers in the first line and in no other: they are names, such as 0, 1, 2 where a table had none.
    if second is None or not all(_WHOLE.fullmatch(cell.strip()) for cell in cells):
        return False
    others = islice(_Records(path), 1, None)
    written_otherwise = not any(_WHOLE.fullmatch(cell.strip()) for _, row in others for cell in row)
    if cells == counts and written_otherwise:
        return True
    if cells == counts or written_otherwise:
        got = f"{', '.join(cells[:5])}{', …' if len(cells) > 5 else ''}, which can be either"
        raise wrong(f"{path}, line {line}", "names or a data point", f"{got} (say --header yes, or no)")
    return False


# ---------------------------------------- lines and cells ----------------------------------------


class _Lines:
    """The lines of a text; between two records blank lines and comments are skipped."""

    def __init__(self, path: Path):
        self.path = path
        self.number = self.begins = 0  # of this line, and of the first one of its record
        self.between = True  # two records, and not in a cell of several lines
        self._lines = self._read()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._lines)

    def first_of_records(self, count: int) -> list[str]:
        """The first lines, without comments and blank ones."""
        found: list[str] = []
        while len(found) < count and (line := next(self, "")):
            found.append(line)
            self.between = True
        return found

    def _read(self) -> Iterator[str]:
        with self.path.open(encoding="utf-8-sig", newline="") as file:  # -sig: spreadsheets put a mark in front
            while line := file.readline(LONGEST + 1):
                self.number += 1
                if len(line) > LONGEST:
                    raise wrong(f"{self.path}, line {self.number}", f"at most {LONGEST:,} characters", "more")
                if self.between:
                    if not line.strip(" \r\n") or line.lstrip().startswith("#"):
                        continue
                    self.between, self.begins = False, self.number
                yield line


def _delimiter(lines: list[str]) -> str:
    """Tab, else semicolon, else comma, else white space: the first that parts two lines into as many cells.

    A name may hold one of them; R's header has one cell less than the rows.
    """
    bare = re.sub(r'"(?:[^"]|"")*"', "", lines[0] if lines else "")  # a delimiter in quotes is none
    marks = [mark for mark in "\t;," if mark in bare]
    for mark in marks:
        try:
            first, *more = (len(row) for row in csv.reader(lines, delimiter=mark, skipinitialspace=True))
        except csv.Error:  # said when the records are read
            continue
        if all(first <= cells <= first + 1 for cells in more):
            return mark
    parts = [len(re.sub(r'"(?:[^"]|"")*"', "x", line).split()) for line in lines]
    if len(parts) == 2 and 1 < parts[0] <= parts[1] <= parts[0] + 1:
        return " "
    return marks[0] if marks else " "


class _Records:
    """The records of a text, each with the line in which it begins."""

    def __init__(self, path: Path):
        self.path, self.delimiter = path, " "
        self._records = self._read()

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        return next(self._records)

    def _read(self) -> Iterator[Record]:
        self.delimiter = _delimiter(_Lines(self.path).first_of_records(2))
        lines = _Lines(self.path)
        text: Iterator[str] = lines
        if self.delimiter == " ":
            text = (line.replace("\t", " ").rstrip() + "\n" for line in lines)
        reader = csv.reader(text, delimiter=self.delimiter, skipinitialspace=True, strict=True)
        while True:
            lines.between = True
            try:
                cells = next(reader, None)
            except csv.Error as problem:
                expected = "cells as RFC 4180 quotes them"
                raise wrong(
                    f"{self.path}, line {lines.begins}", expected, " ".join(str(problem).split())
                ) from None
            if cells is None:
                return
            if cells:
                yield lines.begins, cells
