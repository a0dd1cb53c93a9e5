"""`python -m tests.benchmarks [--quick] [--markdown FILE]`: every speed claim, side by side in one run.

One thread, and the BLAS kernels that the processor asks for: OPENBLAS_CORETYPE, if it is set, does not count. Each
times all competitors one after the other (A, B, C, A, B, C, …); the table gives medians over the rounds and the
median of the ratios within a round, so that a busy machine slows all alike.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy is imported
for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_name, None)
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import tempfile  # noqa: E402

_runs = tempfile.TemporaryDirectory(prefix="tinyvae-benchmarks-")  # not where the user's runs are
os.environ["TINYVAE_RUNS"] = _runs.name
import argparse  # noqa: E402
import platform  # noqa: E402
from pathlib import Path  # noqa: E402

from . import exact, growth, program, steps, timing  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file as well")
    args = parser.parse_args()
    tables = [
        f"Python {platform.python_version()}, one thread, BLAS kernels: {timing.blas_kernels()}; medians.\n"
    ]
    print(tables[0])
    for part in (steps, exact, program, growth):
        for table in part.tables(args.quick):
            print(table, flush=True)
            tables.append(table)
    if args.markdown:
        args.markdown.write_text("\n".join(tables), encoding="utf-8")


main()
