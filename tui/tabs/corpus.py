"""The Corpus tab: the person's verdicts on conversations, imports, and building the corpus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import msgspec
from textual import work
from textual.content import Content

from engine.config import save_settings
from engine.corpus.review import Decision, ReviewStore
from engine.corpus.states import State
from engine.errors import H2QError
from engine.i18n import N_, _, n_
from engine.paths import Workspace
from engine.runs.spec import RunKind
from tui import personal
from tui.actions import Action
from tui.screens.ask import AskLine, Confirm
from tui.screens.import_files import start_build
from tui.tabs.review import ReviewTab
from tui.text import safe
from tui.verdicts import Job, VerdictQueue
from tui.widgets.review_words import REJECT_REASONS, row_of

NEEDS_ROWS = frozenset({"accept", "reject", "range", "accept_all", "reject_all"})
FIGURES_AFTER_S = 0.3
"""Verdicts come in bursts; the figures follow the last one."""


class CorpusTab(ReviewTab):
    """A verdict is laid over the screen at once and written by `VerdictQueue` in a thread of its own."""

    TAB_ID: ClassVar[str] = "corpus"
    TITLE: ClassVar[str] = N_("Corpus")
    FIRST_FOCUS: ClassVar[str] = "#corpus-list"

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

    def can(self, row: Action) -> bool:
        if row.verb in NEEDS_ROWS:
            return bool(self.table.ids)
        if row.verb == "build":
            return self.in_memory > 0 and not any(run.kind == RunKind.CORPUS for run in self.h2q.board.live)
        return super().can(row)

    # Verdicts

    def action_accept(self) -> None:
        self._decide(State.ACCEPTED, "")

    def action_reject(self) -> None:
        """Asks for the reason in one line; a digit or enter answers."""
        count = len(self.table.marked)
        question = _("Reject {n}, because").format(n=count) if count > 1 else _("Reject, because")
        self._ask_reason(question, partial(self._decide, State.REJECTED))

    def action_range(self) -> None:
        """Marks from here on; again ends it."""
        self.table.mark(not self.table.marked)
        if self.table.marked:
            self.say(_("Marked from here: move, then a or x takes all; v ends it."))

    def action_accept_all(self) -> None:
        question = _("Accept all {n} {where}?").format(n=f"{len(self.table.ids):,}", where=self._where())

        def answered(yes: bool | None) -> None:
            if yes:
                self._decide_all(State.ACCEPTED, "")

        self.app.push_screen(Confirm(question), answered)

    def action_reject_all(self) -> None:
        count = f"{len(self.table.ids):,}"
        question = _("Reject all {n} {where}, because").format(n=count, where=self._where())
        self._ask_reason(question, partial(self._decide_all, State.REJECTED))

    def action_undo(self) -> None:
        self._put(lambda store: store.undo(), 1, follow=True)

    def action_redo(self) -> None:
        self._put(lambda store: store.redo(), 1, follow=True)

    def _where(self) -> str:
        return _("under /{filter}").format(filter=self.filter) if self.filter else _("in the corpus")

    def _ask_reason(self, question: str, then: Callable[[str], None]) -> None:
        def answered(reason: str | None) -> None:
            if reason is not None:
                then(reason)

        choices = [(code, _(words)) for code, words in REJECT_REASONS]
        self.app.push_screen(AskLine(question, choices=choices), answered)

    def _decide(self, verdict: State, reason: str) -> None:
        """One verdict for the row under the cursor, or for the range; the cursor moves on at once."""
        if not self.table.ids:
            return
        ids = list(self.table.marked) or [self.table.cursor_id]
        after = max(self.table.ids.index(ids[-1]), self.table.index) + 1
        self.table.mark(False)
        if len(ids) == 1:
            self._lay_over(ids, verdict, lambda store: [store.decide(ids[0], verdict, reason)])
        else:
            self._lay_over(ids, verdict, lambda store: store.decide_many(ids, verdict, reason))
        if after < len(self.table.ids):
            self.table.move_to(after)
        else:
            self.draw_detail(again=True)

    def _decide_all(self, verdict: State, reason: str) -> None:
        ids = list(self.table.ids)
        self._lay_over(ids, verdict, lambda store: store.decide_many(ids, verdict, reason))
        self.draw_detail(again=True)

    def _lay_over(
        self, ids: Sequence[str], state: State, write: Callable[[ReviewStore], Sequence[Decision]]
    ) -> None:
        self.table.fill(row_of(item, self.h2q.signs) for item in self.reader.lay_over(ids, state))
        self._put(write, len(ids))

    # Writing

    def _put(
        self, write: Callable[[ReviewStore], Sequence[Decision]], count: int, *, follow: bool = False
    ) -> None:
        def done(decisions: Sequence[Decision]) -> None:
            self._from_thread(self._written, decisions, follow)

        self.writer.put(Job(write, done, count))
        self._late.resume()

    def _written(self, decisions: Sequence[Decision], follow: bool) -> None:
        """Verdicts are on disk; `follow` (undo, redo) puts the cursor on what changed."""
        for decision in decisions:
            self.reader.details.pop(decision.id, None)
        self._refresh_figures()
        if follow and decisions:
            self._reread([decision.id for decision in decisions])
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

    # Making

    def action_import(self) -> None:
        self.h2q.run_worker(personal.ask_import(self.h2q), group="import", exit_on_error=False)

    @work(thread=True, group="corpus:build", exclusive=True, exit_on_error=False)
    def action_build(self) -> None:
        """Runs the filters again over everything in memory; verdicts stay."""
        try:
            run = start_build(self.workspace)
        except (H2QError, OSError) as problem:
            self.app.call_from_thread(self.say, str(problem), "act")
            return
        self.app.call_from_thread(self.say, _("building the corpus: run {run}").format(run=run.run_id))

    def action_threshold(self) -> None:
        """How alike near duplicates are; the corpus is built again with it."""
        value = f"{self.h2q.settings.near_threshold:g}"
        question = _("Near duplicates share at least (0.3 to 1)")
        self.app.push_screen(AskLine(question, value, check=_check_threshold), self._threshold_given)

    def _threshold_given(self, text: str | None) -> None:
        if text is None:
            return
        settings = msgspec.structs.replace(self.h2q.settings, near_threshold=float(text))
        try:
            save_settings(self.workspace, settings)
        except (H2QError, OSError) as problem:
            self.say(str(problem), "act")
            return
        personal.apply_settings(self.h2q, settings)
        self.action_build()


def _check_threshold(text: str) -> str:
    try:
        good = 0.3 <= float(text) <= 1
    except ValueError:
        good = False
    return "" if good else _("a number from 0.3 to 1, e.g. 0.8")
