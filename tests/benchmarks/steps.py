"""A training step against autograd, PyTorch and JAX."""

from collections.abc import Iterator

import numpy as np

from .peers import Size, autograd_step, jax_steps, ours, torch_step
from .timing import ratio, side_by_side, table

SIZES = (Size(64, (32, 32), 2, 2), Size(128, (64, 64), 2, 16), Size(256, (32, 32), 1, 2))


def tables(quick: bool) -> Iterator[str]:
    rounds, n = (5, 50) if quick else (15, 200)
    rows, missing = [], set()
    for size in SIZES:
        jax = jax_steps(size)
        found = {
            "ours": ours(size), "ours by autograd": ours(size, "autograd"), "autograd": autograd_step(size),
            "torch": torch_step(size, False),
            "torch compiled": None if quick else torch_step(size, True),
            "jax each": jax and jax[0], "jax scan": jax and jax[1],
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
    head = [
        "batch, hidden, L, D",
        "ours",
        'ours, `gradients="autograd"`',
        "autograd alone",
        "PyTorch",
        "PyTorch compiled",
        "JAX jit per step",
        "JAX scan",
    ]
    yield table("A training step, float64: µs (and how many times ours)", head, rows)
    if missing:
        yield f"Missing here: {', '.join(sorted(missing))} (extra `bench`, or left out by --quick).\n"
