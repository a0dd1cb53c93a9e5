"""Set up before any test: one thread for linear algebra, so that timings and bits do not depend on the machine."""

import os
import tempfile

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_name, "1")

_runs = tempfile.TemporaryDirectory(prefix="tinyvae-tests-")  # not where the user's runs are
os.environ["TINYVAE_RUNS"] = _runs.name
