"""What a user writes on conversations besides a decision: an edited turn, a flag."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from textual.app import SuspendNotSupported

from engine.core.errors import H2QError
from engine.core.i18n import _
from engine.corpus.review.types import ReviewTurn
from tui.host.external_editor import edit_externally, editor_command
from tui.screens.ask import LinePrompt
from tui.screens.edit_text import EditText
from tui.tabs.corpus.conversation_pane import ConversationPane
from tui.tabs.corpus.decide_actions import MARGIN
from tui.tabs.corpus.decision_text import flag_text
from tui.tabs.corpus.decisions import DecisionRecorder
from tui.tabs.corpus.reader import CorpusReader
from tui.tabs.corpus.review_list import ReviewList

if TYPE_CHECKING:
    from tui.host.app_host import AppHost


class EditActions:
    """Edits a turn, sets and clears flags."""

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

    def toggle_flag(self) -> None:
        """Flags the row under the cursor, or the range; the same key clears the flag."""
        rows = self.conversations
        ids = list(rows.selected) or [rows.cursor_id]
        first = self.reader.items.get(ids[0])
        on = first is None or not first.flagged
        rows.set_selecting(False)
        rows.set_items(self.recorder.record(ids, lambda store: store.flag(ids, on), flagged=on))
        self.pane.draw()
        title = first.first_line if first is not None else ""
        self.host.show_message(flag_text(on, title, len(ids), rows.app.size.width - MARGIN))

    async def edit(self) -> None:
        """Edits one turn, in the user's editor or in place. Of several turns it asks which."""
        await self.pane.ensure_shown()
        detail = self.reader.detail(self.conversations.cursor_id)
        if detail is None:
            self.host.show_message(_("This conversation cannot be read now."), "warning")
            return
        turns = {turn.position + 1: turn for turn in detail.turns}
        answers = [number for number, turn in turns.items() if turn.role == "assistant" and not turn.masked]
        usual = (answers or list(turns))[-1]

        def check(text: str) -> str:
            good = not text or (text.isdigit() and int(text) in turns)
            return (
                "" if good else _("a turn from {first} to {last}").format(first=min(turns), last=max(turns))
            )

        def answered(text: str | None) -> None:
            if text is not None:
                self._edit_turn(detail.item.id, turns[int(text or usual)])

        question = _("Edit turn {first}–{last} (enter: {usual}, the last answer)").format(
            first=min(turns), last=max(turns), usual=usual
        )
        self.host.push_screen(LinePrompt(question, check=check), answered)

    def _edit_turn(self, id_: str, turn: ReviewTurn) -> None:
        command = editor_command()
        keep = partial(self._keep, id_, turn)
        if command:
            try:
                keep(edit_externally(self.host.suspend, command, turn.text, self.reader.path.parent))
                return
            except SuspendNotSupported:
                pass
            except (H2QError, OSError) as problem:
                self.host.show_message(str(problem), "error")
                return
        title = _("Turn {n}").format(n=turn.position + 1)
        self.host.push_screen(EditText(title, turn.text), keep)

    def _keep(self, id_: str, turn: ReviewTurn, text: str | None) -> None:
        if text is None:
            return
        if text == turn.text:
            self.host.show_message(_("no changes"))
            return
        if not text.strip():
            self.host.show_message(_("a turn cannot be empty; x rejects the conversation"), "warning")
            return
        self.recorder.submit_and_follow(lambda store: store.edit(id_, turn.position, text))
        self.host.show_message(_("edited; d shows the changes, u undoes it"), "success")
