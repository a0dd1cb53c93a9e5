"""One run on screen: trained in slices between two looks at the keyboard, painted at a steady rate, laid out."""

import asyncio
import gc
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from textual import events, work
from textual.app import App, ComposeResult
from textual.color import Color
from textual.css.query import NoMatches
from textual.geometry import Size
from textual.screen import Screen
from textual.widgets import Footer, Static

from tinyvae import StepRecord
from tinyvae.runs import Config, Schedule

from . import signals
from .output import printable
from .palette import colors
from .session import Session
from .view import View
from .widgets.identity import Identity
from .widgets.panel import Panel
from .widgets.panels import Panels
from .work import in_thread

SLICE = 0.01  # seconds of training between two looks at the keyboard
ROUNDS = 10  # of the event loop at such a look: a key goes through several queues before it does anything
ANSWER = 0.04  # seconds without training after a key, in which to show what it did
SLOW_STEP = 0.015  # a step that takes longer is waited for in a thread, one at a time
STILL = 1.0  # second, after which what the terms are is proven
SMALLEST = (60, 18)
TERMINAL_AS_IT_WAS = (  # no mouse, no focus reports, no marked pasting, lines wrap; its own screen, and the cursor
    b"\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1004l\x1b[?2004l\x1b[?2048l\x1b[?7h\x1b[<u\x1b[?1049l\x1b[?25h"
)
LAID_OUT = ((24, 6), (1000, 300))  # the least and the largest size: Textual 8.2 fails on less, memory on more


class TooSmall(Static):
    """Stands in for everything on a terminal on which nothing could be read."""


class Live(App[None]):
    """The app without its keys. It asks the session for everything it shows."""

    TITLE = "tinyvae"
    CSS_PATH = "app.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide"), (150, "-full")]

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
        self._view: View | None = None  # what is on the screen
        self._measured = (perf_counter(), 0)
        self._step_seconds = 0.0
        self._stands: tuple[Any, int, float] = (None, 0, 0.0)  # the run, at which step, since when
        self._told = self._paint_missed = self._shown_running = False
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

    def _handle_exception(self, error: Exception) -> None:
        """What a half-made screen misses while all screens are taken apart is no failure."""
        if not (self._exit and isinstance(error, NoMatches)):
            super()._handle_exception(error)

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
                self._certify_if_new()
                await asyncio.sleep(0.02)
                continue
            began = perf_counter()
            async with self._busy:
                if self._step_seconds > SLOW_STEP:
                    taken = await asyncio.to_thread(session.advance, 0.0, self._publish)
                    if taken and session.gap_is_due:
                        await asyncio.to_thread(session.split_gap)
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

    def _publish(self, record: StepRecord) -> None:
        """From a thread: what the screen draws grows between two of its turns, not within one."""
        assert self._loop_of_keys is not None
        self._loop_of_keys.call_soon_threadsafe(self.session.take, record)

    def _certify_if_new(self) -> None:
        """On a plane the terms are proven where the run stands still: it takes too long for every step."""
        session, now = self.session, perf_counter()
        if self._stands[:2] != (session.history, session.step):
            self._stands = (session.history, session.step, now)
        elif now - self._stands[2] > STILL and session.wants_certificate:
            session.certificate = (session.step, 0.0, np.inf)
            self.certify()

    @work(exclusive=True, group="certify")
    async def certify(self) -> None:
        session, step = self.session, self.session.step
        found = (await in_thread(session.trainer.evaluate().certified)).terms
        session.certificate = (step, found.certified, found.proven_error)
        self._last_painted = None

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

        Without `panels` only the title and the identity, of the step that the panels show: what a key does is
        there at once, all else follows with the next frame.
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
        if self._shown_running != session.running:
            self._shown_running = session.running
            self.refresh_bindings()
        if panels or self._view is None:  # the numbers of one frame are of one step
            self._view = session.view()
        view = self._view
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
