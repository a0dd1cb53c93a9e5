"""Read the code: the very source that computes a term, its formula, and how gradients flow through it."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from rich.syntax import Syntax
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import Static

from tinyvae import Target, Trainer, decompose, ops
from tinyvae.exact import Expectations, plain
from tinyvae.fused import FusedGradient
from tinyvae.gaussian import Gaussian

from ..palette import colors
from ..terms import ELBO, TERMS
from .dialog import Dialog

Piece = Callable[..., Any] | type | property | str  # a str names a primitive of ops, shown with its VJP


BEHIND: dict[str, tuple[Piece, ...]] = {  # what computes a term: the plain way first, then the fast one
    "log_px": (plain.log_px, Target),
    "reconstruction": (plain.under_q, "gaussian_log_likelihood", "bernoulli_log_likelihood", Expectations),
    "kl_prior": ("gaussian_kl", Gaussian, "reparameterise"),
    "kl_posterior": (plain.terms, plain.under_q, decompose, Expectations),
    "elbo": (FusedGradient, Trainer.step),
}
OF_PANEL = {"bound": "log_px", "parts": "reconstruction", "latent": "kl_posterior", "chase": "kl_posterior"}


def source(piece: Piece) -> tuple[str, str, int]:
    """(name and file, source text, first line) of a function, a class, or a primitive with its VJP."""
    if isinstance(piece, str):
        text = inspect.getsource(ops)
        start = text.index(f"@primitive\ndef {piece}(")
        vjp = re.compile(rf"^defvjp\(\s*{piece},(.|\n)*?\)\n(?=\n\n|\Z)", re.MULTILINE).search(text, start)
        assert vjp is not None  # every primitive has one
        return f"{piece}   tinyvae/ops.py", text[start : vjp.end()], text.count("\n", 0, start) + 1
    lines, first = inspect.getsourcelines(piece)  # type: ignore[arg-type]
    file = piece.__module__.replace(".", "/") + ".py"
    name = getattr(piece, "__qualname__", "")
    return f"{name}   {file}", "".join(lines), first


class Code(Dialog[None]):
    """One term at a time; ← and → go through the five."""

    BINDINGS = [
        Binding("escape,c,q", "dismiss", "Close"),
        Binding("right,tab", "term(1)", "Next term"),
        Binding("left,shift+tab", "term(-1)", "Previous term"),
    ]
    DEFAULT_CSS = """
    Code { align: center middle; }
    Code VerticalScroll { width: 95%; height: 95%; border: round $accent; background: $surface; }
    Code Static { height: auto; }
    """

    def __init__(self, term: str):
        super().__init__()
        self.term = TERMS.get(term, ELBO)

    def compose(self) -> ComposeResult:
        scroll = VerticalScroll()
        scroll.border_subtitle = "← → another term · ↑ ↓ scroll · esc closes"
        yield scroll

    async def on_mount(self) -> None:
        await self._write()

    async def action_term(self, by: int) -> None:
        terms = list(TERMS.values())
        self.term = terms[(terms.index(self.term) + by) % len(terms)]
        await self._write()

    async def _write(self) -> None:
        scroll = self.query_one(VerticalScroll)
        scroll.border_title = f"The code behind {self.term.symbol}"
        await scroll.remove_children()
        theme = "monokai" if self.app.current_theme.dark else "friendly"
        blocks = [Static(Text(f"{self.term.formula}\n", style=f"bold {colors(self)[self.term.key]}"))]
        for piece in BEHIND[self.term.key]:
            where, text, first = source(piece)
            blocks.append(Static(f"[b]{where}[/b], line {first}"))
            code = Syntax(text, "python", theme=theme, line_numbers=True, start_line=first, word_wrap=True)
            blocks.append(Static(code))
        await scroll.mount_all(blocks)
        scroll.scroll_home(animate=False)
        scroll.focus()
