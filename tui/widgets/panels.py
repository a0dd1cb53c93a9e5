"""All plots of the main screen, and what they share: the window of steps and the crosshair of the charts."""

from textual.app import ComposeResult
from textual.containers import Container

from .charts import BoundChart, KLChart, PursuitChart, StepChart
from .chase import ChasePlane
from .panel import Panel
from .spaces import DataPanel, LatentPanel

SPANS = (None, 2000, 500, 100)  # how many of the last steps the charts show, one after the other; None is all


class Panels(Container):
    """The six panels. Zooming, panning and pointing act on all charts of steps at once."""

    def compose(self) -> ComposeResult:
        yield BoundChart(id="bound")
        yield LatentPanel(id="latent")
        yield ChasePlane(id="chase")
        yield KLChart(id="parts")
        yield DataPanel(id="data")
        yield PursuitChart(id="pursuit")

    @property
    def all(self) -> list[Panel]:
        return list(self.query(Panel))

    @property
    def charts(self) -> list[StepChart]:
        return list(self.query(StepChart))

    def on_mount(self) -> None:
        for chart in self.charts:
            chart.window = self.charts[0].window  # one for all

    def next_span(self) -> None:
        """All steps, or fewer of the last ones; after the fewest all again."""
        window = self.charts[0].window
        place = SPANS.index(window.span) if window.end is None and window.span in SPANS else 0
        window.follow(SPANS[(place + 1) % len(SPANS)])
        self._changed()

    def zoom(self, factor: float, at: float | None = None) -> None:
        if steps := self._steps():
            self.charts[0].window.zoom(factor, *steps, at)
            self._changed()

    def pan(self, part: float) -> None:
        if steps := self._steps():
            self.charts[0].window.pan(part, *steps)
            self._changed()

    def _steps(self) -> tuple[float, float] | None:
        """The last step there is, and the one that is looked at; None before anything was shown."""
        chart = self.charts[0]
        if chart.session is None or chart.view is None:
            return None
        return float(chart.session.step), float(chart.view.step)

    def on_step_chart_wheel(self, message: StepChart.Wheel) -> None:
        self.zoom(message.factor, message.at)

    def on_step_chart_dragged(self, message: StepChart.Dragged) -> None:
        self.pan(message.part)

    def on_step_chart_pointed(self, message: StepChart.Pointed) -> None:
        """Crosshairs are linked: all charts show the step that the mouse is over."""
        for chart in self.charts:
            chart.point_at(message.step)

    def _changed(self) -> None:
        for chart in self.charts:
            chart.changed()
