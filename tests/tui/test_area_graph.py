"""Area graphs of text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.terminal.glyphs import ASCII, UNICODE, Glyphs
from tui.widgets.area_graph import area, captioned, scaled, spark_line, stacked

SHARES = st.sampled_from([None, 0.0, 0.03, 0.1, 0.24, 0.5, 0.77, 1.0])


def test_an_area_graph_is_as_high_as_its_values_with_the_newest_at_the_right() -> None:
    assert area([0.0, 0.5, 1.0], 4, 2, UNICODE) == ["   █", "  ██"]
    assert area([0.25, None, 0.75], 3, 2, UNICODE) == ["  ▄", "▄ █"]
    assert area([1.0] * 99, 2, 1, ASCII) == ["@@"]
    assert area([1.0], 0, 3, UNICODE) == area([1.0], 3, 0, UNICODE) == []


def test_a_speed_is_drawn_within_its_own_range() -> None:
    assert scaled([5000.0, None, 6000.0]) == [0.1, None, 1.0]
    assert scaled([7.0, 7.0]) == [0.5, 0.5] and scaled([None]) == [None]
    assert spark_line([5000.0, None, 6000.0], 3, UNICODE) == "▁ █"
    assert spark_line([], 3, UNICODE) == "   " and spark_line([1.0], 0, UNICODE) == ""


@given(st.lists(st.tuples(SHARES, SHARES, SHARES), max_size=8), st.integers(1, 9), st.integers(1, 9))
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
@pytest.mark.parametrize("textures", [True, False])
def test_stacked_areas_fill_their_box_from_the_ground_without_holes(
    glyphs: Glyphs, textures: bool, columns: list[tuple[float | None, ...]], width: int, height: int
) -> None:
    layers = [list(layer) for layer in zip(*columns, strict=True)] or [[], [], []]
    lines = stacked(layers, ["red", "green", "blue"], width, height, glyphs, textures=textures)
    assert [line.cell_length for line in lines] == [width] * height
    shown = [line.plain for line in lines]
    for place in range(width):
        column = [line[place] for line in shown]
        filled = [cell != " " for cell in column]
        assert filled == sorted(filled), "something floats"
        source = place - width + len(columns)
        total = min(1.0, sum(value or 0.0 for value in columns[source])) if source >= 0 else 0.0
        assert abs(sum(filled) - total * height) <= 1


def test_the_layers_have_their_colours_and_the_cell_between_two_has_both() -> None:
    (top, middle, ground) = stacked([[0.5], [0.5]], ["red", "blue"], 1, 3, UNICODE)
    assert [str(line.spans[0].style) for line in (top, middle, ground)] == ["blue", "red on blue", "red"]
    assert middle.plain == "▄"


def test_a_line_is_drawn_over_the_layers_and_over_what_is_empty() -> None:
    lines = stacked([[0.0, 1.0]], ["red"], 2, 4, UNICODE, line_at=0.6, line_style="yellow")
    assert [line.plain for line in lines] == [" █", "──", " █", " █"]
    assert [str(span.style) for span in lines[1].spans] == ["yellow", "yellow on red"]
    assert "─" not in "".join(line.plain for line in stacked([[1.0]], ["red"], 1, 4, UNICODE, line_at=1.5))


def test_a_caption_stands_over_the_oldest_values() -> None:
    lines = captioned(["██████", "██████"], "ab", "red")
    assert [line.plain for line in lines] == ["ab ███", "██████"]
    assert captioned(["██"], "a long one", "red")[0].plain == "a long one "
    assert captioned([], "x", "red") == []
