"""The one header: tabs, the running run, memory against its budget, alerts."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.content import Content
from textual.message import Message

from engine.core.i18n import _
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import cells, one_line
from tui.widgets.cell_lines import CellLines


@dataclass(frozen=True)
class HeaderStatus:
    """The run in progress as the header shows it."""

    paused: bool = False
    share: float | None = None
    """Share of the whole run that is done, 0 to 1."""
    left: str = ""
    """Time left of it, "" when unknown."""
    memory: str = ""
    """"2.1/4.0G", or "" before the first measurement."""


class Header(CellLines):
    """` h2q  [1 Train] 2 Corpus …           ● 41% 02:14  2.1/4.0G  ▲1`. A click on a tab shows it."""

    DEFAULT_CSS = "Header { dock: top; height: 1; }"

    class TabClicked(Message):
        """A tab was clicked; `index` counts from 0."""

        def __init__(self, index: int) -> None:
            self.index = index
            super().__init__()

    def __init__(self, titles: list[str], glyphs: Glyphs) -> None:
        super().__init__(id="header")
        self.titles = titles
        self.glyphs = glyphs
        self.active = 0
        self.running: HeaderStatus | None = None
        self.alerts = 0
        self._places: list[tuple[int, int]] = []

    def redraw(self) -> None:
        """Redraws after a change of any attribute."""
        width = self.size.width
        right = self._right()
        left, self._places = self._left(width - right.cell_length - 1)
        gap = max(1, width - left.cell_length - right.cell_length)
        self.set_lines([Content.assemble(left, " " * gap, right)])

    def on_resize(self, _event: events.Resize) -> None:
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        for index, (start, end) in enumerate(self._places):
            if start <= event.x < end:
                self.post_message(self.TabClicked(index))

    def _left(self, room: int) -> tuple[Content, list[tuple[int, int]]]:
        """The tabs in at most `room` cells: first the name is dropped, then the titles of the other tabs."""
        content, places = Content(""), list[tuple[int, int]]()
        for brand, titled in ((" h2q  ", True), (" ", True), (" ", False)):
            content, places = Content.styled(brand, "bold"), []
            for index, title in enumerate(self.titles):
                here = index == self.active
                name = f"{index + 1} {one_line(_(title))}" if titled or here else f"{index + 1}"
                text = f"[{name}]" if here else f" {name} "
                start = content.cell_length
                content = content.append(Content.styled(text, "bold $text-accent" if here else ""))
                places.append((start, start + cells(text)))
            if content.cell_length <= room:
                break
        return content, places

    def _right(self) -> Content:
        run = self.running
        parts: list[Content] = []
        if run is None:
            parts.append(Content.styled(_("nothing running"), "$foreground-muted"))
        else:
            sign, style = (
                (self.glyphs.paused, "$text-warning") if run.paused else (self.glyphs.running, "$text-accent")
            )
            share = "" if run.share is None else f" {min(99, int(run.share * 100)):2d}%"
            left = f" {run.left}" if run.left else ""
            parts.append(Content.styled(f"{sign}{share}{left}", style))
            if run.memory:
                parts.append(Content(run.memory))
        if self.alerts:
            parts.append(Content.styled(f"{self.glyphs.alert}{self.alerts}", "bold $text-error"))
        return Content("  ").join(parts).append(" ")
