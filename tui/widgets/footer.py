"""The last line: the keys that are available here, or a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from textual import events
from textual.content import Content
from textual.timer import Timer

from tui.terminal.text import one_line
from tui.widgets.cell_lines import CellLines

MESSAGE_S = 6.0

SEVERITY_STYLE = {"": "", "success": "$text-success", "warning": "$text-warning", "error": "bold $text-error"}


class FooterEntry(NamedTuple):
    """A key in the footer."""

    key: str
    label: str
    action: str
    """The Textual action that a click on the entry performs."""


class Footer(CellLines):
    """` n new  space pause  s checkpoint  x stop  ? keys`; `show_message` puts a message there for a while."""

    DEFAULT_CSS = "Footer { dock: bottom; height: 1; }"

    def __init__(self) -> None:
        super().__init__(id="footer")
        self.entries: Sequence[FooterEntry] = ()
        """Most useful first; those that do not fit are dropped, the last one never is."""
        self._places: list[tuple[int, int, FooterEntry]] = []
        """First column, column after the last, and entry, of those on the line."""
        self.notice: Content | None = None
        self._message: Content | None = None
        self._timer: Timer | None = None

    def show_message(self, text: str, severity: str = "") -> None:
        """Shows a message instead of the keys, for six seconds or until the next one."""
        self._message = Content.styled(" " + one_line(text), SEVERITY_STYLE.get(severity, ""))
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(MESSAGE_S, self.clear_message)
        self.redraw()

    def clear_message(self) -> None:
        """Back to the keys."""
        if self._message is not None:
            self._message = None
            self.redraw()

    @property
    def message(self) -> str:
        """The message on the line, "" when the keys are there."""
        return "" if self._message is None else self._message.plain.strip()

    def on_resize(self, _event: events.Resize) -> None:
        self.redraw()

    async def on_click(self, event: events.Click) -> None:
        for start, end, entry in self._places:
            if start <= event.x < end:
                await self.run_action(entry.action)

    def redraw(self) -> None:
        self._places = []
        self.set_lines([self._message or self.notice or self._keys()])

    def _keys(self) -> Content:
        if not self.entries:
            return Content("")
        *others, last = self.entries
        room = self.size.width - self._one(last).cell_length - 1
        line = Content(" ")
        for entry in others:
            one = self._one(entry)
            if line.cell_length + one.cell_length + 2 > room:
                break
            line = self._append(line, entry).append("  ")
        return self._append(line, last)

    def _append(self, line: Content, entry: FooterEntry) -> Content:
        longer = line.append(self._one(entry))
        self._places.append((line.cell_length, longer.cell_length, entry))
        return longer

    @staticmethod
    def _one(entry: FooterEntry) -> Content:
        return Content.assemble((entry.key, "bold $text-accent"), " ", entry.label)
