"""Small pictures side by side, each in a frame under its caption: data points that are images, and what becomes of
them. A pixel is a square of half-cells, as large as fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .axes import Axis
from .fields import color_ramp
from .frame import PLAIN, Look, Plot

GAP = 3  # columns between two frames


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels (rows, columns) from 0 to 1, row 0 at the top; 0 is `background` and 1 is `color`."""

    pixels: ArrayLike
    color: str
    background: str
    caption: str = ""


def pictures(width: int, height: int, images: Sequence[Picture], *, look: Look = PLAIN) -> Plot:
    """Draw pictures of the same shape side by side, in the middle of `width` × `height` cells."""
    canvas = look.canvas(width, height)
    pixels = [np.nan_to_num(np.asarray(image.pixels, float)).clip(0, 1) for image in images]
    room = (width - GAP * (len(images) - 1)) // max(len(images), 1) - 2, 2 * (height - 3)  # in half-cells
    rows, columns = pixels[0].shape if pixels else (0, 0)
    while min(rows, columns) > 1 and (columns > room[0] or rows > room[1]):
        pixels = [_halved(each) for each in pixels]
        rows, columns = pixels[0].shape
    scale = min(room[0] // max(columns, 1), room[1] // max(rows, 1))
    scale -= scale > 3 and scale % 2  # whole cells, where that costs little
    if scale > 0:
        wide, high = scale * columns, -(-scale * rows // 2)  # cells inside a frame
        left = (width - (wide + 2 + GAP) * len(images) + GAP) // 2
        top = (height - high - 3) // 2
        for image, values in zip(images, pixels, strict=True):
            canvas.text(left + 1, top, image.caption[: wide + GAP], image.color)
            canvas.text(left, top + 1, f"┌{'─' * wide}┐", look.axis)
            for row in range(top + 2, top + 2 + high):
                canvas.text(left, row, "│", look.axis)
                canvas.text(left + wide + 1, row, "│", look.axis)
            canvas.text(left, top + 2 + high, f"└{'─' * wide}┘", look.axis)
            inside = canvas.region(left + 1, top + 2, wide, high)
            shown = np.zeros((2 * high, wide))
            shown[: scale * rows] = np.kron(values, np.ones((scale, scale)))
            inside.heat(shown, color_ramp(image.background, image.color))
            left += wide + 2 + GAP
    axes = Axis(0.0, 1.0, max(canvas.dots_wide, 1)), Axis(0.0, 1.0, max(canvas.dots_high, 1))
    return Plot(canvas.strips(), ", ".join(image.caption for image in images), 0, 0, 0, 0, *axes)


def _halved(pixels: NDArray[Any]) -> NDArray[Any]:
    """The means of 2×2 pixels; an odd last row or column counts twice."""
    padded = np.pad(pixels, [(0, size % 2) for size in pixels.shape], mode="edge")
    return np.asarray(padded.reshape(len(padded) // 2, 2, -1, 2).mean(axis=(1, 3)))
