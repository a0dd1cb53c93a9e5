"""The program: `tinyvae` and `python -m tinyvae`."""

import ctypes
import os
import sys

from . import cli

SETTERS = (
    "scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads", "openblas_set_num_threads64_",
    "openblas_set_num_threads",
)  # fmt: skip


def main() -> None:
    with_one_thread()
    sys.exit(cli.main())


def with_one_thread() -> None:
    """Matrices this small are slower on two cores than on one.

    OpenBLAS reads its variable when NumPy is loaded, which importing anything of tinyvae has done by now: the
    variable is for the processes that this one starts, and this one is told by the function that OpenBLAS has for
    it, under the name it has in this NumPy. None of the names: NumPy computes with something else. (On Windows they
    are not found, and the run goes on with the threads it has.)
    """
    if "OPENBLAS_NUM_THREADS" in os.environ:
        return
    from numpy.linalg import _umath_linalg

    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    library = ctypes.CDLL(_umath_linalg.__file__)
    for name in SETTERS:
        if hasattr(library, name):
            getattr(library, name)(1)


if __name__ == "__main__":
    main()
