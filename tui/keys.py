"""Every key of the app, once: the footer, the command palette and the help are made from this table."""

from textual.binding import Binding

FOOTER, HIDDEN = True, False
PANELS = 6

# key, action, name, what it does, whether the footer shows it
# fmt: off
TABLE = (
    ("space", "run", "Run", "Start or pause training", FOOTER),
    ("s", "step", "Step", "Pause and take one step", FOOTER),
    ("S", "step(10)", "Ten steps", "Pause and take ten steps", HIDDEN),
    ("t", "switch('theta')", "θ", "Freeze or free the decoder's parameters θ", FOOTER),
    ("p", "switch('phi')", "φ", "Freeze or free the encoder's parameters φ", FOOTER),
    ("plus,equals_sign", "speed(1)", "Speed", "Train faster; in slow motion a caption says what is done", FOOTER),
    ("minus", "speed(-1)", "Slower", "Train slower", HIDDEN),
    ("left", "scrub(-1)", "Look back", "Show the run as it was one step earlier", FOOTER),
    ("right", "scrub(1)", "Look forward", "Show the run one step later, up to now", HIDDEN),
    ("shift+left", "scrub(-50)", "Look back 50", "Show the run as it was 50 steps earlier", HIDDEN),
    ("shift+right", "scrub(50)", "Look forward 50", "Show the run 50 steps later, up to now", HIDDEN),
    ("home", "scrub(-1000000000)", "First step", "Show the run as it was at step 0", HIDDEN),
    ("end", "scrub(1000000000)", "Latest step", "Show the run as it is now", HIDDEN),
    ("question_mark", "help", "Help", "What is on the screen, and every key", FOOTER),
    ("q", "quit", "Quit", "Close; the last terms are printed", FOOTER),
    ("b", "branch", "Branch", "Go on from the step you look at; the old run stays in the charts, dimmed", FOOTER),
    ("n", "select(1)", "Next x", "Look at another data point (or click one)", FOOTER),
    ("N", "select(-1)", "Previous x", "Back to the data point before", HIDDEN),
    ("f", "flip", "Flip", "Panel 2: the posterior as the map, or q, or where all data points are encoded", HIDDEN),
    ("i", "turn", "Draws", "Panel 5: data and decoder, draws beside the data, draws, the decoder over z", HIDDEN),
    ("left_square_bracket", "axis(0)", "Axis →", "Panel 5: another column across (and ] another one up)", HIDDEN),
    ("right_square_bracket", "axis(1)", "Axis ↑", "Panel 5: another column up", HIDDEN),
    ("u", "units('bits')", "Nats/bits", "Write the terms in nats or in bits", HIDDEN),
    ("m", "units('total')", "Mean/sum", "Write the terms per data point or summed over the data", HIDDEN),
    ("o", "units('loss')", "ELBO/loss", "Write the ELBO or the loss, which is its negative, in every panel", HIDDEN),
    ("z", "zoom", "Zoom", "Charts show all steps, or the last 2000, 500 or 100", HIDDEN),
    ("up", "zoom_by(0.5)", "Zoom in", "Charts show half as many steps (or turn the wheel)", HIDDEN),
    ("down", "zoom_by(2.0)", "Zoom out", "Charts show twice as many steps", HIDDEN),
    ("comma", "pan(-0.25)", "Earlier", "Charts show earlier steps (or drag with the mouse)", HIDDEN),
    ("full_stop", "pan(0.25)", "Later", "Charts show later steps; at the end they follow the run again", HIDDEN),
    ("y", "scale", "Scale", "Charts are linear or symlog: logarithmic away from 0", HIDDEN),
    ("v", "values", "Values", "A table of every step: each term and its change", HIDDEN),
    ("g", "gap", "Gap", "Split KL posterior: what the best q of the family misses, and the rest", HIDDEN),
    ("G", "gap_every", "Gap every 50", "Split it at every 50 steps while running, or no longer", HIDDEN),
    ("w", "landscape", "Landscape", "The terms around the present point, θ across and φ up, with the path", HIDDEN),
    ("a", "settings", "Adjust", "Learning rates, updates of θ and φ per step, optimiser, samples, batch", FOOTER),
    ("x", "share", "Share", "One line of text that opens this run again, bit for bit", HIDDEN),
    ("k", "smooth", "Smooth", "Charts show the mean of 25 steps through what each step gave, or only that", HIDDEN),
    ("l", "lessons", "Lessons", "The essay's claims, one by one: predict, watch, compare", FOOTER),
    ("r", "reset", "Reset", "Back to step 0 with the same initial weights", FOOTER),
    ("R", "go_back", "Return", "Back to the run before: undoes a reset, another dataset or model, a lesson", HIDDEN),
    ("d", "dataset", "Dataset", "Begin a new run on another dataset", FOOTER),
    ("M", "model", "Model", "Begin a new run with another model, data or seed", HIDDEN),
    ("c", "code", "Code", "The source code behind the focused panel", FOOTER),
    ("e", "export", "Export", "Save the records (CSV, JSONL, NPZ), the screen (SVG) and the share line", FOOTER),
)
# fmt: on
SHOWN_AS = {
    "plus,equals_sign": "+",
    "minus": "-",
    "left": "←",
    "right": "→",
    "shift+left": "shift+←",
    "shift+right": "shift+→",
    "question_mark": "?",
    "up": "↑",
    "down": "↓",
    "comma": ",",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "full_stop": ".",
}  # fmt: skip
IN_FOOTER = {"plus,equals_sign": "+/-", "left": "←/→"}  # one entry there stands for two keys


def bindings(panels: int = PANELS) -> list[Binding]:
    """The app's bindings, and the number keys that go to its panels."""
    made = [
        Binding(key, action, name, show=shown, tooltip=what, key_display=IN_FOOTER.get(key, SHOWN_AS.get(key)))
        for key, action, name, what, shown in TABLE
    ]
    pause = Binding("space", "pause", "Pause", tooltip=TABLE[0][3])  # in place of Run while running
    return [made[0], pause, *made[1:]] + [
        Binding(str(k), f"tab({k})", f"Panel {k}", show=False) for k in range(1, panels + 1)
    ]


def markdown(panels: int = PANELS) -> str:
    """The same as a table for the help."""
    rows = [f"| {SHOWN_AS.get(key, key)} | {what} |" for key, _, _, what, _ in TABLE]
    rows += [f"| 1–{panels}, tab | Go to a panel |", "| ctrl+p | All commands, and themes |"]
    return "\n".join(["| key | what it does |", "|---|---|", *rows])
