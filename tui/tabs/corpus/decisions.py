"""Decisions of the Corpus tab on their way to the database: laid over the screen at once, written in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence

from textual import work
from textual.content import Content

from engine.core.errors import H2QError
from engine.core.i18n import _, n_
from engine.core.paths import Workspace
from engine.corpus.review.store import Decision, ReviewStore
from tui.app.text import safe
from tui.tabs.corpus.decision_writer import DecisionQueue, WriteJob
from tui.tabs.corpus.list import ReviewTab
from tui.tabs.corpus.review_text import row_of

FIGURES_AFTER_S = 0.3
"""Verdicts come in bursts; the figures follow the last one."""
HOLD_S = 1.0
"""A key waits at most so long for the conversation it is meant for to be on the screen."""
MANY = 500
"""CellLines beyond which those on the screen alone are read again at once."""


class WritingTab(ReviewTab):
    """The review with a queue of decisions, and undo and redo over them."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.writer = DecisionQueue(
            workspace.memory_db,
            lambda: self._from_thread(self._writing_changed),
            lambda job, text: self._from_thread(self._refused, job, text),
        )
        self._acts = 0
        """Keys that did something: what comes back late moves no cursor that has gone on."""
        self._waiting: dict[WriteJob, asyncio.Event] = {}
        """Jobs whose result the next key waits for."""

    def on_mount(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._late = self.set_interval(0.1, self._writing_changed, pause=True)

    async def on_unmount(self) -> None:
        await asyncio.to_thread(self.writer.close)
        await asyncio.to_thread(self.reader.close)

    def _from_thread(self, call: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed() and self.is_attached:
            self._loop.call_soon_threadsafe(call, *arguments)

    async def action_undo(self) -> None:
        await self._go_back(lambda store: store.undo())

    async def action_redo(self) -> None:
        await self._go_back(lambda store: store.redo())

    async def _go_back(self, write: Callable[[ReviewStore], Sequence[Decision]]) -> None:
        """The next key waits until the cursor stands on what was taken back, unless that takes long: it is
        meant for that conversation."""
        self._acts += 1
        seen = asyncio.Event()
        self.put(write, 1, follow=seen)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(seen.wait(), HOLD_S)

    def lay_over(
        self, ids: Sequence[str], write: Callable[[ReviewStore], Sequence[Decision]], **fields: object
    ) -> None:
        """Gives lines other fields at once and writes the decision behind them."""
        self._acts += 1
        job = self._job(write, len(ids))
        self.table.set_rows(
            row_of(item, self.h2q.glyphs) for item in self.reader.lay_over(job, ids, **fields)
        )
        self._send(job)

    def put(
        self,
        write: Callable[[ReviewStore], Sequence[Decision]],
        count: int,
        *,
        follow: asyncio.Event | None = None,
    ) -> None:
        """Queues a decision. With `follow` the cursor goes to what changed, once it is written, and the event is
        set when it is there."""
        self._send(self._job(write, count, follow=follow))

    def _job(
        self,
        write: Callable[[ReviewStore], Sequence[Decision]],
        count: int,
        *,
        follow: asyncio.Event | None = None,
    ) -> WriteJob:
        acts = self._acts

        def done(decisions: Sequence[Decision]) -> None:
            self._from_thread(self._done, job, decisions, follow, acts)

        job = WriteJob(write, done, count)
        if follow is not None:
            self._waiting[job] = follow
        return job

    def _send(self, job: WriteJob) -> None:
        self.writer.put(job)
        self._late.resume()

    def _done(
        self, job: WriteJob, decisions: Sequence[Decision], follow: asyncio.Event | None, acts: int
    ) -> None:
        self.reader.settle(job)
        self._waiting.pop(job, None)
        self.written(decisions, follow, stay=acts != self._acts)

    def written(
        self, decisions: Sequence[Decision], follow: asyncio.Event | None = None, *, stay: bool = False
    ) -> None:
        """Decisions are on disk. `stay` leaves the cursor where it is."""
        ids = [decision.id for decision in decisions if decision.id]
        for id_ in self.reader.details.keys() & set(ids):
            del self.reader.details[id_]
        self._refresh_figures()
        if any(not decision.id for decision in decisions):
            # A rule concerns what no line shows.
            self.load()
        elif follow is not None and ids:
            self.turn_wanted = -1 if stay else decisions[0].turn
            self._reread(ids, follow, stay=stay)
            return
        elif self.table.cursor_id in ids:
            # It stays under the cursor: its verdicts are read again.
            self.look()
        elif follow is not None:
            self.show_message(_("There is nothing more to undo or redo."))
        if follow is not None:
            follow.set()

    @work(group="corpus:reread", exit_on_error=False)
    async def _reread(self, ids: Sequence[str], seen: asyncio.Event, *, stay: bool) -> None:
        """CellLines as the database has them now."""
        try:
            if len(ids) > MANY:
                self.reader.forget()
                self.table.clear_rows()
            else:
                items = await self.reader.read_items(ids, fresh=True)
                self.table.set_rows(row_of(item, self.h2q.glyphs) for item in items)
            if not stay and not self.table.move_to_id(ids[0]):
                self.show_message(_("It is not under this filter; esc clears it."), "warning")
            if not await self.show_now(again=True):
                self.look()
            if len(ids) > 1:
                self.show_message(
                    n_("{n} conversation changed", "{n} conversations changed", len(ids)).format(
                        n=f"{len(ids):,}"
                    )
                )
        finally:
            seen.set()

    @work(group="corpus:figures", exclusive=True, exit_on_error=False)
    async def _refresh_figures(self) -> None:
        await asyncio.sleep(FIGURES_AFTER_S)
        try:
            self.funnel = await self.reader.funnel()
        except (H2QError, sqlite3.Error):
            # The writer says what hinders it; the figures stay as they were.
            return
        self.draw_figures()

    def _refused(self, job: WriteJob, sentence: str) -> None:
        self.reader.settle(job)
        follow = self._waiting.pop(job, None)
        if follow is not None:
            follow.set()
        self.show_message(sentence, "error")
        self.load()

    def _writing_changed(self) -> None:
        if not self.writer.unwritten:
            self._late.pause()
        self.h2q.refresh_footer()

    def unsaved_question(self) -> str:
        if not self.writer.problem or not self.writer.unwritten:
            return ""
        return n_(
            "{n} verdict is not written ({why}). Leave, and lose it?",
            "{n} verdicts are not written ({why}). Leave, and lose them?",
            self.writer.unwritten,
        ).format(n=self.writer.unwritten, why=self.writer.problem)

    def notice(self) -> Content | None:
        """Verdicts that are not on disk yet, when that takes longer than it should."""
        if not self.writer.late:
            return None
        count = self.writer.unwritten
        if self.writer.problem:
            text = n_(
                "{n} verdict is not written yet ({why}); it is kept and tried again",
                "{n} verdicts are not written yet ({why}); they are kept and tried again",
                count,
            )
            return safe(" " + text.format(n=count, why=self.writer.problem), "$text-error")
        text = n_("{n} verdict is being written", "{n} verdicts are being written", count)
        return safe(" " + text.format(n=count), "$text-warning")
