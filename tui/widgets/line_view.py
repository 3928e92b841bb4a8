"""A view of many lines of which only those on the screen are drawn: scrolling with the keys of a list, text that grows."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView


class LineView(ScrollView, can_focus=True, inherit_bindings=False):
    """The base of views that lay their content out in lines of the width that they have.

    A subclass has `_line_count`, `_lay_out` and `render_line`. A reader who is at the end follows text that grows. Nothing
    scrolls sideways, so left and right belong to the tab.
    """

    DEFAULT_CSS = """
    LineView { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "scroll_lines(1)", show=False),
        Binding("up,k", "scroll_lines(-1)", show=False),
        Binding("pagedown", "scroll_lines(10)", show=False),
        Binding("pageup", "scroll_lines(-10)", show=False),
        Binding("home,g", "scroll_top", show=False),
        Binding("end,G", "scroll_bottom", show=False),
    ]

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._layout_width = 0

    @property
    def at_end(self) -> bool:
        """Whether the last line is on the screen."""
        return self.scroll_offset.y >= self.max_scroll_y

    @property
    def _line_count(self) -> int:
        """Number of lines in the present layout."""
        raise NotImplementedError

    def _lay_out(self) -> None:
        """Lays everything out for the present width, and sets `_layout_width` and the virtual size."""
        raise NotImplementedError

    def _grown(self, line: int, follow: bool) -> None:
        """Draws the lines from `line` on again after the content changed there."""
        if self._line_count != self.virtual_size.height:
            self.virtual_size = Size(self._layout_width, self._line_count)
        self.refresh_lines(line, max(1, self._line_count - line))
        if follow:
            self.scroll_to(y=self.max_scroll_y, animate=False, force=True)

    def on_resize(self) -> None:
        if self.scrollable_content_region.width != self._layout_width:
            share = self.scroll_offset.y / max(1, self._line_count)
            at_end = self.at_end and self._line_count > self.size.height
            self._lay_out()
            self.scroll_to(
                y=self.max_scroll_y if at_end else round(share * self._line_count), animate=False, force=True
            )

    def action_scroll_lines(self, by: int) -> None:
        self.scroll_to(y=self.scroll_offset.y + by, animate=False, force=True)

    def action_scroll_top(self) -> None:
        self.scroll_to(y=0, animate=False, force=True)

    def action_scroll_bottom(self) -> None:
        self.scroll_to(y=self.max_scroll_y, animate=False, force=True)
