"""The colours of a theme: one for each quantity, everywhere (terms.py), and those of what is around them."""

from textual.dom import DOMNode
from textual.widget import Widget

from .plots import Look
from .plots.canvas import Charset
from .terms import Q_RECOVERED, QUANTITIES, TARGET_MOVED

DARK = {key: quantity.dark for key, quantity in QUANTITIES.items()} | {
    "prior": "#9A9A9A",
    "q": Q_RECOVERED.dark,
    "posterior": TARGET_MOVED.dark,
    "good": "#2FBF91",
    "bad": "#FF5A4F",
    "faint": "#949DAA",
    "axis": "#7F8896",
    "text": "#E6E9EE",
}
LIGHT = {key: quantity.light for key, quantity in QUANTITIES.items()} | {
    "prior": "#666666",
    "q": Q_RECOVERED.light,
    "posterior": TARGET_MOVED.light,
    "good": "#00795A",
    "bad": "#C1121F",
    "faint": "#59616B",
    "axis": "#59616B",
    "text": "#1B1F24",
}

# Of the kinds of points that a column tells apart (Okabe and Ito 2008), with the signs that stand for them in ascii.
KINDS_DARK = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#8FA7FF", "#C8C8C8")
KINDS_LIGHT = ("#B87A00", "#1F7FB8", "#007A59", "#8A8000", "#A8487F", "#B34700", "#3F55C0", "#555555")
KIND_SIGNS = "oxsvd^za"


def kinds(widget: DOMNode) -> list[tuple[str, str]]:
    """A colour and a sign for each kind of points."""
    return list(zip(KINDS_DARK if widget.app.current_theme.dark else KINDS_LIGHT, KIND_SIGNS))


def colors(widget: DOMNode) -> dict[str, str]:
    """The palette for the theme that is on."""
    return DARK if widget.app.current_theme.dark else LIGHT


def look(widget: Widget) -> Look:
    """How plots are drawn in this widget."""
    palette = colors(widget)
    charset: Charset = getattr(widget.app, "charset", "braille")
    return Look(
        charset=charset,
        colors=not widget.app.no_color,
        text=palette["text"],
        axis=palette["axis"],
        faint=palette["faint"],
        base=widget.rich_style,
    )


def background(widget: Widget) -> str:
    """The colour under a widget, as "#rrggbb"; where it is the terminal's own, which nobody knows, black or white."""
    color = widget.background_colors[1]
    if color.ansi is not None:
        return "#000000" if widget.app.current_theme.dark else "#FFFFFF"
    return color.hex6
