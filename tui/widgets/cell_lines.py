"""Lines of text that repaint only the cells that changed: the base of header, footer, figures, gauges and plots.

This keeps the traffic low on a slow SSH line. `set_lines` compares the new lines with the drawn ones and repaints only
the spans that differ; a new text never runs the layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from rich.segment import Segment
from textual import events
from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from tui.terminal.text import cells

MERGE_GAP = 6
"""Changed spans closer than this many cells become one: a cursor move costs about as many bytes."""


@lru_cache(4096)
def _width(character: str) -> int:
    return cells(character)


def _by_cell(strip: Strip) -> list[tuple[str, object]]:
    """Text and style of each cell; the second cell of a wide character holds an empty string."""
    columns: list[tuple[str, object]] = []
    for segment in strip:
        for character in segment.text:
            width = _width(character)
            if width == 0 and columns:
                text, style = columns[-1]
                columns[-1] = (text + character, style)
                continue
            columns.append((character, segment.style))
            columns.extend([("", segment.style)] * (width - 1))
    return columns


def changed_spans(old: Strip, new: Strip) -> list[tuple[int, int]]:
    """Column ranges (start, end) in which two strips of the same width differ, wide characters kept whole."""
    before, after = _by_cell(old), _by_cell(new)
    width = max(len(before), len(after))
    before += [("", None)] * (width - len(before))
    after += [("", None)] * (width - len(after))
    spans: list[tuple[int, int]] = []
    for column in range(width):
        if before[column] == after[column]:
            continue
        start, end = column, column + 1
        while start > 0 and (after[start][0] == "" or before[start][0] == ""):
            start -= 1
        while end < width and (after[end][0] == "" or before[end][0] == ""):
            end += 1
        if spans and start - spans[-1][1] < MERGE_GAP:
            spans[-1] = (min(spans[-1][0], start), max(spans[-1][1], end))
        else:
            spans.append((start, end))
    return spans


def content_strip(widget: Widget, content: Content, width: int) -> Strip:
    """The first line of `content` on the background of `widget`, in exactly `width` cells."""
    base = widget.visual_style
    line = content.first_line.truncate(width, ellipsis=True)
    segments = [
        Segment(text, style.rich_style)
        for text, style in line.render(base, end="", parse_style=widget.app.stylesheet.parse_style)
        if text
    ]
    return Strip(segments).adjust_cell_length(width, base.rich_style)


def _is_same(before: list[Content], after: list[Content], y: int) -> bool:
    """Whether a line is as it was, in its text and its styles."""
    if y >= len(before) or y >= len(after):
        return y >= len(before) and y >= len(after)
    old, new = before[y], after[y]
    return old is new or (old.plain == new.plain and old.spans == new.spans)


class CellLines(Widget):
    """A fixed number of lines of Content, cut at the right edge."""

    DEFAULT_CSS = "CellLines { width: 1fr; height: 1; }"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: list[Content] = []
        self._strips: dict[int, Strip] = {}
        self._drawn_for: tuple[int, object] | None = None
        self._fitted: Callable[[int], Sequence[Content]] | None = None

    @property
    def lines(self) -> list[Content]:
        """The lines, a Content each."""
        return self._lines

    def set_fitted(self, lines_for: Callable[[int], Sequence[Content]]) -> None:
        """Shows the lines that `lines_for` lays out for a width in cells, for another width again."""
        self._fitted = lines_for
        self._show(lines_for(self.size.width))

    def on_resize(self, _event: events.Resize) -> None:
        if self._fitted is not None:
            self._show(self._fitted(self.size.width))

    def set_lines(self, lines: Sequence[Content]) -> None:
        """Shows `lines`; only the cells that differ are repainted."""
        self._fitted = None
        self._show(lines)

    def _show(self, lines: Sequence[Content]) -> None:
        before, self._lines = self._lines, list(lines)
        key = (self.size.width, self.visual_style)
        if not self.is_attached or not self.size or self._drawn_for != key:
            self._strips.clear()
            self.refresh()
            return
        for y in range(self.size.height):
            old = self._strips.get(y)
            if old is not None and _is_same(before, self._lines, y):
                continue
            new = self._strip(y)
            if old is None:
                self.refresh(Region(0, y, key[0], 1))
                continue
            spans = changed_spans(old, new)
            if not spans:
                continue
            cuts = sorted({cut for span in spans for cut in span if 0 < cut < key[0]} | {key[0]})
            self._strips[y] = Strip.join(new.divide(cuts))
            for start, end in spans:
                self.refresh(Region(start, y, end - start, 1))

    def _strip(self, y: int) -> Strip:
        content = self._lines[y] if y < len(self._lines) else Content("")
        return content_strip(self, content, self.size.width)

    def render_line(self, y: int) -> Strip:
        key = (self.size.width, self.visual_style)
        if self._drawn_for != key:
            self._strips.clear()
            self._drawn_for = key
        strip = self._strips.get(y)
        if strip is None:
            strip = self._strips[y] = self._strip(y)
        return strip

    def notify_style_update(self) -> None:
        self._strips.clear()
        super().notify_style_update()
