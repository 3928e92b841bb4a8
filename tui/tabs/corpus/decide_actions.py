"""The keys that decide: accept, reject, for one row, a range or everything under the filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from engine.core.i18n import _, n_
from engine.corpus.enums import REJECTION_LABELS, ReviewState
from tui.screens.ask import Confirm, LinePrompt
from tui.tabs.corpus.conversation_pane import ConversationPane
from tui.tabs.corpus.decision_text import decision_text
from tui.tabs.corpus.decisions import DecisionRecorder
from tui.tabs.corpus.reader import CorpusReader
from tui.tabs.corpus.review_list import ReviewList

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

MARGIN = 4
"""Cells of the footer that a message leaves free."""


class DecideActions:
    """Asks where the user should be asked, records the decision, and says what it was."""

    def __init__(
        self,
        host: AppHost,
        reader: CorpusReader,
        recorder: DecisionRecorder,
        conversations: ReviewList,
        pane: ConversationPane,
    ) -> None:
        self.host = host
        self.reader = reader
        self.recorder = recorder
        self.conversations = conversations
        self.pane = pane

    @property
    def _room(self) -> int:
        return self.conversations.app.size.width - MARGIN

    async def accept(self) -> None:
        if await self._is_seen():
            self._decide(ReviewState.ACCEPTED, "")

    async def reject(self) -> None:
        """Asks for the reason in one line; a digit or enter answers."""
        if not await self._is_seen():
            return
        count = len(self.conversations.selected)
        question = _("Reject {n}, because").format(n=count) if count > 1 else _("Reject, because")
        self._ask_reason(question, partial(self._decide, ReviewState.REJECTED))

    async def _is_seen(self) -> bool:
        """Whether the conversation to decide on is on the screen: nobody decides on what they have not seen."""
        if self.conversations.selected or await self.pane.ensure_shown():
            return True
        text = _("This conversation is not on the screen yet: no decision was made.")
        self.host.show_message(text, "warning")
        return False

    def select_range(self) -> None:
        """Selects from here on; again ends it."""
        rows = self.conversations
        rows.set_selecting(not rows.selected)
        if rows.selected:
            text = _("Selecting from here: move, then a or x applies to all; v ends the selection.")
            self.host.show_message(text)

    def accept_all(self) -> None:
        question = _("Accept all {n} {where}?").format(
            n=f"{len(self.conversations.ids):,}", where=self._where()
        )

        def answered(yes: bool | None) -> None:
            if yes:
                self._decide_all(ReviewState.ACCEPTED, "")

        self.host.push_screen(Confirm(question), answered)

    def reject_all(self) -> None:
        """Asks for one of the offered reasons: a stray letter and enter reject nothing."""
        count = f"{len(self.conversations.ids):,}"
        question = _("Reject all {n} {where}, because").format(n=count, where=self._where())
        self._ask_reason(question, partial(self._decide_all, ReviewState.REJECTED), offered_only=True)

    def _where(self) -> str:
        filter_ = self.conversations.filter
        return _("under /{filter}").format(filter=filter_) if filter_ else _("in the corpus")

    def _ask_reason(self, question: str, then: Callable[[str], None], *, offered_only: bool = False) -> None:
        def answered(reason: str | None) -> None:
            if reason is not None:
                then(reason)

        def check(text: str) -> str:
            known = not offered_only or text in REJECTION_LABELS
            return "" if known else _("1 to {n}, or esc").format(n=len(REJECTION_LABELS))

        choices = [(code, _(text)) for code, text in REJECTION_LABELS.items()]
        self.host.push_screen(LinePrompt(question, choices=choices, check=check), answered)

    def _decide(self, state: ReviewState, reason: str) -> None:
        """One decision for the row under the cursor, or for the range; the cursor moves on immediately."""
        rows = self.conversations
        if not rows.ids:
            return
        ids = list(rows.selected) or [rows.cursor_id]
        after = max(rows.ids.index(ids[-1]), rows.index) + 1
        rows.set_selecting(False)
        self._record(ids, state, reason)
        if after < len(rows.ids):
            rows.move_to(after)
        else:
            self.pane.draw()

    def _decide_all(self, state: ReviewState, reason: str) -> None:
        self._record(list(self.conversations.ids), state, reason)
        self.pane.draw()

    def _record(self, ids: Sequence[str], state: ReviewState, reason: str) -> None:
        rows, fields = self.conversations, {"state": str(state), "reviewed": True}
        before = rows.unreviewed
        if len(ids) == 1:
            changed = self.recorder.record(ids, lambda store: [store.decide(ids[0], state, reason)], **fields)
        else:
            changed = self.recorder.record(ids, lambda store: store.decide_many(ids, state, reason), **fields)
        rows.set_items(changed)
        rows.mark_reviewed(ids)
        first = self.reader.items.get(ids[0])
        title = first.first_line if first is not None else ""
        if before and not rows.unreviewed:
            n = len(rows.ids)
            end = n_("all reviewed: {n} conversation", "all reviewed: {n} conversations", n).format(
                n=f"{n:,}"
            )
            text = decision_text(state, reason, title, len(ids), self._room - len(end) - 3)
            self.host.show_message(f"{text}   {end}", "success")
        else:
            self.host.show_message(decision_text(state, reason, title, len(ids), self._room))
