"""Linear algebra in one thread: a product summed by two threads can differ from that of one in the last bit.

A run is to have the same bits on screen, headless and from Python, whatever the machine has been told. Matrices this
small are quicker in one thread anyway.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from numpy.linalg import _umath_linalg

NAMES = ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}")


@cache
def _openblas() -> tuple[Callable[[], int], Callable[[int], Any], Any] | None:
    """OpenBLAS's own functions for how many threads there are, under the names that they have in this NumPy.

    None where NumPy computes with something else. (On Windows they are not found: there a run keeps the threads that
    it has, and its bits are promised among runs with as many.)
    """
    library = ctypes.PyDLL(_umath_linalg.__file__)
    for name in NAMES:
        get, put = name.format("get_num_threads"), name.format("set_num_threads")
        if hasattr(library, get) and hasattr(library, put):
            return (
                getattr(library, get),
                getattr(library, put),
                getattr(library, name.format("get_corename"), None),
            )
    return None


def kernel() -> tuple[str, int]:
    """OpenBLAS's name of the kind of processor that it computes for, and how many threads it has been told; "", 0."""
    if (functions := _openblas()) is None:
        return "", 0
    get, _, name = functions
    if name is not None:
        name.restype = ctypes.c_char_p
    return (name() or b"").decode("ascii", "replace") if name else "", get()


def use(count: int) -> None:
    """Compute with so many threads from now on, where NumPy can be told."""
    if (functions := _openblas()) is not None:
        functions[1](count)


class OneThread:
    """`with OneThread():` computes in one thread, and leaves as many as there were."""

    def __enter__(self) -> None:
        functions = _openblas()
        self.before = 1 if functions is None else functions[0]()
        if self.before != 1:
            use(1)

    def __exit__(self, *_: object) -> None:
        if self.before != 1:
            use(self.before)
