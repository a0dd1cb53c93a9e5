"""A raster of dots, shades and letters in terminal cells, and its way to Textual strips.

A terminal cell shows one character in one foreground and one background colour. Three layers share it:

    shade   two half-cells of background colour   (heat maps, the area between two curves)
    dots    a small raster of ink inside the cell  (braille 2x4, block 2x2, ascii 1x1 dots)
    glyph   one character that hides the dots      (labels, highlighted points)

Each layer is a NumPy array; drawing is array assignment, and `Canvas.strips` turns all cells into characters at
once and merges equal neighbours into Segments. Every Segment carries a Style, because Textual's colour filters
do not accept a Segment without one. A style is a Rich style string ("#E69F00", "bold #56B4E9", "" for the
terminal's own) or a Rich Style.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

Charset = Literal["braille", "block", "ascii"]
Array = NDArray[Any]

DOTS: dict[str, tuple[int, int]] = {"braille": (2, 4), "block": (2, 2), "ascii": (1, 1)}
"""Dots per cell, (across, down)."""

# The bit of each dot inside a cell, row by row: Unicode numbers the Braille dots down the columns and added the
# bottom row last; our quadrants simply count.
_BITS = {
    "braille": np.array([[1, 8], [2, 16], [4, 32], [64, 128]], np.uint8),
    "block": np.array([[1, 2], [4, 8]], np.uint8),
    "ascii": np.array([[1]], np.uint8),
}
_INK = {
    "braille": np.arange(0x2800, 0x2900, dtype=np.uint32),
    "block": np.array([ord(c) for c in " ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"], np.uint32),
    "ascii": np.array([32, 42], np.uint32),
}
RAMP = " .:-=+*#%@"
"""Ten steps from empty to full: how a shade looks where there are no colours."""

_ASCII = str.maketrans({
    "−": "-", "–": "-", "—": "-", "·": ".", "…": ".", "│": "|", "┤": "|", "├": "|", "┬": "+", "─": "-", "━": "=",
    "┌": "+", "┐": "+", "└": "+", "┘": "+", "╍": "=", "┅": "-", "●": "O", "◆": "#", "■": "#", "▲": "^", "○": "o",
    "◇": "<", "▒": "%", "×": "x", "★": "*",
    **{chr(ord("₀") + i): str(i) for i in range(10)},
    "θ": "theta", "φ": "phi", "∈": "in", "±": "+-", "Δ": "d", "‖": "||", "¹": "1", "²": "2",
    "←": "<", "→": ">", "↑": "^", "↓": "v",
})  # fmt: skip

_FAR = 1e7  # dots; a coordinate beyond this is as good as this, and differences of such numbers cannot overflow


@lru_cache(4096)
def plain(text: str, charset: Charset) -> str:
    """The text in single-width characters that the character set can show (one per cell)."""
    if charset == "ascii":
        text = "".join(c if c.isascii() else "?" for c in text.translate(_ASCII))
    return "".join(c if width == 1 else "?" for c in text if (width := cell_len(c)) and c.isprintable())


@lru_cache(4096)
def as_style(style: str | Style, colors: bool = True) -> Style:
    """The Rich Style of a style string; without its colours (but bold, if bold) when colours are off."""
    parsed = Style.parse(style) if isinstance(style, str) else style
    return parsed if colors else parsed.without_color


@lru_cache(16384)
def _cell_style(ink: Style, background: str, foreground: str) -> Style:
    return ink + Style(color=foreground or None, bgcolor=background or None)


@lru_cache(512)
def mix(start: str, end: str, amount: float) -> str:
    """The colour `amount` (0–1) of the way from "#rrggbb" `start` to `end`."""
    a, b = (np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in (start, end))
    return "#" + "".join(f"{int(v):02x}" for v in np.rint(a + (b - a) * amount))


class Canvas:
    """A drawing area of `width` × `height` cells; x grows to the right and y down, in dots.

    `dots_wide` and `dots_high` give its size in dots; the dot in column i covers [i, i + 1), so whole curves are
    placed at dot centres i + 0.5. Later drawing wins where two series share a cell (a cell has one colour).
    With `colors=False` all colours are dropped and shades become the characters of `RAMP`. `base` is the style
    under every cell.
    """

    def __init__(
        self, width: int, height: int, charset: Charset = "braille", colors: bool = True, base: str | Style = ""
    ) -> None:
        self.width, self.height, self.charset, self.colors = max(width, 0), max(height, 0), charset, colors
        self.across, self.down = DOTS[charset]
        shape = (self.height, self.width)
        self.ink: Array = np.zeros((self.height * self.down, self.width * self.across), bool)
        self.shade: Array = np.zeros((2 * self.height, self.width), np.intp)  # of _shades, by half-cells
        self.glyph: Array = np.zeros(shape, np.uint32)  # 0: none, the dots show
        self.dot_glyph: Array = np.full(shape, ord("*"), np.uint32)  # what a dot looks like in ascii
        self.style: Array = np.zeros(shape, np.intp)  # of _styles
        self.base = as_style(base, colors)
        self._styles: dict[Style, int] = {self.base: 0}
        self._shades: list[tuple[str, str]] = [("", " ")]  # (colour, its character without colours)

    @property
    def dots_wide(self) -> int:
        return self.width * self.across

    @property
    def dots_high(self) -> int:
        return self.height * self.down

    def region(self, left: int, top: int, width: int, height: int) -> Canvas:
        """A canvas onto a rectangle of this one: its arrays are views, so it draws here and clips there."""
        left, top = min(max(left, 0), self.width), min(max(top, 0), self.height)
        part = Canvas(0, 0, self.charset, self.colors, self.base)
        part.width = max(min(width, self.width - left), 0)
        part.height = max(min(height, self.height - top), 0)
        cells = np.s_[top : top + part.height, left : left + part.width]
        part.glyph, part.dot_glyph, part.style = self.glyph[cells], self.dot_glyph[cells], self.style[cells]
        part.shade = self.shade[2 * top : 2 * (top + part.height), cells[1]]
        rows = slice(top * self.down, (top + part.height) * self.down)
        part.ink = self.ink[rows, left * self.across : (left + part.width) * self.across]
        part._styles, part._shades = self._styles, self._shades
        return part

    # -- drawing

    def line(
        self,
        xs: ArrayLike,
        ys: ArrayLike,
        style: str | Style = "",
        *,
        dash: tuple[int, int] = (1, 1),
        glyph: str = "*",
    ) -> None:
        """A polyline through the points (xs, ys); a NaN or infinite coordinate breaks it.

        `dash` = (on, period) in dots makes dashed lines, to tell series apart without colours; `glyph` is
        the character of the line in ascii.
        """
        x, y = _coordinates(xs, ys)
        lone = np.isnan(np.diff(x, prepend=np.nan)) & np.isnan(np.diff(x, append=np.nan))
        if lone.any():  # a point between two gaps has no segment, but it shows
            self._dots(x[lone], y[lone], style, glyph)
        x0, y0, x1, y1 = _clip(x[:-1], y[:-1], x[1:], y[1:], self.dots_wide, self.dots_high)
        # One sample per dot along the longer side of each segment, all segments in one array.
        samples = np.maximum(np.abs(x1 - x0), np.abs(y1 - y0)).astype(np.intp) + 2
        first = np.cumsum(samples) - samples
        along = (np.arange(samples.sum()) - np.repeat(first, samples)) / np.repeat(samples - 1, samples)
        px = np.repeat(x0, samples) + along * np.repeat(x1 - x0, samples)
        py = np.repeat(y0, samples) + along * np.repeat(y1 - y0, samples)
        if dash[0] < dash[1]:
            # Along the longer side, and tied to the screen so that dashes do not crawl while data come in. The
            # short vertical strokes of a noisy curve follow x as the curve does; a long one is a spike to be seen.
            wide, high = np.abs(x1 - x0), np.abs(y1 - y0)
            flat = np.repeat((wide >= high) | ((wide < 0.01) & (high < 8)), samples)
            on = np.where(flat, px, py).astype(np.intp) % dash[1] < dash[0]
            px, py = px[on], py[on]
        self._dots(px, py, style, glyph)

    def points(
        self,
        xs: ArrayLike,
        ys: ArrayLike,
        style: str | Style = "",
        marker: str | None = None,
        glyph: str = "*",
    ) -> None:
        """A dot at each point (`glyph` in ascii), or, with a `marker`, that character in the point's cell."""
        x, y = _coordinates(xs, ys)
        if marker is None:
            return self._dots(x, y, style, glyph)
        x, y = self._inside(x, y)
        cells = y.astype(np.intp) // self.down, x.astype(np.intp) // self.across
        self.glyph[cells] = ord(plain(marker, self.charset)[:1] or "*")
        self.style[cells] = self._style_index(style)

    def fill_between(self, upper: ArrayLike, lower: ArrayLike, color: str, dotted: bool = False) -> None:
        """Shade between two curves given as one y per dot column (NaN: nothing there).

        The shade is a background colour of whole cells; `dotted` or, without colours, sparse dots of that
        colour. Those leave the cells alone that already have ink, so draw the lines first.
        """
        top, bottom = (np.asarray(v, float)[: self.dots_wide] for v in (upper, lower))
        row = np.arange(self.dots_high)[:, None] + 0.5
        with np.errstate(invalid="ignore"):
            inside = (row > np.minimum(top, bottom)) & (row < np.maximum(top, bottom))
        if inside.size == 0:
            return
        if self.colors and not dotted:
            cells = self._cells(inside).mean((1, 3)) >= 0.4
            self._shades.append((color, ":"))
            self.shade[cells.repeat(2, axis=0)] = len(self._shades) - 1
            return
        y, x = np.nonzero(inside)
        sparse = (x % 2 == 0) & ((y + 2 * (x // 2 % 2)) % 4 == 0) if self.down > 1 else (x + y) % 2 == 0
        x, y = x[sparse], y[sparse]
        blank = ~self._inked()[y // self.down, x // self.across]
        self._dots(x[blank], y[blank], color, ".")

    def heat(self, level: ArrayLike, ramp: Sequence[str]) -> None:
        """Colour all half-cells: `level` (2·height, width) in 0–1 picks a colour of `ramp`; NaN and 0 stay clear."""
        value = np.nan_to_num(np.asarray(level, float), nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
        steps = max(len(ramp) - 1, 1)
        index = np.rint(value * steps).astype(np.intp)
        first = len(self._shades)
        self._shades += [(c, RAMP[round(i / steps * (len(RAMP) - 1))]) for i, c in enumerate(ramp)]
        self.shade[:] = np.where(index > 0, first + index, self.shade)

    def dots(self, mask: ArrayLike, style: str | Style = "", glyph: str = "*") -> None:
        """Ink where `mask` (dots_high, dots_wide) is true."""
        y, x = np.nonzero(np.asarray(mask, bool))
        self._dots(x, y, style, glyph)

    def text(self, column: int, row: int, text: str, style: str | Style = "") -> None:
        """Write text into the cells of one row; what does not fit is cut off."""
        if not 0 <= row < self.height:
            return
        text = plain(text, self.charset)[max(-column, 0) :]
        column = max(column, 0)
        codes = [ord(c) for c in text[: max(self.width - column, 0)]]
        self.glyph[row, column : column + len(codes)] = codes
        self.style[row, column : column + len(codes)] = self._style_index(style)

    @contextmanager
    def over(self) -> Iterator[None]:
        """What is drawn meanwhile hides the dots that were in its cells before: a line stays as thin as it is."""
        before = self.ink.copy()
        self.ink[:] = False
        yield
        self._cells(self.ink)[:] |= self._cells(before) & ~self._inked()[:, None, :, None]

    def is_blank(self, column: int, row: int, length: int) -> bool:
        """Whether nothing is drawn yet on these cells (shades do not count)."""
        cells = np.s_[row : row + 1, max(column, 0) : column + length]
        return not (self.glyph[cells].any() or self._inked()[cells].any())

    # -- from dots to strips

    def strips(self) -> list[Strip]:
        """One Strip per row, each exactly `width` cells."""
        if self.width == 0 or self.height == 0:
            return [Strip([], 0) for _ in range(self.height)]
        bits = (self._cells(self.ink) * _BITS[self.charset][:, None, :]).sum((1, 3), dtype=np.uint8)
        codes = _INK[self.charset][bits]
        if self.charset == "ascii":
            codes = np.where(bits > 0, self.dot_glyph, codes)
        codes = np.where(self.glyph > 0, self.glyph, codes)
        drawn = (bits > 0) | (self.glyph > 0)
        codes[~drawn] = 32

        upper, lower = self.shade[::2], self.shade[1::2]
        both = np.maximum(upper, lower)  # a cell with ink has room for one background only
        back = both if self.colors else np.zeros_like(both)
        front = np.zeros_like(both)
        if not self.colors:
            codes = np.where(drawn, codes, np.array([ord(mark) for _, mark in self._shades], np.uint32)[both])
        elif self.charset != "ascii":
            # Two shades in a cell: a half block, upside down if only its lower half has one.
            split = ~drawn & (upper != lower)
            codes[split] = np.where(upper[split] > 0, ord("▀"), ord("▄"))
            back = np.where(split, np.where(upper > 0, lower, 0), both)
            front = np.where(split, np.where(upper > 0, upper, lower), 0)

        count = len(self._shades)
        keys = (np.where(drawn, self.style, 0) * count + back) * count + front
        changes = np.ones(keys.shape, bool)
        changes[:, 1:] = keys[:, 1:] != keys[:, :-1]
        starts = np.flatnonzero(changes)
        ends = np.append(starts[1:], keys.size).tolist()
        text = np.ascontiguousarray(codes, "<u4").tobytes().decode("utf-32-le")
        inks = list(self._styles)
        styles: dict[int, Style] = {}
        rows: list[list[Segment]] = [[] for _ in range(self.height)]
        for start, end, key in zip(starts.tolist(), ends, keys.ravel()[starts].tolist(), strict=True):
            style = styles.get(key)
            if style is None:
                ink, rest = divmod(key, count * count)
                behind, half = divmod(rest, count)
                style = _cell_style(inks[ink], self._shades[behind][0], self._shades[half][0])
                styles[key] = style
            rows[start // self.width].append(Segment(text[start:end], style))
        return [Strip(segments, self.width) for segments in rows]

    # -- inside

    def _cells(self, dots: Array) -> Array:
        """The dots as (height, down, width, across)."""
        return dots.reshape(self.height, self.down, self.width, self.across)

    def _inked(self) -> Array:
        """Which cells have dots, (height, width)."""
        return np.asarray(self._cells(self.ink).any((1, 3)))

    def _style_index(self, style: str | Style) -> int:
        full = self.base + as_style(style, self.colors)
        return self._styles.setdefault(full, len(self._styles))

    def _inside(self, x: Array, y: Array) -> tuple[Array, Array]:
        keep = (x >= 0) & (x < self.dots_wide) & (y >= 0) & (y < self.dots_high)
        return x[keep], y[keep]

    def _dots(self, x: Array, y: Array, style: str | Style, glyph: str) -> None:
        x, y = self._inside(x, y)
        column, row = x.astype(np.intp), y.astype(np.intp)
        self.ink[row, column] = True
        cells = row // self.down, column // self.across
        self.style[cells] = self._style_index(style)
        self.dot_glyph[cells] = ord(plain(glyph, self.charset)[:1] or "*")


def _coordinates(xs: ArrayLike, ys: ArrayLike) -> tuple[Array, Array]:
    """Two equally long float arrays; a point with a coordinate that is no finite number is NaN in both."""
    x, y = np.atleast_1d(np.asarray(xs, float)), np.atleast_1d(np.asarray(ys, float))
    length = min(x.size, y.size)
    x, y = x.ravel()[:length], y.ravel()[:length]
    finite = np.isfinite(x) & np.isfinite(y)
    return np.where(finite, x, np.nan).clip(-_FAR, _FAR), np.where(finite, y, np.nan).clip(-_FAR, _FAR)


@np.errstate(all="ignore")
def _clip(x0: Array, y0: Array, x1: Array, y1: Array, width: float, height: float) -> tuple[Array, ...]:
    """The parts of the segments inside [0, width] × [0, height] (Liang–Barsky, all segments at once)."""
    dx, dy = x1 - x0, y1 - y0
    enter, leave = np.zeros(x0.shape), np.ones(x0.shape)
    visible = np.ones(x0.shape, bool)
    for start, delta, size in ((x0, dx, width), (y0, dy, height)):
        one, other = -start / delta, (size - start) / delta
        moves = delta != 0  # along an axis that it does not move on, a segment is inside or outside as a whole
        enter = np.where(moves, np.maximum(enter, np.minimum(one, other)), enter)
        leave = np.where(moves, np.minimum(leave, np.maximum(one, other)), leave)
        visible &= moves | ((start >= 0) & (start <= size))
    keep = visible & (enter <= leave)  # never true for NaN
    x0, y0, dx, dy, enter, leave = (v[keep] for v in (x0, y0, dx, dy, enter, leave))
    return x0 + enter * dx, y0 + enter * dy, x0 + leave * dx, y0 + leave * dy
