"""From texts to values: the options of the command line, and the fields of a form. What is wrong raises one line."""

import argparse
import math
from collections.abc import Callable
from typing import Any


def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            span = f"from {least} to {most}" if math.isfinite(most) else f">= {least}"
            raise argparse.ArgumentTypeError(f"expected a whole number {span}, got {text!r}")
        return value

    return parse


def latent_dim(text: str) -> int:
    if text not in ("1", "2"):
        raise argparse.ArgumentTypeError(f"expected 1 or 2 (the exact terms exist for those), got {text!r}")
    return int(text)


def number(text: str, expected: str, good: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not good(value):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value


def positive(text: str) -> float:
    return number(text, "a number > 0", lambda value: 0 < value < math.inf)


def not_negative(text: str) -> float:
    return number(text, "a number >= 0", lambda value: 0 <= value < math.inf)


def part(text: str) -> float:
    return number(text, "a number above 0, at most 0.5", lambda value: 0 < value <= 0.5)


def speed(text: str) -> float:
    return math.inf if text == "max" else positive(text)


def widths(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(",")) if text not in ("", "none", "0") else ()
    except ValueError:
        sizes = (0,)
    if any(size < 1 for size in sizes):
        problem = f"expected widths such as 32,32, or none for a linear model, got {text!r}"
        raise argparse.ArgumentTypeError(problem)
    return sizes


def one_of(*known: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"expected {' or '.join(known)}, got {text!r}")
        return text

    return parse


def or_empty(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """None for an empty text."""
    return lambda text: parse(text) if text else None
