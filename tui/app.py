"""The app: a live run, and what each key does to it."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from textual import work
from textual.app import SystemCommand
from textual.command import CommandPalette
from textual.screen import Screen

from tinyvae import DATASETS
from tinyvae.runs import Config, Run

from . import keys
from .exit_codes import INTERRUPTED
from .live import SLOW_STEP, Live
from .notes import gap_text
from .output import printable
from .widgets.charts import StepChart
from .widgets.identity import Identity
from .widgets.panel import Panel
from .widgets.spaces import DataPanel, LatentPanel
from .work import in_thread


class TinyVAE(Live):
    """Watch every term of log p(x) while a VAE trains."""

    BINDINGS = [*keys.bindings()]

    # ----- what the keys do ----- (dialogs are imported when they are first asked for: the app starts faster)

    def action_help_quit(self) -> None:
        """Ctrl-C, which ends a program in a terminal."""
        self.exit(return_code=INTERRUPTED)

    def action_run(self) -> None:
        if self.session.stopped:
            self.notify("This run has diverged. r resets it; ← and → look back.", severity="warning")
        self.session.run(not self.session.running)
        self.paint()

    def action_pause(self) -> None:
        self.action_run()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The footer has Run or Pause, whichever the space key does."""
        return action not in ("run", "pause") or (action == "pause") == self._shown_running

    async def action_step(self, count: int = 1) -> None:
        self.session.run(False)
        self.session.viewed = None
        for _ in range(count):
            async with self._busy:
                if self._step_seconds > SLOW_STEP:
                    await asyncio.to_thread(self.session.step_once, self._publish)
                else:
                    self.session.step_once()
        self._tell_if_diverged()
        self.paint()

    async def action_values(self) -> None:
        from .screens.values import Values

        view = await self.between_steps(self.session.view)
        self.push_screen(Values(self.session, view), self._look_at)

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

    def action_flip(self) -> None:
        self.panels.query_one(LatentPanel).flip()
        self.paint(force=True)

    def action_turn(self) -> None:
        self.panels.query_one(DataPanel).turn()
        self.paint(force=True)

    def action_axis(self, which: int) -> None:
        self.panels.query_one(DataPanel).choose_axis(which)
        self.paint(force=True)

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

    def action_command_palette(self) -> None:
        if not any(isinstance(screen, CommandPalette) for screen in self.screen_stack):
            from .screens.dialog import Palette

            self.push_screen(Palette(id="--command-palette"))

    def get_system_commands(self, screen: Screen[Any]) -> Any:
        yield from super().get_system_commands(screen)
        for _, action, name, what, _ in keys.TABLE:
            if action != "quit":
                does = self.action_run if action == "run" else partial(self.run_action, action)
                yield SystemCommand(name, what, does)
