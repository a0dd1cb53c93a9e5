"""Change how the run goes on, without a new start."""

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Grid, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from tinyvae.training import Settings, Update

FIELDS: tuple[tuple[str, str, type], ...] = (
    ("theta_rate", "learning rate of θ", float),
    ("phi_rate", "learning rate of φ", float),
    ("theta_steps", "updates of θ per step (0–10)", int),
    ("phi_steps", "updates of φ per step (0–10)", int),
    ("samples", "draws of z per data point", int),
    ("batch_size", "minibatch size", int),
    ("optimizer", "optimiser: adam or sgd", str),
)


class Adjust(ModalScreen[dict[str, Any] | None]):
    """Returns the fields that were changed, or None."""

    BINDINGS = [Binding("escape", "dismiss(None)", "Close")]
    DEFAULT_CSS = """
    Adjust { align: center middle; }
    Adjust Vertical { width: 70; max-width: 95%; height: auto; max-height: 95%; border: round $accent;
                      background: $surface; padding: 0 1; overflow-y: auto; }
    Adjust Grid { grid-size: 2; grid-columns: 1fr 22; grid-rows: 1; height: 7; }
    Adjust Input { background: $boost; }
    Adjust #problem { color: $error; height: auto; }
    Adjust #apply { height: 1; border: none; min-width: 20; }
    """

    def __init__(self, settings: Settings):
        super().__init__()
        self.settings = settings

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "How the run goes on"
            box.border_subtitle = "tab moves · enter applies · esc closes"
            with Grid():
                for name, label, _ in FIELDS:
                    yield Label(label)
                    yield Input(str(self._value(name)), id=name, compact=True)
            yield Static("", id="problem")
            yield Button("Apply from the next step", id="apply", variant="primary", compact=True)

    def _value(self, name: str) -> Any:
        return getattr(self.settings.update if hasattr(self.settings.update, name) else self.settings, name)

    def on_input_submitted(self) -> None:
        self._apply()

    def on_button_pressed(self) -> None:
        self._apply()

    def _apply(self) -> None:
        changes: dict[str, Any] = {}
        for name, label, kind in FIELDS:
            text = self.query_one(f"#{name}", Input).value
            try:
                value = kind(text)
                if name.endswith("_steps"):
                    Update(**{name: value})
                else:
                    Settings(**{name: value})
            except ValueError:
                expected = {float: "a number > 0", int: "a whole number in range", str: "adam or sgd"}[kind]
                self.query_one("#problem", Static).update(f"{label}: expected {expected}, got {text!r}")
                self.query_one(f"#{name}", Input).focus()
                return
            if value != self._value(name):
                changes[name] = value
        self.dismiss(changes)
