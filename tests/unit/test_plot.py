"""Curves: axes that keep still, few points, and repainting of changed cells alone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.segment import Segment
from rich.style import Style
from textual.app import App, ComposeResult
from textual.strip import Strip

from tui.terminal.text import cells
from tui.widgets.axes import (
    LABEL,
    MAX_POINTS,
    fitted_end,
    fixed_range,
    label,
    labels,
    log_range,
    nice_step,
    robust_range,
    thin,
)
from tui.widgets.cell_lines import changed_spans
from tui.widgets.plot import ABOVE, Curve, CurveKind, Plot

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


@given(
    st.lists(st.floats(1.0, 2.0), min_size=100, max_size=400),
    st.lists(st.floats(1e2, 1e6), min_size=1, max_size=4),
)
def test_a_few_far_values_do_not_flatten_the_rest(ordinary: list[float], far: list[float]) -> None:
    low, high = robust_range([*ordinary, *far])
    assert min(ordinary) == low
    assert high <= 2.0


@given(st.lists(values, min_size=1, max_size=300))
def test_a_robust_range_leaves_out_a_tenth_at_most(ys: list[float]) -> None:
    low, high = robust_range(ys)
    assert min(ys) <= low <= high <= max(ys)
    assert sum(y > high or y < low for y in ys) <= 0.11 * len(ys) + 2


@given(st.floats(1, 1e6), st.floats(1, 1e6))
def test_an_axis_holds_its_data_and_is_at_least_half_full(last: float, end: float) -> None:
    fitted = fitted_end(last, end)
    assert fitted >= last
    assert fitted <= max(10.0 * 2, 2.05 * last, 0) or fitted == max(last, end)


async def drawn(*curves: Curve, robust: bool = True, ascii_only: bool = False) -> Plot:
    class Drawing(App[None]):
        def compose(self) -> ComposeResult:
            yield Plot(ascii_only=ascii_only)

    app = Drawing()
    async with app.run_test(size=(60, 14)) as pilot:
        plot = app.query_one(Plot)
        plot.set_curves(curves, robust=robust)
        await pilot.pause()
        return plot


def rows_with(plot: Plot, style: str) -> set[int]:
    """Rows in which something is drawn in `style`."""
    return {y for y, line in enumerate(plot.lines) for span in line.spans if span.style == style}


async def test_the_line_fills_the_panel_in_spite_of_one_bad_step() -> None:
    xs = list(range(200))
    ys = [2.0 - x / 200 for x in xs]
    bad = [9.0 if x == 100 else y for x, y in zip(xs, ys, strict=True)]
    plot = await drawn(Curve(xs, bad, CurveKind.POINTS, "red"), Curve(xs, ys, style="green"))
    assert len(rows_with(plot, "green")) >= 8
    assert ABOVE in plot.lines[0].plain, "the value outside is marked"
    flat = await drawn(Curve(xs, bad, CurveKind.POINTS, "red"), Curve(xs, ys, style="green"), robust=False)
    assert len(rows_with(flat, "green")) <= 4


@pytest.mark.parametrize("ascii_only", [False, True])
async def test_points_line_and_signs_differ_by_their_shape(ascii_only: bool) -> None:
    xs = [float(x) for x in range(60)]
    low, middle, high = ([base + 0.001 * x for x in xs] for base in (1.0, 2.0, 3.0))
    plot = await drawn(
        Curve(xs, low, CurveKind.POINTS, "red"),
        Curve(xs, middle, style="green", name="a"),
        Curve(xs[::9], high[::9], CurveKind.SIGNS, "blue", sign="o"),
        ascii_only=ascii_only,
    )
    shown = {
        style: {
            line.plain[place]
            for line in plot.lines
            for span in line.spans
            if span.style == style
            for place in range(span.start, span.end)
        }
        for style in ("red", "green", "blue")
    }
    assert shown["blue"] == {"o"}
    assert "a" in shown["green"]
    assert shown["red"] and not shown["red"] & shown["green"] - set("⠉⠒⠤⣀")
    if ascii_only:
        assert all(line.plain.isascii() for line in plot.lines)
        assert not shown["red"] & shown["green"]


async def test_the_last_held_out_value_is_always_on_the_axis() -> None:
    xs = [float(x) for x in range(100)]
    ys = [1.0 + 0.001 * x for x in xs]
    plot = await drawn(
        Curve(xs, ys, CurveKind.POINTS, "red"), Curve([50.0, 99.0], [9.0, 3.0], CurveKind.SIGNS, "blue")
    )
    assert any(
        span.style == "blue" and line.plain[span.start] == "o" for line in plot.lines for span in line.spans
    )


async def test_a_plot_fills_a_panel_that_is_higher_than_a_default_terminal() -> None:
    class Drawing(App[None]):
        def compose(self) -> ComposeResult:
            yield Plot()

    app = Drawing()
    async with app.run_test(size=(200, 50)) as pilot:
        plot = app.query_one(Plot)
        plot.set_curves([Curve([0.0, 9.0], [1.0, 2.0])])
        await pilot.pause()
        assert len(plot.lines) == 50
        assert all(len(line.plain) <= 200 for line in plot.lines)


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (1.0, 2.25, ["1.0", "1.5", "2.0", "2.5"]),
        (1.06, 1.16, ["1.05", "1.10", "1.15", "1.20"]),
        (2e-5, 1.9e-4, ["0.0000", "0.0001", "0.0002"]),
        (3e-5, 6e-5, ["3e-5", "4e-5", "5e-5", "6e-5"]),
        (1.1e-4, 1.4e-4, ["1.1e-4", "1.2e-4", "1.3e-4", "1.4e-4"]),
        (1.0981, 1.0989, ["1.0980", "1.0985", "1.0990"]),
        (0.0, 200_000.0, ["0", "100k", "200k"]),
    ],
)
def test_the_ticks_of_an_axis_are_alike_and_told_apart(low: float, high: float, shown: list[str]) -> None:
    assert labels(fixed_range(low, high, None, 3).ticks) == shown


@given(st.floats(-1e6, 1e6), st.floats(1e-9, 1e6))
def test_no_two_ticks_of_an_axis_have_the_same_label(low: float, span: float) -> None:
    ticks = fixed_range(low, low + span, None, 3).ticks
    found = [text for text in labels(ticks) if text]
    assert len(set(found)) == len(found)
    assert all(len(text) <= LABEL for text in found)


@pytest.mark.parametrize("top", [6e-5, 3.0])
@pytest.mark.parametrize("rows", [5, 7, 8])
@pytest.mark.parametrize("log", [False, True])
async def test_a_panel_that_becomes_low_shows_ticks_on_lines_of_their_own(
    log: bool, rows: int, top: float
) -> None:
    plot = Plot()

    class Panel(App[None]):
        def compose(self) -> ComposeResult:
            yield plot

    async with Panel().run_test(size=(60, 40)) as pilot:
        plot.set_curves([Curve(range(1, 61), [top * x / 60 for x in range(1, 61)])], log=log)
        await pilot.resize_terminal(60, rows)
        await pilot.pause()
        ticks = [row for row, line in enumerate(plot.lines) if "┤" in line.plain]
        assert len(ticks) > 1
        assert plot._y is not None
        assert len(ticks) == len(plot._y.ticks)


async def test_a_single_value_at_the_edge_of_the_axis_keeps_its_sign() -> None:
    plot = Plot()

    class Panel(App[None]):
        def compose(self) -> ComposeResult:
            yield plot

    async with Panel().run_test(size=(60, 9)) as pilot:
        plot.set_curves([Curve([1], [2.5]), Curve([1], [2.4], CurveKind.SIGNS)], robust=True)
        await pilot.pause()
        assert sum(line.plain.count("o") for line in plot.lines) == 1


async def test_a_panel_that_becomes_higher_shows_more_ticks() -> None:
    plot = Plot()

    class Panel(App[None]):
        def compose(self) -> ComposeResult:
            yield plot

    async with Panel().run_test(size=(60, 5)) as pilot:
        plot.set_curves([Curve(range(1, 61), [0.7 + 0.6 * x / 60 for x in range(1, 61)])])
        await pilot.resize_terminal(60, 30)
        await pilot.pause()
        assert sum("┤" in line.plain for line in plot.lines) > 4
