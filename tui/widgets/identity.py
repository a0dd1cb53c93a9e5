"""The identity with its live numbers: the centre of the screen."""

import math
from typing import Any

from rich.text import Text
from textual.widget import Widget

from ..palette import NAMES, colors
from ..session import Lamp, View

TERMS = ("log_px", "reconstruction", "kl_prior", "kl_posterior")
SIGNS = {"log_px": "=", "reconstruction": "−", "kl_prior": "+", "kl_posterior": "│"}  # after the term


def number(value: Any, digits: int = 4) -> str:
    """A term's value: fixed digits, a proper minus, no minus before zero."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value) or abs(value) >= 1e7:
        return f"{value:.3g}".replace("-", "−").replace("inf", "∞")
    text = f"{value:.{digits}f}"
    return text.replace("-", "" if float(text) == 0 else "−")


def signed(value: Any) -> str:
    """A signed change: 0 only where it is exactly zero, few digits where it is small."""
    if value is None or math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    text = f"{value:+.4f}" if abs(value) >= 5e-4 else f"{value:+.0e}".replace("e-0", "e-")
    return text.replace("-", "−")


def size(value: float) -> str:
    """How small an error is, such as 7e-14."""
    return "∞" if math.isinf(value) else "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-")


class Identity(Widget):
    """log pθ(x) = E_q[log pθ(x|z)] − KL(q‖p(z)) + KL(q‖pθ(z|x)), each with its value and who changed it."""

    DEFAULT_CSS = """
    Identity { height: 6; padding: 0 1; }
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.view: View | None = None
        self.lamps: tuple[Lamp, ...] = ()
        self.tolerance = 0.0

    def show(self, view: View, lamps: tuple[Lamp, ...], tolerance: float) -> None:
        self.view, self.lamps, self.tolerance = view, lamps, tolerance
        self.refresh()

    def render(self) -> Text:
        if self.view is None:
            return Text("")
        palette, row, wide = colors(self), self.view.row, self.size.width
        roomy = wide >= 110
        lines = [Text() for _ in range(6)]
        for line, head in zip(lines, ("", "", "by θ", "by φ")):
            line.append(f"{head:<{8 if roomy else 5}}", style=palette["faint"])
        for term in TERMS:
            color, column = palette[term], 17 if roomy else max(len(NAMES[term]), 10)
            values = (
                (NAMES[term], f"bold {color}"),
                (number(row[term]), f"bold {color}"),
                (signed(row[f"{term}_by_theta"]), color),
                (signed(row[f"{term}_by_phi"]), color),
            )
            for k, (text, style) in enumerate(values):
                lines[k].append(text.center(column), style=style)
                lines[k].append(f" {SIGNS[term] if k < 2 else ' '} ", style=palette["faint"])
        elbo = palette["elbo"]
        values = number(row["elbo"]), signed(row["elbo_by_theta"]), signed(row["elbo_by_phi"])
        lines[0].append(f"{'ELBO':>8}", style=f"bold {elbo}")
        for k, text in enumerate(values, 1):
            lines[k].append(f"{text:>8}", style=f"bold {elbo}" if k == 1 else elbo)
        if roomy:
            lines[0].append("   nats per", style=palette["faint"])
            lines[1].append("   data point", style=palette["faint"])
        lines[4] = self._certificate_line(row, palette, wide)
        lines[5] = self._lamp_line(palette, wide)
        return Text("\n").join(lines)

    def _certificate_line(self, row: dict[str, Any], palette: dict[str, str], wide: int) -> Text:
        """How well the identity closes, and to what error every term is certified."""
        closes, certified = abs(row["residual"]) <= self.tolerance, row["error"] <= self.tolerance
        text = Text()
        text.append("✓ " if closes else "✗ ", style=palette["good" if closes else "bad"])
        text.append(f"the identity closes to {size(abs(row['residual']))}", style=palette["text"])
        text.append("   ✓ " if certified else "   ✗ ", style=palette["good" if certified else "bad"])
        if certified:
            text.append(f"every term certified ±{size(row['error'])}", style=palette["text"])
        else:
            text.append(f"worst error ±{size(row['error'])}: tolerance missed", style=palette["bad"])
        moved = row["target_moved"]
        if wide >= 100 and moved is not None and not math.isnan(moved):
            text.append(f"   target moved {moved:.1e} nats", style=palette["faint"])
        return text

    def _lamp_line(self, palette: dict[str, str], wide: int) -> Text:
        """A lamp each: grey while it watches nothing, green while it holds, red for good once it broke."""
        text = Text()
        for lamp in self.lamps:
            if lamp.broken_at is not None:
                sign, style, note = "✗", palette["bad"], f"broken at step {lamp.broken_at}"
            elif lamp.steps:
                sign, style, note = "✓", palette["good"], f"{lamp.steps} steps"
            else:
                sign, style, note = "○", palette["faint"], ""
            lit = f"bold {style}" if lamp.watching else style
            text.append(f"{sign} ", style=lit)
            text.append(lamp.says, style=palette["text"] if lamp.watching else palette["faint"])
            text.append(f" {note}   " if note and wide >= 100 else "   ", style=style)
        return text
