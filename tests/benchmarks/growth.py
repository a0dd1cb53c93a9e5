"""How the cost of the exact terms grows, with the exponent fitted."""

from collections.abc import Iterator
from typing import Any

import numpy as np

import tinyvae as tv

from .timing import side_by_side, table


def milliseconds(latent: int, n: int, hidden: int, data_dim: int, tolerance: float, rounds: int) -> float:
    model: Any = tv.VAE(data_dim, latent, (hidden, hidden))
    theta, phi = model.init(0)
    x = model.decode(theta, np.random.default_rng(0).standard_normal((n, latent)))
    x = x + 0.3 * np.random.default_rng(1).standard_normal(x.shape)
    theta[-1] = np.log(0.3)
    run = {"terms": lambda: tv.decompose(model, theta, phi, x, tv.Target(model, theta, x, tolerance))}
    return 1e3 * float(np.median(side_by_side(run, rounds)["terms"]))


def tables(quick: bool) -> Iterator[str]:
    rounds = 1 if quick else 3
    sweeps: dict[str, list[Any]] = {
        "points": [64, 256, 1024] if quick else [64, 256, 1024, 4096, 16384],
        "hidden": [16, 64] if quick else [16, 32, 64, 128, 256],
        "data dims": [2, 16] if quick else [2, 16, 128, 784],
        "tolerance": [1e-3, 1e-9] if quick else [1e-3, 1e-6, 1e-9, 1e-12],
    }
    for latent in (1, 2):
        plain = {"points": 256 if latent == 1 else 64, "hidden": 32, "data dims": 2}
        plain_tolerance = 1e-9 if latent == 1 else 1e-6
        rows = []
        for name, values in sweeps.items():
            cost = []
            for value in values:
                at = {**plain, name: value} if name != "tolerance" else plain
                tolerance = value if name == "tolerance" else plain_tolerance
                cost.append(
                    milliseconds(latent, at["points"], at["hidden"], at["data dims"], tolerance, rounds)
                )
            scale = np.log(1 / np.array(values)) if name == "tolerance" else np.array(values, dtype=float)
            exponent = np.polyfit(np.log(scale), np.log(cost), 1)[0]
            of = "log 1/tolerance" if name == "tolerance" else name
            steps = ", ".join(f"{v:g}: {c:.1f}" for v, c in zip(values, cost))
            rows.append([name, steps, f"{exponent:.2f} in {of}"])
        title = f"How the exact terms grow, z ∈ R{'¹²'[latent - 1]}: ms for target and terms"
        yield table(title, ["what grows", "size: ms", "fitted exponent"], rows)
