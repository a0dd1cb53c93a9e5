"""Plots for the terminal: NumPy arrays in, Textual strips out. Knows nothing of the engine or the app.

`line_chart` draws curves over a common x, `plane` everything that lies in a plane, `pictures` small images. Read
canvas.py (dots, shades, letters → strips), axes.py (numbers), frame.py (the layout), then the three plots.
"""

from .axes import LINEAR, LOG, SYMLOG, Range, Scale, value_label
from .canvas import Canvas, Charset, mix
from .fields import Contour, Heat, color_ramp, density_levels
from .frame import Look, Plot
from .linechart import Band, Level, Mark, Series, line_chart
from .pictures import Picture, pictures
from .scatter import Curve, Points, plane
from .window import Window

__all__ = [
    "LINEAR", "LOG", "SYMLOG", "Band", "Canvas", "Charset", "Contour", "Curve", "Heat", "Level", "Look", "Mark",
    "Picture", "Plot", "Points", "Range", "Scale", "Series", "Window", "color_ramp", "density_levels", "line_chart",
    "mix", "pictures", "plane", "value_label",
]  # fmt: skip
