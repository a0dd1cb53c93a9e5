"""Fuzzed data files: each is read right, or refused in one line.

    python -m tests.campaigns.data_files [--count 10000] [--seconds 900] [--seed 0]

A file is written by pandas, NumPy or as R and spreadsheets do, with known numbers; most are then damaged. An
undamaged file must give these numbers. A damaged one that is taken must give what pandas (or numpy.load) reads
there in the same dialect. Failures: another array, anything raised but a DataError of one line, a warning, more
than 10 seconds for a file, more than 1 GiB of memory for all of it.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import resource
import signal
import socket
import string
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tinyvae.datafiles import Choice, DataError
from tinyvae.datasets import Dataset, load_dataset
from tinyvae.textfiles import delimiter_of, encoding_of, read_text, records_of

SECONDS_A_FILE = 10
MEMORY = 2**30
UNSEEN = "taken where pandas sees no table of numbers"  # to be looked at


@dataclass
class Sample:
    """A file and what must come of it."""

    suffix: str
    content: bytes
    values: Any  # the right array, or None: it is to be refused
    columns: tuple[str, ...] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    may_ask: bool = False  # it can be read in two ways: refusing is right, too
    kind: str = ""


# ---------------------------------------- files that are right ----------------------------------------


def numbers(rng: np.random.Generator) -> pd.DataFrame:
    """A table of 2 to 40 rows and 2 to 6 columns of several scales and types."""
    n, d = int(rng.integers(2, 41)), int(rng.integers(2, 7))
    columns = []
    for _ in range(d):
        kind = rng.integers(6)
        if kind == 0:
            columns.append(rng.integers(-50, 1000, n))
        elif kind == 1:
            columns.append(rng.integers(0, 2, n))
        elif kind == 2:
            columns.append(np.round(rng.normal(size=n) * 10 ** rng.uniform(-3, 5), 3))
        else:
            columns.append(rng.normal(rng.choice([0, 1e3, 1e6]), 1, n) * 10 ** rng.uniform(-6, 6))
    names = rng.permutation(NAMES)[:d]
    return pd.DataFrame(dict(zip(names, columns)))


NAMES = [
    "a", "b c", "length, mm", "Größe", 'the "x"', "sepal length (cm)", "y", "target_1", "2019a", "x;y", "t\tu", "é",
    "id2", "μ", "name with, comma and ; too", "-", "V1", "naïve", "=A1",
]  # fmt: skip
INDEX_NAMES = ["Id", "Unnamed: 0", "index", "", "ID", "rownames", "Unnamed: 0.1"]


def by_pandas(rng: np.random.Generator) -> Sample:
    frame = numbers(rng)
    sep, decimal = [(",", "."), (";", "."), ("\t", "."), (";", ","), ("\t", ","), (" ", ".")][rng.integers(6)]
    header, options = True, {}
    if sep == " ":  # white space parts the cells, so there is none in a name without quotes
        frame.columns = [name.replace("\t", " ") for name in frame.columns]
    values, may_ask = frame.to_numpy(dtype=float), False
    columns: tuple[str, ...] | None = tuple(" ".join(name.split()) for name in frame.columns)
    names = rng.integers(4)
    if names == 0:
        frame.columns = range(frame.shape[1])
        may_ask, columns = True, tuple(map(str, frame.columns))
    elif names == 1:
        header, columns = False, None
        may_ask = all(float(v).is_integer() for v in values[0])
    index, label = False, None
    if header and rng.random() < 0.4:
        index, label = True, str(rng.choice(INDEX_NAMES)) if rng.random() < 0.7 else None
        which = rng.integers(3)
        if which == 1:
            frame.index = rng.permutation(len(frame)) + 1
        elif which == 2:
            frame.index = [f"row {i}" for i in range(len(frame))]
    if header and rng.random() < 0.2:
        frame["species"] = rng.choice(["setosa", "virginica, rare", "№ 3"], len(frame))
        way = rng.integers(3)
        if way == 0:
            options["skip_columns"] = ["species"]
        elif way == 1:
            options["color"] = "species"
        else:
            values = None
    style = str(rng.choice(["%.3f", "%.17g"])) if rng.random() < 0.3 else None
    if style and values is not None:  # what it leaves of the numbers
        kinds = [frame[c].dtype.kind for c in frame.columns if c != "species"]
        values = np.array([[float(style % v) if k == "f" else v for v, k in zip(row, kinds)] for row in values])
    quoting = [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC][rng.integers(3)]
    text = frame.to_csv(
        sep=sep, decimal=decimal, index=index, index_label=label, header=header, quoting=quoting,
        lineterminator=str(rng.choice(["\n", "\r\n", "\r"])),
        float_format=style,
    )  # fmt: skip
    if decimal == "," and not _surely_decimal(text):
        may_ask = True
    encoding = str(rng.choice(["utf-8", "utf-8-sig"]))
    return Sample(
        str(rng.choice([".csv", ".tsv", ".txt"])),
        text.encode(encoding),
        values,
        columns,
        options,
        may_ask,
        "pandas",
    )


def _surely_decimal(text: str) -> bool:
    commas = re.findall(r"(?<![\w,.])[+-]?\d*,\d+(?:e[+-]?\d+)?(?![\w,.])", text)
    return not commas or any(not re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", cell) for cell in commas)


def by_savetxt(rng: np.random.Generator) -> Sample:
    values = numbers(rng).to_numpy(dtype=float)
    out = io.StringIO()
    header = "x y z" if rng.random() < 0.5 else ""
    np.savetxt(out, values, delimiter=str(rng.choice([" ", ",", "\t", ";"])), header=header)
    read = np.array([[float(f"{value:.18e}") for value in row] for row in values])
    return Sample(str(rng.choice([".txt", ".csv"])), out.getvalue().encode(), read, kind="savetxt")


def by_r(rng: np.random.Generator) -> Sample:
    """As R's write.table: names in quotes, and none over the row names."""
    frame = numbers(rng)
    names = [name.replace('"', "'") for name in frame.columns]
    sep = str(rng.choice([" ", "\t", ","]))
    words = ["Mazda RX4", "Datsun 710", "Hornet"] if rng.random() < 0.5 else []
    lines = [sep.join(f'"{name}"' for name in names)]
    for i, row in enumerate(frame.to_numpy(dtype=float), start=1):
        lines.append(sep.join([f'"{words[i % 3]} {i}"' if words else f'"{i}"', *(f"{v:.15g}" for v in row)]))
    read = np.array([[float(f"{v:.15g}") for v in row] for row in frame.to_numpy(dtype=float)])
    columns = tuple(" ".join(name.split()) for name in names)
    return Sample(".txt", ("\n".join(lines) + "\n").encode(), read, columns, kind="R")


DTYPES = ["f8", "f4", "f2", ">f8", ">i4", "i1", "i8", "u2", "u8", "?", "g"]


def by_numpy(rng: np.random.Generator) -> Sample:
    dtype = np.dtype(str(rng.choice(DTYPES)))
    shape = (int(rng.integers(2, 30)), int(rng.integers(2, 6)))
    array = (
        (rng.normal(size=shape) * 20).astype(dtype)
        if dtype.kind == "f"
        else rng.integers(0, 90, shape).astype(dtype)
    )
    if rng.random() < 0.2:
        array = np.asfortranarray(array)
    out = io.BytesIO()
    if rng.random() < 0.5:
        np.save(out, array)
        return Sample(".npy", out.getvalue(), array.astype(float), kind="NumPy")
    save = np.savez if rng.random() < 0.5 else np.savez_compressed
    save(out, **({"x": array, "y": np.zeros(3)} if rng.random() < 0.5 else {"points": array}))
    return Sample(".npz", out.getvalue(), array.astype(float), kind="NumPy")


def not_utf8(rng: np.random.Generator) -> Sample:
    sample = by_pandas(rng)
    with suppress(UnicodeError):
        text = sample.content.decode("utf-8-sig")
        encoding = str(rng.choice(["utf-16", "cp1252", "utf-32", "utf-16-le"]))
        sample.content, sample.kind = text.encode(encoding), encoding
        if encoding != "utf-16" and not (sample.content.isascii() and b"\0" not in sample.content):
            sample.values = None
    return sample


WRITERS: list[tuple[float, Callable[[np.random.Generator], Sample]]] = [
    (0.55, by_pandas), (0.12, by_savetxt), (0.12, by_r), (0.15, by_numpy), (0.06, not_utf8),
]  # fmt: skip


# ---------------------------------------- damage ----------------------------------------

CELLS = [
    b"", b"NA", b"nan", b"inf", b"-inf", b"?", b"1_000", b"0x1F", b"1,5", b"1.234,5", b'"3,25"', b"1e400", b"9.97e14",
    b"True", b"12:30", b"2024-01-01", b"5%", b"$3", b"(1.5)", b"\xc2\xa07", b"\xef\xbc\x95", b"+.5e-3", b"1.", b"--1",
    b"1 2", b'"', b'""', b"#", b"\0", b"\xff", b"=1+1", b"1" * 400, b"z" * 200_000, b"\xe2\x88\x921.5",
]  # fmt: skip


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes of bytes, cells, lines or quotes."""
    for _ in range(int(rng.integers(1, 4))):
        way = int(rng.integers(11))
        at = int(rng.integers(len(content) + 1))
        lines = content.splitlines(keepends=True)
        line = int(rng.integers(max(len(lines), 1)))
        if way == 0:
            content = content[:at] + bytes([int(rng.integers(256))]) + content[at + 1 :]
        elif way == 1:
            content = content[:at] + content[at + int(rng.integers(1, 9)) :]
        elif way == 2:
            content = content[:at] + str(rng.choice(list(string.printable + "é€"))).encode() + content[at:]
        elif way == 3 and lines:
            del lines[line]
            content = b"".join(lines)
        elif way == 4 and lines:
            content = b"".join([*lines[:line], lines[line], *lines[line:]])
        elif way == 5 and lines:  # another cell
            mark = next((m for m in (b"\t", b";", b",", b" ") if m in lines[line]), b",")
            cells = lines[line].rstrip(b"\r\n").split(mark)
            cells[int(rng.integers(len(cells)))] = CELLS[int(rng.integers(len(CELLS)))]
            lines[line] = mark.join(cells) + b"\n"
            content = b"".join(lines)
        elif way == 6:
            content = content[:at] + b'"' + content[at:]
        elif way == 7:
            content = content[:at]
        elif way == 8 and lines:
            extra = [b"\n", b"# a remark, with 1;2\t3\n", b"   \n", b"a,b,c\n", b"\xef\xbb\xbf\n", b"0,1,2\n"]
            lines.insert(line, extra[int(rng.integers(len(extra)))])
            content = b"".join(lines)
        elif way == 9:
            old, new = [(b",", b";"), (b";", b","), (b".", b","), (b"\n", b"\r"), (b"e", b"E"), (b",", b", ")][
                int(rng.integers(6))
            ]
            content = content.replace(old, new)
        else:
            content = content + content[at:]
    return content


# ---------------------------------------- files that are traps ----------------------------------------


def traps(folder: Path) -> list[Path]:
    """Files on which a reader could wait for ever, or fill the memory. All must be refused."""
    made = []

    def at(name: str) -> Path:
        made.append(folder / name)
        return made[-1]

    os.mkfifo(at("pipe.csv"))
    for suffix in ("csv", "npy", "npz"):
        at(f"zero.{suffix}").symlink_to("/dev/zero")
    at("gone.csv").symlink_to(folder / "nothing")
    at("loop.csv").symlink_to(folder / "loop.csv")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(at("socket.csv")))
    listener.close()
    for name in ("sparse.csv", "sparse.npy"):
        with at(name).open("wb") as file:
            file.write(b"\x93NUMPY" if name.endswith("npy") else b"1,2\n")
            file.truncate(2**40)
    _zipped(at("bomb.npz"), "<f8", (2**26, 2))  # 1 MB that unpacks to 1 GiB
    _zipped(at("bytes.npz"), "|i1", (2**26, 2))  # small as it is, large as float64
    with zipfile.ZipFile(at("xz.npz"), "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", bytes(2**20))
    for name, shape in (("claims.npy", (2**40, 2)), ("claims_more.npy", (2**62, 2)), ("less.npy", (-1, 2))):
        with at(name).open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
            file.write(bytes(64))
    with zipfile.ZipFile(at("claims.npz"), "w") as archive, archive.open("x.npy", "w") as member:
        np.lib.format.write_array_header_1_0(
            member, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2)}
        )
    at("long_line.csv").write_text("1," * 2**20 + "1\n")
    at("open_quote.csv").write_text('a,b\n"1,2\n' + "3,4\n" * 2**17)
    at("words.csv").write_text("a,b\n" + "".join(f"{i},w{i}\n" for i in range(20_000)))
    return made


def _zipped(path: Path, dtype: str, shape: tuple[int, int]) -> None:
    """An .npz file of zeros."""
    deflated = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9)
    with deflated as archive, archive.open("x.npy", "w", force_zip64=True) as member:
        of = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, of)
        for _ in range(np.dtype(dtype).itemsize * shape[0] * shape[1] >> 20):
            member.write(bytes(2**20))


# ---------------------------------------- the judge ----------------------------------------


class Wrong(AssertionError):
    """What must not happen did."""


class Hang(Exception):
    pass


def _alarm(*_: Any) -> None:
    raise Hang


def load(path: Path, options: dict[str, Any]) -> Dataset | str:
    """The data, or the one line that refuses them. Raises Wrong for anything else."""
    signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_A_FILE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = load_dataset(path, **options)
    except DataError as problem:
        line = str(problem)
        if not line or any(not c.isprintable() for c in line) or len(line) > 600:
            raise Wrong(f"not one line: {line!r}") from None
        return line
    except Hang:
        raise Wrong(f"more than {SECONDS_A_FILE} seconds") from None
    except BaseException as problem:
        if isinstance(problem, KeyboardInterrupt):
            raise
        raise Wrong(f"{type(problem).__name__}: {problem}") from problem
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if any(not c.isprintable() for line in (data.description, *data.notes) for c in line):
        raise Wrong(f"not one line: {data.description!r}")
    return data


def judge(sample: Sample, damaged: bool, path: Path) -> str:
    """How it went, in two or three words; raises Wrong."""
    path.write_bytes(sample.content)
    got = load(path, sample.options)
    if isinstance(got, str):
        asked = sample.may_ask or "lost decimal point" in got
        if not damaged and sample.values is not None and not asked:
            raise Wrong(f"a good file was refused: {got}")
        return (
            "damaged: refused in one line"
            if damaged
            else "not damaged: refused with the reason or the question"
        )
    if not damaged:
        if sample.values is None:
            raise Wrong(f"was to be refused, gave {got.x[:2]}")
        _same(got.x, sample.values, "the numbers that were written")
        if sample.columns is not None and got.columns != sample.columns:
            raise Wrong(f"columns {got.columns}, not {sample.columns}")
        return "not damaged: the numbers that were written"
    other = _by_numpy(path) if path.suffix in (".npy", ".npz") else _by_pandas(path, got, sample.options)
    if other is None:
        return UNSEEN
    _same(got.x, other, "what pandas or NumPy reads")
    return "damaged: the numbers that pandas or NumPy reads"


def _same(x: Any, expected: Any, what: str) -> None:
    if x.shape != expected.shape or not (x == expected).all():
        raise Wrong(f"shape {x.shape}, not {what}, {expected.shape}: {x[:2]} and {expected[:2]}")


def _by_numpy(path: Path) -> Any:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded.astype(float)
    with loaded:
        return loaded["x" if "x" in loaded.files else loaded.files[0]].astype(float)


def _by_pandas(path: Path, data: Dataset, options: dict[str, Any]) -> Any:
    """What pandas reads in the dialect that was said; None where it finds no table of numbers."""
    delimiter = delimiter_of(path)
    first = next(records_of(path, delimiter))
    numbers = read_text(path, Choice(header=data.header, **options)).numbers
    lines = path.read_text(encoding=encoding_of(path)).split("\n")  # with the ends of lines made alike
    text = "\n".join(line.rstrip() if delimiter == " " else line for line in lines)
    comments = [i for i, line in enumerate(lines) if line.lstrip().startswith("#")]
    width = max(len(first[1]), *numbers)
    for decimal in ".,":
        try:
            frame = pd.read_csv(
                io.StringIO(text), sep=r"\s+" if delimiter == " " else delimiter, decimal=decimal,
                header=None, names=list(range(width)), skiprows=[*range(first[0] - 1), *comments] or None,
                index_col=False, skipinitialspace=True, dtype=str, keep_default_na=False,
            )  # fmt: skip
        except Exception:
            continue
        rows = frame.iloc[1:] if data.header else frame
        cells = rows[[n - 1 for n in numbers]].map(lambda cell: str(cell).strip().lower())
        cells = cells.replace({"true": "1", "false": "0"})
        if decimal == ",":
            cells = cells.map(lambda cell: cell.replace(",", "."))
        try:
            return cells.to_numpy().astype(float)
        except ValueError:
            continue
    return None


def campaign(
    count: int, seconds: float, seed: int, say: Callable[[str], None] = print, with_traps: bool = True
) -> Counter[str]:
    """Counts by outcome; "wrong" is what must be 0, and each of those is said."""
    counts: Counter[str] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for trap in traps(folder) if with_traps else ():
            try:
                got = load(trap, {})
            except Wrong as problem:
                counts["wrong"] += 1
                say(f"{trap.name}: {problem}")
                continue
            if isinstance(got, str):
                counts["traps refused in one line"] += 1
            else:
                counts["wrong"] += 1
                say(f"{trap.name}: was taken")
            trap.unlink()
        for number in range(count):
            if time.monotonic() - started > seconds:
                break
            rng = np.random.default_rng([seed, number])
            chances, writers = zip(*WRITERS)
            sample = writers[int(rng.choice(len(writers), p=chances))](rng)
            damaged = rng.random() < 0.7
            if damaged:
                sample.content = damage(sample.content, rng)
            path = folder / f"data{sample.suffix}"
            counts["files"] += 1
            counts["damaged"] += damaged
            try:
                how = judge(sample, damaged, path)
                counts[how] += 1
                if how == UNSEEN:
                    say(f"file {number} ({sample.kind}): {how}\n  {sample.content[:200]!r}")
            except Wrong as problem:
                counts["wrong"] += 1
                say(f"file {number} ({sample.kind}, damaged {damaged}): {problem}\n  {sample.content[:200]!r}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    counts["MiB at most"] = memory >> 20
    if memory > MEMORY:
        counts["wrong"] += 1
        say(f"{memory >> 20} MiB of memory")
    counts["seconds"] = round(time.monotonic() - started)
    return counts


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--seconds", type=float, default=900)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    found = campaign(given.count, given.seconds, given.seed)
    for outcome, times in found.items():
        print(f"{times:>8}  {outcome}")
    sys.exit(1 if found["wrong"] else 0)
