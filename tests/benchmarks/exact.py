"""What the exact terms cost beside a step, and beside the importance-weighted estimate of the literature."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tinyvae as tv
from tinyvae.exact import plain

from .timing import ratio, side_by_side, table


def trained(name: str, steps: int) -> tuple[Any, tv.Trainer]:
    data = tv.load_dataset(name)
    model = tv.VAE(data.x.shape[1], data.latent_dim, likelihood=data.likelihood)  # type: ignore[arg-type]
    trainer = tv.Trainer(model, data.x, evaluate_every=0)
    for _ in trainer.steps(steps):
        pass
    return model, trainer


def importance_weighted(model: Any, trainer: tv.Trainer, samples: int, seed: int = 0) -> NDArray[Any]:
    """log 1/K Σ_k p(x, z_k)/q(z_k), z_k ~ q (Burda et al. 2016): the usual estimate of log_px, (N,)."""
    x, theta, rng = trainer.evaluation_x, trainer.theta, np.random.default_rng(seed)
    q = model.encode(trainer.phi, x)
    weights = np.empty((len(x), samples))
    for n in range(len(x)):
        one = q[[n]]
        z = one.sample(rng.standard_normal((samples, 1, model.latent_dim)))
        log_likelihood = model.log_density(theta, x[n], model.decode(theta, z[:, 0]))
        weights[n] = log_likelihood + plain.log_normal(z[:, 0]) - one.log_prob(z)[:, 0]
    peak = weights.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(weights - peak).mean(axis=1)) + peak[:, 0])


def repeat(work: Callable[[], object], times: int) -> None:
    for _ in range(times):
        work()


def tables(quick: bool) -> Iterator[str]:
    rows, rounds = [], 5 if quick else 15
    for name, steps in (("arc", 600), ("crossing", 600), ("pinwheel", 600), ("bars", 300)):
        model, trainer = trained(name, steps)
        x, theta, phi = trainer.evaluation_x, trainer.theta.copy(), trainer.phi.copy()
        target = tv.Target(model, theta, x)
        watched = tv.Trainer(model, trainer.x)
        watched.theta[:], watched.phi[:] = theta, phi
        frozen = tv.Trainer(model, trainer.x, update=tv.Update(theta=False))
        frozen.theta[:], frozen.phi[:] = theta, phi
        # Each is done a few times in its turn, as in a run: once alone, it would mostly wait for the memory.
        times = dict.fromkeys(("terms", "joint", "phi"), 10 if model.latent_dim == 1 else 2)
        times |= {"step": 20, "iw": 1}
        work: dict[str, Callable[[], object]] = {
            "step": trainer.step,
            "terms": lambda: tv.decompose(model, theta, phi, x, tv.Target(model, theta, x)),
            "joint": watched.step,
            "phi": frozen.step,
            "iw": lambda: importance_weighted(model, trainer, 5000),
        }
        if quick:
            del work["iw"]
        runs = {name: partial(repeat, work[name], times[name]) for name in work}
        seconds = side_by_side(runs, rounds if model.latent_dim == 1 else max(3, rounds // 3))
        seconds = {name: taken / times[name] for name, taken in seconds.items()}
        step = seconds["step"]
        row = [name, f"R{'¹²'[model.latent_dim - 1]}, {len(x)}", f"{1e6 * np.median(step):.0f}"]
        row += [
            f"{1e3 * np.median(seconds[k]):.2f} ({ratio(seconds[k], step):.0f})"
            for k in ("terms", "joint", "phi")
        ]
        if "iw" in seconds:
            estimate = importance_weighted(model, trainer, 5000, seed=1)
            error = np.abs(estimate - tv.Target(model, trainer.theta, x).log_px).mean()
            cost = ratio(seconds["iw"], seconds["terms"])
            row.append(f"{cost:.0f}×, {error:.0e} against {target.error.max():.0e}")
        rows.append(row)
    head = ["dataset", "z, points", "fused step µs", "all terms ms (steps)", "joint step with attribution ms (steps)",
            "φ-only step ms (steps)", "importance weighting, 5,000 samples: cost, error (nats)"]  # fmt: skip
    yield table("The exact terms", head[: len(rows[0])], rows)
