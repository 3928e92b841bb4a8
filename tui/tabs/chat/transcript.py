"""The exchanges of a chat, one below the other: one of them is selected, the answer that is generated grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip

from engine.chats.record import ChatExchange
from tui.tabs.chat.transcript_text import MARGIN, ExchangeLayout
from tui.terminal.glyphs import UNICODE, Glyphs
from tui.widgets.line_view import LineView
from tui.widgets.markdown_lines import StyledLine

_STYLES = ("plain", "dim", "strong", "em", "s", "code", "block", "you", "model", "error", "success")
"""Names that the kinds of spans are made of, each with its component class."""


class Transcript(LineView):
    """Exchanges, or the lines of a welcome where there is none.

    Text from data is drawn, never read as markup. `grow` redraws the changed lines, and follows the end only for a
    reader who is there.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"transcript--{name}" for name in _STYLES}
    DEFAULT_CSS = """
    Transcript > .transcript--dim { text-style: dim; }
    Transcript > .transcript--strong { text-style: bold; }
    Transcript > .transcript--em { text-style: italic; }
    Transcript > .transcript--s { text-style: strike; }
    Transcript > .transcript--code { background: $boost; }
    Transcript > .transcript--block { background: $boost; }
    Transcript > .transcript--you { color: $text-accent; }
    Transcript > .transcript--error { color: $text-error; }
    Transcript > .transcript--success { color: $text-success; }
    """

    class Picked(Message):
        """A click on an exchange."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.glyphs: Glyphs = UNICODE
        self._exchanges: Sequence[ChatExchange] = ()
        self._layouts: list[ExchangeLayout] = []
        self._starts: list[int] = []
        self._welcome: Sequence[StyledLine] = ()
        self._selected = -1
        self._styles: dict[str, Style] = {}

    # Content

    def show_welcome(self, lines: Sequence[StyledLine]) -> None:
        """Lines in place of exchanges."""
        self._welcome, self._exchanges, self._selected = lines, (), -1
        self._lay_out()
        self.scroll_to(y=0, animate=False, force=True)

    def show_exchanges(self, exchanges: Sequence[ChatExchange], selected: int, *, end: bool = True) -> None:
        """Shows the exchanges; `selected` has the mark while the view has the focus, `end` shows the last line."""
        self._welcome, self._exchanges, self._selected = (), exchanges, selected
        self._lay_out()
        if end:
            self.scroll_to(y=self.max_scroll_y, animate=False, force=True)

    def redraw(self, index: int, *, end: bool = False) -> None:
        """Draws one exchange again, after its versions changed; with `end` its last line is on the screen."""
        if not self._layout_width or not 0 <= index < len(self._layouts):
            self._lay_out()
            return
        follow = end or self.at_end
        self._layouts[index] = self._layout(index)
        self._number()
        self._grown(self._starts[index], follow and index == len(self._layouts) - 1)

    def grow(self, index: int, version: int, text: str) -> None:
        """Text of an answer that has come."""
        if self._layout_width and text and 0 <= index < len(self._layouts):
            follow = self.at_end
            changed = self._layouts[index].append(version, text)
            if index < len(self._layouts) - 1:
                self._number()
            self._grown(self._starts[index] + changed, follow and index == len(self._layouts) - 1)

    def select(self, index: int, *, scroll: bool = True) -> None:
        """Marks another exchange, and brings its beginning on the screen where it is not."""
        self._selected = index
        self.refresh()
        if scroll and 0 <= index < len(self._starts):
            start, end = self._starts[index], self._starts[index] + len(self._layouts[index].lines)
            if (
                start < self.scroll_offset.y
                or end > self.scroll_offset.y + self.scrollable_content_region.height
            ):
                self.scroll_to(y=start, animate=False, force=True)

    @property
    def plain_text(self) -> str:
        """All lines as drawn, without colours."""
        lines = [line for layout in self._layouts for line in layout.lines] or self._welcome
        return "\n".join("".join(span.text for span in line).rstrip() for line in lines)

    # Lines

    @property
    def _line_count(self) -> int:
        if self._layouts:
            return self._starts[-1] + len(self._layouts[-1].lines)
        return len(self._welcome)

    def _layout(self, index: int) -> ExchangeLayout:
        return ExchangeLayout(self._exchanges[index], self._layout_width, self.glyphs)

    def _number(self) -> None:
        start, self._starts = 0, []
        for layout in self._layouts:
            self._starts.append(start)
            start += len(layout.lines)

    def _lay_out(self) -> None:
        self._layout_width = self.scrollable_content_region.width
        self._layouts = [self._layout(i) for i in range(len(self._exchanges))] if self._layout_width else []
        self._number()
        self.virtual_size = Size(self._layout_width, self._line_count)
        self.refresh()

    def _line(self, number: int) -> tuple[StyledLine, bool]:
        """A line, and whether it is the first of the selected exchange."""
        if not self._layouts:
            return (self._welcome[number] if number < len(self._welcome) else (), False)
        place = self._exchange_at(number)
        if place < 0:
            return (), False
        at = number - self._starts[place]
        return self._layouts[place].lines[at], at == 0 and place == self._selected

    def _exchange_at(self, number: int) -> int:
        """Index of the exchange of a line; -1 below the last."""
        if not self._layouts or number >= self._line_count:
            return -1
        low, high = 0, len(self._starts)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._starts[middle] <= number else (low, middle)
        return low

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        width, number = self.scrollable_content_region.width, self.scroll_offset.y + y
        line, marked = self._line(number)
        base = self._style("plain")
        segments = [Segment(span.text, self._kind(span.kind)) for span in line]
        if marked and self.has_focus and segments:
            segments[0] = Segment(self.glyphs.cursor.ljust(MARGIN), self._kind("you strong"))
        used = sum(cell_len(segment.text) for segment in segments)
        if line and "block" in line[-1].kind.split():
            segments.append(Segment(" " * max(0, width - used), self._kind("block")))
            used = max(used, width)
        return Strip(segments, used).adjust_cell_length(width, base)

    def _kind(self, kind: str) -> Style:
        style = self._styles.get(kind)
        if style is None:
            style = self._style("plain")
            for name in kind.split():
                style += self.get_component_rich_style(f"transcript--{name}", partial=True)
            self._styles[kind] = style
        return style

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"transcript--{name}")

    def notify_style_update(self) -> None:
        """Colours change with the theme and the focus."""
        self._styles = {}
        super().notify_style_update()

    def on_focus(self) -> None:
        self._styles = {}
        self.refresh()

    def on_blur(self) -> None:
        self._styles = {}
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None:
            index = self._exchange_at(self.scroll_offset.y + offset.y)
            if index >= 0:
                self.post_message(self.Picked(index))
