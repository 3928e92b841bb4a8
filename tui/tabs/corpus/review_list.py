"""The list of conversations under a filter, in an order."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from textual import on, work
from textual.message import Message

from engine.core.errors import H2QError
from engine.core.i18n import N_, _
from engine.corpus.review.database import UnusableDatabase, error_text
from engine.corpus.review.filter_query import ListOrder, invalid_terms
from engine.corpus.review.types import ReviewItem
from engine.runs.events import Funnel
from tui.tabs.corpus.reader import CorpusReader
from tui.tabs.corpus.review_text import ReviewSigns, list_row
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


class CorpusFigures(NamedTuple):
    """What the corpus holds as a whole."""

    funnel: Funnel
    in_memory: int
    """Conversations in memory, whether the corpus has them or not."""
    reviewed: Collection[str]
    """The conversations of the corpus that the user accepted or rejected."""


class ReviewList(VirtualList):
    """The ids that the filter gave when they were read: a decision changes a row and moves none; `load` reads again."""

    SCROLL_PART = 1 / 3

    class Loaded(Message):
        """The ids were read, or cannot be read because of `problem`."""

        def __init__(
            self,
            number: int,
            ids: Sequence[str] = (),
            visible: Sequence[ReviewItem] = (),
            figures: CorpusFigures | None = None,
            *,
            changed: bool = True,
            problem: Exception | None = None,
        ) -> None:
            super().__init__()
            self.number = number
            """Which load this is, counted from 1."""
            self.ids = ids
            self.visible = visible
            """The rows that will be on the screen."""
            self.figures = figures
            self.changed = changed
            """Whether the data may differ from what is on the screen, not only filter or order."""
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
        self._reviewed: set[str] = set()
        self._unreviewed: set[str] = set()
        """Conversations of the list that the user has not decided on."""
        self._version = (0, 0)
        """That of the data on the screen."""
        self._shown: tuple[str, ListOrder] | None = None
        """Filter and order of the list on the screen."""
        self._loads = 0
        self._loaded = asyncio.Event()
        """Set while no list is being read."""
        self._loaded.set()

    # Reading

    @property
    def signs(self) -> ReviewSigns:
        """What this terminal can draw."""
        return ReviewSigns(self.host.glyphs, self.host.terminal.colours > 0)

    def load(self) -> None:
        """Reads ids, figures and the visible rows again, where the data, the filter or the order changed. What is on the
        screen stays there until all of them are read."""
        self._loads += 1
        self._loaded.clear()
        self._load(self._loads)

    def load_again(self) -> None:
        """Reads everything again, whether it changed or not."""
        self._shown = None
        self.load()

    async def wait_until_loaded(self) -> None:
        """Returns when the list that was requested last is shown, or after LOAD_TIMEOUT_S."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._loaded.wait(), LOAD_TIMEOUT_S)

    @work(group="corpus:load", exclusive=True, exit_on_error=False)
    async def _load(self, number: int) -> None:
        message = None
        wanted = (self.filter, self.order)
        try:
            version = await self.reader.changed_since(self._version)
            if version is None and self._shown == wanted:
                return
            changed = version is not None or self._shown is None
            if changed:
                self.reader.expire()
            ids = await self.reader.ids(*wanted)
            reader = self.reader
            figures = CorpusFigures(await reader.funnel(), await reader.in_memory(), await reader.reviewed())
            visible = await self._read_visible(ids)
            self._version, self._shown = version or self._version, wanted
            message = self.Loaded(number, ids, visible, figures, changed=changed)
        except (H2QError, sqlite3.Error) as problem:
            self._version, self._shown = (0, 0), None
            message = self.Loaded(number, problem=problem)
        finally:
            if message is None or not self.post_message(message):
                self.finish_load(number)

    async def _read_visible(self, ids: Sequence[str]) -> Sequence[ReviewItem]:
        """Reads the rows that will be on the screen, and the conversation that will be under the cursor."""
        if not ids:
            return ()
        here = self.cursor_id
        place = ids.index(here) if here in ids else min(self.index, len(ids) - 1)
        height = self.size.height or self.app.size.height
        visible = await self.reader.read_items(ids[max(0, place - height) : place + height])
        if self.reader.needs_detail(ids[place]):
            await self.reader.read_detail(ids[place])
        return visible

    def finish_load(self, number: int) -> None:
        """The list of this load is shown, or will not be: keys no longer wait for it."""
        if number == self._loads:
            self._loaded.set()

    @on(Loaded)
    def _drop_outdated(self, message: Loaded) -> None:
        if message.number != self._loads:
            message.stop()

    def show(self, loaded: Loaded) -> None:
        """Shows what was read; rows off the screen are read again when they come on it."""
        if loaded.changed:
            self.request_rows_again()
        self.set_rows(list_row(item, self.signs) for item in loaded.visible)
        self.set_ids(loaded.ids)
        self.set_reviewed(loaded.figures.reviewed if loaded.figures is not None else ())
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
        shown = list(items)
        signs = self.signs
        self.set_rows(list_row(item, signs) for item in shown)
        self.mark_reviewed([item.id for item in shown if item.reviewed])
        self._mark_unreviewed({item.id for item in shown if not item.reviewed} & self._reviewed)

    # What the user has decided

    @property
    def unreviewed(self) -> int:
        """Number of conversations in the list that the user has neither accepted nor rejected."""
        return len(self._unreviewed)

    def next_unreviewed(self) -> int:
        """Position of the next one below the cursor, else of the first one; -1 when there is none."""
        if not self._unreviewed:
            return -1
        count = len(self.ids)
        places = (*range(self.index + 1, count), *range(self.index + 1))
        return next((place for place in places if self.ids[place] in self._unreviewed), -1)

    def mark_reviewed(self, ids: Collection[str]) -> None:
        """Counts these conversations as decided by the user."""
        self._reviewed.update(ids)
        self._unreviewed.difference_update(ids)
        self._draw_progress()

    def _mark_unreviewed(self, ids: set[str]) -> None:
        """Counts these conversations as not decided any more."""
        if ids:
            self._reviewed -= ids
            self._unreviewed |= ids & set(self.ids)
            self._draw_progress()

    def set_reviewed(self, ids: Collection[str]) -> None:
        """Replaces what is known about the user's decisions."""
        self._reviewed = set(ids)
        self._unreviewed = set(self.ids) - self._reviewed
        self._draw_progress()

    def _draw_progress(self) -> None:
        text = ""
        if count := len(self.ids):
            text = _("reviewed {n} of {count}").format(n=f"{count - self.unreviewed:,}", count=f"{count:,}")
        self.border_subtitle = safe(text)

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
