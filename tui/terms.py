"""Every quantity that is shown: how it is written, what it is called, its colour, and what it is in one sentence.

The one table behind the identity, charts, legends, tables, help and notes. The colours are Okabe & Ito's
colour-blind-safe set (2008); on a light ground the same hues, darkened until they read on white.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Quantity:
    """A column of the records, in nats per data point."""

    key: str  # its name in the code, in records and in files
    symbol: str  # as in the identity
    formula: str  # what the symbol means
    name: str  # everywhere else
    short: str  # the same where there is no room for it
    dark: str  # its colour on a dark ground
    light: str
    sentence: str


_BLUE, _ORANGE, _GREEN = ("#56B4E9", "#0072B2"), ("#E69F00", "#8A5000"), ("#2FBF91", "#00795A")
_PINK, _RED, _PLAIN = ("#DE8DBB", "#A8508A"), ("#F0724A", "#C24A00"), ("#E6E9EE", "#1B1F24")
_YELLOW = ("#D9CF4A", "#6B6200")

LOG_PX = Quantity(
    "log_px", "log pθ(x)", "log pθ(x) = log ∫ p(z) pθ(x|z) dz", "log p", "log p", *_BLUE,
    "how probable the model finds the data. Only θ can change it.",
)  # fmt: skip
RECONSTRUCTION = Quantity(
    "reconstruction", "E_q[log pθ(x|z)]", "E_q[log pθ(x|z)] = ∫ q(z|x) log pθ(x|z) dz",
    "reconstruction", "recon.", *_GREEN,
    "how well x is explained by a z that q draws.",
)  # fmt: skip
KL_PRIOR = Quantity(
    "kl_prior", "KL(q‖p(z))", "KL(q‖p(z)) = ½ [tr(C Cᵀ) + |mean|² − L] − Σ log C_ii",
    "KL prior", "KL prior", *_PINK,
    "how far q is from the prior, N(0, 1). Only φ can change it. Mind the minus sign before it.",
)  # fmt: skip
KL_POSTERIOR = Quantity(
    "kl_posterior", "KL(q‖pθ(z|x))", "KL(q‖pθ(z|x)) = ∫ q(z|x) [log q(z|x) − log pθ(z|x)] dz",
    "KL posterior", "KL post.", *_RED,
    "how far q is from the posterior. Never negative.",
)  # fmt: skip
ELBO = Quantity(
    "elbo", "ELBO", "ELBO = E_q[log pθ(x|z)] − KL(q‖p(z)), and its gradient by the chain rule",
    "ELBO", "ELBO", *_ORANGE,
    "reconstruction − KL prior. Training raises this; log p is never below it.",
)  # fmt: skip
RESIDUAL = Quantity(
    "residual", "residual", "log_px − (reconstruction − kl_prior + kl_posterior)", "residual", "residual", *_PLAIN,
    "by how much the identity misses. The terms come from integrals of their own, so this is a check.",
)  # fmt: skip
TARGET_MOVED = Quantity(
    "target_moved", "KL(pθ(z|x)‖pθ'(z|x))", "KL(pθ‖pθ') = ∫ pθ(z|x) [log pθ(z|x) − log pθ'(z|x)] dz",
    "target moved", "target moved", *_BLUE,
    "how far θ moved the posterior in a step.",
)  # fmt: skip
Q_RECOVERED = Quantity(
    "kl_posterior_by_phi", "−Δφ KL(q‖pθ(z|x))", "−kl_posterior_by_phi",
    "q recovered", "q recovered", *_ORANGE,
    "by how much φ lowered KL posterior in a step.",
)  # fmt: skip

HELD_OUT = Quantity(
    "held_out_log_px", "log pθ(x), held out", "log pθ(x) of points that are not trained on", "log p, held out",
    "held out", *_YELLOW,
    "log p of fresh points from the truth, or of rows kept back from a file. Learning by heart leaves it behind.",
)  # fmt: skip


def standing(row: Mapping[str, Any]) -> str:
    """The word for the terms of a record: "certified" (proven), "checked" (other nodes agree), or "" for neither."""
    return "certified" if row["certified"] == 1 else "checked" if row["checked"] == 1 else ""


def error_of(row: Mapping[str, Any]) -> float:
    """The error that goes with that word: what is proven, or how far other nodes are away; nats."""
    return float(row["proven_error" if row["certified"] == 1 else "error"])


TERMS = {term.key: term for term in (LOG_PX, RECONSTRUCTION, KL_PRIOR, KL_POSTERIOR, ELBO)}
QUANTITIES = TERMS | {other.key: other for other in (RESIDUAL, TARGET_MOVED, Q_RECOVERED, HELD_OUT)}
TURNED = {
    LOG_PX.key,
    RECONSTRUCTION.key,
    ELBO.key,
    HELD_OUT.key,
}  # written as their negatives where the loss is
