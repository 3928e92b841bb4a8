"""Where the panels of the Health tab stand, and how high they are: pure functions of the window."""

from __future__ import annotations

from typing import NamedTuple

TWO_COLUMNS, WIDE = 80, 120
COLUMNS = 6
"""Columns of the grid."""


class PanelRow(NamedTuple):
    """Panels side by side.

    Attributes:
        panels: name of each panel, and how many columns of the grid it has.
        least: rows that it needs, with the border.
        weight: its part of the rows that are left.
    """

    panels: tuple[tuple[str, int], ...]
    least: int
    weight: int


_NARROW = tuple(
    PanelRow(((name, COLUMNS),), least, weight)
    for name, least, weight in (
        ("cpu", 7, 2),
        ("memory", 8, 2),
        ("training", 7, 1),
        ("devices", 6, 1),
        ("processes", 7, 2),
        ("alerts", 6, 2),
    )
)
_LOW = (
    PanelRow((("cpu", 3), ("memory", 3)), 7, 3),
    PanelRow((("training", 3), ("devices", 3)), 7, 1),
    PanelRow((("processes", 3), ("alerts", 3)), 6, 3),
)
_HIGH = (
    PanelRow((("cpu", 3), ("memory", 3)), 7, 3),
    PanelRow((("training", 3), ("devices", 3)), 7, 2),
    PanelRow((("processes", 6),), 6, 2),
    PanelRow((("alerts", 3), ("system", 3)), 6, 1),
)
_WIDE = (
    PanelRow((("cpu", 6),), 7, 3),
    PanelRow((("memory", 3), ("training", 3)), 8, 3),
    PanelRow((("devices", 2), ("processes", 4)), 7, 2),
    PanelRow((("alerts", 4), ("system", 2)), 6, 1),
)


def panel_rows(width: int, height: int) -> tuple[PanelRow, ...]:
    """The rows for a window; panels that are in none are not shown."""
    if width < TWO_COLUMNS:
        return _NARROW
    rows = _WIDE if width >= WIDE else _HIGH
    return rows if sum(row.least for row in rows) <= height else _LOW


def row_heights(rows: tuple[PanelRow, ...], height: int) -> list[int]:
    """The height of each row: all together fill `height`, when that is enough for the least of each."""
    spare = max(0, height - sum(row.least for row in rows))
    weights = sum(row.weight for row in rows)
    heights = [row.least + spare * row.weight // weights for row in rows]
    missing = max(0, height - sum(heights)) if spare else 0
    for place in range(missing):
        heights[place % len(heights)] += 1
    return heights
