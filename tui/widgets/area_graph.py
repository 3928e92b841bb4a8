"""Area graphs of text: a column of cells for each value, filled to its height; one area, or several on each other."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content, Span

from tui.terminal.glyphs import Glyphs
from tui.terminal.text import cells

_TEXTURES, _ASCII_TEXTURES = "█▓░", "#+."
_LINE, _ASCII_LINE = "─", "-"


def area(values: Sequence[float | None], width: int, height: int, glyphs: Glyphs) -> list[str]:
    """`height` lines of `width` cells, the newest value at the right; each value is a share of 0 to 1, None a gap."""
    if width <= 0 or height <= 0:
        return []
    last = len(glyphs.bars) - 1
    shown = list(values)[-width:]
    heights = [0 if value is None else round(max(0.0, min(1.0, value)) * height * last) for value in shown]
    lines = []
    for row in range(height - 1, -1, -1):
        cells = (glyphs.bars[max(0, min(last, one - row * last))] for one in heights)
        lines.append("".join(cells).rjust(width))
    return lines


def scaled(values: Sequence[float | None]) -> list[float | None]:
    """Values as shares of their range, with the lowest a little above the ground; a flat line stands in the middle."""
    known = [value for value in values if value is not None]
    if not known:
        return list(values)
    low, high = min(known), max(known)
    if high == low:
        return [None if value is None else 0.5 for value in values]
    return [None if value is None else 0.1 + 0.9 * (value - low) / (high - low) for value in values]


def spark_line(values: Sequence[float | None], width: int, glyphs: Glyphs) -> str:
    """One line of bars within the range of the values."""
    lines = area(scaled(values), width, 1, glyphs)
    return lines[0] if lines else ""


def captioned(lines: list[str], caption: str, style: str, *, fading: bool = False) -> list[Content]:
    """An area graph as Content, with words over the left of its first line, where the oldest values are.

    `fading`: the lower a line, the weaker its colour, for terminals with many of them.
    """
    count = len(lines)
    styles = [f"{style} {_faded(row, count)}%" if fading and count > 1 else style for row in range(count)]
    drawn = [Content.styled(line, one) for line, one in zip(lines, styles, strict=True)]
    if lines and caption:
        text = f"{caption} "
        room = max(0, cells(lines[0]) - cells(text))
        drawn[0] = Content.assemble(text, (lines[0][-room:] if room else "", styles[0]))
    return drawn


def _faded(row: int, count: int) -> int:
    """Percent of the colour in a row, from the top."""
    return round(100 - 60 * row / (count - 1))


def layer_signs(count: int, glyphs: Glyphs) -> str:
    """The sign of each of `count` layers, for a legend."""
    signs = _ASCII_TEXTURES if glyphs.ascii else _TEXTURES
    return signs[:count]


def stacked(
    layers: Sequence[Sequence[float | None]],
    styles: Sequence[str],
    width: int,
    height: int,
    glyphs: Glyphs,
    *,
    textures: bool = False,
    line_at: float | None = None,
    line_style: str = "",
) -> list[Content]:
    """Areas on each other, the first at the bottom: `height` lines of `width` cells, the newest values at the right.

    Each value is a share of the height, 0 to 1. `styles` are colours of the layers; with `textures`, each also has a
    sign of its own, for terminals without colours. A line is drawn at the share `line_at`.
    """
    if width <= 0 or height <= 0:
        return []
    textures = textures or glyphs.ascii
    columns = list(zip(*(list(layer)[-width:] for layer in layers), strict=True))
    tops = [_tops(column, height) for column in columns]
    tops = [(0,) * len(layers)] * (width - len(tops)) + tops
    line_row = None if line_at is None or not 0 < line_at < 1 else int(line_at * height)
    rows = []
    for row in range(height - 1, -1, -1):
        cells = [_textured(top, row, glyphs) if textures else _cell(top, row, glyphs) for top in tops]
        rows.append(_content(cells, styles, row == line_row, glyphs, line_style))
    return rows


_EIGHTHS = 8
Cell = tuple[str, int | None, int | None]
"""A character, the layer that colours it, and the layer behind it."""


def _tops(column: Sequence[float | None], height: int) -> tuple[int, ...]:
    """Where each layer of a column ends, in eighths of a cell."""
    total, tops = 0.0, []
    for value in column:
        total += max(0.0, value or 0.0)
        tops.append(round(min(1.0, total) * height * _EIGHTHS))
    return tuple(tops)


def _cell(tops: Sequence[int], row: int, glyphs: Glyphs) -> Cell:
    base = row * _EIGHTHS
    lower = next((number for number, top in enumerate(tops) if top > base), None)
    if lower is None:
        return " ", None, None
    top = tops[lower]
    if top >= base + _EIGHTHS:
        return glyphs.full, lower, None
    upper = next((number for number, other in enumerate(tops) if other > top), None)
    return glyphs.bars[top - base], lower, upper


def _textured(tops: Sequence[int], row: int, glyphs: Glyphs) -> Cell:
    """The layer that has most of the cell, in its own sign."""
    base = row * _EIGHTHS
    ends = [max(base, min(top, base + _EIGHTHS)) for top in tops]
    if not ends or ends[-1] - base < _EIGHTHS // 2:
        return " ", None, None
    sizes = [end - below for below, end in zip([base, *ends], ends, strict=False)]
    largest = sizes.index(max(sizes))
    return layer_signs(largest + 1, glyphs)[-1], largest, None


def _content(
    cells: Sequence[Cell], styles: Sequence[str], on_line: bool, glyphs: Glyphs, line_style: str
) -> Content:
    text, spans = [], list[Span]()
    for place, (character, lower, upper) in enumerate(cells):
        front = styles[lower] if lower is not None else ""
        back = styles[upper] if upper is not None else ""
        if on_line:
            character = _ASCII_LINE if glyphs.ascii else _LINE
            front, back = line_style, front if front != line_style else ""
        style = f"{front} on {back}" if front and back else front
        text.append(character)
        if spans and spans[-1].style == style and spans[-1].end == place:
            spans[-1] = Span(spans[-1].start, place + 1, style)
        elif style:
            spans.append(Span(place, place + 1, style))
    return Content("".join(text), spans)
