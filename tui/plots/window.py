"""Which part of a growing x axis the charts show: all of it, the last so many, or a part that stays."""

from __future__ import annotations

LEAST = 10.0  # an axis of a fraction of a step would say nothing


class Window:
    """`span` is how much of x is shown (None: all), `end` where that ends (None: it follows the newest x).

    `last` is the largest x there is, `now` the one that is looked at: the same, unless somebody looks back.
    """

    def __init__(self) -> None:
        self.span: float | None = None
        self.end: float | None = None

    def ends(self, last: float, now: float) -> tuple[float, float] | None:
        """The first and last x to show, or None for all of them."""
        if self.span is None or (self.end is None and self.span >= last):
            return None if last >= LEAST else (0.0, LEAST)
        end = now if self.end is None else min(self.end, last)
        return max(0.0, end - self.span), max(end, self.span)

    def reveal(self, now: float) -> None:
        """Move a part that stays so that it has `now` in it: who looks back wants to see what he looks at."""
        if self.span is not None and self.end is not None and not self.end - self.span <= now <= self.end:
            self.end = round(max(now + self.span / 2, self.span))

    def follow(self, span: float | None) -> None:
        """The newest `span`, or all."""
        self.span, self.end = span, None

    def zoom(self, factor: float, last: float, now: float, at: float | None = None) -> None:
        """Show `factor` times as much; `at` stays where it is on the screen (by default what is looked at)."""
        low, high = self.ends(last, now) or (0.0, last)
        at = min(max(now if at is None else at, low), high)
        self._show(at - (at - low) * factor, at + (high - at) * factor, last)

    def pan(self, part: float, last: float, now: float) -> None:
        """Move by a part of what is shown; at the newest x it follows again."""
        low, high = self.ends(last, now) or (0.0, last)
        self._show(low + part * (high - low), high + part * (high - low), last)

    def _show(self, low: float, high: float, last: float) -> None:
        span = max(LEAST, round(high - low))
        if span >= last:
            self.follow(None)
            return
        end = round(min(max(high, span), last))
        self.span, self.end = span, None if end >= last else end

    @property
    def label(self) -> str:
        if self.span is None:
            return ""
        if self.end is None:
            return f"last {self.span:.0f} steps"
        return f"steps {self.end - self.span:.0f}–{self.end:.0f}"
