"""The conversation under the cursor with the reasons of the filters; the next ones are read ahead."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from textual import on, work
from textual.message import Message

from engine.core.errors import H2QError
from engine.core.i18n import _
from engine.corpus.review.database import error_text
from engine.corpus.review.types import ReviewDetail
from tui.tabs.corpus.reader import CorpusReader, duplicate_of
from tui.tabs.corpus.review_text import ReviewSigns, conversation_blocks, conversation_title
from tui.terminal.text import one_line, safe
from tui.widgets.conversation import ConversationView, StyledSpan, TextBlock

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

READ_AHEAD = 4
"""Conversations below the cursor that are read ahead, so that the next one is painted immediately."""
PLACEHOLDER_S = 0.15
"""Seconds after which a conversation that is still being read leaves the one before on the screen no longer."""
READ_TIMEOUT_S = 1.0
"""Seconds that a decision waits until its conversation is read."""


class ConversationPane(ConversationView):
    """Draws the conversation whose id `current` returns; never leaves another one on the screen."""

    class DetailRead(Message):
        """A conversation has been read into the cache of the reader."""

        def __init__(self, id_: str) -> None:
            super().__init__()
            self.id = id_

    class DuplicateRead(Message):
        """The duplicate of the current conversation has been read; `found` is False when the corpus has it no more."""

        def __init__(self, found: bool) -> None:
            super().__init__()
            self.found = found

    def __init__(self, host: AppHost, reader: CorpusReader, current: Callable[[], str]) -> None:
        super().__init__(id="corpus-view", classes="panel")
        self.host = host
        self.reader = reader
        self._current = current
        self._raw = self._all_reasons = False
        self._duplicate_for = ""
        """The conversation whose duplicate is shown below it."""
        self.shown_id = ""
        """The conversation on the screen, "" for none. For PLACEHOLDER_S it may be the one before the current one."""
        self._drawn: ReviewDetail | None = None
        """`shown_id` as it is drawn."""
        self.scroll_to_turn = -1
        """Position of the turn that the next drawing puts at the top; -1 for none."""

    def follow_cursor(self, ids: Sequence[str]) -> None:
        """Paints the current conversation if it has been read, and reads those of `ids`: it and the next ones."""
        if not self._current():
            self._show_nothing([])
            return
        self.draw()
        missing = [id_ for id_ in ids if self.reader.needs_detail(id_)]
        if missing:
            self._read_details(missing)

    async def ensure_shown(self, *, redraw: bool = False) -> bool:
        """Paints the current conversation, reading it if necessary; False when it cannot be read in time."""
        id_ = self._current()
        try:
            if id_ and self.reader.needs_detail(id_):
                await asyncio.wait_for(self.reader.read_detail(id_), READ_TIMEOUT_S)
        except (TimeoutError, H2QError, sqlite3.Error):
            if id_ not in self.reader.details:
                return False
        self.draw(redraw=redraw)
        return bool(id_) and self.shown_id == id_

    def draw(self, *, redraw: bool = False) -> None:
        """Paints the current conversation; `redraw` when the same one is to be drawn in another way."""
        detail = self.reader.detail(self._current())
        if detail is None:
            if self.shown_id != self._current():
                self.set_timer(PLACEHOLDER_S, self._draw_placeholder)
            return
        same = detail.item.id == self.shown_id
        if detail == self._drawn and not redraw:
            return
        duplicate_id = duplicate_of(detail) if self._duplicate_for == detail.item.id else ""
        duplicate = self.reader.detail(duplicate_id)
        if duplicate_id and duplicate is None:
            self._read_duplicate(duplicate_id)
        signs = ReviewSigns(self.host.glyphs, self.host.terminal.colours > 0)
        at = self.scroll_offset.y
        self.border_title = safe(one_line(conversation_title(detail.item, signs)))
        self.set_blocks(
            conversation_blocks(
                detail, signs, raw=self._raw, all_reasons=self._all_reasons, duplicate=duplicate
            )
        )
        if duplicate is not None:
            # Its title and its turns are the last blocks.
            self.show_block(-len(duplicate.turns) - 1)
        elif self.scroll_to_turn >= 0:
            positions = [turn.position for turn in detail.turns]
            place = positions.index(self.scroll_to_turn) if self.scroll_to_turn in positions else 0
            self.show_block(place - len(detail.turns))
        elif same:
            self.scroll_to(y=at, animate=False, force=True)
        self.scroll_to_turn = -1
        self.shown_id, self._drawn = detail.item.id, detail
        self.host.refresh_footer()

    def _draw_placeholder(self) -> None:
        current = self._current()
        if self.shown_id != current and current not in self.reader.details:
            self._show_nothing([TextBlock("", (StyledSpan("…", "dim"),))] if current else [])

    def _show_nothing(self, blocks: Sequence[TextBlock]) -> None:
        self.shown_id, self._drawn = "", None
        self.border_title = ""
        self.set_blocks(blocks)

    # Reading

    @work(group="corpus:detail", exclusive=True, exit_on_error=False)
    async def _read_details(self, ids: Sequence[str]) -> None:
        for id_ in ids:
            try:
                await self.reader.read_detail(id_)
            except (H2QError, sqlite3.Error) as problem:
                self.host.show_message(error_text(problem, self.reader.path), "error")
                return
            self.post_message(self.DetailRead(id_))

    @on(DetailRead)
    def _detail_read(self, message: DetailRead) -> None:
        message.stop()
        if message.id == self._current():
            self.draw()

    @work(group="corpus:duplicate", exclusive=True, exit_on_error=False)
    async def _read_duplicate(self, id_: str) -> None:
        try:
            found = await self.reader.read_detail(id_)
        except (H2QError, sqlite3.Error) as problem:
            self.host.show_message(error_text(problem, self.reader.path), "error")
            return
        self.post_message(self.DuplicateRead(found))

    @on(DuplicateRead)
    def _duplicate_read(self, message: DuplicateRead) -> None:
        message.stop()
        if message.found:
            self.draw(redraw=True)
        else:
            self._duplicate_for = ""
            self.host.show_message(_("The duplicate is no longer in the corpus."), "warning")

    # Keys

    async def toggle_raw(self) -> None:
        """As it is trained on, or as imported with the redactions and edits marked."""
        await self.ensure_shown()
        self._raw = not self._raw
        detail = self.reader.detail(self._current())
        if self._raw and detail is not None:
            edited = (turn.position for turn in detail.turns if turn.original is not None)
            self.scroll_to_turn = next(edited, -1)
        self.draw(redraw=True)

    async def toggle_reasons(self) -> None:
        """Every row of the ledger and every decision, or the summary."""
        await self.ensure_shown()
        self._all_reasons = not self._all_reasons
        self.draw(redraw=True)
        self.action_scroll_top()

    async def toggle_duplicate(self) -> None:
        """The conversation that the current one duplicates, below it."""
        await self.ensure_shown()
        detail = self.reader.detail(self._current())
        if detail is None or not duplicate_of(detail):
            self.host.show_message(_("It duplicates no other."))
            return
        self._duplicate_for = "" if self._duplicate_for else self._current()
        self.draw(redraw=True)
