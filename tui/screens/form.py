"""A dialog with one line to fill in for each field: the settings of a run, or what a new one is made of."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Grid, Vertical
from textual.widgets import Button, Input, Label, Static

from ..output import printable
from .dialog import Dialog


@dataclass(frozen=True)
class Field:
    """`parse` makes a value of the text or raises ValueError or ArgumentTypeError, with what it expected."""

    name: str
    label: str
    value: Any
    parse: Callable[[str], Any]
    write: Callable[[Any], str] | None = None  # where str(value) is not what `parse` reads

    @property
    def text(self) -> str:
        if self.write is not None and self.value is not None:
            return self.write(self.value)
        if isinstance(self.value, tuple | list):
            return ",".join(map(str, self.value)) or "none"
        return "" if self.value is None else printable(self.value)


class Form(Dialog[Any]):
    """Returns what `accept` makes of the fields that were changed, or None."""

    BINDINGS = [Binding("escape", "dismiss(None)", "Close")]
    DEFAULT_CSS = """
    Form { align: center middle; }
    Form Vertical { width: 76; max-width: 95%; height: auto; max-height: 95%; border: round $accent;
                    background: $surface; padding: 0 1; overflow-y: auto; }
    Form Grid { grid-size: 2; grid-columns: 1fr 24; grid-rows: 1; height: auto; }
    Form Input { background: $boost; }
    Form #problem { color: $error; height: auto; }
    Form Button { height: 1; border: none; min-width: 20; }
    """

    def __init__(self, title: str, button: str, fields: Sequence[Field]):
        super().__init__()
        self.heading, self.button, self.fields = title, button, list(fields)

    def accept(self, changes: dict[str, Any]) -> Any:
        """What to return; a ValueError is shown, and the dialog stays."""
        return changes

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = self.heading
            box.border_subtitle = "tab moves · enter applies · esc closes"
            with Grid():
                for field in self.fields:
                    yield Label(field.label, markup=False)
                    yield Input(field.text, id=field.name, compact=True)
            yield Static("", id="problem", markup=False)
            yield Button(self.button, id="apply", variant="primary", compact=True)

    def on_input_submitted(self) -> None:
        self._apply()

    def on_button_pressed(self) -> None:
        self._apply()

    def _apply(self) -> None:
        changes = {}
        for field in self.fields:
            text = self.query_one(f"#{field.name}", Input).value.strip()
            if text == field.text.strip():  # as it was: what is shown may not be all that it is
                continue
            try:
                value = field.parse(text)
            except (ValueError, argparse.ArgumentTypeError) as problem:
                self.query_one("#problem", Static).update(printable(f"{field.label}: {problem}"))
                self.query_one(f"#{field.name}", Input).focus()
                return
            if value != field.value:
                changes[field.name] = value
        try:
            accepted = self.accept(changes)
        except (ValueError, ArithmeticError, OSError) as problem:
            self.query_one("#problem", Static).update(printable(problem))
            return
        self.dismiss(accepted)
