"""The list of conversations under a filter, in an order."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from textual import on, work
from textual.message import Message

from engine.core.errors import H2QError
from engine.core.i18n import N_, _
from engine.corpus.review.database import UnusableDatabase, error_text
from engine.corpus.review.filter_query import ListOrder, invalid_terms
from engine.corpus.review.types import ReviewItem
from engine.runs.events import Funnel
from tui.tabs.corpus.reader import CorpusReader
from tui.tabs.corpus.review_text import list_row
from tui.terminal.text import cells, one_line, safe
from tui.widgets.virtual_list import GLYPH_COLUMN, VirtualList

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

LOAD_TIMEOUT_S = 1.5
"""Seconds that a key waits for the list it is meant for."""
ORDER_NAMES = {
    ListOrder.NEWEST: N_("newest first"),
    ListOrder.OLDEST: N_("oldest first"),
    ListOrder.LONGEST: N_("longest first"),
    ListOrder.SHORTEST: N_("shortest first"),
    ListOrder.BEST: N_("best first"),
    ListOrder.WORST: N_("worst first"),
}


class ReviewList(VirtualList):
    """The ids that the filter gave when they were read: a decision changes a row and moves none; `load` reads again."""

    class Loaded(Message):
        """The ids were read, or cannot be read because of `problem`."""

        def __init__(
            self,
            number: int,
            ids: Sequence[str] = (),
            funnel: Funnel | None = None,
            in_memory: int = 0,
            problem: Exception | None = None,
        ) -> None:
            super().__init__()
            self.number = number
            """Which load this is, counted from 1."""
            self.ids = ids
            self.funnel = funnel
            self.in_memory = in_memory
            """Conversations in memory, whether the corpus has them or not."""
            self.problem = problem

        @property
        def damaged(self) -> bool:
            """Whether the memory is unusable as it is; a backup fixes it."""
            return isinstance(self.problem, UnusableDatabase)

    class RowsRead(Message):
        """Rows that were requested have been read."""

        def __init__(self, items: Sequence[ReviewItem]) -> None:
            super().__init__()
            self.items = items

    def __init__(self, host: AppHost, reader: CorpusReader) -> None:
        super().__init__((GLYPH_COLUMN, 0, 9), id="corpus-list", classes="panel")
        self.host = host
        self.reader = reader
        self.filter = ""
        self.order = ListOrder.NEWEST
        self._loads = 0
        self._loaded = asyncio.Event()
        """Set while no list is being read."""
        self._loaded.set()

    # Reading

    def load(self) -> None:
        """Reads ids, figures and the visible rows again."""
        self._loads += 1
        self._loaded.clear()
        self._load(self._loads)

    async def wait_until_loaded(self) -> None:
        """Returns when the list that was requested last is shown, or after LOAD_TIMEOUT_S."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._loaded.wait(), LOAD_TIMEOUT_S)

    @work(group="corpus:load", exclusive=True, exit_on_error=False)
    async def _load(self, number: int) -> None:
        message = None
        try:
            ids = await self.reader.ids(self.filter, self.order)
            message = self.Loaded(number, ids, await self.reader.funnel(), await self.reader.in_memory())
        except (H2QError, sqlite3.Error) as problem:
            message = self.Loaded(number, problem=problem)
        finally:
            if message is None or not self.post_message(message):
                self.finish_load(number)

    def finish_load(self, number: int) -> None:
        """The list of this load is shown, or will not be: keys no longer wait for it."""
        if number == self._loads:
            self._loaded.set()

    @on(Loaded)
    def _drop_outdated(self, message: Loaded) -> None:
        if message.number != self._loads:
            message.stop()

    def show_ids(self, ids: Sequence[str]) -> None:
        """Shows other ids, with their rows read again."""
        self.clear_rows()
        self.set_ids(ids)
        self.draw_title()

    @on(VirtualList.RowsRequested)
    def _rows_requested(self, message: VirtualList.RowsRequested) -> None:
        message.stop()
        self._read_rows(list(message.ids))

    @work(group="corpus:rows", exit_on_error=False)
    async def _read_rows(self, ids: list[str]) -> None:
        try:
            items = await self.reader.read_items(ids)
        except (H2QError, sqlite3.Error) as problem:
            self.host.show_message(error_text(problem, self.reader.path), "error")
            return
        self.post_message(self.RowsRead(items))

    @on(RowsRead)
    def _rows_read(self, message: RowsRead) -> None:
        message.stop()
        self.set_items(message.items)

    def set_items(self, items: Iterable[ReviewItem]) -> None:
        """Draws the rows of these conversations."""
        self.set_rows(list_row(item, self.host.glyphs) for item in items)

    # Filter and order

    def set_filter(self, text: str) -> None:
        """Shows what matches a filter line; "" shows all."""
        self.filter = text
        if unknown := invalid_terms(text):
            self.host.show_message(
                _("unknown filter field: {words}").format(words=" ".join(unknown)), "warning"
            )
        self.load()

    def next_order(self) -> None:
        """Sorts by the next order."""
        orders = list(ListOrder)
        self.order = orders[(orders.index(self.order) + 1) % len(orders)]
        self.load()

    def draw_title(self) -> None:
        """The title with the number of conversations, the filter chip and the order."""
        chip = f"  /{self.filter}" if self.filter else ""
        order = f"  {_(ORDER_NAMES[self.order])}" if self.order is not ListOrder.NEWEST else ""
        count = f"  {len(self.ids):,}" if self.ids else ""
        title = count + chip + order
        if not chip or cells(_("Conversations") + title) <= self.size.width - 6:
            title = _("Conversations") + title
        self.border_title = safe(one_line(title.strip()))
