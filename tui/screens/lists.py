"""Textual's lists, which bear a key before they have been laid out (Textual 8.2: a KeyError that ends the app)."""

from typing import Any

from textual.command import CommandList, CommandPalette
from textual.widgets import OptionList


class List(OptionList):
    """Page up and page down do nothing as long as there is no page."""

    def _move_page(self, direction: Any) -> None:
        if self._lines:
            super()._move_page(direction)


class Palette(CommandPalette):
    """The command palette with the same patience."""

    def _action_command_list(self, action: str) -> None:
        if self.query_one(CommandList)._lines:
            super()._action_command_list(action)
