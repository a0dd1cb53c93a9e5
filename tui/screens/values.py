"""Every step as a row: each term and how it changed."""

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.geometry import Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Static

from ..palette import colors
from ..session import Session
from ..terms import RESIDUAL, TERMS
from ..view import View
from ..widgets.identity import number, signed, size
from .dialog import Dialog

ROOM_FOR_CHANGES = 104  # columns


class Values(Dialog[int | None]):
    """Returns the step that was chosen, or None."""

    BINDINGS = [
        Binding("escape,v,q", "dismiss(None)", "Close"),
        Binding("enter", "choose", "Look at this step"),
    ]
    DEFAULT_CSS = """
    Values { align: center middle; }
    Values Vertical { width: 95%; max-width: 130; height: 90%; border: round $accent; background: $surface; }
    Values Static { height: 1; padding: 0 1; text-style: bold; }
    Values #chosen { height: auto; max-height: 5; text-style: none; }
    """

    def __init__(self, session: Session, view: View):
        super().__init__()
        self.session, self.view = session, view

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "Every step"
            box.border_subtitle = "↑ ↓ page up/down · enter shows the run at this step · esc closes"
            yield Static(id="heads")
            yield Rows(self.session)
            named = self.view.named(self.session.data)
            yield Static(f"◆ and + from q's mean at step {self.view.step}: {named}", id="chosen", markup=False)

    def on_mount(self) -> None:
        palette = colors(self)
        heads = Text(f"{'step':>7} θφ ")
        for name, term in TERMS.items():
            change = f" {'Δ':>7}" if self.app.size.width >= ROOM_FOR_CHANGES + 8 else ""
            heads.append(f"{self.session.units.name_of(term, term.short):>10}{change}", style=palette[name])
        self.query_one("#heads", Static).update(heads.append(f"  {RESIDUAL.short}"))

    def action_choose(self) -> None:
        self.dismiss(self.query_one(Rows).cursor)


class Rows(ScrollView, can_focus=True):
    """The rows of the history; only those on screen are ever written."""

    DEFAULT_CSS = "Rows { height: 1fr; padding: 0 1; background: $surface; scrollbar-size-vertical: 1; }"
    BINDINGS = [
        Binding("up", "move(-1)"), Binding("down", "move(1)"), Binding("pageup", "move(-20)"),
        Binding("pagedown", "move(20)"), Binding("home", "move(-1000000000)"), Binding("end", "move(1000000000)"),
    ]  # fmt: skip
    cursor = reactive(0)

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.cursor = session.step if session.viewed is None else session.viewed

    def on_mount(self) -> None:
        self.virtual_size = Size(0, len(self.session.history))
        self.call_after_refresh(self.watch_cursor)
        self.focus()

    def action_move(self, by: int) -> None:
        self.cursor = min(max(self.cursor + by, 0), self.session.step)

    def watch_cursor(self) -> None:
        if self.size.height:
            top = min(max(self.scroll_offset.y, self.cursor - self.size.height + 1), self.cursor)
            self.scroll_to(y=top, animate=False)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        step = y + self.scroll_offset.y
        if step > self.session.step:
            return Strip.blank(self.size.width, self.rich_style)
        palette, row = colors(self), self.session.history.row(step)
        before = self.session.history.row(step - 1) if step else row
        base = self.rich_style + Style(reverse=step == self.cursor)
        switches = ("θ" if row["theta_on"] else "·") + ("φ" if row["phi_on"] else "·")
        segments = [Segment(f"{step:>7} {switches} ", base)]
        for name in TERMS:
            factor = self.session.units.factor_of(TERMS[name])
            change = signed((row[name] - before[name]) * factor) if step else ""
            change = f" {change:>7}" if self.app.size.width >= ROOM_FOR_CHANGES + 8 else ""
            segments.append(
                Segment(f"{number(row[name] * factor):>10}{change}", base + Style.parse(palette[name]))
            )
        segments.append(Segment(f"  {size(abs(row['residual'])):>7}", base))
        return Strip(segments).adjust_cell_length(self.size.width, base)
