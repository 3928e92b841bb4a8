"""What a person writes on a conversation beside a verdict: an edited turn, a flag."""

from __future__ import annotations

from functools import partial

from textual.app import SuspendNotSupported

from engine.corpus.review import ReviewTurn
from engine.errors import H2QError
from engine.i18n import _
from tui.editing import edited_outside, editor
from tui.screens.ask import AskLine
from tui.screens.edit_text import EditText
from tui.tabs.corpus_writing import WritingTab


class MarkingTab(WritingTab):
    """`e` and `f`."""

    def action_flag(self) -> None:
        """A mark for later on the row under the cursor, or on the range; the same key takes it off."""
        ids = list(self.table.marked) or [self.table.cursor_id]
        first = self.reader.items.get(ids[0])
        on = first is None or not first.flagged
        self.table.mark(False)
        self.lay_over(ids, lambda store: store.flag(ids, on), flagged=on)
        self.draw_detail(again=True)

    def action_edit(self) -> None:
        """One turn, in the person's editor or in place. Of several turns it asks which."""
        detail = self.reader.detail(self.table.cursor_id)
        if detail is None:
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
                self._edit(detail.item.id, turns[int(text or usual)])

        question = _("Edit turn {first}–{last} (enter: {usual}, the last answer)").format(
            first=min(turns), last=max(turns), usual=usual
        )
        self.app.push_screen(AskLine(question, check=check), answered)

    def _edit(self, id_: str, turn: ReviewTurn) -> None:
        command = editor()
        keep = partial(self._keep, id_, turn)
        if command:
            try:
                keep(edited_outside(self.app, command, turn.text, self.workspace.memory_db.parent))
                return
            except SuspendNotSupported:
                pass
            except (H2QError, OSError) as problem:
                self.say(str(problem), "act")
                return
        title = _("Turn {n}").format(n=turn.position + 1)
        self.app.push_screen(EditText(title, turn.text), keep)

    def _keep(self, id_: str, turn: ReviewTurn, text: str | None) -> None:
        if text is None:
            return
        if text == turn.text:
            self.say(_("nothing is changed"))
            return
        if not text.strip():
            self.say(_("a turn cannot be edited to nothing; x rejects the conversation"), "watch")
            return
        self.put(lambda store: store.edit(id_, turn.position, text), 1, follow=True)
        self.say(_("edited; d shows what changed, u takes it back"), "good")
