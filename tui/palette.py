"""One colour per term, everywhere: number, curve and legend. Okabe & Ito's colour-blind-safe set (2008).

The light set is the same hues, darkened until they read on white.
"""

from textual.dom import DOMNode
from textual.widget import Widget

from .plots import Look
from .plots.canvas import Charset

DARK = {
    "log_px": "#56B4E9",
    "elbo": "#E69F00",
    "reconstruction": "#2FBF91",
    "kl_prior": "#DE8DBB",
    "kl_posterior": "#F0724A",
    "prior": "#9A9A9A",
    "q": "#E69F00",
    "posterior": "#56B4E9",
    "truth": "#F0E442",
    "good": "#2FBF91",
    "bad": "#FF5A4F",
    "faint": "#949DAA",
    "axis": "#7F8896",
    "text": "#E6E9EE",
}
LIGHT = {
    "log_px": "#0072B2",
    "elbo": "#8A5000",
    "reconstruction": "#00795A",
    "kl_prior": "#A8508A",
    "kl_posterior": "#C24A00",
    "prior": "#666666",
    "q": "#8A5000",
    "posterior": "#0072B2",
    "truth": "#8A7F00",
    "good": "#00795A",
    "bad": "#C1121F",
    "faint": "#59616B",
    "axis": "#59616B",
    "text": "#1B1F24",
}

NAMES = {  # how a term is written on screen
    "log_px": "log pθ(x)",
    "reconstruction": "E_q[log pθ(x|z)]",
    "kl_prior": "KL(q‖p(z))",
    "kl_posterior": "KL(q‖pθ(z|x))",
    "elbo": "ELBO",
}


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
