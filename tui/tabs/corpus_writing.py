"""Decisions of the Corpus tab on their way to the database: laid over the screen at once, written in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from textual import work
from textual.content import Content

from engine.corpus.review import Decision, ReviewStore
from engine.i18n import _, n_
from engine.paths import Workspace
from tui.tabs.review import ReviewTab
from tui.text import safe
from tui.verdicts import Job, VerdictQueue
from tui.widgets.review_words import row_of

FIGURES_AFTER_S = 0.3
"""Verdicts come in bursts; the figures follow the last one."""


class WritingTab(ReviewTab):
    """The review with a queue of decisions, and undo and redo over them."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.writer = VerdictQueue(
            workspace.memory_db,
            lambda: self._from_thread(self._writing_changed),
            lambda text: self._from_thread(self._refused, text),
        )

    def on_mount(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._late = self.set_interval(0.1, self._writing_changed, pause=True)

    async def on_unmount(self) -> None:
        await asyncio.to_thread(self.writer.close)
        await asyncio.to_thread(self.reader.close)

    def _from_thread(self, call: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed() and self.is_attached:
            self._loop.call_soon_threadsafe(call, *arguments)

    def action_undo(self) -> None:
        self.put(lambda store: store.undo(), 1, follow=True)

    def action_redo(self) -> None:
        self.put(lambda store: store.redo(), 1, follow=True)

    def lay_over(
        self, ids: Sequence[str], write: Callable[[ReviewStore], Sequence[Decision]], **fields: object
    ) -> None:
        """Gives lines other fields at once and writes the decision behind them."""
        self.table.fill(row_of(item, self.h2q.signs) for item in self.reader.lay_over(ids, **fields))
        self.put(write, len(ids))

    def put(
        self, write: Callable[[ReviewStore], Sequence[Decision]], count: int, *, follow: bool = False
    ) -> None:
        """Queues a decision; `follow` puts the cursor on what changed, once it is written."""

        def done(decisions: Sequence[Decision]) -> None:
            self._from_thread(self.written, decisions, follow)

        self.writer.put(Job(write, done, count))
        self._late.resume()

    def written(self, decisions: Sequence[Decision], follow: bool) -> None:
        """Decisions are on disk."""
        ids = [decision.id for decision in decisions if decision.id]
        for id_ in ids:
            self.reader.details.pop(id_, None)
        self._refresh_figures()
        if any(not decision.id for decision in decisions):
            # A rule concerns what no line shows.
            self.load()
        elif follow and ids:
            self.turn_wanted = decisions[0].turn
            self._reread(ids)
        elif self.table.cursor_id in ids:
            # It stays under the cursor: its verdicts are read again.
            self.look()
        elif follow:
            self.say(_("There is nothing more to undo or redo."))

    @work(group="corpus:reread", exit_on_error=False)
    async def _reread(self, ids: Sequence[str]) -> None:
        """Lines as the database has them now."""
        items = await self.reader.read_items(ids, fresh=True)
        self.table.fill(row_of(item, self.h2q.signs) for item in items)
        if not self.table.move_to_id(ids[0]):
            self.say(_("It is not under this filter; esc clears it."), "watch")
        self._shown_id = ""
        self.look()

    @work(group="corpus:figures", exclusive=True, exit_on_error=False)
    async def _refresh_figures(self) -> None:
        await asyncio.sleep(FIGURES_AFTER_S)
        self.funnel = await self.reader.funnel()
        self.draw_figures()

    def _refused(self, sentence: str) -> None:
        self.say(sentence, "act")
        self.load()

    def _writing_changed(self) -> None:
        if not self.writer.unwritten:
            self._late.pause()
        self.h2q.refresh_footer()

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
