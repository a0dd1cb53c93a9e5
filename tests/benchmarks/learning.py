"""`python -m tests.benchmarks.learning [--seeds N] [NAME ...]`: is each built-in set learned with its defaults?

A run with nothing but `--dataset NAME`, 4,000 steps, for the seeds 0, 1, … Then, on 512 fresh points from the truth:
mean log p_θ(x) minus the truth's. Also: the learned noise over the true one, and kl_prior over the mutual information
of the truth, I(x; z) = E[log p(x|z) − log p(x)]: a collapsed run has next to nothing of it. Exit code 1 if a
median misses what is asked for, or a seed has collapsed.
"""

import argparse
import sys
from dataclasses import dataclass

import numpy as np

import tinyvae as tv

from .timing import table

STEPS, FRESH = 4000, 512
ASKED = {"arc": -0.05, "crossing": -0.25, "pinwheel": -0.15, "linear": -0.08, "bars": -0.20}  # nats, at least
NOISE = {"arc": 0.2, "crossing": 0.2}  # the learned noise is within this part of the true one
COLLAPSED = 0.5  # of I(x; z): with less in kl_prior a run has collapsed


@dataclass(frozen=True)
class Learned:
    """Where one run ended."""

    behind: float  # mean log p_θ(x) − log p(x) on fresh points, nats
    noise: float | None  # learned over true
    used: float  # kl_prior over I(x; z)


def learned(name: str, seed: int, steps: int = STEPS) -> Learned:
    run = tv.Config(dataset=name, seed=seed, evaluate_every=0).open()
    for _ in run.trainer.steps(steps):
        pass
    truth, rng = run.data.truth, np.random.default_rng(np.random.SeedSequence(0, spawn_key=(99,)))
    assert truth is not None
    x, z = truth.sample(FRESH, rng)
    log_px = tv.Target(truth, None, x, 1e-4).log_px
    information = float((truth.log_likelihood(x, truth.outputs(z)) - log_px).mean())
    behind = float((tv.Target(run.model, run.trainer.theta, x, 1e-4).log_px - log_px).mean())
    noise = None
    if run.model.learns_noise and truth.noise_std is not None:
        noise = float(np.exp(run.trainer.theta[-1]) / truth.noise_std[0])
    used = float(run.model.encode(run.trainer.phi, x).kl_prior.mean()) / information
    return Learned(behind, noise, used)


def misses(name: str, runs: list[Learned]) -> list[str]:
    """What is asked for and was not reached."""
    found = []
    if (median := float(np.median([run.behind for run in runs]))) < ASKED[name]:
        found.append(f"{name}: {median:.3f} nats behind the truth, asked for {ASKED[name]}")
    if name in NOISE:
        off = abs(float(np.median([run.noise for run in runs if run.noise])) - 1)
        if off > NOISE[name]:
            found.append(f"{name}: the noise is {100 * off:.0f} % off, asked for {100 * NOISE[name]:.0f} %")
    found += [f"{name}: seed {k} has collapsed" for k, run in enumerate(runs) if run.used < COLLAPSED]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.learning", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ASKED)} (default: all)")
    parser.add_argument("--seeds", type=int, default=10, metavar="N")
    args = parser.parse_args()
    rows, missed = [], []
    for name in args.names or ASKED:
        runs = [learned(name, seed) for seed in range(args.seeds)]
        behind, used = ([getattr(run, what) for run in runs] for what in ("behind", "used"))
        noise = [run.noise for run in runs if run.noise]
        spread = f"{np.min(behind):.3f} / {np.median(behind):.3f} / {np.max(behind):.3f}"
        ratios = f"{np.min(noise):.2f} / {np.median(noise):.2f} / {np.max(noise):.2f}" if noise else "–"
        rows.append([name, spread, f"{ASKED[name]:.2f}", ratios, f"{np.min(used):.2f}"])
        missed += misses(name, runs)
    head = [
        "set",
        "behind the truth: min / median / max",
        "asked for",
        "noise / true noise",
        "least kl_prior / I(x; z)",
    ]
    print(table(f"After {STEPS} steps, {args.seeds} seeds, on {FRESH} fresh points", head, rows))
    print("\n".join(missed) or "All that is asked for is reached.")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
