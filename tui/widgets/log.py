"""A log that draws only the lines on the screen and keeps its place when the reader has scrolled up."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.core.local_time import local_time
from tui.terminal.text import safe
from tui.widgets.cell_lines import content_strip

if TYPE_CHECKING:
    from engine.runs.view import LogLine

MAX_LINES = 2000
_STYLE = {"warning": "$text-warning", "error": "$text-error"}
_DETAIL_STYLE = "$foreground-muted"


class LogPane(ScrollView, can_focus=True):
    """Lines with their time, wrapped to the width; bounded to the newest 2,000."""

    DEFAULT_CSS = """
    LogPane { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("end,G", "bottom", show=False),
        Binding("home,g", "top", show=False),
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
    ]

    class UnseenChanged(Message):
        """Other lines than before stand below what a reader sees who has scrolled up."""

        def __init__(self, pane: LogPane, unseen: int) -> None:
            super().__init__()
            self.pane = pane
            self.unseen = unseen

    def __init__(self, *, id: str | None = None, classes: str | None = None, alert: str = "▲") -> None:
        super().__init__(id=id, classes=classes)
        self.alert = alert
        self._source: deque[LogLine] = deque(maxlen=MAX_LINES)
        self._rows: deque[Content] = deque()
        self._heights: deque[int] = deque()
        self._wrapped_for = 0
        self._empty = ""
        self._following = True
        """The end is shown, and stays so when lines are added or the size changes."""
        self._unseen = 0

    def replace(self, lines: Iterable[LogLine], empty: str = "") -> None:
        """Shows other lines, from their end. `empty` is the text without any line."""
        self._source = deque(lines, maxlen=MAX_LINES)
        self._empty = empty
        self._wrap_all()
        self._follow()

    def append(self, lines: Sequence[LogLine]) -> None:
        """Appends lines. The view follows the end for a reader who is there, and keeps its place otherwise."""
        if not lines:
            return
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
        if self._following:
            self.scroll_end(animate=False, force=True)
        else:
            if removed:
                self.scroll_to(y=max(0, first_visible - removed), animate=False, force=True)
            self._set_unseen(self._unseen + len(lines))
        self.refresh()

    def _follow(self) -> None:
        self._following = True
        self._set_unseen(0)
        self.scroll_end(animate=False, force=True)

    def _set_unseen(self, unseen: int) -> None:
        if unseen != self._unseen:
            self._unseen = unseen
            self.post_message(self.UnseenChanged(self, unseen))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """The reader, or the pane itself, has scrolled."""
        super().watch_scroll_y(old_value, new_value)
        self._following = self.is_vertical_scroll_end
        if self._following:
            self._set_unseen(0)

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
        style = _DETAIL_STYLE if line.level == "detail" else _STYLE.get(line.level, "")
        body = safe(sign + line.text, style)
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
        following = self._following
        if self._wrapped_for != self._width:
            self._wrap_all()
        if following:
            # After the layout, which may have moved the end away.
            self.call_after_refresh(self._follow)

    def action_bottom(self) -> None:
        self._follow()

    def action_top(self) -> None:
        self.scroll_home(animate=False)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        index = int(self.scroll_offset.y) + y
        if index < len(self._rows):
            return content_strip(self, self._rows[index], width)
        empty = self._empty if y == 0 and not self._rows else ""
        return content_strip(self, Content.styled(empty, "$foreground-muted"), width)
