"""The Corpus tab: review of the conversations, imports, and building the corpus."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from engine.core.config import save_settings
from engine.core.errors import H2QError
from engine.core.i18n import N_, _
from engine.core.settings import Settings
from engine.corpus.enums import ReviewState
from engine.corpus.review.database import error_text
from engine.corpus.review.types import ReviewDecision, ReviewItem
from engine.workspace.backup import Backup
from tui.actions import AppAction
from tui.host import launch
from tui.host.run_follower import RunUpdated
from tui.tabs.base import Tab
from tui.tabs.corpus.backup_offer import offer_backup, restored_text
from tui.tabs.corpus.conversation_pane import READ_AHEAD, ConversationPane
from tui.tabs.corpus.decide_actions import MARGIN, DecideActions
from tui.tabs.corpus.decision_text import DecisionStep, first_of, step_text
from tui.tabs.corpus.decisions import DecisionRecorder, FollowUp
from tui.tabs.corpus.edit_actions import EditActions
from tui.tabs.corpus.filter_prompt import FilterPrompt
from tui.tabs.corpus.reader import CorpusReader, duplicate_of
from tui.tabs.corpus.review_list import ReviewList
from tui.tabs.corpus.summary import CorpusSummary, changes_corpus
from tui.tabs.corpus.summary_text import empty_text, is_preparing
from tui.tabs.corpus.threshold import ThresholdScreen
from tui.terminal.text import cells
from tui.widgets.virtual_list import VirtualList

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

NEEDS_ROWS = frozenset(
    [
        "accept",
        "reject",
        "range",
        "accept_all",
        "reject_all",
        "edit",
        "flag",
        "skip",
        "diff",
        "why",
        "order",
        "copy",
    ]
)
"""Verbs that need a conversation in the list."""
REREAD_MAX = 500
"""Rows that are read again after a change; of more, the visible ones."""
LATE_CHECK_S = 0.1


class CorpusTab(Tab):
    """Connects the list, the pane, the summary and the recorder of decisions."""

    TAB_ID: ClassVar[str] = "corpus"
    TITLE: ClassVar[str] = N_("Corpus")
    FIRST_FOCUS: ClassVar[str] = "#corpus-list"

    class Reread(Message):
        """Conversations that an undo, a redo or an edit changed have been read again: `items`, of many the first ones."""

        def __init__(
            self, decisions: Sequence[ReviewDecision], items: Sequence[ReviewItem], follow_up: FollowUp
        ) -> None:
            super().__init__()
            self.decisions = decisions
            self.items = items
            self.follow_up = follow_up

    class BackupRestored(Message):
        """A backup has taken the place of the memory."""

        def __init__(self, backup: Backup) -> None:
            super().__init__()
            self.backup = backup

    def __init__(self, host: AppHost) -> None:
        super().__init__(host)
        self.reader = CorpusReader(self.workspace)
        self.recorder = DecisionRecorder(self.workspace.memory_db, self.reader, self.post_message)
        self.conversations = ReviewList(host, self.reader)
        self.pane = ConversationPane(host, self.reader, lambda: self.conversations.cursor_id)
        self.summary = CorpusSummary(host, self.reader)
        self.decide = DecideActions(host, self.reader, self.recorder, self.conversations, self.pane)
        self.edits = EditActions(host, self.reader, self.recorder, self.conversations, self.pane)
        self.damaged = False
        """The memory is unusable as it is; a backup fixes it."""
        self._problem = ""
        """Why the list cannot be read."""
        self._was_preparing = False
        self._panels = Horizontal(self.conversations, self.pane, id="corpus-panels")
        self._empty = Static(id="corpus-empty")

    def compose(self) -> ComposeResult:
        yield self._panels
        yield self._empty
        yield self.summary

    def on_mount(self) -> None:
        self._late = self.set_interval(LATE_CHECK_S, self._queue_changed, pause=True)

    async def on_unmount(self) -> None:
        await asyncio.to_thread(self.recorder.queue.close)
        await asyncio.to_thread(self.reader.close)

    def activate(self) -> None:
        self.conversations.load()

    def runs_changed(self) -> None:
        self.summary.draw()
        was_preparing, self._was_preparing = self._was_preparing, self._preparing
        if self._preparing:
            self._draw_empty(self._problem)
        if was_preparing and not self._preparing:
            # What the run left is read before anything else is said about it.
            self.conversations.load_again()
        else:
            self.conversations.load()

    def run_updated(self, message: RunUpdated) -> None:
        if message.view.spec is not None and changes_corpus(message.view.spec.kind):
            self.summary.draw()

    def restore_from(self, previous: Tab) -> None:
        if isinstance(previous, CorpusTab):
            self.conversations.filter = previous.conversations.filter
            self.conversations.order = previous.conversations.order

    async def wait_until_loaded(self) -> None:
        await self.conversations.wait_until_loaded()

    async def show_item(self, item_id: str) -> None:
        """A filter that hides the conversation is cleared."""
        await self.wait_until_loaded()
        if item_id not in self.conversations.ids and self.conversations.filter:
            self.conversations.set_filter("")
            await self.wait_until_loaded()
        self.conversations.move_to_id(item_id)
        self.conversations.focus()

    def unsaved_question(self) -> str:
        return self.recorder.unsaved_question()

    def notice(self) -> Content | None:
        return self.recorder.notice()

    @property
    def _room(self) -> int:
        """Cells of a message in the footer."""
        return self.app.size.width - MARGIN

    def on_resize(self) -> None:
        self.call_after_refresh(self.conversations.draw_title)

    # List and pane

    @on(ReviewList.Loaded)
    def _list_loaded(self, message: ReviewList.Loaded) -> None:
        message.stop()
        self.damaged = message.damaged
        if message.problem is not None:
            self.conversations.set_ids([])
            self._draw_empty(error_text(message.problem, self.reader.path))
        else:
            if message.figures is not None:
                self.summary.funnel, self.summary.in_memory = message.figures[:2]
            self.conversations.show(message)
            self._draw_empty()
            self.summary.draw()
            self.follow_cursor()
        self.conversations.finish_load(message.number)
        self.host.refresh_footer()

    @property
    def _preparing(self) -> bool:
        """Whether an import or a build is under way, or a build follows an import that has just ended."""
        return self.host.preparing or is_preparing(self.host.board)

    def _draw_empty(self, problem: str = "") -> None:
        self._problem = problem
        empty = bool(problem) or not self.conversations.ids
        self._panels.display = not empty
        self._empty.display = empty
        if not empty and self.is_attached and self.screen.focused is None:
            # What is hidden loses the focus.
            self.conversations.focus()
        if empty:
            self._empty.update(
                empty_text(
                    problem=problem,
                    damaged=self.damaged,
                    filter_=self.conversations.filter,
                    collected=self.summary.collected,
                    in_memory=self.summary.in_memory,
                    preparing=self._preparing,
                )
            )

    @on(CorpusSummary.FunnelRead)
    def _figures_read(self, message: CorpusSummary.FunnelRead) -> None:
        message.stop()
        if not self.recorder.queue.unwritten:
            self.conversations.set_reviewed(message.reviewed)

    @on(VirtualList.Highlighted)
    def _highlighted(self, message: VirtualList.Highlighted) -> None:
        message.stop()
        self.follow_cursor()

    def follow_cursor(self) -> None:
        """The pane shows the conversation under the cursor."""
        index = self.conversations.index
        self.pane.follow_cursor(self.conversations.ids[index : index + 1 + READ_AHEAD])

    # What the writer reports

    @on(DecisionRecorder.QueueChanged)
    def _queue_changed(self) -> None:
        if self.recorder.queue.unwritten:
            self._late.resume()
        else:
            self._late.pause()
        self.host.refresh_footer()

    @on(DecisionRecorder.Written)
    def _written(self, message: DecisionRecorder.Written) -> None:
        follow_up = self.recorder.confirm(message.job)
        decisions = message.decisions
        ids = [decision.id for decision in decisions if decision.id]
        self.reader.expire_details(ids)
        self.summary.refresh_figures()
        if any(ReviewState.REJECTED in (decision.verdict, decision.previous) for decision in decisions):
            self.summary.look_for_pattern()
        if any(not decision.id for decision in decisions):
            # A rule changes rows that are not known here.
            self.conversations.load()
            if follow_up is not None:
                self.show_message(step_text(follow_up.step, decisions, (), self._room))
        elif follow_up is not None and ids:
            self.pane.scroll_to_turn = -1 if follow_up.stay else decisions[0].turn
            self._reread(decisions, follow_up)
            return
        elif self.conversations.cursor_id in ids:
            # It stays under the cursor: its decisions are read again.
            self.follow_cursor()
        elif follow_up is not None:
            self.show_message(_("There is nothing more to undo or redo."))
        if follow_up is not None:
            follow_up.done.set()

    @on(DecisionRecorder.Refused)
    def _refused(self, message: DecisionRecorder.Refused) -> None:
        follow_up = self.recorder.confirm(message.job)
        if follow_up is not None:
            follow_up.done.set()
        self.show_message(message.reason, "error")
        self.conversations.load()

    @work(group="corpus:reread", exit_on_error=False)
    async def _reread(self, decisions: Sequence[ReviewDecision], follow_up: FollowUp) -> None:
        sent = False
        try:
            some = [*decisions[:REREAD_MAX], first_of(decisions)]
            items = await self.reader.read_items(list(dict.fromkeys(one.id for one in some)), fresh=True)
            sent = self.post_message(self.Reread(decisions, items, follow_up))
        finally:
            if not sent:
                follow_up.done.set()

    @on(Reread)
    async def _reread_done(self, message: Reread) -> None:
        decisions, follow_up = message.decisions, message.follow_up
        rows = self.conversations
        try:
            if len(decisions) > REREAD_MAX:
                self.reader.expire()
                rows.request_rows_again()
            rows.set_items(message.items)
            outside = "" if decisions[0].id in rows.ids else "   " + _("not under this filter; esc clears it")
            if not follow_up.stay:
                rows.move_to_id(decisions[0].id)
            if follow_up.step is not DecisionStep.DONE:
                text = step_text(follow_up.step, decisions, message.items, self._room - cells(outside))
                self.show_message(text + outside, "warning" if outside else "")
            if not await self.pane.ensure_shown(redraw=True):
                self.follow_cursor()
        finally:
            follow_up.done.set()

    # Decisions

    async def action_accept(self) -> None:
        await self.decide.accept()

    async def action_reject(self) -> None:
        await self.decide.reject()

    def action_range(self) -> None:
        self.decide.select_range()

    def action_accept_all(self) -> None:
        self.decide.accept_all()

    def action_reject_all(self) -> None:
        self.decide.reject_all()

    async def action_undo(self) -> None:
        await self.recorder.undo()

    async def action_redo(self) -> None:
        await self.recorder.redo()

    # Other keys

    def is_enabled(self, action: AppAction) -> bool:
        verb = action.verb
        if verb in NEEDS_ROWS:
            return bool(self.conversations.ids)
        if verb == "twin":
            detail = self.reader.detail(self.conversations.cursor_id)
            return bool(self.conversations.ids) and (detail is None or bool(duplicate_of(detail)))
        if verb == "filter":
            return self.summary.collected > 0
        if verb == "pattern":
            return self.summary.pattern is not None
        if verb == "sample":
            return not (self.damaged or self.summary.collected or self.summary.in_memory or self._preparing)
        if verb == "next_unreviewed":
            return self.conversations.unreviewed > 0
        if verb == "restore":
            return self.damaged
        if self.damaged and verb in ("build", "import"):
            return False
        if verb == "build":
            return self.summary.in_memory > 0 and not self._preparing
        return True

    def action_skip(self) -> None:
        self.conversations.action_move(1)

    def action_next_unreviewed(self) -> None:
        self.conversations.move_to(self.conversations.next_unreviewed())

    async def action_diff(self) -> None:
        await self.pane.toggle_raw()

    async def action_why(self) -> None:
        await self.pane.toggle_reasons()

    async def action_twin(self) -> None:
        await self.pane.toggle_duplicate()

    async def action_edit(self) -> None:
        await self.edits.edit()

    def action_flag(self) -> None:
        self.edits.toggle_flag()

    def action_pattern(self) -> None:
        self.summary.ask_rule(self.recorder)

    def action_order(self) -> None:
        self.conversations.next_order()

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self.pane.plain_text)
        self.show_message(_("copied"))

    def action_filter(self) -> None:
        def answered(text: str | None) -> None:
            if text is not None:
                self.conversations.set_filter(text)

        self.app.push_screen(FilterPrompt(self.conversations.filter, self.reader.filter_counts), answered)

    def action_back(self) -> None:
        """Esc: ends a range, else clears the filter."""
        if self.conversations.selected:
            self.conversations.set_selecting(False)
        elif self.conversations.filter:
            self.conversations.set_filter("")
        else:
            self.conversations.focus()

    def action_refresh(self) -> None:
        self.conversations.load_again()

    # Imports and builds

    def action_import(self) -> None:
        self.host.open_import()

    def action_sample(self) -> None:
        self.host.import_sample()

    @work(group="corpus:build", exclusive=True, exit_on_error=False)
    async def action_build(self) -> None:
        """Runs the filters again over everything in memory; decisions stay."""
        try:
            run = await asyncio.to_thread(launch.start_build, self.workspace)
        except (H2QError, OSError) as problem:
            self.show_message(str(problem), "error")
            return
        self.show_message(_("building the corpus: run {run}").format(run=run.run_id))

    @work(group="corpus:backup", exclusive=True, exit_on_error=False)
    async def action_restore(self) -> None:
        """Puts the newest backup in the place of a damaged memory."""
        backup = await offer_backup(self.host)
        if backup is not None:
            self.post_message(self.BackupRestored(backup))

    @on(BackupRestored)
    def _backup_restored(self, message: BackupRestored) -> None:
        self.conversations.load()
        self.show_message(restored_text(message.backup), "success")

    async def action_threshold(self) -> None:
        """How strict the filters are and what another value would change; then the corpus is built again."""
        try:
            types = await self.reader.pii_counts()
        except sqlite3.Error as problem:
            self.show_message(error_text(problem, self.reader.path), "error")
            return
        screen = ThresholdScreen(self.workspace, self.host.settings, types, self.host.glyphs.cursor)
        self.app.push_screen(screen, self._threshold_chosen)

    def _threshold_chosen(self, settings: Settings | None) -> None:
        if settings is None:
            return
        try:
            save_settings(self.workspace, settings)
        except (H2QError, OSError) as problem:
            self.show_message(str(problem), "error")
            return
        self.host.apply_settings(settings)
        self.action_build()
