"""A training step against autograd, PyTorch and JAX."""

from collections.abc import Iterator

import numpy as np

from .peers import Size, autograd_step, jax_steps, ours, torch_step
from .timing import ratio, side_by_side, table

SIZES = (Size(64, (32, 32), 2, 2), Size(128, (64, 64), 2, 16), Size(256, (32, 32), 1, 2))


def tables(quick: bool) -> Iterator[str]:
    for precision in ("float64", "float32"):  # one after the other: JAX and PyTorch know one default at a time
        yield from _table(precision, quick)


def _table(precision: str, quick: bool) -> Iterator[str]:
    rounds, n = (5, 50) if quick else (15, 200)
    rows, missing = [], set()
    for size in SIZES:
        jax = jax_steps(size, precision)
        found = {"ours": ours(size, precision=precision)}
        if precision == "float64":
            found |= {'ours, `gradients="autograd"`': ours(size, gradients="autograd")}
            found |= {"autograd alone": autograd_step(size)}
        found |= {
            "PyTorch": torch_step(size, False, precision),
            "PyTorch compiled": None if quick else torch_step(size, True, precision),
            "JAX jit per step": jax and jax[0], "JAX scan": jax and jax[1],
        }  # fmt: skip
        missing |= {name for name, run in found.items() if run is None}
        runs = {name: (lambda run=run: run(n)) for name, run in found.items() if run is not None}
        seconds = side_by_side(runs, rounds)
        row = [size.label]
        for name in found:
            if name not in seconds:
                row.append("–")
                continue
            micros = 1e6 * float(np.median(seconds[name])) / n
            times = "" if name == "ours" else f" ({ratio(seconds[name], seconds['ours']):.1f}×)"
            row.append(f"{micros:.0f}{times}")
        rows.append(row)
    yield table(
        f"A training step, {precision}: µs (and how many times ours)", ["batch, hidden, L, D", *found], rows
    )
    if missing:
        yield f"Missing here: {', '.join(sorted(missing))} (extra `bench`, or left out by --quick).\n"
