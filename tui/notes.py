"""What is said in words: a note on what is confusing and right, whether the invariants held, the gap split."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyvae import TERMS
from tinyvae.exact.gap import GapSplit

from .history import History
from .output import printable
from .terms import ELBO, KL_POSTERIOR, KL_PRIOR, LOG_PX, Quantity
from .terms import TERMS as OF_TERMS

Array = NDArray[Any]

BRANCHED = (LOG_PX, ELBO, KL_POSTERIOR)  # what is said of a branch
RECENT = 50  # steps over which a note counts


def note(history: History, other: History | None, step: int) -> str:
    """A sentence on what is confusing and right in the steps before this one, or "".

    `other` is the run that a branch is compared with.
    """
    row = history.row(step)
    if other is not None and step < len(other):
        old = other.row(step)
        names = {t: t.short for t in OF_TERMS.values()} if other.name else {t: t.name for t in BRANCHED}
        differences = [f"{name} {row[t.key] - old[t.key]:+.4f}" for t, name in names.items()]
        changes = ", ".join(differences).replace("-", "−")
        whose = f"Minus {printable(other.name)}" if other.name else "This branch minus the old run at this step"
        return f"{whose}: {changes}."
    if step == 0:
        return "Nothing has been learned yet: q and the decoder are random."
    on = np.stack([moves(history, "theta"), moves(history, "phi")])[:, :step]
    others = np.flatnonzero((on != on[:, -1:]).any(axis=0))  # steps with other switches than this one
    switched = int(others[-1]) + 1 if len(others) else 0
    steps = min(step - switched, RECENT)
    change = {t: np.diff(history.column(t)[step - steps : step + 1]) for t in TERMS}
    theta_on, phi_on = on[:, -1]
    if (beta := row["beta"]) != 1 and (theta_on or phi_on):
        if beta > 1:
            return f"β = {beta:g}: what rises is a looser bound on log p; its best q is ∝ p(z) p(x|z)^(1/β)."
        return f"β = {beta:g}: what rises may exceed log p; its best q is ∝ p(z) p(x|z)^(1/β), too narrow."
    if not theta_on:
        if not phi_on:
            return "Both are frozen: nothing can move."
        gained = np.nan_to_num(row["elbo"] - history.row(switched)["elbo"])
        changes = f"ELBO {gained:+.4f}, {KL_POSTERIOR.name} {-gained:+.4f}".replace("-", "−")
        return f"θ is frozen, {LOG_PX.name} stands still: since step {switched} {changes}."
    if not phi_on:
        if change["kl_posterior"].sum() > 0:
            return "φ is frozen: q stays where it is while θ moves the posterior away from it."
        return f"φ is frozen: q and {KL_PRIOR.name} stand still, θ moves {LOG_PX.name} and the posterior."
    both = int(((change["elbo"] > 0) & (change["kl_posterior"] > 0)).sum())
    if both >= max(1, steps // 10):
        return f"In {both} of the last {steps} steps the ELBO and {KL_POSTERIOR.name} both rose: θ outran φ."
    if row["elbo"] > 0:
        return "The ELBO is above 0: x is continuous, a density can exceed 1 and so its log can exceed 0."
    if change["kl_prior"].sum() > 0.01:
        rises = "rises: q spends nats on telling data points apart. That is learning, not a bug."
        return f"{KL_PRIOR.name} {rises}"
    return ""


@dataclass(frozen=True)
class Invariant:
    """What must not change while a group is frozen, and whether it held."""

    says: str
    watching: bool  # the group is frozen now
    steps: int  # how many steps with the group frozen were watched
    broken_at: int | None


def invariants(history: History, update: Any) -> tuple[Invariant, Invariant]:
    """θ frozen ⇒ log_px constant; φ frozen ⇒ kl_prior constant: to the last bit, over the whole run.

    `update` says what the next step moves.
    """
    return (
        _invariant(history, update, "theta", "θ", LOG_PX),
        _invariant(history, update, "phi", "φ", KL_PRIOR),
    )


def _invariant(history: History, update: Any, group: str, sign: str, term: Quantity) -> Invariant:
    values, frozen = history.column(term.key), ~moves(history, group)
    broken = np.flatnonzero(frozen & (np.abs(np.diff(values)) > 0))
    now = not getattr(update, group) or getattr(update, f"{group}_steps") == 0
    says = f"{sign} frozen ⇒ {term.name} constant"
    return Invariant(says, now, int(frozen.sum()), int(broken[0]) + 1 if len(broken) else None)


def moves(history: History, group: str) -> Array:
    """Whether the group was to move in each step, (steps,)."""
    on, steps = history.column(f"{group}_on")[1:], history.column(f"{group}_steps")[1:]
    return np.asarray((on > 0) & (steps > 0))


def gap_text(split: GapSplit, point: int) -> str:
    """The split gap in words and numbers, nats."""
    mean = split.mean()
    rows = (
        (KL_POSTERIOR.name, split.kl_posterior[point], mean.kl_posterior),
        ("approximation: the best q of the family", split.approximation[point], mean.approximation),
        ("amortisation: what the encoder misses of that", split.amortisation[point], mean.amortisation),
    )
    table = "\n".join(f"| {name} | {one:.6f} | {average:.6f} |" for name, one, average in rows)
    return (
        "For each data point the best Gaussian q of the encoder's family was found by optimising the exact KL. What "
        "even that one misses is the *approximation gap*; the rest is the *amortisation gap*: one encoder has to "
        "serve all data points. (Cremer et al. 2018, equation 5.)\n\n"
        f"| nats | the chosen x | mean of all |\n|---|---|---|\n{table}\n"
    )
