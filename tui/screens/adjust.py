"""Change how the run goes on, without a new start."""

from functools import partial
from typing import Any

from tinyvae.settings import Settings, Update

from .form import Field, Form

FIELDS: tuple[tuple[str, str, type], ...] = (
    ("theta_rate", "learning rate of θ", float),
    ("phi_rate", "learning rate of φ", float),
    ("theta_steps", "updates of θ per step (0–10)", int),
    ("phi_steps", "updates of φ per step (0–10)", int),
    ("samples", "draws of z per data point", int),
    ("batch_size", "minibatch size", int),
    ("beta", "β, the weight of KL(q‖p(z)) in what is followed (1: the ELBO)", float),
    ("optimizer", "optimiser: adam or sgd", str),
)


class Adjust(Form):
    """Returns the settings that were changed, or None."""

    def __init__(self, settings: Settings):
        fields = []
        for name, label, kind in FIELDS:
            owner = settings.update if hasattr(settings.update, name) else settings
            fields.append(Field(name, label, getattr(owner, name), partial(_parse, name, kind)))
        super().__init__("How the run goes on", "Apply from the next step", fields)


def _parse(name: str, kind: type, text: str) -> Any:
    try:
        value = kind(text)
        (Update if name.endswith("_steps") else Settings)(**{name: value})
    except ValueError:
        numbers = "a number >= 0" if name == "beta" else "a number > 0"
        expected = {float: numbers, int: "a whole number in range", str: "adam or sgd"}[kind]
        raise ValueError(f"expected {expected}, got {text!r}") from None
    return value
