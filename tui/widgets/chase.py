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
        "has caught up. A θ-step moves dots only sideways, a φ-step only up and down: the trail of ◆ shows which "
        "(of ◇ for z₂, where z has two coordinates, each with its colour). "
        "(He et al. 2019, Lagging inference networks, figure 2.)"
    )

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.restart()

    def restart(self) -> None:
        self.span = Range()
        self._trail: deque[tuple[int, Any, Any]] = deque(maxlen=TRAIL)  # step, means of posteriors, means of q

    def show(self, view: View, session: Session) -> None:
        if self._trail and view.step <= self._trail[-1][0]:  # looking back, or another branch
            while self._trail and self._trail[-1][0] >= view.step:
                self._trail.pop()
        self._trail.append((view.step, view.evaluation.target.posterior_mean, view.evaluation.q.mean))
        super().show(view, session)

    def draw(self, view: View, session: Session, size: Size) -> Plot:
        palette, ground = colors(self), background(self)
        _, across, up = self._trail[-1]
        low, high = self._ends(np.concatenate([across, up]))
        layers: list[Any] = [Curve([low, high], [low, high], palette["faint"], "q = posterior")]
        names = [""] if view.model.latent_dim == 1 else ["z₁", "z₂"]
        for k, (name, color) in enumerate(zip(names, (palette["q"], palette["kl_prior"]))):
            layers.append(Points(across[:, k], up[:, k], color, name=name, glyph=".x"[k]))
        for k in range(len(names)):
            trail = np.array([(t[view.selected, k], q[view.selected, k]) for _, t, q in self._trail])
            layers.append(
                Curve(trail[:, 0], trail[:, 1], palette["text"], fade=mix(ground, palette["text"], 0.2))
            )
            layers.append(Points(trail[-1:, 0], trail[-1:, 1], palette["text"], "◆◇"[k]))
        return plane(
            size.width, size.height, layers, look=look(self), x_range=(low, high), y_range=(low, high),
            x_name="mean of pθ(z|x)", y_name="mean of q(z|x)",
        )  # fmt: skip

    def _ends(self, values: Any) -> tuple[float, float]:
        reach = max(1.0, float(np.abs(values).max()))
        return self.span.fit(-reach, reach)
