"""Which part of the steps the charts show."""

from hypothesis import given
from hypothesis import strategies as st

from tinyvae.tui.plots import Window

LASTS = st.integers(20, 100_000)
PARTS = st.floats(0.0, 1.0)
MOVES = st.lists(
    st.tuples(st.sampled_from(["zoom", "pan"]), st.floats(-1.0, 1.0), PARTS), min_size=1, max_size=8
)


def moved(moves, last):
    window = Window()
    for what, by, part in moves:
        low, high = window.ends(last, last) or (0.0, last)
        if what == "zoom":
            window.zoom(2.0**by, last, last, low + part * (high - low))
        else:
            window.pan(by, last, last)
    return window


@given(LASTS, MOVES)
def test_a_window_never_leaves_the_steps_there_are(last, moves):
    ends = moved(moves, last).ends(last, last)
    assert ends is None or (0 <= ends[0] < ends[1] <= last and ends[1] - ends[0] >= 10)


@given(LASTS, PARTS)
def test_zooming_in_leaves_the_step_under_the_mouse_where_it_is(last, part):
    at, window = part * last, Window()
    window.zoom(0.5, last, last, at)
    low, high = window.ends(last, last)
    assert abs((at - low) / (high - low) - part) <= 1.5 / (high - low)


@given(st.integers(100, 10_000), st.integers(1, 50))
def test_a_window_at_the_end_follows_and_one_before_it_stays(last, more):
    window = Window()
    window.zoom(0.5, last, last)
    low, high = window.ends(last, last)
    assert window.ends(last + more, last + more) == (low + more, high + more)
    window.pan(-0.5, last, last)
    there = window.ends(last, last)
    assert there[1] < last
    assert window.ends(last + more, last + more) == there
    window.pan(5.0, last, last)
    assert window.ends(last + more, last + more) == (low + more, high + more)


@given(LASTS, MOVES, PARTS)
def test_what_somebody_looks_back_at_is_always_shown(last, moves, part):
    now = min(round(part * last), last - 1)
    window = moved(moves, last)
    window.reveal(now)
    ends = window.ends(last, now)
    assert ends is None or ends[0] <= now <= ends[1]
