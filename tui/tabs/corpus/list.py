"""Looking at the corpus: the list with its filter, and the conversation under the cursor with its reasons."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from engine.core.errors import H2QError
from engine.core.i18n import N_, _
from engine.core.paths import Workspace
from engine.corpus.review.database import Unusable, sentence
from engine.corpus.review.filter_query import mistakes
from engine.corpus.review.store import Order
from engine.runs.events import Funnel
from tui.app.actions import AppAction
from tui.app.run_follower import RunUpdated
from tui.app.text import cells, one_line, safe
from tui.screens.ask import LinePrompt
from tui.tabs.base import Tab
from tui.tabs.corpus.lines import changes_corpus, empty_words, figures_line, making_line
from tui.tabs.corpus.reader import CorpusReader, twin_of
from tui.tabs.corpus.review_text import blocks_of, row_of, title_of
from tui.widgets.cell_lines import CellLines
from tui.widgets.conversation import ConversationView, StyledSpan, TextBlock
from tui.widgets.virtual_list import GLYPH_COLUMN, VirtualList

AHEAD = 4
"""Conversations below the cursor that are read ahead, so that the next one is painted at once."""
SHOWN_WITHIN_S = 1.0
"""Seconds that a verdict waits for its conversation to be read."""
LOADED_WITHIN_S = 1.5
"""Seconds that a key waits for the list it is meant for."""
ORDER_WORDS = {
    Order.NEWEST: N_("newest first"),
    Order.OLDEST: N_("oldest first"),
    Order.LONGEST: N_("longest first"),
    Order.SHORTEST: N_("shortest first"),
    Order.BEST: N_("best first"),
    Order.WORST: N_("worst first"),
}
NEEDS_ROWS = frozenset({"skip", "diff", "why", "order", "copy"})


class ReviewTab(Tab):
    """The list and the pane. The list is what the filter gave when it was read: a verdict changes a line and
    moves none; `R` reads anew."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self.filter = ""
        self.order = Order.NEWEST
        self.funnel: Funnel | None = None
        self.in_memory = 0
        self.reader = CorpusReader(workspace)
        self.damaged = False
        """The memory cannot be used as it is; a backup mends it."""
        self._raw = self._why = False
        self._loads = 0
        self._loaded = asyncio.Event()
        """Set while no list is being read."""
        self._loaded.set()
        self._twin_for = ""
        """The conversation whose twin is shown below it."""
        self._shown_id = ""
        """The conversation in the right pane."""
        self.turn_wanted = -1
        """Position of the turn that shall stand at the top when the pane is drawn next; -1 for none."""

    def compose(self) -> ComposeResult:
        with Horizontal(id="corpus-panels"):
            yield VirtualList((GLYPH_COLUMN, 0, 9), id="corpus-list", classes="panel")
            yield ConversationView(id="corpus-view", classes="panel")
        yield Static(id="corpus-empty")
        yield CellLines(id="corpus-funnel")

    def activate(self) -> None:
        self.load()

    def runs_changed(self) -> None:
        self.load()

    def run_updated(self, message: RunUpdated) -> None:
        if message.view.spec is not None and changes_corpus(message.view.spec.kind):
            self.draw_figures()

    def restore_from(self, before: Tab) -> None:
        if isinstance(before, ReviewTab):
            self.filter, self.order = before.filter, before.order

    @property
    def table(self) -> VirtualList:
        return self.query_one(VirtualList)

    @property
    def view(self) -> ConversationView:
        return self.query_one(ConversationView)

    # Reading

    def load(self) -> None:
        """The whole list anew: ids, figures, and the rows that are seen."""
        self._loads += 1
        self._loaded.clear()
        self._load(self._loads)

    async def wait_until_loaded(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._loaded.wait(), LOADED_WITHIN_S)

    @work(group="corpus:load", exclusive=True, exit_on_error=False)
    async def _load(self, number: int) -> None:
        try:
            await self._read_list()
        finally:
            if number == self._loads:
                self._loaded.set()

    async def _read_list(self) -> None:
        try:
            ids = await self.reader.ids(self.filter, self.order)
            self.funnel = await self.reader.funnel()
            self.in_memory = await self.reader.in_memory()
        except (H2QError, sqlite3.Error) as problem:
            self.damaged = isinstance(problem, Unusable)
            self.table.set_ids([])
            self._draw_empty(sentence(problem, self.workspace.memory_db))
            self.h2q.refresh_footer()
            return
        self.damaged = False
        self.reader.forget()
        self.table.clear_rows()
        self._shown_id = ""
        self.table.set_ids(ids)
        self._name_list()
        self._draw_empty()
        self.draw_figures()
        self.look()
        self.h2q.refresh_footer()

    @on(VirtualList.RowsRequested)
    def _wanted(self, message: VirtualList.RowsRequested) -> None:
        message.stop()
        self._fill(list(message.ids))

    @work(group="corpus:rows", exit_on_error=False)
    async def _fill(self, ids: list[str]) -> None:
        try:
            items = await self.reader.read_items(ids)
        except (H2QError, sqlite3.Error) as problem:
            self.show_message(sentence(problem, self.workspace.memory_db), "error")
            return
        self.table.set_rows(row_of(item, self.h2q.glyphs) for item in items)

    @on(VirtualList.Highlighted)
    def _highlighted(self, message: VirtualList.Highlighted) -> None:
        message.stop()
        self.look()

    def look(self) -> None:
        """Paints the conversation under the cursor if it has been read, and reads it and the next ones."""
        id_, index = self.table.cursor_id, self.table.index
        if not id_:
            self.view.border_title = ""
            self.view.set_blocks([])
            return
        self.draw_detail()
        around = self.table.ids[index : index + 1 + AHEAD]
        wanted = [one for one in around if one not in self.reader.details]
        if wanted:
            self._read_details(wanted)

    @work(group="corpus:detail", exclusive=True, exit_on_error=False)
    async def _read_details(self, ids: Sequence[str]) -> None:
        for id_ in ids:
            try:
                await self.reader.read_detail(id_)
            except (H2QError, sqlite3.Error) as problem:
                self.show_message(sentence(problem, self.workspace.memory_db), "error")
                return
            if id_ == self.table.cursor_id:
                self.draw_detail()

    @work(group="corpus:twin", exclusive=True, exit_on_error=False)
    async def _read_twin(self, twin: str) -> None:
        try:
            found = await self.reader.read_detail(twin)
        except (H2QError, sqlite3.Error) as problem:
            self.show_message(sentence(problem, self.workspace.memory_db), "error")
            return
        if found:
            self.draw_detail(again=True)
        else:
            self._twin_for = ""
            self.show_message(_("The twin is no longer in the corpus."), "warning")

    async def show_now(self, *, again: bool = False) -> bool:
        """Puts the conversation under the cursor into the pane, reading it if it must; False when it cannot be
        read, or not soon."""
        id_ = self.table.cursor_id
        try:
            if id_ and id_ not in self.reader.details:
                await asyncio.wait_for(self.reader.read_detail(id_), SHOWN_WITHIN_S)
        except (TimeoutError, H2QError, sqlite3.Error):
            return False
        self.draw_detail(again=again)
        return bool(id_) and self._shown_id == id_

    # Drawing

    def draw_detail(self, *, again: bool = False) -> None:
        """The right pane; `again` when the same conversation is drawn another way."""
        detail = self.reader.detail(self.table.cursor_id)
        if detail is None:
            self._draw_waiting()
            return
        if detail.item.id == self._shown_id and not again:
            return
        twin_id = twin_of(detail) if self._twin_for == detail.item.id else ""
        twin = self.reader.detail(twin_id)
        if twin_id and twin is None:
            self._read_twin(twin_id)
        self.view.border_title = safe(one_line(title_of(detail.item, self.h2q.glyphs)))
        same, at = detail.item.id == self._shown_id, self.view.scroll_offset.y
        self.view.set_blocks(blocks_of(detail, self.h2q.glyphs, raw=self._raw, why=self._why, twin=twin))
        if twin is not None:
            # Its title and its turns are the last blocks.
            self.view.show_block(-len(twin.turns) - 1)
        elif self.turn_wanted >= 0:
            place = next((n for n, turn in enumerate(detail.turns) if turn.position == self.turn_wanted), 0)
            self.view.show_block(place - len(detail.turns))
        elif same:
            self.view.scroll_to(y=at, animate=False, force=True)
        self.turn_wanted = -1
        self._shown_id = detail.item.id
        self.h2q.refresh_footer()

    def _draw_waiting(self) -> None:
        """Another conversation than the one under the cursor is never left in the pane."""
        if self._shown_id != self.table.cursor_id:
            self._shown_id = ""
            self.view.border_title = ""
            self.view.set_blocks([TextBlock("", (StyledSpan("…", "dim"),))])

    def _name_list(self) -> None:
        """The title of the list with the chip of the filter."""
        chip = f"  /{self.filter}" if self.filter else ""
        order = f"  {_(ORDER_WORDS[self.order])}" if self.order is not Order.NEWEST else ""
        count = f"  {len(self.table.ids):,}" if self.table.ids else ""
        title = count + chip + order
        if not chip or cells(_("Conversations") + title) <= self.table.size.width - 6:
            title = _("Conversations") + title
        self.table.border_title = safe(one_line(title.strip()))

    def draw_figures(self) -> None:
        """The line at the foot: a run that brings conversations, else the funnel."""
        glyphs, width = self.h2q.glyphs, max(20, self.size.width - 2)
        line = making_line(self.h2q.board, glyphs) or figures_line(self.funnel, self.in_memory, width, glyphs)
        self.query_one("#corpus-funnel", CellLines).set_lines([line])

    def _draw_empty(self, problem: str = "") -> None:
        empty = bool(problem) or not self.table.ids
        self.query_one("#corpus-panels").display = not empty
        widget = self.query_one("#corpus-empty", Static)
        widget.display = empty
        if empty:
            collected = self.funnel.collected if self.funnel is not None else 0
            widget.update(
                empty_words(
                    problem=problem,
                    damaged=self.damaged,
                    filter_=self.filter,
                    collected=collected,
                    in_memory=self.in_memory,
                )
            )

    def on_resize(self) -> None:
        self.draw_figures()
        self.call_after_refresh(self._name_list)

    # Keys

    def is_enabled(self, row: AppAction) -> bool:
        detail = self.reader.detail(self.table.cursor_id)
        rules = {
            "twin": bool(self.table.ids) and (detail is None or bool(twin_of(detail))),
            "filter": self.funnel is not None and self.funnel.collected > 0,
        }
        return rules.get(row.verb, bool(self.table.ids) if row.verb in NEEDS_ROWS else True)

    def action_skip(self) -> None:
        self.table.action_move(1)

    async def action_diff(self) -> None:
        """As it is trained on, or as it came, with what an edit changed."""
        await self.show_now()
        self._raw = not self._raw
        detail = self.reader.detail(self.table.cursor_id)
        if self._raw and detail is not None:
            edited = (turn.position for turn in detail.turns if turn.original is not None)
            self.turn_wanted = next(edited, -1)
        self.draw_detail(again=True)

    async def action_why(self) -> None:
        """Every row of the ledger and every verdict, or the summary."""
        await self.show_now()
        self._why = not self._why
        self.draw_detail(again=True)
        self.view.action_scroll_top()

    async def action_twin(self) -> None:
        """The conversation that this one duplicates, below it."""
        await self.show_now()
        detail = self.reader.detail(self.table.cursor_id)
        if detail is None or not twin_of(detail):
            self.show_message(_("It duplicates no other."))
            return
        self._twin_for = "" if self._twin_for else self.table.cursor_id
        self.draw_detail(again=True)

    def action_order(self) -> None:
        orders = list(Order)
        self.order = orders[(orders.index(self.order) + 1) % len(orders)]
        self.load()

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self.view.plain_text)
        self.show_message(_("copied"))

    def action_filter(self) -> None:
        def answered(text: str | None) -> None:
            if text is not None:
                self.set_filter(text)

        question = _("Filter: stage: state: lang: reason: flag: len> or words")
        self.app.push_screen(LinePrompt(question, self.filter), answered)

    def action_back(self) -> None:
        """Esc: ends a range, else the filter."""
        if self.table.selected:
            self.table.set_selecting(False)
        elif self.filter:
            self.set_filter("")
        else:
            self.table.focus()

    def action_refresh(self) -> None:
        self.load()

    def set_filter(self, text: str) -> None:
        """Shows what is under a filter line; "" shows all."""
        self.filter = text
        if wrong := mistakes(text):
            self.show_message(_("no field of the filter: {words}").format(words=" ".join(wrong)), "warning")
        self.load()
