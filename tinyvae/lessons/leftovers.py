"""Lessons 10 to 12: what is left of the gap, how q can fail, how to read the prior term."""

from dataclasses import replace

import numpy as np

from ..datasets import load_dataset
from ..exact.gap import split_gap
from ..gaussian import Gaussian
from ..runs import Config
from ..settings import Update
from .lesson import UP_DOWN, Claim, Lesson, Measured, Phase, change, direction, from_to
from .linear import Linear
from .setting import ARC, BOTH, exact_run, seeds, steps

# ----- 10 -----

FEW, GAP_STEPS = 5, 4000  # runs whose mean is taken, and how long each trains
# A noise that stays: how bent the posterior is then depends on the net alone. One draw of z a point is enough.
EIGHT = Config(dataset="crossing", n=64, hidden=(16,), noise_std=0.1, learning_rate=5e-3, samples=1)


def gap_of(hidden: tuple[int, ...], seed: int, n: int) -> tuple[float, float]:
    """Mean approximation and amortisation gap after n steps on the figure of eight, the noise fixed at 0.1."""
    run = replace(GAP, config=replace(EIGHT, hidden=hidden)).open(seed, evaluate_every=0)
    steps(run, n, BOTH)
    at = run.trainer.evaluate()
    split = split_gap(at.target, at.q).mean()
    return split.approximation, split.amortisation


def measure_gap(seed: int) -> Measured:
    measured: dict[str, float] = {}
    for name, hidden, n in (("0", (), 500), ("1", (16,), GAP_STEPS), ("2", (16, 16), GAP_STEPS)):
        runs = np.array([gap_of(hidden, k, n) for k in seeds(seed, FEW)])
        measured[f"approximation_{name}"], measured[f"amortisation_{name}"] = runs.mean(axis=0).tolist()
        measured[f"least_{name}"] = float(runs.min())
    floors = np.array([floors_of_families(k) for k in seeds(seed, FEW)])
    measured["own_family"], measured["other_family"] = floors.mean(axis=0).tolist()
    measured["lowered"] = measured["approximation_2"] / measured["approximation_1"]
    measured["least"] = min(measured[f"least_{k}"] for k in "012")
    measured["left"] = min(measured["amortisation_1"], measured["amortisation_2"])
    return measured


def floors_of_families(seed: int) -> tuple[float, float]:
    """How far the best diagonal q stays from a linear decoder trained with a diagonal q, or with a full one."""
    x, floors = load_dataset("linear", n=100, seed=seed).x, []
    for covariance in ("diagonal", "full"):
        training = exact_run(covariance, "per-dimension", x, seed).train(2000, 1e-2, last=0.1)
        floors.append(Linear.of(training.model, training.theta).kl_posterior_floor())
    return floors[0], floors[1]


GAP = Lesson(
    name="gap",
    title="What is left of the gap",
    claim="kl_posterior is the sum of what no q of the family can close (approximation) and what this "
    "encoder leaves open (amortisation). Here a second hidden layer usually lowers the first; a decoder "
    "suits the family it was trained with.",
    source="Cremer, Li & Duvenaud 2018 (arXiv 1801.03558), sections 3 and 5",
    look_at=("bound", "latent"),
    config=EIGHT,
    measure=measure_gap,
    claims=(
        Claim(
            "no hidden layer: the posterior is Gaussian, approximation gap (mean of 5 runs)",
            "approximation_0",
            high=1e-6,
            seen="5.4e-13 to 5.47e-13",
        ),
        Claim(
            "one hidden layer: the posterior is bent (mean of 5 runs)",
            "approximation_1",
            low=0.01,
            seen="0.0404 to 0.0886",
        ),
        Claim(
            "a second layer lowers it (ratio of the means of 5 runs)",
            "lowered",
            high=0.95,
            seen="0.431 to 0.777",
        ),
        Claim(
            "what the encoder leaves open is there too (the smaller mean)",
            "left",
            low=0.02,
            seen="0.187 to 0.409",
        ),
        Claim("neither part is ever negative (the smallest)", "least", low=-1e-6, seen="5.28e-13 to 5.42e-13"),
        Claim(
            "diagonal floor of a decoder trained with a diagonal q (mean of 5)",
            "own_family",
            high=0.002,
            seen="2.92e-06 to 0.000293",
        ),
        Claim(
            "... of one trained with a full q: it fits badly (mean of 5)",
            "other_family",
            low=0.05,
            seen="0.263 to 0.701",
        ),
    ),
    explain=lambda m: (
        "Means of five runs on the figure of eight, noise fixed at 0.1. Approximation gap with 0, 1 and 2 "
        f"hidden layers: {m['approximation_0']:.4f}, {m['approximation_1']:.4f}, {m['approximation_2']:.4f} "
        f"nats; amortisation gap with 1 and 2: {m['amortisation_1']:.3f}, {m['amortisation_2']:.3f}. That the "
        "second layer lowers the first is no law: in runs on the pinwheel it raised it. A linear decoder "
        f"trained with a diagonal q leaves a diagonal q {m['own_family']:.4f} nats off at best; one trained "
        f"with a full q, {m['other_family']:.3f}."
    ),
    phases=(
        Phase(
            "Both groups train on the figure of eight, with a small noise that stays.",
            "At the end, will the gap be zero?",
            ("yes: training closes it", "no: some of it stays"),
            lambda rows: int(rows[-1]["kl_posterior"] > 0.02),
            lambda rows: (
                f"kl_posterior is {rows[-1]['kl_posterior']:.4f}. How much of it any "
                "Gaussian would leave open, and how much this encoder does, the split of the gap tells."
            ),
            2000,
        ),
    ),
)


# ----- 11 -----

LAG_RUNS, LAG_STEPS, NOISY, COLLAPSED = (
    8,
    200,
    1.0,
    0.5,
)  # nats of kl_prior below which a run counts as collapsed
FAST_THETA = {"theta_rate": 3e-2, "phi_rate": 7e-4}


def kl_priors(
    config: Config, seed: int, rates: tuple[float, float], phi_steps: int, n: int
) -> tuple[float, float]:
    """kl_prior and log_px after n steps."""
    run = replace(config, seed=seed, data_seed=seed, evaluate_every=0).open()
    run.trainer.settings = replace(run.trainer.settings, theta_rate=rates[0], phi_rate=rates[1])
    steps(run, n, Update(phi_steps=phi_steps))
    terms = run.trainer.evaluate().terms
    return terms.kl_prior, terms.log_px


def measure_collapse(seed: int) -> Measured:
    lagging = COLLAPSE.config
    assert lagging is not None
    noisy = replace(lagging, noise="shared", noise_std=NOISY)
    rates = (FAST_THETA["theta_rate"], FAST_THETA["phi_rate"])
    runs = seeds(seed, LAG_RUNS)
    together, ahead, later = (
        np.array([kl_priors(lagging, k, rates, phi_steps, n) for k in runs])
        for phi_steps, n in ((1, LAG_STEPS), (10, LAG_STEPS), (1, 10 * LAG_STEPS))
    )
    collapsed = [
        kl_priors(noisy, k, (3e-3, 3e-3), phi_steps, 1000)[0] for phi_steps in (1, 5) for k in runs[:2]
    ]
    return {
        "runs": float(len(runs)),
        "together": float((together[:, 0] < COLLAPSED).sum()),
        "ahead": float((ahead[:, 0] < COLLAPSED).sum()),
        "later": float((later[:, 0] < COLLAPSED).sum()),
        "kl_together": float(np.median(together[:, 0])),
        "kl_ahead": float(np.median(ahead[:, 0])),
        "log_px_gain": float(np.median(ahead[:, 1]) - np.median(together[:, 1])),
        "noisy": float(max(collapsed)),
    }


COLLAPSE = Lesson(
    name="collapse",
    title="Collapse and lagging",
    claim="q collapses to the prior when the decoder learns faster than the encoder and stops using z; more "
    "φ-updates per θ-update usually prevent that. Where the noise is fixed too high, collapse is the optimum "
    "and no ratio helps.",
    source="He, Spokoyny, Neubig & Berg-Kirkpatrick 2019 (arXiv 1901.05534), section 4; Lucas et al. 2019 "
    "(arXiv 1911.02469) for the noise",
    look_at=("chase", "parts"),
    config=replace(ARC, noise="per-dimension"),
    measure=measure_collapse,
    claims=(
        Claim(
            "k_φ:k_θ = 1:1: collapsed runs of 8 after 200 steps (kl_prior < 0.5)",
            "together",
            5,
            8,
            seen="7 to 8",
        ),
        Claim("k_φ:k_θ = 10:1: collapsed runs of 8 after 200 steps", "ahead", 0, 4, seen="0 to 2"),
        Claim(
            "the runs that use z have the higher log_px (medians, nats)",
            "log_px_gain",
            low=0.3,
            seen="0.474 to 0.676",
        ),
        Claim(
            "noise fixed at 1: collapsed with 1:1 and with 5:1 (largest kl_prior)",
            "noisy",
            high=0.05,
            seen="0.000373 to 0.0052",
        ),
    ),
    explain=lambda m: (
        f"θ learns 43 times as fast as φ. With one update each {m['together']:.0f} of {m['runs']:.0f} runs "
        f"had collapsed after 200 steps (median kl_prior {m['kl_together']:.3f}); with ten φ-updates to one "
        f"of θ {m['ahead']:.0f} had (median {m['kl_ahead']:.3f}), and log_px was {m['log_px_gain']:.2f} nats "
        f"higher. (With as many φ-updates, 2,000, at one to one, {m['later']:.0f} were collapsed still: some "
        "find their way out late.) With the noise fixed at 1, as wide as the arc itself, kl_prior stayed "
        f"below {m['noisy']:.4f} whatever the ratio: there collapse is what the ELBO asks for."
    ),
    phases=(
        Phase(
            "θ learns 43 times as fast as φ, one update each.",
            "What will become of q?",
            ("it uses z: kl_prior above 0.5", "it collapses to the prior: kl_prior below 0.5"),
            lambda rows: int(rows[-1]["kl_prior"] < COLLAPSED),
            lambda rows: f"kl_prior went from {from_to(rows, 'kl_prior')}, log_px to {rows[-1]['log_px']:.4f}.",
            200,
            FAST_THETA,
        ),
        Phase(
            "From here, ten φ-updates to each of θ.",
            "Will q come to use z?",
            ("yes: kl_prior above 0.5", "not yet: below 0.5"),
            lambda rows: int(rows[-1]["kl_prior"] < COLLAPSED),
            lambda rows: f"kl_prior went from {from_to(rows, 'kl_prior')}, log_px to {rows[-1]['log_px']:.4f}.",
            400,
            {"phi_steps": 10},
        ),
    ),
)


# ----- 12 -----


def split_prior_term(q: Gaussian) -> tuple[float, float]:
    """I_q(x; z) and KL(q̄(z) ‖ p(z)) for z ∈ R¹, q̄ the mean of the q's, by the trapezoid rule, nats.

    I_q(x; z) = mean over n of KL(q_n ‖ q̄): how much z tells about which data point it came from.
    """
    std = np.exp(q.log_diag)
    reach = float((np.abs(q.mean) + 10 * std).max())
    z, h = np.linspace(-reach, reach, 2 * int(reach / min(0.02, std.min() / 8)) + 1, retstep=True)
    log_q = q.log_prob(z[:, None, None]).T  # (N, G)
    top = log_q.max(axis=0)
    log_mean = top + np.log(np.exp(log_q - top).mean(axis=0))
    log_prior = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    information = (np.exp(log_q) * (log_q - log_mean)).sum(axis=1).mean() * h
    marginal = (np.exp(log_mean) * (log_mean - log_prior)).sum() * h
    return float(information), float(marginal)


def measure_prior_term(seed: int) -> Measured:
    run = PRIOR_TERM.open(seed, evaluate_every=0)
    model, trainer = run.model, run.trainer
    worst, at = 0.0, []
    for n in (0, 100, 1900):
        steps(run, n, BOTH)
        q = model.encode(trainer.phi, trainer.x)
        parts = split_prior_term(q)
        worst = max(worst, abs(float(q.kl_prior.mean()) - sum(parts)))
        at.append(parts)
    return {
        "difference": worst,
        "information_first": at[0][0],
        "information": at[-1][0],
        "marginal_first": at[0][1],
        "marginal": at[-1][1],
        "most": float(np.log(len(trainer.x))),
        "room": float(np.log(len(trainer.x))) - at[-1][0],
        "share": at[-1][0] / sum(at[-1]),
        "kl_prior": sum(at[-1]),
    }


PRIOR_TERM = Lesson(
    name="prior-term",
    title="Reading the prior term",
    claim="kl_prior, averaged over the data, is what z tells about x plus how far all q's together are from "
    "the prior. Only the second part should be zero.",
    source="Hoffman & Johnson 2016 (ELBO surgery): the index-code mutual information and the marginal KL",
    look_at=("parts", "latent"),
    config=ARC,
    measure=measure_prior_term,
    claims=(
        Claim(
            "kl_prior = I_q(x; z) + KL(q_mean||p), on the grid (largest difference)",
            "difference",
            high=1e-9,
            seen="2.78e-17 to 8.88e-16",
        ),
        Claim("z tells something about x after training (nats)", "information", low=1.0, seen="1.96 to 2.16"),
        Claim("... and never more than log N (nats left)", "room", low=0.0, seen="2 to 2.2"),
        Claim("after training most of kl_prior is that (share)", "share", low=0.8, seen="0.97 to 0.979"),
        Claim("KL(q_mean||p) is not negative", "marginal", low=-1e-9, seen="0.0416 to 0.0653"),
    ),
    explain=lambda m: (
        f"After training kl_prior is {m['kl_prior']:.4f}: {m['information']:.4f} of it is information about x "
        f"(at most log N = {m['most']:.4f}), {m['marginal']:.4f} is the mismatch of all q's together with the "
        f"prior. The two add up to kl_prior to {m['difference']:.0e}. A small kl_prior is no merit in itself: "
        "it can mean that z says nothing."
    ),
    phases=(
        Phase(
            "Both groups train.",
            "What will KL(q||p(z)) do?",
            UP_DOWN,
            direction("kl_prior"),
            lambda rows: (
                f"kl_prior went from {from_to(rows, 'kl_prior')}: it pays for what z tells about x, and the "
                f"reconstruction gained {change(rows, 'reconstruction'):+.4f}."
            ),
            1000,
        ),
    ),
)


LESSONS = (GAP, COLLAPSE, PRIOR_TERM)
