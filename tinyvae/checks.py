"""The array types that all files share, and the checks of arguments: each raises a ValueError of one line."""

import hashlib
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
ROOM = 2**30  # bytes that data, parameters and buffers of a run may take together


def expect(ok: bool, name: str, expected: str, got: Any) -> None:
    """Raises ValueError, "name: expected …, got …", unless `ok`."""
    if not ok:
        raise ValueError(f"{name}: expected {expected}, got {got!r}")


def expect_shape(name: str, array: Any, shape: tuple[int, ...]) -> None:
    if np.shape(array) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {np.shape(array)}")


def is_whole(value: Any, least: int) -> bool:
    """Whether it is an integer, NumPy's included, of at least this size; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def whole(name: str, value: Any, least: int) -> int:
    expect(is_whole(value, least), name, f"a whole number >= {least}", value)
    return int(value)


def positive(name: str, value: Any) -> float:
    ok = isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < np.inf
    expect(ok, name, "a number > 0", value)
    return float(value)


def not_negative(name: str, value: Any) -> float:
    ok = isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < np.inf
    expect(ok, name, "a number >= 0", value)
    return float(value)


def expect_room(name: str, numbers: int, advice: str) -> None:
    """Raises ValueError, before they are allocated, where so many float64 numbers take more than a run may."""
    if numbers * 8 > ROOM:
        raise ValueError(
            f"{name}: this would take {in_bytes(numbers * 8)} of memory, more than {in_bytes(ROOM)}; {advice}"
        )


def in_bytes(count: int) -> str:
    """A number of bytes as a person reads it: 3.1 GiB."""
    for power, unit in enumerate(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")):
        if count < 1024 ** (power + 1):
            return f"{count / 1024**power:.3g} {unit}"
    return "more than 1000 PiB"


def digest(x: Array) -> str:
    """Eight hexadecimal digits that differ where the numbers or the shape of x do."""
    found = hashlib.sha256(repr(x.shape).encode())
    found.update(np.ascontiguousarray(x, dtype="<f8").tobytes())
    return found.hexdigest()[:8]


def one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    expect(value in known, name, " or ".join(map(repr, known)), value)
    return str(value)


def data_points(x: Any) -> Array:
    """A copy of x as float64 data points (N, D), all finite, N >= 1 and D >= 1."""
    if np.ma.is_masked(x):
        raise ValueError(
            "x: expected numbers everywhere, got masked cells (fill them in or leave the rows out)"
        )
    try:
        x = np.asarray(x)
    except ValueError:
        raise ValueError("x: expected data points of one length, got rows of unequal length") from None
    if x.dtype.kind not in "biuf":
        raise ValueError(f"x: expected real numbers, got dtype {x.dtype}")
    x = np.array(x, dtype=float)  # a copy: the caller's array may change, this one does not
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"x: expected data points of shape (N, D) with N >= 1, got {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"x: expected finite numbers, got {int((~np.isfinite(x)).sum())} that are not")
    return x
