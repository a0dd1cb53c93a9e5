"""A person's own data as text: quoting as RFC 4180 says, and one clear line where a file can be read in two ways.

What is decided here, so that the program can say it: the delimiter, whether the first line is a header, which
columns are row numbers or row names, and whether a comma is a decimal one.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, count, islice
from pathlib import Path

import numpy as np

from .datafiles import LARGEST, Choice, Table, expect_few, nameless, shown, too_large, wrong

LONGEST = 2**20  # characters in a line
TRUTH = {"true": 1.0, "false": 0.0}  # as pandas writes columns of Booleans

Record = tuple[int, list[str]]  # the line in which it begins, and its cells


def read_text(path: Path, choice: Choice) -> Table:
    """The columns of a delimited text that are data. Raises DataError, with line and column, where one is not.

    The text is UTF-8, or UTF-16 with a mark in front, as spreadsheets write it. Blank lines and lines that start
    with # are skipped.
    """
    try:
        delimiter = delimiter_of(path)
        records = records_of(path, delimiter)
        first, second = next(records, None), next(records, None)
        if first is None:
            raise wrong(path, "rows of numbers", "an empty file")
        header = _is_header(path, delimiter, first, second) if choice.header is None else choice.header
        heads = first[1]
        if not header:
            return _read(path, delimiter, chain([first, second], records), heads, False, choice)
        if second is None:
            raise wrong(path, "rows of numbers", "only a header")
        if len(second[1]) == len(heads) + 1 and second[1][-1]:  # R: no name over the row names
            heads = ["", *heads]
        return _read(path, delimiter, chain([second], records), heads, True, choice)
    except UnicodeDecodeError:
        raise wrong(path, "UTF-8 text (spreadsheets save it as CSV UTF-8)", "other bytes") from None


def _read(
    path: Path, delimiter: str, rows: Iterator[Record | None], heads: list[str], header: bool, choice: Choice
) -> Table:
    """The rows; `heads` are the cells of the first line."""
    width, names = len(heads), nameless(len(heads))
    if header:
        names = tuple(_printable(cell) or f"column {i}" for i, cell in enumerate(heads, start=1))
    kept, color = choice.pick(path, names, header)
    row_names: list[int] = []
    if header and choice.columns is None:
        row_names = [i for i in kept if _may_count_rows(heads[i], i)]
    values, lines = array("d"), array("q")
    seen: list[dict[str, tuple[str, str]]] = [{} for _ in heads]  # by column and kind the first place and cell
    labels: list[str] = []
    kinds: dict[str, str] = {}
    for line, cells in filter(None, rows):
        if len(cells) != width:
            raise wrong(f"{path}, line {line}", f"{width} columns as in the first line", str(len(cells)))
        for column in kept:
            kind, value = _number(cells[column], delimiter)
            if kind not in seen[column]:
                place = f"{path}, line {line}, column {column + 1}"
                place += f" {shown(names[column])}" if header else ""
                cell = cells[column].strip(" ")
                if kind == "word" and column not in row_names:
                    raise wrong(place, "a number", shown(cell) + _hint(cell, seen[column], names[column]))
                seen[column][kind] = place, cell
            values.append(value)
        lines.append(line)
        if color is not None:
            label = _printable(cells[color]) or "(empty)"
            labels.append(kinds.setdefault(label, label))
            expect_few(kinds, path, names[color])
        if len(values) > LARGEST:
            raise too_large(path, f"more, at line {line:,}")
    _expect_one_reading(seen)
    x = np.frombuffer(values).reshape(len(lines), -1) if values else np.empty((len(lines), 0))
    why = {i: " (colour)" if i == color else "" for i in range(width) if i not in kept}
    for i in row_names:
        numbers, words = x[:, kept.index(i)], "word" in seen[i]
        why[i] = " (row names)" if words else " (row numbers)"
        if not words and ((numbers != np.rint(numbers)).any() or len(np.unique(numbers)) < len(numbers)):
            expected = "row numbers or row names, which are left out, or a column that is chosen"
            way = f"say --skip-columns {_word(names[i])}, or choose with --columns"
            raise wrong(path, expected, f"other numbers in column {i + 1} ({way})")
    taken = [i for i in kept if i not in why]
    return Table(
        path, x[:, [kept.index(i) for i in taken]] if row_names else x, tuple(names[i] for i in taken),
        tuple(i + 1 for i in taken), header, tuple(names[i] + why[i] for i in sorted(why)),
        None if color is None else tuple(labels), lines,
    )  # fmt: skip


# ---------------------------------------- a cell ----------------------------------------

_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?(\d+,\d*|,\d+)([eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)


def _number(cell: str, delimiter: str) -> tuple[str, float]:
    """The kind of a cell (number, point, comma, either, truth, word) and the number in it."""
    if "_" not in cell and cell.isascii():  # float("1_0") is 10 in Python, and a name in a data file
        try:
            return "point" if "." in cell else "number", float(cell)
        except ValueError:
            pass
    cell = cell.strip(" ")
    if delimiter != "," and _DECIMAL_COMMA.fullmatch(cell):  # 1,25 is one; 1,250 could be 1250
        return "either" if _THOUSANDS.fullmatch(cell) else "comma", float(cell.replace(",", "."))
    return ("truth", TRUTH[cell.lower()]) if cell.lower() in TRUTH else ("word", np.nan)


def _like_a_number(cell: str) -> bool:
    return _number(cell, ";")[0] != "word"


def _hint(cell: str, seen: dict[str, tuple[str, str]], name: str) -> str:
    """What can be done about a word in a column in which these kinds were seen before."""
    if _DECIMAL_COMMA.fullmatch(cell):
        return " (a decimal comma? put semicolons between the cells, or a point into the number)"
    if not cell or seen.keys() - {"truth"}:
        return ""
    name = _word(name.translate(_PLAIN))
    return f" (not a column of numbers? leave it out: --skip-columns {name}, or show it: --color {name})"


def _expect_one_reading(seen: list[dict[str, tuple[str, str]]]) -> None:
    first: dict[str, tuple[str, str]] = {}
    for kinds in seen:
        first = kinds | first
        if "truth" in kinds and kinds.keys() - {"truth", "word"}:
            raise wrong(kinds["truth"][0], "a number as in the rest of the column", "True or False")
    for place, cell in (first[kind] for kind in ("comma", "either") if kind in first):
        if "point" in first:
            raise wrong(place, "a decimal point as in other cells", shown(cell))
        if "comma" not in first:
            readings = f"{cell.replace(',', '.')} or {cell.replace(',', '')}"
            raise wrong(place, "a number", f"{shown(cell)}, which can be {readings}: say which")


def _printable(cell: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in cell).split())


_PLAIN = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


def _word(name: str) -> str:
    """A name as one writes it in a list of names on a command line."""
    quoted = '"' + name.replace('"', '""') + '"' if set(name) & set('",') else name
    return f"'{quoted}'" if set(quoted) & set(" \"'()&|;<>$*?#") else quoted


# ---------------------------------------- the first line ----------------------------------------

_ROW_NAMES = {
    "id", "index", "row", "rows", "rowid", "row_id", "rowname", "rownames", "row_names", "row.names",
    "row number", "rownumber", "row_number", "no", "no.", "nr", "nr.", "#",
}  # fmt: skip
_UNNAMED = re.compile(r"Unnamed: 0(\.\d+)*(_level_\d+)?")  # row numbers that went through pandas twice


def _may_count_rows(cell: str, place: int) -> bool:
    name = " ".join(cell.split())
    return (place == 0 and not name) or bool(_UNNAMED.fullmatch(name)) or name.lower() in _ROW_NAMES


def _is_header(path: Path, delimiter: str, first: Record, second: Record | None) -> bool:
    """Whether the first record is names: none of its cells is a number, or it counts columns as pandas does.

    Raises DataError where it can be either.
    """
    line, cells = first
    counts = [str(i) for i in range(len(cells))]
    words = [i for i, cell in enumerate(cells) if not _like_a_number(cell)]
    if len(words) == len(cells) or (_may_count_rows(cells[0], 0) and cells[1:] == counts[:-1]):
        return True
    if words:
        at = words[0]
        if second and len(second[1]) > at and cells[at].strip() and _like_a_number(second[1][at]):
            got = f"{shown(cells[at])} (is this line the header? say --header yes)"
            raise wrong(f"{path}, line {line}, column {at + 1}", "a number", got)
        return False

    # Whole numbers in the first line and in no other: they are names, such as 0, 1, 2 where a table had none.
    def whole(cells: list[str]) -> list[bool]:
        return [bool(_WHOLE.fullmatch(cell.strip())) for cell in cells]

    if second is None or not all(whole(cells)):
        return False
    others = islice(records_of(path, delimiter), 1, None)
    alone = not any(any(whole(row)) for _, row in others)
    if alone != (cells == counts):
        got = f"{', '.join(cells[:5])}{', …' if len(cells) > 5 else ''}, which can be either"
        raise wrong(f"{path}, line {line}", "names or a data point", f"{got} (say --header yes, or no)")
    return alone


# ---------------------------------------- lines and cells ----------------------------------------


def encoding_of(path: Path) -> str:
    with path.open("rb") as file:
        mark, more = file.read(2), file.read(2)
    return "utf-16" if mark in (b"\xff\xfe", b"\xfe\xff") and more != b"\0\0" else "utf-8-sig"


def delimiter_of(path: Path) -> str:
    """Tab, else semicolon, else comma, else white space: the first that parts two records into as many cells.

    A name may hold one of them; R's header has one cell less than the rows.
    """
    first_line = next((line for _, line in _lines(path) if not _is_skipped(line)), "")
    bare = re.sub(r'"(?:[^"]|"")*"', "", first_line)  # a delimiter in quotes is none
    marks = [mark for mark in "\t;," if mark in bare] + [" "]
    for mark in marks:
        with suppress(ValueError):  # said when the records are read
            first, *more = (len(cells) for _, cells in islice(records_of(path, mark), 2))
            if first > 1 and all(first <= cells <= first + 1 for cells in more):
                return mark
    return marks[0]


def records_of(path: Path, delimiter: str) -> Iterator[Record]:
    """The records of a text, each with the line in which it begins."""
    begins, between = 0, True  # two records, and not in a cell of several lines

    def text() -> Iterator[str]:
        nonlocal begins, between
        for number, line in _lines(path):
            if not (between and _is_skipped(line)):
                begins, between = number if between else begins, False
                yield line.replace("\t", " ").rstrip() + "\n" if delimiter == " " else line

    try:
        for cells in csv.reader(text(), delimiter=delimiter, skipinitialspace=True, strict=True):
            between = True
            if cells:
                yield begins, cells
    except csv.Error as problem:
        said = " ".join(str(problem).split())
        raise wrong(f"{path}, line {begins}", "cells as RFC 4180 quotes them", said) from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding=encoding_of(path), newline="") as file:
        for number in count(1):
            line = file.readline(LONGEST + 1)
            if len(line) > LONGEST:
                raise wrong(f"{path}, line {number}", f"at most {LONGEST:,} characters", "more")
            if not line:
                return
            yield number, line


def _is_skipped(line: str) -> bool:
    """Blank or a comment."""
    return not line.strip(" \r\n") or line.lstrip().startswith("#")
