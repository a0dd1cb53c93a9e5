"""The program: `tinyvae` and `python -m tinyvae`."""

import os
import sys

from . import signals


def main() -> None:
    try:
        signals.listen(signals.stop)
        from . import cli  # and with it NumPy, which takes its time

        with_one_thread()
        code = cli.main()
    except KeyboardInterrupt as stop:
        code = signals.exit_code(stop)
        print(f"tinyvae: {signals.SAYS[code]}", file=sys.stderr)
    sys.exit(code)


def with_one_thread() -> None:
    """Matrices this small are slower on two cores than on one.

    OpenBLAS reads its variable when NumPy is loaded, which importing the command line has done by now: the
    variable is for the processes that this one starts, and this one is told.
    """
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        from tinyvae import threads

        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        threads.use(1)


if __name__ == "__main__":
    main()
