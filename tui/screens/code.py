"""The very source code that computes what a panel shows."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.syntax import Syntax
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from tinyvae import Target, Trainer, decompose
from tinyvae.decomposition import _Integrals, attribute
from tinyvae.fused import FusedGradient
from tinyvae.model import VAE

BEHIND: dict[str | None, tuple[Callable[..., Any] | type, ...]] = {
    "bound": (Target, decompose),
    "parts": (_Integrals,),
    "latent": (Target,),
    "data": (VAE.decode, VAE.encode),
    "chase": (Trainer.step, attribute),
    None: (FusedGradient, Trainer.step),
}


class Code(ModalScreen[None]):
    """File, line and source of what is behind the focused panel."""

    BINDINGS = [Binding("escape,c,q", "dismiss", "Close")]
    DEFAULT_CSS = """
    Code { align: center middle; }
    Code VerticalScroll { width: 95%; height: 95%; border: round $accent; background: $surface; }
    """

    def __init__(self, panel: str | None):
        super().__init__()
        self.panel = panel if panel in BEHIND else None

    def compose(self) -> ComposeResult:
        with VerticalScroll() as scroll:
            scroll.border_title = "The code behind this panel"
            scroll.border_subtitle = "esc closes · ↑ ↓ scroll"
            theme = "monokai" if self.app.current_theme.dark else "friendly"
            for thing in BEHIND[self.panel]:
                lines, first = inspect.getsourcelines(thing)
                file = Path(inspect.getfile(thing)).name
                yield Static(f"[b]{thing.__qualname__}[/b]   tinyvae/{file}, line {first}")
                yield Static(
                    Syntax(
                        "".join(lines),
                        "python",
                        theme=theme,
                        line_numbers=True,
                        start_line=first,
                        word_wrap=True,
                    )
                )
