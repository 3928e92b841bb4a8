"""Curves in a panel: plotext draws them into text, and only the cells that changed are painted.

The axes keep their range until a point leaves it, and ranges grow in fixed steps; otherwise a slowly moving curve would
shift, and so repaint, every cell. No CJK and no colour inside the canvas (plotext 5 miscounts both): titles belong to the
border.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from textual import events
from textual.content import Content, Span

from engine.runs.curve import Annotation, AnnotationKind
from tui.terminal.text import plain
from tui.widgets.annotations import ASCII, SIGNS, on_curve
from tui.widgets.cell_lines import CellLines

DRAWABLE = 1e30
"""Greater values of a journal, and what is no number, are not drawn."""
MAX_POINTS = 200
LABEL = 6
"""Cells of an axis label, so that the canvas never shifts sideways."""
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_ASCII = str.maketrans({"│": "|", "┤": "+", "└": "+", "┬": "+", "─": "-", "┼": "+", "•": "o"})
_BORDER = "┊"
"""Drawn below the glyph of a cycle where the canvas is empty; training left of it belongs to earlier cycles."""


_WARNING = frozenset((SIGNS[AnnotationKind.RECOVERY], SIGNS[AnnotationKind.GOVERNOR]))
_ACCENT = frozenset(
    (SIGNS[AnnotationKind.COMMAND], SIGNS[AnnotationKind.CYCLE], SIGNS[AnnotationKind.CHECKPOINT])
)


@dataclass(frozen=True)
class Curve:
    """Points with rising x. `line` curves are braille lines; others are single dots over them."""

    x: Sequence[float]
    y: Sequence[float]
    line: bool = True


@dataclass
class AxisRange:
    """Range and ticks of an axis."""

    low: float
    high: float
    ticks: list[float] = field(default_factory=list)


def nice_step(span: float, ticks: int) -> float:
    """A round number (1, 2, 2.5, 5 times a power of ten) of which about `ticks` fit into `span`."""
    if span <= 0 or not math.isfinite(span):
        return 1.0
    raw = span / max(1, ticks)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step * power for step in _STEPS if step * power >= raw * 0.999)


def fixed_range(low: float, high: float, before: AxisRange | None, ticks: int = 3) -> AxisRange:
    """The range for data from `low` to `high`: `before` while the data lies in it and fills a third of it,
    else one that ends on whole steps."""
    if (
        before is not None
        and before.low <= low
        and high <= before.high
        and (high - low) * 3 >= (before.high - before.low)
    ):
        return before
    if high - low < 1e-12:
        pad = abs(high) * 0.05 or 0.5
        low, high = low - pad, high + pad
    step = nice_step(high - low, ticks)
    bottom, top = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    count = round((top - bottom) / step)
    return AxisRange(bottom, top, [bottom + n * step for n in range(count + 1)])


def log_range(low: float, high: float) -> AxisRange:
    """Whole halves of a power of two around positive data, for a logarithmic axis (in log2 units)."""
    bottom, top = math.floor(math.log2(low) * 2) / 2, math.ceil(math.log2(high) * 2) / 2
    if top <= bottom:
        top = bottom + 0.5
    count = round((top - bottom) * 2)
    stride = max(1, math.ceil(count / 4))
    return AxisRange(bottom, top, [bottom + n / 2 for n in range(0, count + 1, stride)])


def label(value: float) -> str:
    """A number in at most six cells: `2.40`, `0.0143`, `3e-05`, `12k`."""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e8:
        return f"{value:.0e}".replace("e+", "e")
    if size >= 100_000:
        return f"{value / 1000:.0f}k"
    if size >= 1000:
        return f"{value / 1000:.4g}k" if value % 100 == 0 else f"{value:.0f}"
    if size >= 1:
        return f"{value:.4g}"
    if size >= 0.001:
        return f"{value:.4f}".rstrip("0")
    return f"{value:.0e}"


def thin(points: Sequence[tuple[float, float]], limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `limit` points: the lowest and the highest of each bucket, the first and the last one."""
    if len(points) <= limit:
        return list(points)
    size = math.ceil(len(points) / ((limit - 2) // 2))
    kept = {points[0], points[-1]}
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        kept.add(min(bucket, key=lambda point: point[1]))
        kept.add(max(bucket, key=lambda point: point[1]))
    return sorted(kept)


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
        self._log = False
        self._y: AxisRange | None = None

    def set_curves(
        self,
        curves: Sequence[Curve],
        *,
        x_end: float = 0.0,
        log: bool = False,
        marks: Sequence[Annotation] = (),
    ) -> None:
        """`x_end` is the end of the axis even where the data is shorter (the last step of a run); `log` makes the y axis
        logarithmic; the glyphs of `marks` are above the curve, those of checkpoints below it."""
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
        self._draw()

    def _draw(self) -> None:
        width, height = self.size
        if not self.is_mounted or width < 12 or height < 2:
            return
        curves = [
            Curve([x for x, _y in points], [y for _x, y in points], curve.line)
            for curve in self._curves
            if (points := self._points(curve))
        ]
        if not curves:
            words = Content.styled(plain(self.empty), "$foreground-muted")
            self.set_lines(words.wrap(width) if self.empty else [])
            return
        self.set_lines([self._styled(line) for line in self._canvas(curves, width, height)])

    def _points(self, curve: Curve) -> list[tuple[float, float]]:
        pairs = [
            (x, math.log2(y) if self._log else y)
            for x, y in zip(curve.x, curve.y, strict=True)
            if abs(x) <= DRAWABLE and abs(y) <= DRAWABLE and (not self._log or y > 0)
        ]
        return thin(pairs)

    def _canvas(self, curves: list[Curve], width: int, height: int) -> list[str]:
        from plotext._figure import _figure_class

        low = min(min(curve.y) for curve in curves)
        high = max(max(curve.y) for curve in curves)
        ticks = max(2, (height - 2 * self._x_axis) // 3)
        if self._log:
            if self._y is None or low < self._y.low or high > self._y.high:
                self._y = log_range(2**low, 2**high)
            labels = [label(round(2**tick, 2)) for tick in self._y.ticks]
        else:
            self._y = fixed_range(low, high, self._y, ticks)
            labels = [label(tick) for tick in self._y.ticks]
        first = min(curve.x[0] for curve in curves)
        last = max(self._x_end, *(curve.x[-1] for curve in curves))
        step = nice_step(max(1.0, last - min(0.0, first)), max(2, width // 14))
        end = last if self._x_end >= last else math.ceil(last / step) * step
        x_ticks = [step * n for n in range(int(end / step) + 1)]

        figure = _figure_class()
        figure.theme("clear")
        figure.plotsize(width, height)
        for curve in curves:
            if curve.line:
                figure.plot(curve.x, curve.y, marker="." if self.ascii_only else "braille")
            else:
                figure.scatter(curve.x, curve.y, marker="o")
        figure.xlim(0, max(end, 1.0))
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
        lines = _bare(figure.build()).split("\n")[:height]
        if self.ascii_only:
            return [line.translate(_ASCII) for line in lines]
        return _with_borders(lines, SIGNS[AnnotationKind.CYCLE]) if lines else lines

    def _styled(self, line: str) -> Content:
        """The frame is dim, dots of a second curve are bold, the curve has the accent colour."""
        spans: list[Span] = []
        for place, character in enumerate(line):
            if "\u2801" <= character <= "\u28ff" or (self.ascii_only and character == "." and place > LABEL):
                style = "$text-accent"
            elif character == "o":
                style = "bold $text-warning"
            elif character in _WARNING:
                style = "$text-warning"
            elif character in _ACCENT:
                style = "$text-accent"
            else:
                style = "$foreground-muted"
            if spans and spans[-1].style == style and spans[-1].end == place:
                spans[-1] = Span(spans[-1].start, place + 1, style)
            else:
                spans.append(Span(place, place + 1, style))
        return Content(line, spans)


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


def _bare(text: str) -> str:
    """`text` without the colour sequences that plotext writes even in its clear theme."""
    out: list[str] = []
    rest = text
    while True:
        head, escape, tail = rest.partition("\x1b[")
        out.append(head)
        if not escape:
            return "".join(out)
        rest = tail.partition("m")[2]
