"""Curves in a panel: plotext draws them into text, and only the cells that changed are painted.

The axes keep their range until a point leaves it, and ranges grow in fixed steps; otherwise a slowly moving curve would
shift, and so repaint, every cell. No CJK inside the canvas (plotext 5 miscounts it): words belong to the border or to a
line beside it. Each curve is drawn in a colour of plotext that only stands for its number; the theme's style replaces it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from textual import events
from textual.content import Content, Span

from engine.runs.curve import Annotation, AnnotationKind
from tui.terminal.text import plain
from tui.widgets.annotations import ASCII, SIGNS, WARNINGS, on_curve
from tui.widgets.axes import (
    LABEL,
    AxisRange,
    fixed_range,
    label,
    log_range,
    nice_step,
    robust_range,
    thin,
)
from tui.widgets.axes import (
    labels as tick_labels,
)
from tui.widgets.cell_lines import CellLines

DRAWABLE = 1e30
"""Greater values of a journal, and what is no number, are not drawn."""
ABOVE, BELOW = "▴", "▾"
ABOVE_ASCII, BELOW_ASCII = "^", "_"
"""Drawn at the upper or lower edge where values lie outside the axis."""
MAX_OUTSIDE = 12
NAMED_EVERY = 18
"""Cells between two letters of a named curve."""
_ASCII = str.maketrans({"│": "|", "┤": "+", "└": "+", "┬": "+", "─": "-", "┼": "+", "•": "o"})
_BORDER = "┊"
"""Drawn below the glyph of a cycle where the canvas is empty; training left of it belongs to earlier cycles."""
_COLOUR = re.compile(r"\x1b\[(?:38;5;(\d+)|[0-9;]*)m")


class CurveKind(StrEnum):
    """How a curve is drawn: each is recognisable by its shape."""

    LINE = "line"
    """A braille line."""
    POINTS = "points"
    """Braille points below the lines; they alone never widen the axis by an outlier."""
    SIGNS = "signs"
    """One `sign` for each value, above the lines."""


@dataclass(frozen=True)
class Curve:
    """Points with rising x."""

    x: Sequence[float]
    y: Sequence[float]
    kind: CurveKind = CurveKind.LINE
    style: str = "$text-accent"
    sign: str = "o"
    """The character of a SIGNS curve."""
    name: str = ""
    """A letter that stands on a LINE curve every few cells, to tell it from others without colours."""


@dataclass(frozen=True)
class _Canvas:
    """A drawn plot: its lines, and the number of the curve that owns each coloured cell."""

    lines: list[str]
    owners: list[dict[int, int]]


class Plot(CellLines, can_focus=True):
    """A panel with curves. `set_curves` may be called often; only changed cells are repainted."""

    DEFAULT_CSS = "Plot { height: 1fr; }"

    def __init__(
        self,
        *,
        id: str | None = None,
        classes: str | None = None,
        empty: str = "",
        x_axis: bool = True,
        ascii_only: bool = False,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.empty = empty
        self.ascii_only = ascii_only
        self._x_axis = x_axis
        self._curves: tuple[Curve, ...] = ()
        self._marks: tuple[Annotation, ...] = ()
        self._x_end = 0.0
        self._log = self._robust = False
        self._y: AxisRange | None = None

    def set_curves(
        self,
        curves: Sequence[Curve],
        *,
        x_end: float = 0.0,
        log: bool = False,
        robust: bool = False,
        marks: Sequence[Annotation] = (),
    ) -> None:
        """`x_end` is the end of the axis even where the data is shorter; `log` makes the y axis logarithmic; `robust`
        leaves few far values out of a linear one; the glyphs of `marks` are above the curve, those of checkpoints
        below it."""
        self._robust = robust
        if log != self._log:
            self._y = None
        self._curves, self._x_end, self._log = tuple(curves), min(x_end, DRAWABLE), log
        self._marks = tuple(on_curve(marks))
        self._draw()

    def clear(self, empty: str | None = None) -> None:
        """Shows the text `empty` instead of curves; the next curves get a new range."""
        if empty is not None:
            self.empty = empty
        self._curves, self._y = (), None
        self._draw()

    def on_resize(self, _event: events.Resize) -> None:
        # The ticks are those of another height.
        self._y = None
        self._draw()

    def _draw(self) -> None:
        width, height = self.size
        if not self.is_mounted or width < 12 or height < 2:
            return
        curves = [
            Curve(
                [x for x, _y in points],
                [y for _x, y in points],
                curve.kind,
                curve.style,
                curve.sign,
                curve.name,
            )
            for curve in self._curves
            if (points := self._points(curve))
        ]
        if not curves:
            words = Content.styled(plain(self.empty), "$foreground-muted")
            self.set_lines(words.wrap(width) if self.empty else [])
            return
        drawn = self._canvas(curves, width, height)
        styles = [curve.style for curve in curves]
        self.set_lines(
            [
                self._styled(line, owners, styles)
                for line, owners in zip(drawn.lines, drawn.owners, strict=True)
            ]
        )

    def _points(self, curve: Curve) -> list[tuple[float, float]]:
        pairs = [
            (x, math.log2(y) if self._log else y)
            for x, y in zip(curve.x, curve.y, strict=True)
            if abs(x) <= DRAWABLE and abs(y) <= DRAWABLE and (not self._log or y > 0)
        ]
        return thin(pairs)

    def _y_range(self, curves: list[Curve], height: int) -> list[str]:
        """Sets the y axis; returns its labels."""
        low, high = shown_range(
            [(curve.kind, curve.y) for curve in curves], robust=self._robust and not self._log
        )
        rows = height - 2 * self._x_axis
        if self._log:
            if self._y is None or low < self._y.low or high > self._y.high:
                self._y = log_range(2**low, 2**high, min(4, rows - 1))
            return [label(round(2**tick, 2)) for tick in self._y.ticks]
        for ticks in range(max(2, min(4, rows), rows // 3), 0, -1):
            self._y = fixed_range(low, high, self._y, ticks)
            if len(self._y.ticks) <= rows:
                break
            self._y = None
        if self._y is None:
            self._y = fixed_range(low, high, None, 1)
        return tick_labels(self._y.ticks)

    def _canvas(self, curves: list[Curve], width: int, height: int) -> _Canvas:
        from plotext._figure import _figure_class

        labels = self._y_range(curves, height)
        assert self._y is not None
        first = min(curve.x[0] for curve in curves)
        last = max(self._x_end, *(curve.x[-1] for curve in curves))
        step = nice_step(max(1.0, last - min(0.0, first)), max(2, width // 14))
        end = max(1.0, last if self._x_end >= last else math.ceil(last / step) * step)
        x_ticks = [step * n for n in range(int(end / step) + 1)]

        figure = _figure_class()
        figure.theme("clear")
        # Otherwise bounded by what plotext takes for the terminal, 24 rows where it finds none.
        figure._limit_size(False, False)
        figure.plotsize(width, height)
        self._draw_curves(figure, curves, end / max(1, width - LABEL - 1))
        figure.xlim(0, end)
        figure.ylim(self._y.low, self._y.high)
        figure.yticks(self._y.ticks, [text.rjust(LABEL) for text in labels])
        figure.yaxes(True, False)
        if self._x_axis:
            figure.xaxes(True, False)
            figure.xticks(x_ticks, [label(tick) for tick in x_ticks])
        else:
            figure.xaxes(False, False)
            figure.xticks([])
        glyphs = ASCII if self.ascii_only else SIGNS
        for mark in self._marks:
            if 0 <= mark.step <= end:
                low = mark.kind is AnnotationKind.CHECKPOINT
                place = self._y.low if low else self._y.high
                figure.text(glyphs[mark.kind], mark.step, place, alignment="center")
        lines, owners = [], []
        for raw in figure.build().split("\n")[:height]:
            line, owner = _uncoloured(raw)
            lines.append(line.translate(_ASCII) if self.ascii_only else line)
            owners.append(owner)
        if not self.ascii_only and lines:
            lines = _with_borders(lines, SIGNS[AnnotationKind.CYCLE])
        return _Canvas(lines, owners)

    def _draw_curves(self, figure: Any, curves: list[Curve], cell: float) -> None:
        """Draws points, lines, then signs. The colour of a curve is its number plus 1; a cell is `cell` wide."""
        assert self._y is not None
        order = (CurveKind.POINTS, CurveKind.LINE, CurveKind.SIGNS)
        for colour, curve in sorted(enumerate(curves, 1), key=lambda item: order.index(item[1].kind)):
            if curve.kind is CurveKind.LINE:
                marker = "." if self.ascii_only else "braille"
                figure.plot(curve.x, curve.y, marker=marker, color=colour)
            else:
                marker = curve.sign
                if curve.kind is CurveKind.POINTS:
                    marker = ":" if self.ascii_only else "braille"
                figure.scatter(curve.x, curve.y, marker=marker, color=colour)
        for colour, curve in enumerate(curves, 1):
            if curve.name:
                named = _every(list(zip(curve.x, curve.y, strict=True)), NAMED_EVERY * cell)
                figure.scatter(
                    [x for x, _y in named], [y for _x, y in named], marker=curve.name, color=colour
                )
        above, below = (ABOVE_ASCII, BELOW_ASCII) if self.ascii_only else (ABOVE, BELOW)
        low, high = self._y.low, self._y.high
        rounding = 1e-9 * (high - low)
        for colour, curve in enumerate(curves, 1):
            pairs = list(zip(curve.x, curve.y, strict=True))
            for sign, edge, outside in (
                (above, high, [x for x, y in pairs if y > high + rounding]),
                (below, low, [x for x, y in pairs if y < low - rounding]),
            ):
                if outside := outside[:MAX_OUTSIDE]:
                    figure.scatter(outside, [edge] * len(outside), marker=sign, color=colour)

    def _styled(self, line: str, owners: dict[int, int], styles: list[str]) -> Content:
        """Curves have their own style, marks that of their kind, the frame is dim."""
        spans: list[Span] = []
        for place, character in enumerate(line):
            if place in owners:
                style = styles[owners[place]]
            elif character in _MARK_STYLE and place > LABEL:
                style = _MARK_STYLE[character]
            else:
                style = "$foreground-muted"
            if spans and spans[-1].style == style and spans[-1].end == place:
                spans[-1] = Span(spans[-1].start, place + 1, style)
            else:
                spans.append(Span(place, place + 1, style))
        return Content(line, spans)


_MARK_STYLE = {sign: "$text-warning" if kind in WARNINGS else "$text-accent" for kind, sign in SIGNS.items()}


def shown_range(
    curves: Sequence[tuple[CurveKind, Sequence[float]]], *, robust: bool = True
) -> tuple[float, float]:
    """Lowest and highest y of an axis for curves, each a kind and its values.

    A robust one leaves out far values of points and lines (`robust_range`). Of SIGNS curves the last value is in it
    always, others where they are not far.
    """
    values = [y for kind, ys in curves if kind is not CurveKind.SIGNS for y in ys]
    signs = [ys for kind, ys in curves if kind is CurveKind.SIGNS]
    everything = [*values, *(y for ys in signs for y in ys)]
    if not robust or not values:
        return min(everything), max(everything)
    low, high = robust_range(values)
    low, high = min([low, *(ys[-1] for ys in signs)]), max([high, *(ys[-1] for ys in signs)])
    reach = 0.5 * (high - low)
    near = [y for ys in signs for y in ys if low - reach <= y <= high + reach]
    return min([low, *near]), max([high, *near])


def _every(points: list[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """The last point, and points before it that are `gap` apart."""
    kept: list[tuple[float, float]] = []
    for point in reversed(points):
        if not kept or kept[-1][0] - point[0] >= gap:
            kept.append(point)
    return kept


def _with_borders(lines: list[str], sign: str) -> list[str]:
    """A dotted line below each `sign` of the first line, in the empty cells."""
    columns = [column for column, character in enumerate(lines[0]) if character == sign]
    if not columns:
        return lines
    drawn = [lines[0]]
    for line in lines[1:]:
        cells = list(line)
        inside = any(axis in line[: LABEL + 2] for axis in "│┤")
        for column in columns:
            if inside and column < len(cells) and cells[column] == " ":
                cells[column] = _BORDER
        drawn.append("".join(cells))
    return drawn


def _uncoloured(text: str) -> tuple[str, dict[int, int]]:
    """`text` without colour sequences, and the curve of each cell that plotext coloured."""
    out: list[str] = []
    owners: dict[int, int] = {}
    colour: int | None = None
    at = length = 0
    for found in _COLOUR.finditer(text):
        piece = text[at : found.start()]
        out.append(piece)
        if colour is not None:
            owners.update((place, colour - 1) for place in range(length, length + len(piece)))
        length += len(piece)
        at = found.end()
        colour = int(found[1]) if found[1] else None
    out.append(text[at:])
    return "".join(out), owners
