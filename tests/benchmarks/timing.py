"""Timing side by side, and Markdown tables."""

from collections.abc import Callable, Iterable, Sequence
from time import perf_counter

import numpy as np


def side_by_side(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of every run in every round, (rounds,) each, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for k in range(rounds + 1):
        for name, run in runs.items():
            began = perf_counter()
            run()
            if k:
                seconds[name].append(perf_counter() - began)
    return {name: np.array(values) for name, values in seconds.items()}


def blas_kernels() -> str:
    """The kernels that the BLAS libraries in use have chosen for this processor."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown (extra `bench` has threadpoolctl)"
    found = [info for info in threadpool_info() if info["user_api"] == "blas"]
    return ", ".join(f"{info['internal_api']} {info['version']} {info.get('architecture')}" for info in found)


def ratio(a: np.ndarray, b: np.ndarray) -> float:
    """How many times longer a takes than b: the median over the rounds."""
    return float(np.median(a / b))


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"\n### {title}\n", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)]) + "\n"
