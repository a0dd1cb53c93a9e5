"""Who chases whom: the plane of He et al. (2019)."""

from collections import deque
from typing import Any

import numpy as np
from textual.geometry import Size

from ..palette import background, colors, look
from ..plots import Curve, Plot, Points, Range, mix, plane
from ..session import Session
from ..view import View
from .panel import Panel

TRAIL = 24  # how many frames back the trails reach


class ChasePlane(Panel):
    """The mean of each posterior across, the mean of each q up (He et al. 2019, figure 2)."""

    TITLE = "who chases whom"
    HELP = (
        "Each dot is a data point: across the mean of its posterior pθ(z|x), up the mean of its q. On the diagonal q "
        "has caught up. A θ-step moves dots only sideways, a φ-step only up and down: the trail of ◆ shows which. "
        "(He et al. 2019, Lagging inference networks, figure 2.)"
    )

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.restart()

    def restart(self) -> None:
        self.span = Range()
        self._trail: deque[tuple[int, Any, Any]] = deque(maxlen=TRAIL)

    def show(self, view: View, session: Session) -> None:
        if self._trail and view.step <= self._trail[-1][0]:  # looking back, or another branch
            while self._trail and self._trail[-1][0] >= view.step:
                self._trail.pop()
        across = view.evaluation.target.posterior_mean[:, 0]
        self._trail.append((view.step, across, view.evaluation.q.mean[:, 0]))
        super().show(view, session)

    def draw(self, view: View, session: Session, size: Size) -> Plot:
        palette, ground = colors(self), background(self)
        _, across, up = self._trail[-1]
        low, high = self._ends(np.concatenate([across, up]))
        trail = np.array([(t[view.selected], q[view.selected]) for _, t, q in self._trail])
        layers: list[Any] = [
            Curve([low, high], [low, high], palette["faint"], "q = posterior"),
            Points(across, up, palette["q"]),
            Curve(trail[:, 0], trail[:, 1], palette["text"], fade=mix(ground, palette["text"], 0.2)),
            Points(across[[view.selected]], up[[view.selected]], palette["text"], "◆"),
        ]
        index = "₁" if view.model.latent_dim == 2 else ""
        return plane(
            size.width, size.height, layers, look=look(self), x_range=(low, high), y_range=(low, high),
            x_name=f"mean of pθ(z{index}|x)", y_name=f"mean of q(z{index}|x)",
        )  # fmt: skip

    def _ends(self, values: Any) -> tuple[float, float]:
        reach = max(1.0, float(np.abs(values).max()))
        return self.span.fit(-reach, reach)
