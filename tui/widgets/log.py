"""A log that draws only the lines on the screen and keeps its place when the reader has scrolled up."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.core.local_time import local_time
from tui.terminal.text import safe
from tui.widgets.cell_lines import content_strip

if TYPE_CHECKING:
    from engine.runs.view import LogLine

MAX_LINES = 2000
_STYLE = {"warning": "$text-warning", "error": "$text-error"}


class LogPane(ScrollView, can_focus=True):
    """Lines with their time, wrapped to the width; bounded to the newest 2,000."""

    DEFAULT_CSS = """
    LogPane { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("end,G", "bottom", show=False),
        Binding("home,g", "top", show=False),
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
    ]

    def __init__(self, *, id: str | None = None, classes: str | None = None, alert: str = "▲") -> None:
        super().__init__(id=id, classes=classes)
        self.alert = alert
        self._source: deque[LogLine] = deque(maxlen=MAX_LINES)
        self._rows: deque[Content] = deque()
        self._heights: deque[int] = deque()
        self._wrapped_for = 0
        self._empty = ""

    def replace(self, lines: Iterable[LogLine], empty: str = "") -> None:
        """Shows other lines, from their end. `empty` is the text without any line."""
        self._source = deque(lines, maxlen=MAX_LINES)
        self._empty = empty
        self._wrap_all()
        self.scroll_end(animate=False, force=True)

    def append(self, lines: Sequence[LogLine]) -> None:
        """Appends lines. The view follows the end for a reader who is there, and keeps its place otherwise."""
        if not lines:
            return
        following = self.is_vertical_scroll_end
        first_visible = int(self.scroll_offset.y)
        removed = 0
        for line in lines:
            if len(self._source) == MAX_LINES and self._heights:
                height = self._heights.popleft()
                removed += height
                for _row in range(height):
                    self._rows.popleft()
            self._source.append(line)
            self._wrap(line)
        self._measure()
        if following:
            self.scroll_end(animate=False, force=True)
        elif removed:
            self.scroll_to(y=max(0, first_visible - removed), animate=False, force=True)
        self.refresh()

    @property
    def count(self) -> int:
        """CellNumber of lines, before wrapping."""
        return len(self._source)

    @property
    def text(self) -> str:
        """The lines as they are drawn, for copying."""
        return "\n".join(row.plain.rstrip() for row in self._rows)

    def _wrap(self, line: LogLine) -> None:
        clock = local_time("%H:%M:%S", line.t)
        sign = f"{self.alert} " if line.level in _STYLE else ""
        body = safe(sign + line.text, _STYLE.get(line.level, ""))
        rows = list(body.wrap(max(10, self._width - 9)))
        for number, row in enumerate(rows):
            head = (f"{clock} ", "$foreground-muted") if number == 0 else (" " * 9, "")
            self._rows.append(Content.assemble(head, row))
        self._heights.append(len(rows))

    @property
    def _width(self) -> int:
        return self.scrollable_content_region.width or self.size.width or 60

    def _wrap_all(self) -> None:
        self._rows.clear()
        self._heights.clear()
        self._wrapped_for = self._width
        for line in self._source:
            self._wrap(line)
        self._measure()
        self.refresh()

    def _measure(self) -> None:
        self.virtual_size = Size(self._width, len(self._rows))

    def on_resize(self, _event: events.Resize) -> None:
        if self._wrapped_for != self._width:
            following = self.is_vertical_scroll_end
            self._wrap_all()
            if following:
                self.scroll_end(animate=False, force=True)

    def action_bottom(self) -> None:
        self.scroll_end(animate=False)

    def action_top(self) -> None:
        self.scroll_home(animate=False)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        index = int(self.scroll_offset.y) + y
        if index < len(self._rows):
            return content_strip(self, self._rows[index], width)
        empty = self._empty if y == 0 and not self._rows else ""
        return content_strip(self, Content.styled(empty, "$foreground-muted"), width)
