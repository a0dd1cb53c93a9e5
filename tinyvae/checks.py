"""The array types that all files share, and the checks of arguments: each raises a ValueError of one line."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


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


def one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    expect(value in known, name, " or ".join(map(repr, known)), value)
    return str(value)


def data_points(x: Any) -> Array:
    """A copy of x as float64 data points (N, D), all finite, N >= 1 and D >= 1."""
    if np.ma.is_masked(x):
        raise ValueError(
            "x: expected numbers everywhere, got masked cells (fill them in or leave the rows out)"
        )
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise ValueError(f"x: expected real numbers, got dtype {x.dtype}")
    x = np.array(x, dtype=float)  # a copy: the caller's array may change, this one does not
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"x: expected data points of shape (N, D) with N >= 1, got {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"x: expected finite numbers, got {int((~np.isfinite(x)).sum())} that are not")
    return x
