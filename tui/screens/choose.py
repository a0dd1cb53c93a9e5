"""Choose a dataset for a new run."""

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets.option_list import Option

from tinyvae import load_dataset

from .dialog import Dialog, List


class Choose(Dialog[str | None]):
    """Returns the name of a dataset, or None."""

    BINDINGS = [Binding("escape,d", "dismiss(None)", "Close")]
    DEFAULT_CSS = """
    Choose { align: center middle; }
    Choose Vertical { width: 90%; max-width: 96; height: auto; max-height: 90%; border: round $accent;
                      background: $surface; }
    Choose OptionList, Choose OptionList:focus { height: auto; max-height: 100%; border: none; background: $surface; }
    """

    def __init__(self, names: Sequence[str], now: str):
        super().__init__()
        self.names, self.now = list(names), now

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "Another dataset begins a new run"
            box.border_subtitle = "enter opens · esc keeps this run"
            says = {name: load_dataset(name).description for name in self.names}
            yield List(*(Option(f"[b]{name}[/b]  {text}", id=name) for name, text in says.items()))

    def on_mount(self) -> None:
        if self.now in self.names:
            self.query_one(List).highlighted = self.names.index(self.now)

    def on_option_list_option_selected(self, event: List.OptionSelected) -> None:
        self.dismiss(event.option_id)
