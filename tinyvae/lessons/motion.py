"""Lessons 5 to 7: what the essay says about a whole run, in which θ and φ move together or in turn."""

from dataclasses import replace
from typing import Any

import numpy as np

from ..datasets import load_dataset
from ..exact import decompose
from ..runs import Config
from .lesson import UP_DOWN, Claim, Lesson, Measured, Phase, Rows, direction, from_to
from .linear import Exact, Linear
from .setting import ARC, BIT, BOTH, LINEAR, PHI_ONLY, THETA_ONLY, column, level_scale, steps, train_and_record

# ----- 5 -----


def both_rose(elbo: Any, kl_posterior: Any) -> tuple[int, int]:
    """In how many steps the ELBO rose, and in how many of these kl_posterior rose too."""
    rose = np.diff(elbo) > 0
    return int(rose.sum()), int((rose & (np.diff(kl_posterior) > 0)).sum())


def longest_rise(elbo: Any, kl_posterior: Any) -> float:
    """The most that kl_posterior rose from any step to any later one with a higher ELBO, nats."""
    rise = kl_posterior[None, :] - kl_posterior[:, None]
    later = np.triu(elbo[None, :] > elbo[:, None])
    return float(np.where(later, rise, 0.0).max())


def measure_both(seed: int) -> Measured:
    run = BOTH_MOVE.open(seed)
    first, records = run.trainer.evaluate().terms, steps(run, 600, BOTH)
    terms = [first] + [r.terms for r in records if r.terms]
    rose, both = both_rose(column(terms, "elbo"), column(terms, "kl_posterior"))
    moved = np.array([r.target_moved for r in records])
    by_phi = np.array([r.attribution.phi.kl_posterior for r in records if r.attribution])
    by_theta = np.array([r.attribution.theta.kl_posterior for r in records if r.attribution])
    return {
        "steps": float(len(records)),
        "rose": float(rose),
        "both": float(both),
        "fraction": both / max(rose, 1),
        "longest": longest_rise(column(terms, "elbo"), column(terms, "kl_posterior")),
        "gain": terms[-1].elbo - terms[0].elbo,
        "never_still": float((moved <= 0).sum()),
        "moved": float(moved.mean()),
        "recovered": float(-by_phi.mean()),
        "opened": float(by_theta[len(by_theta) // 2 :].sum()),
        "closed": float(-by_phi[len(by_phi) // 2 :].sum()),
        "by_phi": float(by_phi.sum()),
    }


BOTH_MOVE = Lesson(
    name="both-move",
    title="Both move",
    claim="When θ moves too, a higher ELBO does not promise a better q: there are many steps in which the "
    "ELBO and KL(q||p_θ(z|x)) rise together. φ follows a target that moves at every step.",
    source="the essay; He, Spokoyny, Neubig & Berg-Kirkpatrick 2019 (arXiv 1901.05534), section 3, on the "
    "moving target",
    look_at=("chase", "bound", "pursuit"),
    config=Config(dataset="crossing", n=64, hidden=(16,)),
    measure=measure_both,
    claims=(
        Claim(
            "steps in which the ELBO rose and kl_posterior rose too (of 600)", "both", low=25, seen="85 to 143"
        ),
        Claim(
            "the largest rise of kl_posterior between two steps while the ELBO rose (nats)",
            "longest",
            low=0.1,
            seen="0.61 to 7.5",
        ),
        Claim("the ELBO rises over the run (nats)", "gain", low=10.0, seen="67.9 to 124"),
        Claim("steps in which the target stood still", "never_still", 0, 0, seen="0"),
        Claim("what φ did to kl_posterior, over all steps (nats)", "by_phi", high=-5.0, seen="-46.8 to -19.3"),
    ),
    explain=lambda m: (
        f"The ELBO rose in {m['rose']:.0f} of {m['steps']:.0f} steps, and in {m['both']:.0f} of these "
        f"({100 * m['fraction']:.0f} %) kl_posterior rose too. Over the run the ELBO gained {m['gain']:.3f}. "
        f"In a mean step the target moved by {m['moved']:.1e} nats and φ recovered {m['recovered']:.1e}. In "
        f"the second half θ changed kl_posterior by {m['opened']:+.4f} and φ by {-m['closed']:+.4f}."
    ),
    phases=(
        Phase(
            "Both groups train on a figure of eight.",
            "The ELBO rises over the run. In the steps in which it rises, what does kl_posterior do?",
            ("it always falls", "it rises in some of them, in fewer than half", "it rises in most of them"),
            lambda rows: _share_of_both(rows),
            lambda rows: "The ELBO rose in {} steps; in {} of these kl_posterior rose too.".format(
                *_counts(rows)
            ),
            600,
        ),
    ),
)


def _counts(rows: Rows) -> tuple[int, int]:
    return both_rose(*(np.array([r[name] for r in rows]) for name in ("elbo", "kl_posterior")))


def _share_of_both(rows: Rows) -> int:
    rose, both = _counts(rows)
    return 0 if both == 0 else 1 + int(2 * both > rose)


# ----- 6 -----

FITTED = 2000  # steps of φ alone; after fewer q has not closed the gap yet, and θ has less to open


def measure_theta(seed: int) -> Measured:
    fresh = THETA_ALONE.open(seed, evaluate_every=50)
    closing = train_and_record(fresh, 300, THETA_ONLY)
    fitted = THETA_ALONE.open(seed, evaluate_every=50)
    fitted.trainer.evaluate_every = 0
    steps(fitted, FITTED, PHI_ONLY)
    fitted.trainer.evaluate_every = 50
    opening = train_and_record(fitted, 300, THETA_ONLY)
    return {
        "kl_prior_values": float(max(len(set(column(t, "kl_prior"))) for t in (closing, opening))),
        "closing_from": closing[0].kl_posterior,
        "closing_to": closing[-1].kl_posterior,
        "closing": closing[-1].kl_posterior / closing[0].kl_posterior,
        "opening_from": opening[0].kl_posterior,
        "opening_to": opening[-1].kl_posterior,
        "opening": opening[-1].kl_posterior / opening[0].kl_posterior,
        "log_px": min(t[-1].log_px - t[0].log_px for t in (closing, opening)),
        "kl_prior": opening[-1].kl_prior,
    }


THETA_ALONE = Lesson(
    name="theta-alone",
    title="θ alone",
    claim="With φ fixed KL(q||p(z)) is a constant. θ usually opens the gap that φ had closed; but not "
    "always: from a q that nothing fits, θ closes it.",
    source="Neal & Hinton 1998 (the M step); the program's own runs",
    look_at=("bound", "parts"),
    config=replace(ARC, update=THETA_ONLY),
    measure=measure_theta,
    claims=(
        Claim("kl_prior takes one value, bit for bit (how many values)", "kl_prior_values", 1, 1, seen="1"),
        Claim(
            "after φ was fitted, θ opens the gap (kl_posterior, times)", "opening", low=1.5, seen="2.44 to 17.7"
        ),
        Claim(
            "from the first weights, θ closes some of it (kl_posterior, times)",
            "closing",
            high=0.5,
            seen="0.0119 to 0.178",
        ),
        Claim("log_px rises in both (nats, the smaller)", "log_px", low=0.5, seen="2.22 to 5.88"),
    ),
    explain=lambda m: (
        f"kl_prior stayed {m['kl_prior']:.6f}, {BIT}. After φ had been fitted, 300 steps of θ took "
        f"kl_posterior from {m['opening_from']:.4f} to {m['opening_to']:.4f}; from the first weights they "
        f"took it from {m['closing_from']:.4f} to {m['closing_to']:.4f}."
    ),
    phases=(
        Phase(
            "Only θ trains, from the first weights.",
            "What will the gap, KL(q||p_θ(z|x)), do?",
            UP_DOWN,
            direction("kl_posterior"),
            lambda rows: (
                f"kl_prior stayed {rows[-1]['kl_prior']:.6f}; kl_posterior went from "
                f"{from_to(rows, 'kl_posterior')}."
            ),
            100,
            {"theta": True, "phi": False},
        ),
        Phase(
            "Only φ trains: q goes to the posterior.",
            "What will log p(x) do?",
            UP_DOWN,
            direction("log_px"),
            lambda rows: (
                f"log_px stayed {rows[-1]['log_px']:.6f}; kl_posterior went from "
                f"{from_to(rows, 'kl_posterior')}."
            ),
            FITTED,
            {"theta": False, "phi": True},
        ),
        Phase(
            "Only θ trains again, now from a q that fits.",
            "And the gap this time?",
            UP_DOWN,
            direction("kl_posterior"),
            lambda rows: f"kl_posterior went from {from_to(rows, 'kl_posterior')}.",
            300,
            {"theta": True, "phi": False},
        ),
    ),
)


# ----- 7 -----


def measure_em(seed: int) -> Measured:
    run = E_AND_M.open(seed)
    x = load_dataset("linear", n=400, seed=seed).x
    training = Exact(run.model, x, run.trainer.theta, run.trainer.phi)
    at, off = [training.terms()], []
    for theta in (False, True, False, True):
        training.train(1000, 1e-2, theta=theta, phi=not theta)
        at.append(training.terms())
        part = x[:8]
        certified = decompose(run.model, training.theta, training.phi, part)
        linear, q = Linear.of(run.model, training.theta), run.model.encode(training.phi, part)
        off.append(np.abs(certified.log_px - linear.log_px(part)).max())
        off.append(np.abs(certified.kl_posterior - linear.kl_posterior(part, q)).max())
    log_px, gap = (np.array(values) for values in zip(*[(a, b) for a, b, _ in at]))
    return {
        "closed_form": float(max(off)),
        "flat": float(np.abs(np.diff(log_px)[[0, 2]]).max()),
        "tight": float(gap[[1, 3]].max()),
        "rise_1": float(log_px[2] - log_px[1]),
        "rise_2": float(log_px[4] - log_px[3]),
        "rise": float(np.diff(log_px)[[1, 3]].min()),
        "gap_1": float(gap[2]),
        "gap_2": float(gap[4]),
        "gap": float(gap[[2, 4]].min()),
        "elbo": float(np.diff(log_px - gap).min()),
    }


E_AND_M = Lesson(
    name="e-and-m",
    title="E and M",
    claim="Turns of φ alone and θ alone are the E and the M step: φ makes the bound tight without moving log "
    "p(x), θ raises log p(x) and leaves a gap for the next turn.",
    source="Neal & Hinton 1998 (EM climbs one function of q and θ in turn); Rubin & Thayer 1982 (EM for "
    "factor analysis)",
    look_at=("bound", "chase"),
    config=LINEAR,
    prepare=level_scale,
    measure=measure_em,
    claims=(
        Claim(
            "every phase: certified terms against the closed form (largest difference)",
            "closed_form",
            high=1e-6,
            seen="1.83e-10 to 4.82e-10",
        ),
        Claim("φ-phases: log_px does not move (nats)", "flat", 0, 0, seen="0"),
        Claim(
            "φ-phases: the bound is tight at the end (kl_posterior)",
            "tight",
            high=0.1,
            seen="2.98e-11 to 0.0275",
        ),
        Claim("θ-phases: log_px rises (nats, the smaller rise)", "rise", low=0.01, seen="0.186 to 0.42"),
        Claim(
            "θ-phases: a gap is open at the end (kl_posterior, the smaller)",
            "gap",
            low=0.01,
            seen="0.0666 to 0.167",
        ),
        Claim(
            "the ELBO rises in every phase (nats, the smallest rise)", "elbo", low=0.001, seen="0.12 to 0.263"
        ),
    ),
    explain=lambda m: (
        f"After each φ-phase kl_posterior was at most {m['tight']:.1e} and log_px had not moved. The θ-phases "
        f"raised log_px by {m['rise_1']:.4f} and {m['rise_2']:.4f} and left gaps of {m['gap_1']:.4f} and "
        f"{m['gap_2']:.4f}. All this with exact full-batch gradients; the closed form agrees to "
        f"{m['closed_form']:.0e}."
    ),
    phases=tuple(
        Phase(
            f"{'Only φ trains (the E step)' if phi else 'Only θ trains (the M step)'}, turn {turn}.",
            "What will log p(x) do?" if phi else "What will the gap do?",
            UP_DOWN,
            direction("log_px" if phi else "kl_posterior"),
            lambda rows: (
                f"log_px {rows[0]['log_px']:.4f} -> {rows[-1]['log_px']:.4f}, "
                f"kl_posterior {rows[0]['kl_posterior']:.4f} -> {rows[-1]['kl_posterior']:.4f}."
            ),
            500,
            {"theta": not phi, "phi": phi, "samples": 4},
        )
        for turn in (1, 2)
        for phi in (True, False)
    ),
)


LESSONS = (BOTH_MOVE, THETA_ALONE, E_AND_M)
