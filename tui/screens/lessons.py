"""The lessons in the app: choose one, predict, watch, compare."""

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Markdown
from textual.widgets.option_list import Option

from .dialog import Dialog, List


class Card(Dialog[int | None]):
    """A text with something to choose below it; returns the number of the choice, or None."""

    BINDINGS = [Binding("escape", "dismiss(None)", "Close")]
    DEFAULT_CSS = """
    Card { align: center bottom; }
    Card.-list { align: center middle; }
    Card Vertical { width: 90%; max-width: 110; height: auto; max-height: 95%; border: round $accent;
                    background: $surface; }
    Card VerticalScroll { height: auto; max-height: 60vh; }
    Card Markdown { padding: 0 2; background: $surface; margin: 0; }
    Card OptionList, Card OptionList:focus { height: auto; max-height: 24; border: none; background: $surface; }
    """

    def __init__(self, title: str, text: str, choices: Sequence[str], note: str = "", wide: bool = False):
        super().__init__()
        self.heading, self.text, self.choices, self.note = title, text, list(choices), note
        self.set_class(wide, "-list")

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title, box.border_subtitle = self.heading, self.note or "↑ ↓ enter chooses · esc leaves"
            if self.text:
                with VerticalScroll(can_focus=False):
                    yield Markdown(self.text)
            yield List(*(Option(choice) for choice in self.choices))

    def on_mount(self) -> None:
        self.query_one(List).focus()

    def on_option_list_option_selected(self, event: List.OptionSelected) -> None:
        self.dismiss(event.option_index)
