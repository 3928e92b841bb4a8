"""Curves: axes that keep still, few points, and repainting of changed cells alone."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from tui.terminal.text import cells
from tui.widgets.cell_lines import changed_spans
from tui.widgets.plot import LABEL, MAX_POINTS, fixed_range, label, log_range, nice_step, thin

values = st.floats(-1e6, 1e6, allow_nan=False)


@given(values, values)
def test_a_range_contains_its_data_and_ends_on_whole_steps(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    found = fixed_range(low, high, None)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert found.low <= low + slack
    assert found.high >= high - slack
    assert 2 <= len(found.ticks) <= 12


def test_a_range_is_kept_while_it_contains_the_data() -> None:
    first = fixed_range(1.0, 2.4, None)
    assert fixed_range(1.1, 2.3, first) is first
    assert fixed_range(1.1, 5.0, first) is not first
    assert fixed_range(1.50, 1.51, first) is not first


@given(st.floats(1e-6, 1e6), st.integers(1, 10))
def test_a_step_is_round(span: float, ticks: int) -> None:
    step = nice_step(span, ticks)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert any(math.isclose(mantissa, nice, rel_tol=1e-6) for nice in (1, 2, 2.5, 5, 10))


@given(values)
def test_a_label_fits_into_its_column(value: float) -> None:
    assert len(label(value)) <= LABEL + 1


def test_a_logarithmic_range_contains_its_data() -> None:
    found = log_range(1.2, 2.7)
    assert 2**found.low <= 1.2
    assert 2**found.high >= 2.7


@given(st.lists(values, min_size=1, max_size=2000))
def test_thinning_keeps_the_ends_and_the_extremes(ys: list[float]) -> None:
    points = [(float(x), y) for x, y in enumerate(ys)]
    kept = thin(points)
    assert len(kept) <= MAX_POINTS + 2
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert max(y for _x, y in kept) == max(ys)
    assert min(y for _x, y in kept) == min(ys)


characters = st.sampled_from([*"abc ", "汉", "字", "⠢"])
styles = st.sampled_from([Style(), Style(bold=True)])


def strip(parts: list[tuple[str, Style]]) -> Strip:
    return Strip([Segment(text, style) for text, style in parts]).adjust_cell_length(24, Style())


@given(
    st.lists(st.tuples(characters, styles), max_size=20), st.lists(st.tuples(characters, styles), max_size=20)
)
def test_painting_the_changed_spans_gives_the_new_line(
    old: list[tuple[str, Style]], new: list[tuple[str, Style]]
) -> None:
    before, after = strip(old), strip(new)
    painted = before
    for start, end in changed_spans(before, after):
        painted = Strip.join([painted.crop(0, start), after.crop(start, end), painted.crop(end, 24)])
    assert painted.text == after.text
    assert cells(painted.text) == 24


def test_the_same_line_paints_nothing() -> None:
    line = strip([("汉字 abc", Style())])
    assert changed_spans(line, line) == []
