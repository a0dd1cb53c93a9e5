"""What all dialogs share: they bear any key at any moment, which Textual 8.2 by itself does not."""

from typing import Any, TypeVar

from textual.await_complete import AwaitComplete
from textual.command import CommandList, CommandPalette
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.worker import Worker

T = TypeVar("T")


class _Once:
    """Of two keys that close a screen the second comes too late: it must not close the one below.

    And a key that comes before the screen has been made comes too early: `on_mount` would find nothing in it.
    """

    def dismiss(self, result: Any = None) -> AwaitComplete:
        if self.app.screen is not self or not self.is_mounted:  # type: ignore[attr-defined]
            return AwaitComplete.nothing()
        closed: AwaitComplete = super().dismiss(result)  # type: ignore[misc]
        return closed


class Dialog(_Once, ModalScreen[T]):
    """A screen over the others, which returns something."""


class List(OptionList):
    """Page up and page down do nothing before the list has been laid out; Textual's has no such line."""

    def _move_page(self, direction: Any) -> None:
        if self._lines:
            super()._move_page(direction)


class Palette(_Once, CommandPalette):
    """The command palette, which does nothing as long as there is no list to do it with."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        commands = self.query(CommandList)
        if not commands or ("page" in f"{parameters}" and not commands.first()._lines):
            return False
        return super().check_action(action, parameters)

    def run_worker(self, *arguments: Any, **named: Any) -> Worker[Any]:
        """The search goes on for a moment after the palette was closed, and finds no list to put its results in."""
        return super().run_worker(*arguments, **{**named, "exit_on_error": False})
