"""An area graph of text: a column of cells for each value, filled to its height."""

from __future__ import annotations

from collections.abc import Sequence

from tui.terminal.glyphs import Glyphs


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
