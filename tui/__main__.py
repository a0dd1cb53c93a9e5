"""The program: `tinyvae` and `python -m tinyvae`."""

import os
import sys

from tinyvae import threads

from . import cli, signals


def main() -> None:
    signals.listen(signals.stop)
    with_one_thread()
    sys.exit(cli.main())


def with_one_thread() -> None:
    """Matrices this small are slower on two cores than on one.

    OpenBLAS reads its variable when NumPy is loaded, which importing anything of tinyvae has done by now: the
    variable is for the processes that this one starts, and this one is told.
    """
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        threads.use(1)


if __name__ == "__main__":
    main()
