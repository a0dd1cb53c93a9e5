"""Lessons 1 to 4: what the essay says about one step."""

from dataclasses import replace
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import grad

from .. import ops
from ..checks import Array
from ..datasets import load_dataset
from ..exact import MeanTerms, decompose, plain
from ..exact.gap import split_gap
from ..model import VAE
from ..training import Trainer
from .lesson import UP_DOWN, Claim, Lesson, Measured, Phase, Rows, change, direction, from_to
from .linear import Exact
from .setting import ARC, BIT, BOTH, LINEAR, PHI_ONLY, at_truth, column, level_scale, steps, train_and_record
from .truth import TrueMeter

# ----- 1 -----


def with_plus(terms: MeanTerms) -> float:
    """The identity as the essay prints it, plus before kl_prior: left side minus right side."""
    return terms.log_px - (terms.reconstruction + terms.kl_prior + terms.kl_posterior)


def measure_identity(seed: int) -> Measured:
    line = train_and_record(IDENTITY.open(seed), 300, BOTH)
    on_a_plane = replace(IDENTITY, config=replace(LINEAR, n=8), prepare=level_scale)
    plane = train_and_record(on_a_plane.open(seed, 20), 200, BOTH)
    plus = [with_plus(t) + 2 * t.kl_prior for t in line]
    return {
        "residual": max(abs(t.residual) for t in line),
        "residual_plane": max(abs(t.residual) for t in plane),
        "error": max(t.error for t in line),
        "plus": max(map(abs, plus)),
        "kl_prior": line[-1].kl_prior,
        "miss": abs(with_plus(line[-1])),
    }


IDENTITY = Lesson(
    name="identity",
    title="The identity, and a sign",
    claim="log p(x) is reconstruction minus the prior term plus the posterior term, at any θ and φ. "
    "With a plus before the prior term, as the essay prints it, the formula misses by twice that term.",
    source="Kingma & Welling 2014 (arXiv 1312.6114), eqs. 1-3",
    look_at=("bound", "parts"),
    config=ARC,
    measure=measure_identity,
    claims=(
        Claim(
            "z in R^1: the identity closes at every step (largest residual)",
            "residual",
            high=1e-9,
            seen="1.78e-14 to 2.5e-10",
        ),
        Claim(
            "z in R^2: the identity closes (largest residual)",
            "residual_plane",
            high=1e-6,
            seen="2.36e-11 to 4.34e-11",
        ),
        Claim(
            "with a plus, the miss is 2 kl_prior (largest difference from that)",
            "plus",
            high=1e-9,
            seen="2.22e-15 to 3.22e-11",
        ),
        Claim("... and that is no small number (after 300 steps)", "miss", low=0.5, seen="2.05 to 2.87"),
    ),
    explain=lambda m: (
        f"The residual stayed below {m['residual']:.0e} nats. At the last step kl_prior is "
        f"{m['kl_prior']:.4f}, and the formula with a plus misses by {m['miss']:.4f}: twice that. The minus "
        "is right."
    ),
    phases=(
        Phase(
            "Both groups train.",
            "How far will the identity be from closing while everything moves?",
            (
                "it closes to rounding at every step",
                "it opens while the fit is bad",
                "it closes only at the end",
            ),
            lambda rows: 0 if max(abs(r["residual"]) for r in rows) < 1e-6 else 1,
            lambda rows: (
                f"The largest residual was {max(abs(r['residual']) for r in rows):.0e} nats. With a plus "
                f"before kl_prior it would be {2 * rows[-1]['kl_prior']:.4f}."
            ),
            300,
        ),
    ),
)


# ----- 2 -----


def measure_original(seed: int) -> Measured:
    run = ORIGINAL.open(seed, evaluate_every=20)
    terms = train_and_record(run, 200, PHI_ONLY)
    # The noise of sampled gradients keeps q a little off; the way to the end is taken without it.
    trainer, x = run.trainer, run.trainer.x
    phi = Exact(run.model, x, trainer.theta, trainer.phi).train(3000, 1e-2, theta=False, last=0.1).phi
    terms.append(decompose(run.model, trainer.theta, phi, x).mean())
    gained, lost = np.diff(column(terms, "elbo")), -np.diff(column(terms, "kl_posterior"))
    return {
        "log_px_values": float(len(set(column(terms, "log_px")))),
        "gained_minus_lost": float(np.abs(gained - lost).max()),
        "gained": float(gained.sum()),
        "kl_first": terms[0].kl_posterior,
        "kl_last": terms[-1].kl_posterior,
        "log_px": terms[-1].log_px,
    }


ORIGINAL = Lesson(
    name="original",
    title="The original ELBO",
    claim="With θ fixed log p(x) is a constant, so what the ELBO gains is what KL(q||p(z|x)) loses. With θ "
    "fixed at the truth, q arrives at the true posterior.",
    source="Jordan, Ghahramani, Jaakkola & Saul 1999, section 6; Kingma & Welling 2014, eq. 1",
    look_at=("bound", "latent"),
    config=replace(LINEAR, update=PHI_ONLY),
    prepare=at_truth,
    measure=measure_original,
    claims=(
        Claim("log_px takes one value, bit for bit (how many values)", "log_px_values", 1, 1, seen="1"),
        Claim(
            "every nat the ELBO gains, kl_posterior loses (largest difference)",
            "gained_minus_lost",
            high=1e-6,
            seen="7.11e-15 to 5.68e-14",
        ),
        Claim("there was something to gain (nats)", "gained", low=1.0, seen="129 to 891"),
        Claim(
            "q arrives at the true posterior (kl_posterior at the end)",
            "kl_last",
            high=0.01,
            seen="-6.5e-12 to 5.4e-13",
        ),
    ),
    explain=lambda m: (
        f"log_px stayed {m['log_px']:.6f}, {BIT}. The ELBO gained {m['gained']:.4f} nats and kl_posterior "
        f"went from {m['kl_first']:.4f} to {m['kl_last']:.4f}: the same nats. θ is the truth here, so q is "
        "now the true posterior."
    ),
    phases=(
        Phase(
            "θ is the truth and stays; only φ trains.",
            "What will log p(x) do?",
            UP_DOWN,
            direction("log_px"),
            lambda rows: (
                f"log_px stayed {rows[-1]['log_px']:.6f}; kl_posterior went from "
                f"{from_to(rows, 'kl_posterior')} and the ELBO gained exactly that, "
                f"{change(rows, 'elbo'):+.4f}."
            ),
            400,
            {"theta": False},
        ),
    ),
)


# ----- 3 -----


def measure_wrong(seed: int) -> Measured:
    run = WRONG.open(seed, evaluate_every=0)
    assert run.data.truth is not None
    meter = TrueMeter(run.data.truth, run.data.x)
    first = run.trainer.evaluate()
    steps(run, 2000, PHI_ONLY)
    then = run.trainer.evaluate()
    gap = split_gap(then.target, then.q).mean()
    true_then = meter.kl(then.q)
    steps(run, 3000, BOTH)
    last = run.trainer.evaluate()
    return {
        "kl_first": first.terms.kl_posterior,
        "kl_then": then.terms.kl_posterior,
        "floor": gap.approximation,
        "above_floor": gap.amortisation,
        "left": gap.amortisation / (first.terms.kl_posterior - gap.approximation),
        "true_first": meter.kl(first.q),
        "true_then": true_then,
        "true_last": meter.kl(last.q),
        "true_ratio": meter.kl(last.q) / true_then,
    }


WRONG = Lesson(
    name="wrong-posterior",
    title="The wrong posterior",
    claim="With θ fixed at random, q still approximates a posterior as well as it can: p_θ(z|x) of that θ, "
    "which is not the true one.",
    source="the essay; Cremer, Li & Duvenaud 2018 (arXiv 1801.03558), section 3, for the floor",
    look_at=("pursuit", "latent"),
    config=replace(ARC, update=PHI_ONLY),
    measure=measure_wrong,
    claims=(
        Claim(
            "kl_posterior falls towards that of the best Gaussian q (part of the way that is left)",
            "left",
            -1e-9,
            0.05,
            seen="0.00147 to 0.0179",
        ),
        Claim(
            "q is far from the true posterior, aligned for sign (KL, nats)",
            "true_then",
            low=10.0,
            seen="15.5 to 53.3",
        ),
        Claim(
            "when θ trains too, that distance falls (to which part of itself)",
            "true_ratio",
            high=0.5,
            seen="0.00573 to 0.191",
        ),
    ),
    explain=lambda m: (
        f"kl_posterior fell from {m['kl_first']:.4f} to {m['kl_then']:.4f}, {m['above_floor']:.4f} above the "
        f"best that any Gaussian could do ({m['floor']:.4f}). Yet q is {m['true_then']:.1f} nats from the "
        f"true posterior (it began at {m['true_first']:.1f}). Then both trained, and the distance fell to "
        f"{m['true_last']:.2f}. z and -z explain the data equally well: q is taken with the sign that fits "
        "better."
    ),
    phases=(
        Phase(
            "θ is random and stays; only φ trains.",
            "Where will q be at the end?",
            ("at the posterior of this random θ", "at the true posterior", "near neither"),
            lambda rows: 0 if rows[-1]["kl_posterior"] < 0.2 * rows[0]["kl_posterior"] else 2,
            lambda rows: (
                f"KL(q||p_θ(z|x)) went from {from_to(rows, 'kl_posterior')}. The pursuit panel shows how "
                "far q is from the true posterior: tens of nats."
            ),
            1000,
            {"theta": False},
        ),
        Phase(
            "Now θ trains too.",
            "Will q come closer to the true posterior?",
            ("closer", "farther"),
            lambda rows: 0 if change(rows, "log_px") > 0 else 1,
            lambda rows: (
                f"log_px rose from {from_to(rows, 'log_px')}: the posterior that q follows moves towards the "
                "truth."
            ),
            1000,
            {"theta": True},
        ),
    ),
)


# ----- 4 -----


def measure_direction(seed: int) -> Measured:
    """At the first weights and after 300 steps; of both the number that speaks less for the claim."""
    x = load_dataset("arc", n=16, seed=seed).x
    trainer = Trainer(VAE(2, 1, hidden=(8,)), x, seed=seed, learning_rate=1e-2, evaluate_every=0)
    first = gradients(trainer)
    for _ in trainer.steps(300):
        pass
    later = gradients(trainer)
    worse = {name: max(first[name], later[name]) for name in ("phi", "pull_off", "elbo", "cosine")}
    return worse | {"theta": min(first["theta"], later["theta"])}


def plain_elbo(model: VAE, theta: Array, phi: Array, x: Array) -> Any:
    """The mean ELBO as a plain sum, KL(q||p(z)) in closed form: autograd can differentiate it."""
    kl_prior = ops.gaussian_kl(*model.encode_differentiably(phi, x))
    return anp.mean(plain.under_q(model, theta, phi, x)[0] - kl_prior)


def plain_kl_posterior(model: VAE, theta: Array, phi: Array, x: Array) -> Any:
    """The mean of KL(q||p_θ(z|x)) as a plain sum, on other nodes than the ELBO's."""
    return anp.mean(plain.terms(model, theta, phi, x)[3])


def plain_log_px(model: VAE, theta: Array, x: Array) -> Any:
    return anp.mean(plain.log_px(model, theta, x))


grad_elbo_theta, grad_elbo_phi = grad(plain_elbo, 1), grad(plain_elbo, 2)
grad_kl_phi, grad_log_px_theta = grad(plain_kl_posterior, 2), grad(plain_log_px, 1)


def gradients(trainer: Trainer) -> dict[str, float]:
    """How the exact gradients of the terms are related at the present (θ, φ)."""
    model, theta, phi, x = trainer.model, trainer.theta, trainer.phi, trainer.x
    g_phi, g_kl_phi = grad_elbo_phi(model, theta, phi, x), grad_kl_phi(model, theta, phi, x)
    g_theta, g_log_px = grad_elbo_theta(model, theta, phi, x), grad_log_px_theta(model, theta, x)
    towards_q = g_theta - g_log_px  # −∇_θ kl_posterior
    norm = np.linalg.norm
    move = 1e-4 * towards_q / norm(towards_q)
    here, ahead, behind = (decompose(model, t, phi, x).mean() for t in (theta, theta + move, theta - move))
    slope = (ahead.kl_posterior - behind.kl_posterior) / 2e-4 / norm(towards_q)
    return {
        "phi": float(norm(g_phi + g_kl_phi) / norm(g_phi)),
        "theta": float(norm(towards_q) / norm(g_log_px)),
        "cosine": float(g_theta @ g_log_px / norm(g_theta) / norm(g_log_px)),
        "pull_off": float(abs(slope + 1)),
        "elbo": float(abs(plain_elbo(model, theta, phi, x) - here.elbo)),
    }


DIRECTION = Lesson(
    name="direction",
    title="The direction of φ",
    claim="At every step φ moves towards the posterior of the current θ: the gradient of the ELBO is minus "
    "that of KL(q||p_θ(z|x)), exactly. The gradient for θ is not that of log p(x): θ also pulls its "
    "posterior towards q.",
    source="the essay; Kingma & Welling 2014, eq. 1 (log p(x) does not depend on φ); Turner & Sahani 2011",
    look_at=("chase", "bound"),
    config=ARC,
    measure=measure_direction,
    claims=(
        Claim(
            "grad_φ ELBO + grad_φ kl_posterior, exact expectations (relative size)",
            "phi",
            high=1e-8,
            seen="8.48e-14 to 4.01e-13",
        ),
        Claim("grad_θ ELBO is not grad_θ log_px (relative difference)", "theta", low=0.05, seen="0.55 to 1.36"),
        Claim(
            "the difference leads to a lower kl_posterior (its slope off by)",
            "pull_off",
            high=1e-4,
            seen="2.08e-08 to 1.47e-07",
        ),
        Claim(
            "the exact gradients belong to the certified ELBO (difference)",
            "elbo",
            high=1e-9,
            seen="1.18e-12 to 2.21e-12",
        ),
    ),
    explain=lambda m: (
        f"For φ the two gradients cancel to {m['phi']:.0e} of their size. For θ the ELBO's gradient differs "
        f"from that of log_px by {100 * m['theta']:.0f} % of its length or more (cosine {m['cosine']:.3f} or "
        "less); the difference is the way to a θ whose posterior is closer to q."
    ),
    phases=(
        Phase(
            "Both groups train.",
            "Of what φ does in a step: how do its change of the ELBO and of kl_posterior compare?",
            ("equal and opposite at every step", "opposite in sign, of different size", "unrelated"),
            lambda rows: 0 if _phi_mismatch(rows) < 1e-6 else 1,
            lambda rows: (
                "At every step φ's change of the ELBO was minus its change of kl_posterior, to "
                f"{_phi_mismatch(rows):.0e} nats. θ's change of the ELBO differed from its change of log_px "
                f"by up to {_theta_mismatch(rows):.4f}."
            ),
            200,
        ),
    ),
)


def _phi_mismatch(rows: Rows) -> float:
    return float(max(abs(r["elbo_by_phi"] + r["kl_posterior_by_phi"]) for r in rows[1:]))


def _theta_mismatch(rows: Rows) -> float:
    return float(max(abs(r["elbo_by_theta"] - r["log_px_by_theta"]) for r in rows[1:]))


LESSONS = (IDENTITY, ORIGINAL, WRONG, DIRECTION)
