"""The app: one run on screen, with its switches. It asks the session for everything it shows."""

import asyncio
import gc
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from textual import events, work
from textual.app import App, ComposeResult, SystemCommand
from textual.color import Color
from textual.command import CommandPalette
from textual.geometry import Size
from textual.screen import Screen
from textual.widgets import Footer, Static

from tinyvae import DATASETS
from tinyvae.runs import Config, Run, Schedule

from . import keys, signals
from .exit_codes import INTERRUPTED
from .notes import gap_text
from .output import printable
from .palette import colors
from .session import Session
from .widgets.charts import StepChart
from .widgets.identity import Identity
from .widgets.panel import Panel
from .widgets.panels import Panels
from .widgets.spaces import DataPanel
from .work import in_thread

SLICE = 0.01  # seconds of training between two looks at the keyboard
ROUNDS = 10  # of the event loop at such a look: a key goes through several queues before it does anything
ANSWER = 0.04  # seconds without training after a key, in which to show what it did
SLOW_STEP = 0.015  # a step that takes longer is waited for in a thread, one at a time
SMALLEST = (60, 18)
TERMINAL_AS_IT_WAS = (  # no mouse, no focus reports, no marked pasting, lines wrap; its own screen, and the cursor
    b"\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1004l\x1b[?2004l\x1b[?2048l\x1b[?7h\x1b[<u\x1b[?1049l\x1b[?25h"
)
LAID_OUT = ((24, 6), (1000, 300))  # the least and the largest size: Textual 8.2 fails on less, memory on more


class TooSmall(Static):
    """Stands in for everything on a terminal on which nothing could be read."""


class TinyVAE(App[None]):
    """Watch every term of log p(x) while a VAE trains."""

    TITLE = "tinyvae"
    CSS_PATH = "app.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide"), (150, "-full")]
    BINDINGS = [*keys.bindings()]

    def __init__(
        self,
        config: Config,
        speed: float = 50.0,
        charset: str = "braille",
        fps: float = 15.0,
        run: bool = True,
        schedule: Schedule = (),
        until: int | None = None,
        session: Session | None = None,
    ):
        self._ansi_theme: tuple[str, Any] = ("", None)
        super().__init__()
        self.session = session or Session(config, speed, schedule=schedule)
        if until is not None:  # a shared run: go where it stood as fast as possible, and wait there
            self.session.until, self.session.speed = until, np.inf
        self.charset, self.fps, self._run_at_start = charset, fps, run
        self._busy = asyncio.Lock()  # held while a step runs in a thread, and while the run is exchanged
        self.tab = 1
        self._last_painted: Any = None
        self._measured = (perf_counter(), 0)
        self._step_seconds = 0.0
        self._told = self._paint_missed = False
        self._answering = 0.0  # no training before this time
        self._loop_of_keys: asyncio.AbstractEventLoop | None = None
        self._ended: int | None = None  # the exit code that a signal has asked for

    def get_css_variables(self) -> dict[str, str]:
        """The theme's; where its keys in the footer can hardly be read, they look like the words beside them."""
        variables = super().get_css_variables()
        key, ground = (Color.parse(variables[f"footer-{part}"]) for part in ("key-foreground", "background"))
        if key.ansi is None and abs(key.brightness - ground.brightness) < 0.35:
            variables["footer-key-foreground"] = variables["footer-description-foreground"]
        return variables

    def compose(self) -> ComposeResult:
        yield Static(id="title")
        yield Identity(id="identity")
        yield Panels(id="panels")
        yield TooSmall(
            "tinyvae needs a terminal of at least 60 × 18 characters.\nMake this one larger, or press q.",
            id="small",
        )
        yield Footer(show_command_palette=False, compact=True)

    def end(self, code: int) -> None:
        """Close with this exit code; may be called from the handler of a signal, at any moment."""
        self._ended = code
        signals.leave_in_time(code, self._put_terminal_right)
        if self._loop_of_keys is not None:
            with suppress(RuntimeError):  # it has closed already
                self._loop_of_keys.call_soon_threadsafe(partial(self.exit, return_code=code))

    def _put_terminal_right(self) -> None:
        """What Textual does when it closes, where that takes too long (a busy machine, a thread that computes)."""
        driver: Any = self._driver
        if (attributes := getattr(driver, "attrs_before", None)) is not None:
            import termios

            with suppress(OSError, termios.error):
                termios.tcsetattr(driver.fileno, termios.TCSANOW, attributes)
                os.write(driver._file.fileno(), TERMINAL_AS_IT_WAS)
                os.write(
                    driver._file.fileno(),
                    f"the same run again: tinyvae --share {self.session.share_string}\r\n".encode(),
                )

    def action_help_quit(self) -> None:
        """Ctrl-C, which ends a program in a terminal."""
        self.exit(return_code=INTERRUPTED)

    def on_mount(self) -> None:
        self._loop_of_keys = asyncio.get_running_loop()
        if self._ended is not None:
            self.exit(return_code=self._ended)
        self._lay_out()
        self.main_screen.query_one("#bound").focus()
        self.session.run(self._run_at_start)
        self.set_interval(1 / self.fps, self.paint)
        self.train()
        self.find_references()
        self.tell_what_was_taken()
        self.paint()  # before the first layout: the first thing on the screen is the whole of it
        if not gc.isenabled():  # cli.py turned it off for the start
            gc.freeze()  # what is loaded by now stays: going through it again and again cost up to 0.1 s a time
            gc.enable()

    # ----- the engine and the screen share one thread -----

    @work(exclusive=True, group="train")
    async def train(self) -> None:
        """Train in slices between which keys, the mouse and the painting have their turn."""
        while True:
            session = self.session
            if not session.running:
                session.save()
                self._tell_if_unrecorded()
                await asyncio.sleep(0.02)
                continue
            began = perf_counter()
            async with self._busy:
                if self._step_seconds > SLOW_STEP:
                    taken = await asyncio.to_thread(session.advance, 0.0)
                else:
                    taken = session.advance(SLICE)
            if taken:
                self._step_seconds = (perf_counter() - began) / taken
            self._tell_if_diverged()
            self._tell_if_unrecorded()
            if self._paint_missed:
                self.paint()
            if taken:
                for _ in range(ROUNDS):  # quicker than to sleep, if only for 0.001 s
                    await asyncio.sleep(0)
            else:  # the next step is not due yet
                await asyncio.sleep(0.001)
            while perf_counter() < self._answering:  # a key was pressed: first show what it did
                await asyncio.sleep(0.001)

    def tell_what_was_taken(self) -> None:
        """Of a person's own file: rows, columns, header, what was left out, and what to know about it."""
        data = self.session.data
        if data.truth is None:
            self.notify("\n".join([data.description, *data.notes]), title=data.name, timeout=15, markup=False)

    @work(exclusive=True, group="references")
    async def find_references(self) -> None:
        """What log p(x) is held against takes a second on a plane: it is computed beside the run."""
        session = self.session
        if session.references is None:
            await in_thread(session.find_references)
            self._last_painted = None

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.InputEvent) and not self.screen_stack:
            return  # a key that was on its way when the app closed
        if isinstance(event, events.Key):
            self._answering = perf_counter() + ANSWER
        if isinstance(event, events.Resize):
            sides = zip(event.size, *LAID_OUT)
            event.size = event.virtual_size = Size(
                *(min(max(side, least), most) for side, least, most in sides)
            )
        await super().on_event(event)

    @property
    def ansi_theme(self) -> TerminalTheme:
        """Textual asks for it at every line of every frame; finding it anew each time took a tenth of a frame."""
        if self._ansi_theme[0] != self.theme:
            self._ansi_theme = (self.theme, super().ansi_theme)
        return self._ansi_theme[1]

    async def between_steps(self, change: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Change the run when no step is under way in a thread, then paint."""
        async with self._busy:
            result = change(*arguments, **named)
        self.paint(panels=not self.session.running)
        return result

    def _tell_if_diverged(self) -> None:
        if self.session.stopped and not self._told:
            self.notify(
                self.session.stopped, title="The run has diverged", severity="error", timeout=20, markup=False
            )
        self._told = bool(self.session.stopped)

    def _tell_if_unrecorded(self) -> None:
        if problem := self.session.unrecorded:
            self.session.unrecorded = ""
            says = "What comes is not recorded any more"
            self.notify(printable(problem), title=says, severity="error", timeout=20, markup=False)

    def paint(self, force: bool = False, panels: bool = True) -> None:
        """Show the step that is looked at, if anything has changed since the last time.

        Without `panels` only the title and the identity: what a key does is there at once, the plots follow with
        the next frame.
        """
        self._paint_missed = self._busy.locked()
        if self._paint_missed or not (
            self.is_running and self.screen_stack and self.main_screen.query("#title")
        ):
            return  # a step is under way in a thread, and the engine between two states; or the app is closing
        session = self.session
        self._measure()
        state = (
            session.step, session.viewed, session.selected, session.trainer.update, session.running, session.speed,
            self.size, self.theme, id(session.history), self.tab, session.units, session.caption,
            session.stopped, len(session.gaps),
        )  # fmt: skip
        if state == self._last_painted and not force:
            return
        self._last_painted = state if panels else None
        view = session.view()
        with self.batch_update():
            self.main_screen.query_one("#title", Static).update(self._title(view.step), layout=False)
            self.main_screen.query_one(Identity).show(view, session)
            for panel in self.panels.all if panels else ():
                panel.show(view, session)

    def _measure(self) -> None:
        """Steps per second, over about half a second."""
        then, steps = self._measured
        now = perf_counter()
        if now - then >= 0.5:
            self.session.rate = max(0, self.session.step - steps) / (now - then)
            self._measured = (now, self.session.step)
            if self.session.running:
                self._last_painted = None

    def _title(self, step: int) -> Text:
        session, palette = self.session, colors(self)
        kind = {1: "z∈R¹", 2: "z∈R²"}[session.model.latent_dim]
        wide = self.size.width >= 100
        left = Text.assemble(
            (" tinyvae ", f"bold {palette['elbo']}"),
            (f"· {printable(session.data.name)} ", palette["text"]),
            (f"· {len(session.data.x)} points · {kind} " if wide else "", palette["faint"]),
            ("· standardized " if wide and session.data.standardization else "", palette["faint"]),
            (f"· step {step} ", f"bold {palette['text']}"),
        )
        if session.viewed is not None:
            left.append(f"of {session.step}, looking back ", style=palette["elbo"])
        right = Text()
        if (beta := session.trainer.settings.beta) != 1:
            right.append(f"β {beta:g}   ", style=palette["kl_prior"])
        for group, sign in (("theta", "θ"), ("phi", "φ")):
            on = getattr(session.trainer.update, group)
            state = f"{sign} {'● training' if on else '○ frozen'}   "
            right.append(state, style=palette["good" if on else "faint"])
        if session.stopped:
            right.append("■ diverged ", style=f"bold {palette['bad']}")
        elif session.running:
            right.append(f"▶ {session.rate:.0f} steps/s ", style=palette["good"])
        else:
            right.append("‖ paused ", style=palette["elbo"])
        limit = "flat out" if np.isinf(session.speed) else f"at most {session.speed:g}/s"
        if wide:
            right.append(f"({limit}) ", style=palette["faint"])
        gap = max(1, self.size.width - left.cell_len - right.cell_len)
        return left + Text(" " * gap) + right

    # ----- what the keys do ----- (dialogs are imported when they are first asked for: the app starts faster)

    def action_run(self) -> None:
        if self.session.stopped:
            self.notify("This run has diverged. r resets it; ← and → look back.", severity="warning")
        self.session.run(not self.session.running)
        self.paint()

    async def action_step(self, count: int = 1) -> None:
        self.session.run(False)
        self.session.viewed = None
        for _ in range(count):
            async with self._busy:
                if self._step_seconds > SLOW_STEP:
                    await asyncio.to_thread(self.session.step_once)
                else:
                    self.session.step_once()
        self._tell_if_diverged()
        self.paint()

    def action_values(self) -> None:
        from .screens.values import Values

        self.push_screen(Values(self.session), self._look_at)

    async def _look_at(self, step: int | None) -> None:
        if step is not None:
            await self.between_steps(self.session.look_at, step)

    async def action_landscape(self) -> None:
        from .screens.landscape import LandscapeScreen

        await self.between_steps(self.session.run, False)
        self.push_screen(LandscapeScreen(self.session))

    @work(exclusive=True, group="gap")
    async def action_gap(self) -> None:
        from .screens.lessons import Card

        self.session.run(False)
        self.notify("Looking for the best q of every data point …", timeout=3)
        async with self._busy:
            split = await in_thread(self.session.split_gap)
        text = gap_text(split, self.session.selected)
        await self.push_screen_wait(Card("The gap, split", text, ["close"], wide=True))
        self.paint()

    def action_gap_every(self) -> None:
        self.session.gap_every = 0 if self.session.gap_every else 50
        every = "at every 50 steps from now on" if self.session.gap_every else "only when you press g"
        self.notify(f"The gap is split {every}.")

    def action_settings(self) -> None:
        from .screens.adjust import Adjust

        self.push_screen(Adjust(self.session.trainer.settings), self._adjust)

    async def _adjust(self, changes: dict[str, Any] | None) -> None:
        for name, value in (changes or {}).items():
            await self.between_steps(self.session.change, f"{name.replace('_', ' ')} {value}", **{name: value})

    def action_share(self) -> None:
        line = self.session.share_string
        if not line:
            self.notify("A lesson has chosen how this run begins: a line cannot say it.", severity="warning")
            return
        self.copy_to_clipboard(line)
        says = "This line opens the same run, bit for bit (copied)"
        self.notify(f"tinyvae --share {line}", title=says, timeout=20, markup=False)

    async def action_quit(self) -> None:
        """Close, but ask first where something would be lost."""
        if not self.session.would_be_lost:
            self.exit()
            return
        from .screens.lessons import Card

        text = (
            "A lesson chose how this run begins, so no line of text can open it again. `e` saves its records."
        )
        await self.between_steps(self.session.run, False)
        self.push_screen(Card("Close this run?", text, ["Stay", "Close"]), self._close)

    def _close(self, choice: int | None) -> None:
        if choice == 1:
            self.exit()

    def action_units(self, what: str) -> None:
        self.session.change_units(what)
        self.paint()

    def action_zoom(self) -> None:
        self.panels.next_span()

    def action_zoom_by(self, factor: float) -> None:
        self.panels.zoom(factor)

    def action_pan(self, part: float) -> None:
        self.panels.pan(part)

    def action_smooth(self) -> None:
        for chart in self.panels.charts:
            chart.smooth()

    def action_scale(self) -> None:
        for chart in self.panels.charts:
            chart.change_scale()

    async def on_step_chart_pointed(self, message: StepChart.Pointed) -> None:
        """A click on a chart looks at that step."""
        if message.clicked and message.step is not None:
            await self._look_at(message.step)

    async def action_switch(self, group: str) -> None:
        await self.between_steps(self.session.switch, group)

    def action_speed(self, by: int) -> None:
        self.session.change_speed(by)
        self.paint()

    async def action_scrub(self, by: int) -> None:
        await self.between_steps(self.session.scrub, by)

    async def action_branch(self) -> None:
        if await self.between_steps(self.session.branch):
            self.notify("A new branch begins here. The old run stays in the charts, dimmed.")
        else:
            self.notify("Look back with ← first, then b goes on from that step.", severity="warning")

    def action_select(self, by: int) -> None:
        self.session.select(self.session.selected + by)
        self.paint()

    def on_data_panel_selected(self, message: DataPanel.Selected) -> None:
        self.session.select(message.point)
        self.paint()

    async def action_reset(self) -> None:
        try:
            async with self._busy:
                self.session.reset()
        except (ValueError, ArithmeticError, OSError) as problem:  # the file has changed or gone: the run stays
            self.notify(printable(problem), severity="error", markup=False)
            return
        self._restart_panels()
        self.find_references()

    async def action_go_back(self) -> None:
        if not self.session.before:
            self.notify("There is no run before this one.", severity="warning")
            return
        await self.go_back()
        self.notify("Back at the run before. R returns to the other one.")

    async def go_back(self, run: dict[str, Any] | None = None) -> None:
        """To the run before this one, or to another that was put aside."""
        await self.between_steps(self.session.return_to, run or self.session.before)
        self._restart_panels()
        self.find_references()

    def action_help(self) -> None:
        from .screens.help import Help

        focused = self.focused
        self.push_screen(Help(focused if isinstance(focused, Panel) else None))

    def action_code(self) -> None:
        from .screens.code import OF_PANEL, Code

        panel = self.focused.id if self.focused is not None else None
        self.push_screen(Code(OF_PANEL.get(panel or "", "elbo")))

    def on_identity_asked(self, message: Identity.Asked) -> None:
        from .screens.code import Code

        self.push_screen(Code(message.term))

    def action_dataset(self) -> None:
        from .screens.choose import Choose

        self.push_screen(Choose(DATASETS, self.session.data.name), self._open)

    async def _open(self, name: str | None) -> None:
        """Another dataset, with the settings that are recommended for it."""
        if name is not None:
            await self._begin(self.session.config.with_dataset(name))

    def action_model(self) -> None:
        from .screens.new_run import NewRun

        self.push_screen(NewRun(self.session.config, self.session.resolved), self._begin)

    async def _begin(self, config: Config | None) -> None:
        if config is None:
            return
        try:
            await self.between_steps(self.begin, config.open)
        except (ValueError, ArithmeticError, OSError) as problem:
            self.notify(printable(problem), severity="error", markup=False)
            return
        self.session.run(True)
        self.notify("A new run has begun.")

    def begin(self, make: Callable[[], Run]) -> None:
        """Put another run on screen, paused at its step 0."""
        self.session.run(False)
        self.session.open_run(make)
        self._step_seconds = SLOW_STEP + 1  # until a step has been timed, take it to be slow
        self._restart_panels()
        self.find_references()
        self.tell_what_was_taken()

    @work(exclusive=True, group="lesson")
    async def action_lessons(self) -> None:
        """Choose a lesson and play it; what is heavy to import waits until now."""
        from . import classroom

        self.session.run(False)
        lesson = await classroom.choose(self)
        if lesson is not None:
            await classroom.play(self, lesson)

    def focus_panel(self, name: str) -> None:
        """Show and focus the panel with this id."""
        self.action_tab([panel.id for panel in self.panels.all].index(name) + 1)

    def _restart_panels(self) -> None:
        self._measured, self._last_painted = (perf_counter(), self.session.step), None
        for panel in self.panels.all:
            panel.restart()
        self.paint()

    def action_export(self) -> None:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        name = f"tinyvae-{self.session.data.name}-{stamp}"
        names = [name, *(f"{name}-{k}" for k in range(2, 100))]  # two exports of one second
        folder = next(path for path in map(Path, names) if not path.exists())
        try:
            folder.mkdir()
            self.session.export_records(folder)
            (folder / "screen.svg").write_text(self.export_screenshot(), encoding="utf-8")
        except OSError as problem:
            says = f"Not everything was saved: {printable(problem)}"
            self.notify(says, severity="error", timeout=10, markup=False)
            return
        where = printable(folder.absolute())
        self.notify(f"records.csv, .jsonl and .npz, screen.svg and share.txt are in {where}", markup=False)

    def action_tab(self, number: int) -> None:
        """On a narrow screen: which panel is shown. Everywhere: which one has the focus."""
        self.tab = number
        self._lay_out()
        self.panels.all[number - 1].focus()
        self.paint()

    # ----- layout -----

    @property
    def main_screen(self) -> Screen[Any]:
        """The one under all dialogs."""
        return self.screen_stack[0]

    @property
    def panels(self) -> Panels:
        return self.main_screen.query_one(Panels)

    def _lay_out(self) -> None:
        for number, panel in enumerate(self.main_screen.query(Panel), 1):
            panel.set_class(number == self.tab, "-chosen")
            panel.border_title = f"{number} {panel.TITLE}"
        self.main_screen.set_class(self.tab in (3, 6), "-third")

    def on_resize(self, event: events.Resize) -> None:
        small = event.size.width < SMALLEST[0] or event.size.height < SMALLEST[1]
        self.main_screen.set_class(small, "-too-small")
        self._lay_out()
        self._last_painted = None

    def action_command_palette(self) -> None:
        if not any(isinstance(screen, CommandPalette) for screen in self.screen_stack):
            from .screens.dialog import Palette

            self.push_screen(Palette(id="--command-palette"))

    def get_system_commands(self, screen: Screen[Any]) -> Any:
        yield from super().get_system_commands(screen)
        for _, action, name, what, _ in keys.TABLE:
            if action != "quit":
                yield SystemCommand(name, what, partial(self.run_action, action))
