"""What is on the screen, in words."""

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import Markdown

from ..keys import markdown
from ..terms import KL_POSTERIOR, KL_PRIOR, LOG_PX, RECONSTRUCTION, RESIDUAL, TERMS, Quantity
from ..widgets.panel import Panel
from .dialog import Dialog


def described(quantity: Quantity) -> str:
    name = "" if quantity.name == quantity.symbol else f", {quantity.name}"
    return f"- **{quantity.symbol}**{name}: {quantity.sentence}"


WORDS = "\n".join(described(quantity) for quantity in (*TERMS.values(), RESIDUAL))
INTRO = f"""\
# What you see

A **variational autoencoder** learns two things at once. The *decoder*, with parameters **θ**, says how a data
point x comes from a hidden number z. The *encoder*, with parameters **φ**, guesses z from x: its guess is the
distribution q(z|x). The exact answer to that guess is the posterior pθ(z|x), and here it is computed exactly.

The line at the top always balances:

    {LOG_PX.symbol}  =  {RECONSTRUCTION.symbol}  −  {KL_PRIOR.symbol}  +  {KL_POSTERIOR.symbol}

{WORDS}

*by θ* and *by φ* split the change in the last step between the two. Values are nats per data point.

# Try this

1. Press **space** and watch. Press **t** to freeze θ: log p stops moving at once, to the last bit. Every nat that
   the ELBO still gains, {KL_POSTERIOR.symbol} loses: q approaches the posterior of *this* θ.
2. Press **t** again, then **p** to freeze φ: now {KL_PRIOR.symbol} stands still, log p rises, and
   {KL_POSTERIOR.symbol} may grow.
3. With both on, count how often the ELBO rises while {KL_POSTERIOR.symbol} rises too: φ chases a moving target.

# Keys

"""


class Help(Dialog[None]):
    """The focused panel first, then everything."""

    BINDINGS = [Binding("escape,question_mark,q,space", "dismiss", "Close")]
    DEFAULT_CSS = """
    Help { align: center middle; }
    Help VerticalScroll { width: 90%; max-width: 110; height: 90%; border: round $accent; background: $surface; }
    Help Markdown { padding: 0 2; background: $surface; }
    """

    def __init__(self, panel: Panel | None):
        super().__init__()
        self.panel = panel

    def compose(self) -> ComposeResult:
        first = f"# {self.panel.TITLE}\n\n{self.panel.HELP}\n\n" if self.panel and self.panel.HELP else ""
        with VerticalScroll() as scroll:
            scroll.border_title = "Help"
            scroll.border_subtitle = "esc closes · ↑ ↓ scroll"
            yield Markdown(first + INTRO + markdown())
