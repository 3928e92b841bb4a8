"""The Corpus tab: the person's verdicts on conversations, imports, and building the corpus."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from textual import work

from engine.core.config import Settings, save_settings
from engine.core.errors import H2QError
from engine.core.i18n import N_, _
from engine.corpus.enums import State
from engine.corpus.review.database import sentence
from engine.runs.kinds import RunKind
from tui.app import onboarding
from tui.app.actions import AppAction
from tui.screens.ask import Confirm, LinePrompt
from tui.screens.import_files import start_build
from tui.screens.threshold import ThresholdScreen
from tui.tabs.corpus.backup import offer_backup
from tui.tabs.corpus.edit_actions import MarkingTab
from tui.tabs.corpus.review_text import REJECT_REASONS

NEEDS_ROWS = frozenset({"accept", "reject", "range", "accept_all", "reject_all", "edit", "flag"})


class CorpusTab(MarkingTab):
    """A verdict is laid over the screen at once and written by `DecisionQueue` in a thread of its own."""

    TAB_ID: ClassVar[str] = "corpus"
    TITLE: ClassVar[str] = N_("Corpus")
    FIRST_FOCUS: ClassVar[str] = "#corpus-list"

    def is_enabled(self, row: AppAction) -> bool:
        if row.verb == "pattern":
            return self.pattern is not None
        if row.verb in NEEDS_ROWS:
            return bool(self.table.ids)
        if row.verb == "restore":
            return self.damaged
        if self.damaged and row.verb in ("build", "import"):
            return False
        if row.verb == "build":
            return self.in_memory > 0 and not any(run.kind == RunKind.CORPUS for run in self.h2q.board.live)
        return super().is_enabled(row)

    # Verdicts

    async def action_accept(self) -> None:
        if await self._is_seen():
            self._decide(State.ACCEPTED, "")

    async def _is_seen(self) -> bool:
        """Whether what a verdict is about is on the screen: nothing is decided over what nobody saw."""
        if self.table.selected or await self.show_now():
            return True
        self.show_message(_("This conversation is not on the screen yet: nothing is decided."), "warning")
        return False

    async def action_reject(self) -> None:
        """Asks for the reason in one line; a digit or enter answers."""
        if not await self._is_seen():
            return
        count = len(self.table.selected)
        question = _("Reject {n}, because").format(n=count) if count > 1 else _("Reject, because")
        self._ask_reason(question, partial(self._decide, State.REJECTED))

    def action_range(self) -> None:
        """Marks from here on; again ends it."""
        self.table.set_selecting(not self.table.selected)
        if self.table.selected:
            self.show_message(_("Marked from here: move, then a or x takes all; v ends it."))

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

    def _where(self) -> str:
        return _("under /{filter}").format(filter=self.filter) if self.filter else _("in the corpus")

    def _ask_reason(self, question: str, then: Callable[[str], None]) -> None:
        def answered(reason: str | None) -> None:
            if reason is not None:
                then(reason)

        choices = [(code, _(words)) for code, words in REJECT_REASONS]
        self.app.push_screen(LinePrompt(question, choices=choices), answered)

    def _decide(self, verdict: State, reason: str) -> None:
        """One verdict for the row under the cursor, or for the range; the cursor moves on at once."""
        if not self.table.ids:
            return
        ids = list(self.table.selected) or [self.table.cursor_id]
        after = max(self.table.ids.index(ids[-1]), self.table.index) + 1
        self.table.set_selecting(False)
        if len(ids) == 1:
            self.lay_over(ids, lambda store: [store.decide(ids[0], verdict, reason)], state=str(verdict))
        else:
            self.lay_over(ids, lambda store: store.decide_many(ids, verdict, reason), state=str(verdict))
        if after < len(self.table.ids):
            self.table.move_to(after)
        else:
            self.draw_detail(again=True)

    def _decide_all(self, verdict: State, reason: str) -> None:
        ids = list(self.table.ids)
        self.lay_over(ids, lambda store: store.decide_many(ids, verdict, reason), state=str(verdict))
        self.draw_detail(again=True)

    # Making

    def action_import(self) -> None:
        self.h2q.run_worker(onboarding.ask_import(self.h2q), group="import", exit_on_error=False)

    @work(thread=True, group="corpus:build", exclusive=True, exit_on_error=False)
    def action_build(self) -> None:
        """Runs the filters again over everything in memory; verdicts stay."""
        try:
            run = start_build(self.workspace)
        except (H2QError, OSError) as problem:
            self.app.call_from_thread(self.show_message, str(problem), "error")
            return
        self.app.call_from_thread(
            self.show_message, _("building the corpus: run {run}").format(run=run.run_id)
        )

    @work(group="corpus:backup", exclusive=True, exit_on_error=False)
    async def action_restore(self) -> None:
        """Puts the newest backup in the place of a damaged memory."""
        await offer_backup(self)

    async def action_threshold(self) -> None:
        """How strict the filters are, with what another value would change; then the corpus is built again."""
        try:
            types = await self.reader.private_types()
        except sqlite3.Error as problem:
            self.show_message(sentence(problem, self.workspace.memory_db), "error")
            return
        self.app.push_screen(ThresholdScreen(self.workspace, self.h2q.settings, types), self._threshold_given)

    def _threshold_given(self, settings: Settings | None) -> None:
        if settings is None:
            return
        try:
            save_settings(self.workspace, settings)
        except (H2QError, OSError) as problem:
            self.show_message(str(problem), "error")
            return
        onboarding.apply_settings(self.h2q, settings)
        self.action_build()
