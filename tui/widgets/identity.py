"""The identity with its live numbers: the centre of the screen."""

import math
from typing import Any

from rich.text import Text
from textual import events
from textual.message import Message
from textual.widget import Widget

from ..notes import Invariant
from ..palette import colors
from ..session import Session
from ..terms import ELBO, TERMS, error_of, standing
from ..view import Units, View

# What stands after each term, and what does where all are turned to the loss.
SIGNS = {"log_px": "==", "reconstruction": "−+", "kl_prior": "+−", "kl_posterior": "││"}


def number(value: Any, digits: int = 4) -> str:
    """A term's value: fixed digits, a proper minus, no minus before zero."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value) or abs(value) >= 1e6:
        return f"{value:.3g}".replace("-", "−").replace("inf", "∞")
    text = f"{value:.{digits}f}"
    return text.replace("-", "" if float(text) == 0 else "−")


def signed(value: Any) -> str:
    """A signed change: 0 only where it is exactly zero, few digits where it is small."""
    if value is None or math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 1e4:
        return f"{value:+.0e}".replace("e+0", "e").replace("e+", "e").replace("-", "−")
    text = f"{value:+.4f}" if abs(value) >= 5e-4 else f"{value:+.0e}".replace("e-0", "e-")
    return text.replace("-", "−")


def bar(value: float, largest: float, width: int = 4) -> str:
    """A small bar to the right for a rise, to the left for a fall, on the scale of the largest change."""
    part = abs(value) / largest if largest > 0 and math.isfinite(value) else 0.0
    eighths = math.ceil(part * width * 8) if part > 0.01 else 0
    full, rest = divmod(eighths, 8)
    if value >= 0:
        return " " * width + "│" + ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(width)
    return ("█" * (full + (rest >= 4))).rjust(width) + "│" + " " * width


def size(value: float) -> str:
    """How small an error is, such as 7e-14."""
    return "∞" if math.isinf(value) else "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-")


class Identity(Widget):
    """log pθ(x) = E_q[log pθ(x|z)] − KL(q‖p(z)) + KL(q‖pθ(z|x)), each with its value and who changed it."""

    DEFAULT_CSS = """
    Identity { height: 7; padding: 0 1; }
    """

    class Asked(Message):
        """A term was clicked: somebody wants to read its code."""

        def __init__(self, term: str):
            super().__init__()
            self.term = term

    def on_click(self, event: events.Click) -> None:
        at = event.get_content_offset(self)
        terms = [term for term, (start, stop) in self._columns.items() if at and start <= at.x < stop]
        if terms:
            self.post_message(self.Asked(terms[0]))

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._columns: dict[str, tuple[int, int]] = {}  # where each term stands
        self.view: View | None = None
        self.session: Session | None = None

    def show(self, view: View, session: Session) -> None:
        self.view, self.session = view, session
        self.refresh()

    def render(self) -> Text:
        if self.view is None or self.session is None:
            return Text("")
        lines = self._terms(self.view.row, self.session.units)
        lines.append(self._certificate(self.view.row, self.session.trainer.tolerance, self.session.certificate))
        lines.append(self._meter(self.view) if self.view.meter else self._invariants(self.session.invariants()))
        session, palette = self.session, colors(self)
        color = palette["bad"] if session.stopped else palette["elbo"] if session.caption else palette["text"]
        words = session.stopped or session.caption or session.note(self.view.step)
        lines.append(Text(words, style=f"italic {color}"))
        for line in lines:
            line.truncate(self.size.width, overflow="ellipsis")
        return Text("\n").join(lines)

    def _terms(self, row: dict[str, Any], units: Units) -> list[Text]:
        """Four lines: the formula, the values, what θ changed, what φ changed."""
        palette, wide = colors(self), self.size.width
        roomy, bars = wide >= 110, wide >= 140
        lines = [Text() for _ in range(4)]
        for line, head in zip(lines, ("", "", "by θ", "by φ")):
            line.append(f"{head:<{8 if roomy else 5}}", style=palette["faint"])
        largest = max(abs(row[f"{t}_by_{g}"]) for t in SIGNS for g in ("theta", "phi"))
        for term, signs in SIGNS.items():
            color, what, factor = palette[term], TERMS[term], units.factor_of(TERMS[term])
            symbol = units.name_of(what, what.symbol)
            column = (22 if bars else 17) if roomy else max(len(symbol), 10)
            changes = [row[f"{term}_by_{group}"] * factor for group in ("theta", "phi")]
            texts = [signed(change) for change in changes]
            if bars:
                texts = [
                    f"{text:>8} {bar(change, largest * units.factor)}" for text, change in zip(texts, changes)
                ]
            values = (symbol, number(row[term] * factor), *texts)
            self._columns[term] = (lines[0].cell_len, lines[0].cell_len + column)
            for k, (line, text) in enumerate(zip(lines, values)):
                line.append(text.center(column), style=f"bold {color}" if k < 2 else color)
                line.append(f" {signs[units.loss] if k < 2 else ' '} ", style=palette["faint"])
        color, scale = palette[ELBO.key], units.factor_of(ELBO)
        texts = [
            number(row[ELBO.key] * scale),
            *(signed(row[f"elbo_by_{g}"] * scale) for g in ("theta", "phi")),
        ]
        for k, (line, text) in enumerate(zip(lines, [units.name_of(ELBO, ELBO.symbol), *texts])):
            line.append(f"{text:>8}", style=f"bold {color}" if k < 2 else color)
        if bars:
            lines[2].append(f"   a full bar: {size(largest * units.factor)}", style=palette["faint"])
        if roomy:
            lines[0].append(f"   {units.unit}", style=palette["faint"])
            lines[1].append(f"   {units.of}", style=palette["faint"])
        return lines

    def _certificate(
        self, row: dict[str, Any], tolerance: float, certificate: tuple[int, float, float]
    ) -> Text:
        """How well the identity closes; whether every term is certified, checked or neither, and its error."""
        palette, text = colors(self), Text()
        closes = abs(row["residual"]) <= tolerance
        text.append("✓ " if closes else "✗ ", style=palette["good" if closes else "bad"])
        text.append(f"the identity closes to {size(abs(row['residual']))}", style=palette["text"])
        step, share, proven = certificate
        if step == row["step"] and share > row["certified"]:
            row = row | {"certified": share, "proven_error": proven}
        word = standing(row)
        text.append("   ✓ " if word else "   ✗ ", style=palette["good" if word else "bad"])
        if word:
            text.append(f"every term {word} ±{size(error_of(row))}", style=palette["text"])
        else:
            others = f"{100 * (1 - row['checked']):.0f} % of the points neither certified nor checked"
            text.append(f"{others}, worst error ±{size(row['error'])}", style=palette["bad"])
        moved = row["target_moved"]
        if not math.isnan(moved):
            text.append(f"   the target moved {size(moved)} nats in this step", style=palette["faint"])
        return text

    def _meter(self, view: View) -> Text:
        """In lessons: how far q is from the posterior of this θ, and from the true one."""
        palette, text = colors(self), Text()
        text.append("mean KL of q to the posterior of this θ ", style=palette["faint"])
        text.append(number(view.row["kl_posterior"]), style=f"bold {palette['kl_posterior']}")
        text.append("   to the true posterior ", style=palette["faint"])
        return text.append(number(view.true_kl), style=f"bold {palette['bad']}")

    def _invariants(self, invariants: tuple[Invariant, ...]) -> Text:
        """A sign each: grey while it watches nothing, green while it holds, red for good once it broke."""
        palette, text = colors(self), Text()
        for one in invariants:
            if one.broken_at is not None:
                sign, style, note = "✗", palette["bad"], f"broken at step {one.broken_at}"
            elif one.steps:
                sign, style, note = "✓", palette["good"], f"in all {one.steps} steps"
            else:
                sign, style, note = "○", palette["faint"], ""
            text.append(f"{sign} ", style=f"bold {style}" if one.watching else style)
            text.append(one.says, style=palette["text"] if one.watching else palette["faint"])
            text.append(f" {note}   " if note and self.size.width >= 100 else "   ", style=style)
        return text
