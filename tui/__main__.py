"""The program: `tinyvae` and `python -m tinyvae`."""

import os
import sys

from . import cli


def main() -> None:
    cli.parser().parse_args()  # --help and mistakes end here, without a second start
    start_again_with_one_thread()
    sys.exit(cli.main())


def start_again_with_one_thread() -> None:
    """Matrices this small are slower on two cores than on one, but OpenBLAS reads this variable only when NumPy is
    loaded, which importing anything of tinyvae has done by now. So the program replaces itself, once.

    Not on Windows: there the shell would take the terminal back; the run goes on with the threads it has.
    """
    if os.name == "posix" and "OPENBLAS_NUM_THREADS" not in os.environ:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    main()
