"""The prompt for a filter line, which offers fields and values while one types; tab completes."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from textual import events, on, work
from textual.app import ComposeResult
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from engine.core.errors import H2QError
from engine.core.i18n import _
from engine.corpus.review.filter_counts import FilterCounts
from tui.screens.ask import LinePrompt
from tui.tabs.corpus.filter_completion import Completion, completions, split_line
from tui.terminal.text import cells, safe

SEPARATOR = " · "


class FilterPrompt(LinePrompt):
    """Answers with the filter line; None when the user leaves."""

    DEFAULT_CSS = """
    FilterPrompt > #filter-offer { width: 100%; height: 1; background: $surface; padding: 0 1; }
    """

    class CountsRead(Message):
        """The counts under the complete terms of a line have been read."""

        def __init__(self, terms: str, counts: FilterCounts) -> None:
            super().__init__()
            self.terms = terms
            self.counts = counts

    def __init__(self, value: str, read_counts: Callable[[str], Awaitable[FilterCounts]]) -> None:
        """`read_counts` returns the counts under a filter line."""
        super().__init__(_("Filter:"), value)
        self._read_counts = read_counts
        self._counts: dict[str, FilterCounts] = {}
        """By complete terms."""
        self._found: list[Completion] = []
        self._chosen_line = ""
        """The line that tab made; another tab replaces it by the next completion."""
        self._place = -1
        self._offer = Static(id="filter-offer")

    def compose(self) -> ComposeResult:
        yield self._offer
        yield from super().compose()

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(Input).placeholder = _("words, or a field and its value; tab completes")
        self._look(self._value)

    async def process_key(self, event: events.Key) -> bool:
        if event.key in ("tab", "shift+tab"):
            self._complete(1 if event.key == "tab" else -1)
            return True
        return await super().process_key(event)

    @on(Input.Changed)
    def _typed(self, message: Input.Changed) -> None:
        message.stop()
        if message.value != self._chosen_line:
            self._look(message.value)

    def _look(self, line: str) -> None:
        """Offers what the line may go on with."""
        self._chosen_line, self._place = "", -1
        terms = split_line(line)[0].strip()
        if terms not in self._counts:
            self._read(terms)
        self._found = completions(line, self._counts.get(terms, {}))
        self._draw()

    @work(group="filter:counts", exclusive=True, exit_on_error=False)
    async def _read(self, terms: str) -> None:
        try:
            self.post_message(self.CountsRead(terms, await self._read_counts(terms)))
        except (H2QError, sqlite3.Error):
            # The list says what is wrong with the database.
            return

    @on(CountsRead)
    def _counts_read(self, message: CountsRead) -> None:
        self._counts[message.terms] = message.counts
        if self._place < 0:
            self._look(self.query_one(Input).value)

    def _complete(self, step: int) -> None:
        if not self._found:
            return
        if len(self._found) == 1:
            # The line goes on behind it.
            self._chosen_line, self._place = "", -1
            self._set(self._found[0].line)
            return
        self._place = (self._place + step) % len(self._found) if self._place >= 0 else (0 if step > 0 else -1)
        self._place %= len(self._found)
        self._chosen_line = self._found[self._place].line
        self._set(self._chosen_line)
        self._draw()

    def _set(self, line: str) -> None:
        field = self.query_one(Input)
        field.value = line
        field.cursor_position = len(line)

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        """The completions from the chosen one on, as many as fit."""
        room = self.app.size.width - 4
        start = max(0, self._place)
        parts: list[Any] = []
        if self._found and (field := self._found[0].field):
            parts = [safe(f"{field}: ", "$foreground-muted")]
            room -= cells(field) + 2
        empty = len(parts)
        for number, one in enumerate(self._found[start:], start):
            count = one.conversations
            text = one.shown if count is None else f"{one.shown} {count:,}".strip()
            if len(parts) > empty:
                text = SEPARATOR + text
            if cells(text) > room:
                break
            room -= cells(text)
            parts.append(safe(text, "bold" if number == max(0, self._place) else "$foreground-muted"))
        self._offer.update(Content.assemble(*parts))
