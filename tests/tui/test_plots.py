"""What the plots promise: exact cell sizes whatever comes in, no lost spike, axes that hold still."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.color import Color
from textual.filter import Monochrome, NoColor
from textual.strip import Strip

from tinyvae.tui.plots import (
    LINEAR,
    LOG,
    SYMLOG,
    Band,
    Canvas,
    Contour,
    Curve,
    Heat,
    Level,
    Look,
    Mark,
    Picture,
    Points,
    Range,
    Scale,
    Series,
    density_levels,
    line_chart,
    mix,
    pictures,
    plane,
)
from tinyvae.tui.plots.axes import Axis, round_step, tick_labels, ticks, value_label
from tinyvae.tui.plots.canvas import plain
from tinyvae.tui.plots.fields import draw_contour, draw_heat, resample
from tinyvae.tui.plots.frame import _y_count
from tinyvae.tui.plots.linechart import decimate

pytestmark = pytest.mark.filterwarnings("error")  # a NumPy warning in the middle of a screen is a defect

ORANGE, BLUE, GREEN = "#E69F00", "#56B4E9", "#009E73"
CHARSETS = ("braille", "block", "ascii")


def lines(strips: list[Strip]) -> list[str]:
    return [strip.text for strip in strips]


def assert_exact(strips: list[Strip], width: int, height: int) -> None:
    """Exactly width × height cells, by the strips' word and by counting, and a Style in every Segment."""
    assert len(strips) == height
    for strip in strips:
        assert strip.cell_length == width
        assert sum(cell_len(segment.text) for segment in strip) == width
        assert all(segment.style is not None for segment in strip)


# -- canvas


def test_a_braille_cell_has_its_eight_dots_where_unicode_has_them():
    for (x, y), code in {
        (0, 0): 1,
        (0, 1): 2,
        (0, 2): 4,
        (1, 0): 8,
        (1, 1): 16,
        (1, 2): 32,
        (0, 3): 64,
    }.items():
        canvas = Canvas(1, 1)
        canvas.points([x + 0.5], [y + 0.5])
        assert lines(canvas.strips()) == [chr(0x2800 + code)]


def test_quadrants_form_the_block_characters():
    canvas = Canvas(2, 1, "block")
    canvas.points([0.5, 1.5, 3.5], [0.5, 1.5, 1.5])
    assert lines(canvas.strips()) == ["▚▗"]


def test_a_diagonal_line_is_connected_and_nothing_else_is_inked():
    canvas = Canvas(4, 4, "ascii")
    canvas.line([0.5, 3.5], [0.5, 3.5])
    assert lines(canvas.strips()) == ["*   ", " *  ", "  * ", "   *"]


def test_nan_breaks_a_line_and_a_lone_point_still_shows():
    canvas = Canvas(9, 1, "ascii")
    canvas.line([0.5, 2.5, 3.5, 4.5, 5.5, 6.5, 8.5], [0.5, 0.5, np.nan, 0.5, np.nan, 0.5, 0.5])
    assert lines(canvas.strips()) == ["*** * ***"]


def test_lines_are_clipped_and_huge_values_keep_the_direction():
    canvas = Canvas(5, 5, "ascii")
    canvas.line([2.5, 2.5], [-1e308, 1e308])
    canvas.line([-1e9, 1e9], [2.5, 2.5])
    assert lines(canvas.strips()) == ["  *  ", "  *  ", "*****", "  *  ", "  *  "]


def test_later_drawing_wins_the_colour_of_a_shared_cell():
    canvas = Canvas(1, 1)
    canvas.points([0.5], [0.5], ORANGE)
    canvas.points([1.5], [2.5], BLUE)
    (segment,) = canvas.strips()[0]
    assert segment.text == chr(0x2800 + 1 + 32) and segment.style.color.name == BLUE.lower()


def test_equal_neighbours_share_a_segment():
    canvas = Canvas(40, 1)
    canvas.line([0, 40], [0.5, 0.5], ORANGE)
    canvas.line([40, 79.9], [0.5, 0.5], BLUE)
    assert [segment.text for segment in canvas.strips()[0]] == ["⠉" * 20, "⠉" * 20]


def test_a_shade_is_a_background_only_between_the_curves():
    canvas = Canvas(2, 4)
    canvas.fill_between(np.array([4.0, 4, np.nan, np.nan]), np.array([12.0, 12, 0, 0]), "#112233")
    backgrounds = [[s.style.bgcolor and s.style.bgcolor.name for s in strip] for strip in canvas.strips()]
    assert backgrounds == [[None], ["#112233", None], ["#112233", None], [None]]
    assert all(not line.strip() for line in lines(canvas.strips()))


def test_without_colours_a_shade_is_sparse_dots_beside_the_line():
    canvas = Canvas(4, 4, colors=False)
    canvas.line([0, 8], [0.5, 0.5])
    canvas.fill_between(np.zeros(8), np.full(8, 16.0), "#112233")
    top, *rest = lines(canvas.strips())
    assert top == "⠉⠉⠉⠉".replace("⠉", chr(0x2800 + 9)) and all(line.strip() for line in rest)


def test_a_region_draws_on_the_canvas_and_stays_inside():
    canvas = Canvas(5, 3, "ascii")
    canvas.region(1, 1, 3, 1).line([-10, 10], [0.5, 0.5])
    canvas.region(1, 1, 3, 9).text(-1, 1, "abcdefgh")
    assert lines(canvas.strips()) == ["     ", " *** ", " bcd "]


def test_wide_and_zero_width_characters_do_not_shift_the_cells():
    canvas = Canvas(8, 1)
    canvas.text(0, 0, "잠재 x̂\x1b\n|")
    assert_exact(canvas.strips(), 8, 1)
    assert lines(canvas.strips()) == ["?? x|   "]


@pytest.mark.parametrize("base", ["", "#ffffff on #000000"])
def test_the_base_style_lies_under_every_cell_and_ink_keeps_its_background(base):
    canvas = Canvas(3, 1, base=base)
    canvas.points([0.5], [0.5], ORANGE)
    ink, blank = canvas.strips()[0]
    assert ink.style.color.name == ORANGE.lower()
    assert (ink.style.bgcolor and ink.style.bgcolor.name) == (blank.style.bgcolor and blank.style.bgcolor.name)
    assert (blank.style.bgcolor is None) == (base == "")


# -- axes


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12), st.integers(2, 12))
def test_ticks_are_multiples_of_a_1_2_5_step_inside_the_range(low, span, count):
    values = ticks(low, low + span, count)
    assert len(values) <= 2 * count + 4
    if len(values) >= 2:
        step = values[1] - values[0]
        mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
        # the difference of two ticks far from zero has lost digits
        assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-3 + 1e-9 * abs(low) / step
        assert all(low - 1e-6 * span <= v <= low + span * (1 + 1e-6) for v in values)


def test_round_step_takes_the_nearest_or_the_next_below():
    assert [round_step(v) for v in (0.9, 1.3, 1.6, 3, 4, 8)] == [1, 1, 2, 2, 5, 10]
    assert [round_step(v, "below") for v in (1.0, 1.9, 4.9, 9.9)] == [1, 1, 2, 5]


@given(st.integers(10, 60), st.floats(-1000, 1000), st.floats(-2, 3))
@example(11, -11.4, math.log10(3.0))
def test_every_tick_of_a_y_axis_has_a_row_for_its_label(rows, low, log_span):
    """With ticks nearer than two rows some labels were left out, and −9.5 stood next to −10.5."""
    high = low + 10**log_span
    values = np.array(ticks(low, high, _y_count(rows)))
    row = np.floor((high - values) / (high - low) * rows)
    assert len(values) >= 2 and np.all(-np.diff(row) >= 2)


def test_tick_labels_have_the_digits_that_tell_them_apart_and_a_proper_minus():
    assert tick_labels([-0.5, 0.0, 0.5]) == ["−0.5", "0", "0.5"]
    assert tick_labels([-2.0, -1.0, 0.0]) == ["−2", "−1", "0"]
    assert tick_labels([0.0, 0.05, 0.1]) == ["0", "0.05", "0.10"]
    assert tick_labels([0.0, 500.0, 1000.0]) == ["0", "500", "1000"]
    assert tick_labels([0.0, 50e3, 100e3]) == ["0", "50k", "100k"]
    assert tick_labels([0.0, 1e6, 2e6]) == ["0", "1M", "2M"]
    assert LOG.labels([0.001, 0.1, 10.0, 1000.0]) == ["0.001", "0.1", "10", "1k"]


def test_value_labels_are_short_for_any_size():
    assert [value_label(v) for v in (-0.8529, 0.0, 12.3456, -1234.5)] == [
        "−0.8529",
        "0.0000",
        "12.346",
        "−1234.5",
    ]
    assert [value_label(v) for v in (7e-14, -2.5e8, math.inf, math.nan)] == [
        "7.00e−14",
        "−2.50e8",
        "inf",
        "–",
    ]


@pytest.mark.parametrize("scale", [LINEAR, SYMLOG, Scale("symlog", 1.0), LOG])
def test_scales_invert_and_keep_the_order(scale):
    values = np.array([0.001, 0.02, 1.0, 50.0, 1e6])
    values = values if scale.kind == "log" else np.concatenate([-values[::-1], [0], values])
    there = scale.forward(values)
    assert (np.diff(there) > 0).all()
    np.testing.assert_allclose(scale.inverse(there), values, rtol=1e-9, atol=1e-12)


def test_symlog_ticks_are_zero_and_signed_powers_of_ten():
    assert SYMLOG.ticks(-10, 100, 9) == [-10, -1, -0.1, -0.01, 0, 0.01, 0.1, 1, 10, 100]
    assert 0 in SYMLOG.ticks(-10, 100, 4)


def test_a_range_grows_at_once_and_shrinks_only_below_sixty_percent():
    axis = Range()
    first = axis.fit(0, 10)
    assert axis.fit(1, 9) == first  # 80% used: it holds still
    wider = axis.fit(0, 25)
    assert wider[1] >= 25
    assert axis.fit(0, 0.62 * wider[1]) == wider
    assert axis.fit(0, 0.5 * wider[1])[1] < wider[1]


@pytest.mark.parametrize("scale", [LINEAR, SYMLOG])
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0.01, 1e6)), min_size=1, max_size=10))
def test_a_range_always_holds_the_data_and_the_same_data_never_move_it(scale, spans):
    axis = Range(scale)
    for low, span in spans:
        ends = axis.fit(low, low + span)
        assert ends[0] <= low + 1e-9 * abs(low) + 1e-12 and low + span <= ends[1] + 1e-9 * abs(low + span)
        assert axis.fit(low, low + span) == ends


def test_noisy_data_of_one_size_do_not_move_a_range():
    rng = np.random.default_rng(0)
    for centre in rng.uniform(-10, 10, 50):
        axis, seen = Range(), set()
        for _ in range(200):
            low, high = centre - rng.uniform(0.95, 1), centre + rng.uniform(0.95, 1)
            seen.add(axis.fit(low, high))
        assert len(seen) <= 3  # it may grow to the noise, and then holds still


def test_a_quantity_that_is_never_negative_gets_no_axis_below_zero():
    assert Range().fit(0.01, 5.3)[0] == 0


def test_a_constant_gets_a_range_around_it_that_rounding_errors_do_not_move():
    axis = Range()
    low, high = axis.fit(-0.8529, -0.8529)
    assert low < -0.8529 < high
    assert axis.fit(-0.8529 * (1 + 1e-15), -0.8529) == (low, high)


# -- line charts


def y_at(plot, row):
    """The y in the middle of a row of the plot area."""
    return plot.y_axis.value((row - plot.top + 0.5) * plot.y_axis.dots / plot.rows)


def test_a_chart_shows_axes_labels_and_the_latest_value_in_its_colour():
    plot = line_chart(40, 10, [Series("elbo", [0, 50, 100], [-2, -1, -0.5], ORANGE)])
    text = lines(plot.strips)
    assert "━ elbo −0.5000" in text[0]
    assert any("−2┤" in line for line in text) and "└" in text[-2]
    assert text[-1].split() == ["0", "50", "step", "100"]
    assert plot.text == "step 100: elbo −0.5000"
    assert [s.style.color.name for s in plot.strips[0] if "elbo" in s.text] == [ORANGE.lower()]


def test_y_labels_stand_on_the_row_of_their_value():
    plot = line_chart(50, 21, [Series("a", [0, 1], [-10, 10])])
    for row, line in enumerate(lines(plot.strips)):
        if "┤" in line:
            label = float(line.split("┤")[0].replace("−", "-"))
            half_a_row = abs(y_at(plot, 5) - y_at(plot, 6)) / 2
            assert abs(y_at(plot, row) - label) <= half_a_row * 1.001


def test_the_crosshair_shows_the_values_at_its_step():
    series = [
        Series("a", np.arange(11), np.arange(11) * 2.0, ORANGE),
        Series("b", np.arange(11), np.zeros(11)),
    ]
    plot = line_chart(60, 10, series, crosshair=3)
    text = lines(plot.strips)
    assert "a 6.0000" in text[0] and "b 0.0000" in text[0] and text[0].rstrip().endswith("step 3")
    assert sum(line.count("●") for line in text) == 2
    column = next(line.index("●") for line in text if "●" in line)
    assert abs(plot.x_at(column) - 3) < 10 / 50
    assert plot.text == "step 3: a 6.0000, b 0.0000"


def test_the_mouse_finds_x_inside_the_plot_area_only():
    plot = line_chart(50, 12, [Series("a", np.arange(101), np.arange(101))])
    assert plot.x_at(plot.left - 1) is None and plot.x_at(50) is None
    assert plot.x_at(plot.left) == pytest.approx(0, abs=2) and plot.x_at(49) == pytest.approx(100, abs=2)
    assert y_at(plot, plot.top) > y_at(plot, plot.top + 1)


def test_marks_have_a_dotted_line_and_a_label_on_blank_cells():
    plot = line_chart(60, 12, [Series("a", [0, 100], [0, 1])], marks=[Mark(50, "θ off"), Mark(500, "outside")])
    text = "\n".join(lines(plot.strips))
    assert "θ off" in text and "outside" not in text


def test_a_level_is_a_labelled_line_and_the_axis_stretches_for_it_only_if_asked():
    curve = Series("a", [0, 100], [0, 1])
    for room in (True, False):
        plot = line_chart(60, 15, [curve], levels=[Level(3.0, "the truth", room), Level(-50.0, "one Gaussian")])
        text = lines(plot.strips)
        (beyond,) = (row for row, line in enumerate(text) if "↓ one Gaussian −50.000" in line)
        (labelled,) = (row for row, line in enumerate(text) if "the truth 3.0000" in line)
        assert beyond > labelled and ("↑ the truth" in text[labelled]) == (not room)
        assert plot.text.endswith("the truth 3.0000, one Gaussian −50.000")
    plot = line_chart(60, 15, [curve], levels=[Level(0.5, "half")])
    (row,) = (row for row, line in enumerate(lines(plot.strips)) if "half 0.5000" in line)
    assert abs(y_at(plot, row) - 0.5) <= 2 * abs(y_at(plot, 5) - y_at(plot, 6))


@pytest.mark.parametrize("height", [6, 8, 12])
def test_labels_of_levels_stand_in_the_order_of_their_values_however_close(height):
    curve = Series("a", [0, 100], [-20, -4])
    levels = [Level(-1.6, "lower", True), Level(-0.5, "upper", True)]
    text = lines(line_chart(60, height, [curve], levels=levels).strips)
    (upper,), (lower,) = ([k for k, line in enumerate(text) if name in line] for name in ("upper", "lower"))
    assert upper < lower


def test_the_y_axis_follows_what_the_window_shows():
    curve = Series("a", np.arange(1000), np.r_[np.full(900, 50.0), np.zeros(100)])
    plot = line_chart(60, 12, [curve], window=(949, 999))
    assert plot.x_at(plot.left) > 945
    assert y_at(plot, plot.top) < 5


def test_the_band_shades_between_two_named_series():
    steps = np.arange(100)
    pair = [
        Series("log_px", steps, np.full(100, 1.0), ORANGE),
        Series("elbo", steps, np.full(100, -1.0), BLUE),
    ]
    plot = line_chart(40, 20, pair, band=Band("log_px", "elbo", "#203040"))
    rows = [y for y, strip in enumerate(plot.strips) if any(s.style.bgcolor for s in strip)]
    values = [y_at(plot, row) for row in rows]
    assert rows and max(values) < 1.1 and min(values) > -1.1 and max(values) - min(values) > 1.5
    without = line_chart(40, 20, pair, band=Band("log_px", "missing", "#203040"))
    assert not any(s.style.bgcolor for strip in without.strips for s in strip)


def test_the_area_under_a_density_is_filled_down_to_zero():
    z = np.linspace(-4, 4, 200)
    plot = line_chart(
        60, 16, [Series("q", z, np.exp(-z * z / 2), ORANGE, fill="#203040", value="")], x_name="z"
    )
    filled = [sum(len(s.text) for s in strip if s.style.bgcolor) for strip in plot.strips]
    inside = [n for n in filled if n]
    assert inside == sorted(inside) and inside[-1] > inside[0]


def test_the_axis_of_a_filled_curve_reaches_zero():
    lowest = [line_chart(60, 16, [Series("q", [0, 1], [5, 6], fill=fill)]) for fill in ("", "#203040")]
    assert [y_at(plot, plot.top + plot.rows - 1) > 1 for plot in lowest] == [True, False]


def test_an_empty_chart_shows_the_callers_hint():
    for series in ([], [Series("elbo", [], [])], [Series("elbo", [1, 2], [np.nan, np.nan])]):
        plot = line_chart(40, 8, series, hint="press space to start")
        assert "press space to start" in "\n".join(lines(plot.strips)) and plot.text == "press space to start"


@pytest.mark.parametrize("look", [Look(c, colors) for c in CHARSETS for colors in (True, False)])
def test_no_spike_is_lost_among_many_points(look):
    n = 100_000
    for place in (0, 1, 777, 50_001, n - 1):
        y = np.zeros(n)
        y[place] = 100.0
        plot = line_chart(60, 20, [Series("first", [0, n], [0, 0]), Series("a", np.arange(n), y)], look=look)
        top = [row for row in range(plot.rows) if y_at(plot, plot.top + row) > 20]
        drawn = [line[plot.left :].strip(" \u2800") for line in lines(plot.strips)[plot.top :][: plot.rows]]
        assert sum(bool(drawn[row]) for row in top) > len(top) / 2  # the whole height, but for dashes and air
        column = min(
            i for i, c in enumerate(lines(plot.strips)[plot.top + 8]) if i >= plot.left and c not in " \u2800"
        )
        assert abs(plot.x_at(column) - place) <= 2 * n / plot.columns


@given(st.integers(0, 4000), st.integers(1, 50), st.integers(0, 2**32 - 1), st.floats(0, 0.9))
@settings(max_examples=60)
def test_decimation_keeps_each_columns_extremes_and_invents_nothing(n, columns, seed, missing):
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.uniform(0, 10, n)), rng.normal(size=n)
    y[rng.uniform(size=n) < missing] = np.nan
    edges = np.linspace(2, 8, columns + 1)
    dx, dy = decimate(x, y, edges)
    assert dx.size <= max(5 * columns + 2, 4 * columns)
    assert np.isin(dy[np.isfinite(dy)], y).all()
    for low, high in pairwise(edges):
        true = y[(x >= low) & (x < high) & np.isfinite(y)]
        kept = dy[(dx >= low) & (dx < high) & np.isfinite(dy)]
        assert true.size == 0 or (kept.min(), kept.max()) == (true.min(), true.max())


def test_decimation_does_not_bridge_a_gap_of_missing_values():
    y = np.zeros(10_000)
    y[3000:6000] = np.nan
    plot = line_chart(60, 6, [Series("a", np.arange(10_000), y)], look=Look("ascii"))
    row = next(line for line in lines(plot.strips)[1:] if "*" in line)
    share = row[plot.left :].count("*") / plot.columns
    assert 0.65 < share < 0.75 and "* " in row
    joined = line_chart(60, 6, [Series("a", np.arange(10_000), y, connect=True)], look=Look("ascii"))
    assert any(line[joined.left :] == "*" * joined.columns for line in lines(joined.strips))


def test_without_colours_series_differ_by_their_dashes_and_in_ascii_by_character():
    flat = [Series("a", [0, 99], [2, 2]), Series("b", [0, 99], [1, 1]), Series("c", [0, 99], [0, 0])]
    for look in (Look(colors=False), Look("block", False), Look("ascii", False), Look("ascii")):
        text = lines(line_chart(60, 12, flat, look=look).strips)
        drawn = {line[5:] for line in text[1:-2] if line[5:].strip(" \u2800")}
        assert len(drawn) == 3
        marks = [text[0][text[0].index(f" {name} ") - 1] for name in "abc"]
        assert len(set(marks)) == 3


def test_a_legend_that_does_not_fit_drops_marks_then_values_and_shortens_names_but_has_always_some():
    many = [Series(f"{i}_long_name", [0, 1], [i, i], ORANGE, short=f"{i}_short") for i in range(3)]
    tops = {width: lines(line_chart(width, 8, many).strips)[0] for width in (120, 50, 34, 24)}
    assert all(f"━ {i}_long_name {i}.0000" in tops[120] for i in range(3))
    assert all(f"{i}_short {i}.0000" in tops[50] and "long" not in tops[50] for i in range(3))
    assert all(f"{i}_" in top for i in range(3) for top in tops.values())


def test_a_log_axis_leaves_out_what_it_cannot_show():
    plot = line_chart(60, 12, [Series("kl", np.arange(4), [0.0, 0.01, 1, 100.0])], y=Range(LOG))
    assert y_at(plot, plot.top) >= 90 and 0 < y_at(plot, plot.top + plot.rows - 1) <= 0.02


@pytest.mark.parametrize("width", [24, 40, 80])
def test_the_names_of_both_axes_and_the_colour_key_of_a_map_are_never_dropped(width):
    heat = Heat(np.eye(5), ORANGE, "#000000", extent=(-1, 1, -1, 1))
    plot = plane(width, 12, [heat], x_name="theta, a long name", y_name="phi", shades=[("ELBO", ORANGE)])
    text = lines(plot.strips)
    assert "phi" in text[0] and "ELBO"[:2] in text[0] and "theta" in text[-1]


def test_panels_with_the_same_gutter_align():
    small = line_chart(40, 10, [Series("a", [0, 1], [0, 1])], gutter=8)
    large = line_chart(40, 10, [Series("a", [0, 1], [-4000, 1000])], gutter=8)
    assert small.left == large.left == 9


# -- fields


def test_a_circles_contour_is_a_closed_ring():
    y, x = np.mgrid[-2:2:80j, -2:2:80j]
    canvas = Canvas(30, 15)
    field = -np.hypot(x, y)
    draw_contour(canvas, Contour(field, [-1.0]), Axis(-2, 2, 60), Axis(-2, 2, 60, flip=True))
    ring = canvas.ink

    def reach(start, free, neighbours):
        seen, todo = {start}, [start]
        while todo:
            r, c = todo.pop()
            for dr, dc in neighbours:
                near = (r + dr, c + dc)
                if near not in seen and 0 <= near[0] < 60 and 0 <= near[1] < 60 and free[near]:
                    seen.add(near)
                    todo.append(near)
        return seen

    four = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    outside = reach((0, 0), ~ring, four)
    assert (30, 30) not in outside  # no way in between the dots: the ring is closed
    eight = four + [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    start = tuple(np.argwhere(ring)[0].tolist())
    assert len(reach(start, ring, eight)) == ring.sum()  # one ring
    radius = np.hypot(*(np.argwhere(ring) - 29.5).T) * 4 / 59
    assert radius.min() > 0.9 and radius.max() < 1.01  # and a thin one, where the circle is


def heat_map(size, field, look=Look(), contours=()):
    """A field that fills the canvas."""
    canvas = look.canvas(*size)
    axes = Axis(0.0, 1.0, max(canvas.dots_wide, 1)), Axis(0.0, 1.0, max(canvas.dots_high, 1), flip=True)
    draw_heat(canvas, Heat(field, "#ffffff", "#000000"), *axes)
    for contour in contours:
        draw_contour(canvas, contour, *axes)
    return canvas.strips()


def test_each_half_cell_has_its_own_colour_and_row_zero_is_at_the_bottom():
    (strip,) = heat_map((2, 1), [[1, 1, 0, 0]] * 2 + [[0.5, 0.5, 0, 0]] * 2)
    left, right = strip
    assert left.text == "▀" and right.text == " "
    assert left.style.bgcolor.triplet.red > left.style.color.triplet.red > 0
    assert right.style.bgcolor is None  # nothing there: the terminal's own background


def test_without_colours_a_heat_map_is_a_ramp_of_ten_characters():
    for charset in CHARSETS:
        field = np.tile(np.linspace(0, 1, 40), (4, 1))
        text = lines(heat_map((40, 2), field, Look(charset, colors=False)))[0]
        levels = [" .:-=+*#%@".index(c) for c in text]
        assert levels == sorted(levels) and levels[0] == 0 and levels[-1] == 9


def test_contours_lie_over_the_heat_map_and_keep_its_colour_behind_them():
    y, x = np.mgrid[-2:2:60j, -2:2:60j]
    bump = np.exp(-(x**2) - y**2)
    strips = heat_map((30, 15), bump, contours=[Contour(bump, [0.5], ORANGE)])
    over = [s for strip in strips for s in strip if any("\u2800" < c <= "\u28ff" for c in s.text)]
    assert over and all(s.style.color.name == ORANGE.lower() and s.style.bgcolor for s in over)


def test_pictures_stand_side_by_side_under_their_captions_row_zero_at_the_top():
    """Without colours a pixel of 1 is @; pixels are squares, a cell being twice as high as wide."""
    corner = np.array([[1.0, 0.0], [0.0, 0.0]])
    images = [Picture(corner, BLUE, "#101010", "◆ x"), Picture(1 - corner, ORANGE, "#101010", "+ y")]
    assert lines(pictures(16, 6, images, look=Look(colors=False)).strips) == [
        " ◆ x      + y   ",
        "┌────┐   ┌────┐ ",
        "│@@  │   │  @@│ ",
        "│    │   │@@@@│ ",
        "└────┘   └────┘ ",
        "                ",
    ]
    first, second = (list(pictures(16, 6, images).strips[row]) for row in (2, 3))
    assert [s.style.bgcolor.name for s in first if s.style.bgcolor] == [BLUE.lower(), ORANGE.lower()]
    assert [s.style.bgcolor.name for s in second if s.style.bgcolor] == [ORANGE.lower()]


def test_a_picture_too_large_for_its_place_is_shown_smaller():
    """Means of 2×2 pixels, again and again, until it fits."""
    chessboard = np.indices((28, 28)).sum(axis=0) % 2
    shown = lines(pictures(20, 10, [Picture(chessboard, BLUE, "#101010")], look=Look(colors=False)).strips)
    inside = [line.strip()[1:-1] for line in shown if "│" in line]
    assert set("".join(inside)) == {"+"}  # half of everything
    assert 7 <= len(inside[0]) <= 18 and len(inside) <= 7


def test_density_levels_enclose_the_mass_asked_for():
    x = np.linspace(-6, 6, 601)
    density = np.exp(-0.5 * (x[:, None] ** 2 + x**2)) / (2 * np.pi)
    levels = density_levels(density, (0.5, 0.9))
    share = [density[density >= level].sum() / density.sum() for level in levels]
    np.testing.assert_allclose(share, [0.9, 0.5], atol=1e-3)  # ascending levels: the larger region first
    np.testing.assert_allclose(levels, [0.1 / (2 * np.pi), 0.5 / (2 * np.pi)], rtol=0.01)
    assert density_levels(np.zeros((3, 3))) == []


def test_resampling_interpolates_and_does_not_lose_a_peak():
    assert resample([[0.0, 2.0]], [0], [0, 0.5, 1, 3]).tolist()[0][:3] == [0, 1, 2]
    assert np.isnan(resample([[0.0, 2.0]], [0], [3.0])).all()
    field = np.zeros((501, 501))
    field[123, 321] = 1
    assert resample(field, np.linspace(0, 500, 20), np.linspace(0, 500, 30)).max() == 1


# -- plane


def test_highlighted_points_are_told_by_their_marks_and_found_by_the_mouse():
    xs, ys = np.array([-1.0, 0.0, 1.0]), np.array([-1.0, 0.5, 1.0])
    layers = [Points(xs, ys, ORANGE, "●", "x"), Points([0.5], [0.0], BLUE, "◆", "mean")]
    plot = plane(50, 16, layers, x_name="x1")
    text = lines(plot.strips)
    assert text[0].split() == ["●", "x", "◆", "mean"]
    found = [(r, c) for r, line in enumerate(text[1:], 1) for c, char in enumerate(line) if char == "●"]
    assert len(found) == 3
    nearest = {plot.nearest(xs, ys, column, row) for row, column in found}
    assert nearest == {0, 1, 2}
    row, column = found[0]
    assert plot.nearest(xs, ys, column + 2, row) == 2 and plot.nearest(xs, ys, column - 20, row) is None
    assert plot.text == "x 3 points, mean (0.5000, 0)"


def test_a_plane_without_points_shows_the_hint():
    for layers in ([], [Points([], [])], [Curve([np.nan], [1.0])]):
        plot = plane(40, 8, layers, hint="no points yet")
        assert "no points yet" in "\n".join(lines(plot.strips)) and plot.text == "no points yet"


def test_equal_aspect_draws_a_circle_round():
    angle = np.linspace(0, 2 * np.pi, 300)
    for size in ((60, 12), (30, 28)):
        plot = plane(*size, [Curve(np.cos(angle), np.sin(angle))], equal=True)
        rows = [line[plot.left :] for line in lines(plot.strips)[plot.top :][: plot.rows]]
        inked = np.array([[c not in " \u2800" for c in row] for row in rows])
        across, down = np.flatnonzero(inked.any(0)), np.flatnonzero(inked.any(1))
        assert abs(np.ptp(across) + 1 - 2 * (np.ptp(down) + 1)) <= 3


def test_a_trail_fades_from_its_old_end_to_its_new_one():
    plot = plane(60, 8, [Curve([0, 1, 2, 3, 4, 5, 6], np.zeros(7), "#ffffff", fade="#202020")])
    shades = [s.style.color.triplet.red for strip in plot.strips for s in strip if "⠤" in s.text or "⠒" in s.text
              or "⠉" in s.text or "⣀" in s.text]  # fmt: skip
    assert len(shades) >= 5 and shades == sorted(shades)


# -- everything, whatever comes in

NUMBERS = st.one_of(
    st.floats(-10, 10),
    st.sampled_from([0.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 1e16, 1e16 + 2]),
)
VALUES = st.lists(NUMBERS, max_size=30)
SIZES = st.tuples(
    st.one_of(st.integers(0, 12), st.integers(0, 90)), st.one_of(st.integers(0, 5), st.integers(0, 30))
)
LOOKS = st.builds(Look, st.sampled_from(CHARSETS), st.booleans())
SCALES = st.sampled_from([LINEAR, SYMLOG, LOG])


@given(SIZES, st.lists(st.tuples(VALUES, VALUES), max_size=4), LOOKS, SCALES, st.data())
@settings(max_examples=200, deadline=None)
def test_a_line_chart_never_raises_and_has_the_exact_size(size, curves, look, scale, data):
    option = st.one_of(st.none(), NUMBERS)
    series = [
        Series(f"s{i}", xs, ys, ORANGE, fill=data.draw(st.sampled_from(["", "#203040"])), connect=i % 2 == 0)
        for i, (xs, ys) in enumerate(curves)
    ]
    plot = line_chart(
        *size, series, look=look, y=Range(scale), x=data.draw(st.sampled_from([None, Range()])),
        window=data.draw(st.one_of(st.none(), st.tuples(NUMBERS, NUMBERS))),
        crosshair=data.draw(option), band=Band("s0", "s1", "#203040"), marks=[Mark(data.draw(NUMBERS), "mark")],
        gutter=data.draw(st.integers(0, 12)),
    )  # fmt: skip
    assert_exact(plot.strips, *size)
    for i in range(-1, max(size) + 1):
        plot.x_at(i)
    if look.charset == "ascii":
        assert all(line.isascii() for line in lines(plot.strips))


FIELDS = st.tuples(st.integers(0, 6), st.integers(0, 6)).flatmap(
    lambda shape: st.lists(NUMBERS, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]).map(
        lambda values: np.array(values, float).reshape(shape)
    )
)


@given(SIZES, VALUES, VALUES, FIELDS, LOOKS, st.booleans(), st.one_of(st.none(), st.tuples(NUMBERS, NUMBERS)))
@settings(max_examples=200, deadline=None)
def test_a_plane_never_raises_and_has_the_exact_size(size, xs, ys, field, look, equal, ends):
    extent = None if ends is None else (*ends, -1.0, 1.0)
    layers = [
        Heat(field, BLUE, "#101010", extent=extent),
        Contour(field, [0.0, math.inf, *density_levels(field)], GREEN, "q", extent=extent),
        Points(xs, ys, ORANGE, name="points"),
        Points(xs[:2], ys[:2], ORANGE, "●", "two"),
        Curve(xs, ys, BLUE, "curve", fade="#202020"),
    ]
    plot = plane(*size, layers, look=look, equal=equal, x_range=ends, x_name="z")
    assert_exact(plot.strips, *size)
    assert_exact(heat_map(size, field, look, layers[1:2]), *size)
    n = min(len(xs), len(ys))
    plot.nearest(xs[:n], ys[:n], 5, 2)
    if look.charset == "ascii":
        assert all(line.isascii() for line in lines(plot.strips))


@given(SIZES, FIELDS, st.integers(0, 3), LOOKS)
@settings(max_examples=200, deadline=None)
def test_pictures_never_raise_and_have_the_exact_size(size, field, count, look):
    plot = pictures(*size, [Picture(field, BLUE, "#101010", f"◆ {k}") for k in range(count)], look=look)
    assert_exact(plot.strips, *size)
    assert plot.nearest([], [], 0, 0) is None and plot.x_at(0) is None
    if look.charset == "ascii":
        assert all(line.isascii() for line in lines(plot.strips))


@given(
    SIZES,
    VALUES,
    VALUES,
    st.text(max_size=20),
    st.sampled_from(CHARSETS),
    st.integers(-5, 40),
    st.integers(-2, 9),
)
@settings(max_examples=200, deadline=None)
def test_a_canvas_never_raises_and_has_the_exact_size(size, xs, ys, text, charset, column, row):
    canvas = Canvas(*size, charset)
    canvas.line(xs, ys, ORANGE, dash=(2, 5))
    canvas.points(ys, xs, BLUE, "◆")
    canvas.region(column, row, 7, 3).line(xs, ys)
    canvas.text(column, row, text, "bold")
    assert_exact(canvas.strips(), *size)
    if charset == "ascii":
        assert all(line.isascii() for line in lines(canvas.strips()))


@pytest.mark.parametrize("look", [Look(c, colors) for c in CHARSETS for colors in (True, False)])
def test_colours_off_leaves_none_and_textuals_own_filters_accept_every_strip(look):
    y, x = np.mgrid[-1:1:20j, -1:1:20j]
    plots = [
        line_chart(60, 12, [Series("a", [0, 1], [0, 1], ORANGE, fill="#203040")], look=look, crosshair=0.5),
        plane(
            40, 10, [Heat(np.exp(-x * x - y * y), BLUE, "#101010"), Points([0], [0], ORANGE, "+")], look=look
        ),
        line_chart(40, 10, [], look=look),
    ]
    for strip in (strip for plot in plots for strip in plot.strips):
        for colour_filter in (NoColor(), Monochrome()):
            assert strip.apply_filter(colour_filter, Color(0, 0, 0)).cell_length == strip.cell_length
        if not look.colors:
            assert not any(segment.style.color or segment.style.bgcolor for segment in strip)


def test_plain_text_is_one_cell_per_character():
    assert plain("θ −1 ● 잠", "ascii") == "theta -1 O ?"
    assert plain("θ −1 ●", "braille") == "θ −1 ●"


def test_mix_goes_from_one_colour_to_the_other():
    assert (mix("#000000", "#ff8000", 0), mix("#000000", "#ff8000", 1)) == ("#000000", "#ff8000")
    assert mix("#000000", "#ffffff", 0.5) in ("#7f7f7f", "#808080")
