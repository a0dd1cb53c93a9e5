"""All plots of the main screen, and what they share: the window of steps and the crosshair of the charts."""

from textual.app import ComposeResult
from textual.containers import Container

from ..session import Session
from .charts import BoundChart, PartsChart, PursuitChart, StepChart
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
        yield PartsChart(id="parts")
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

    def zoom(self, factor: float, session: Session, at: float | None = None) -> None:
        self.charts[0].window.zoom(factor, *_steps(session), at)
        self._changed()

    def pan(self, part: float, session: Session) -> None:
        self.charts[0].window.pan(part, *_steps(session))
        self._changed()

    def on_step_chart_wheel(self, message: StepChart.Wheel) -> None:
        if message.session is not None:
            self.zoom(message.factor, message.session, message.at)

    def on_step_chart_dragged(self, message: StepChart.Dragged) -> None:
        if message.session is not None:
            self.pan(message.part, message.session)

    def on_step_chart_pointed(self, message: StepChart.Pointed) -> None:
        """Crosshairs are linked: all charts show the step that the mouse is over."""
        for chart in self.charts:
            chart.point_at(message.step)

    def _changed(self) -> None:
        for chart in self.charts:
            chart.changed()


def _steps(session: Session) -> tuple[float, float]:
    """The last step there is, and the one that is looked at."""
    return float(session.step), float(session.step if session.shown is None else session.shown)
