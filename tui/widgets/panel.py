"""A panel that holds one plot: it asks its subclass to draw when there is something new to show."""

from typing import Any

from textual.filter import ANSIToTruecolor, LineFilter
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget

from ..plots import Plot
from ..session import Session
from ..view import View


class Panel(Widget, can_focus=True):
    """`show` gives it the view; `draw` (in the subclass) makes a Plot of it. Draws only what is visible."""

    TITLE = ""
    HELP = ""  # what a newcomer sees here, for the help of the focused panel
    DEFAULT_CSS = """
    Panel { border: round $foreground 25%; border-title-color: $foreground; border-title-style: bold;
            border-subtitle-color: $foreground 60%; }
    Panel:focus { border: round $accent; }
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.view: View | None = None
        self.session: Session | None = None
        self.plot: Plot | None = None  # None: to be drawn anew
        self.drawn: Plot | None = None  # the last one: where the mouse is on it, even if another is on its way
        self._drawn_at = Size(0, 0)
        self.border_title = self.TITLE

    def show(self, view: View, session: Session) -> None:
        self.view, self.session = view, session
        if self.is_on_screen:
            self.plot = None
            self.refresh()

    def draw(self, view: View, session: Session, size: Size) -> Plot:
        raise NotImplementedError  # each panel draws its own

    def restart(self) -> None:
        """Another run begins: forget what was kept from frame to frame."""

    def render_line(self, y: int) -> Strip:
        if self.plot is None or (y == 0 and self._drawn_at != self.size):  # to ask for the size takes its time
            size = self.size
            if self.view is None or self.session is None or size.width < 1:
                return Strip.blank(size.width, self.rich_style)
            self.plot, self._drawn_at = self.draw(self.view, self.session, size), size
            self.drawn = self.plot
        if y < len(self.plot.strips):
            return self.plot.strips[y]
        return Strip.blank(self._drawn_at.width, self.rich_style)

    def get_line_filters(self) -> list[LineFilter]:
        """Without the one for the terminal's own colours: plots and borders have none, and it takes its time."""
        return [each for each in super().get_line_filters() if not isinstance(each, ANSIToTruecolor)]

    def on_resize(self) -> None:
        self.plot = None
        self.refresh()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.plot = None
