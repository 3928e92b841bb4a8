"""What a person writes on conversations beside a verdict: an edited turn, a flag, a rule made of rejections."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from functools import partial

from textual import work
from textual.app import SuspendNotSupported

from engine.core.errors import H2QError
from engine.core.i18n import _, n_
from engine.core.paths import Workspace
from engine.corpus.enums import State
from engine.corpus.review.rule_suggestions import Pattern
from engine.corpus.review.store import Decision, ReviewTurn
from tui.app.external_editor import edited_outside, editor
from tui.app.text import safe
from tui.screens.ask import Confirm, LinePrompt
from tui.screens.edit_text import EditText
from tui.tabs.corpus.decisions import WritingTab
from tui.tabs.corpus.review_text import pattern_words
from tui.widgets.cell_lines import CellLines

PATTERN_AFTER_S = 0.6
"""Without another rejection, before they are compared."""


class MarkingTab(WritingTab):
    """`e`, `f` and `F`."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self.pattern: Pattern | None = None
        """What the rejections share and nobody has answered yet."""
        self._declined: set[str] = set()

    def written(
        self, decisions: Sequence[Decision], follow: asyncio.Event | None = None, *, stay: bool = False
    ) -> None:
        super().written(decisions, follow, stay=stay)
        if any(State.REJECTED in (decision.verdict, decision.previous) for decision in decisions):
            self._look_for_pattern()

    @work(group="corpus:pattern", exclusive=True, exit_on_error=False)
    async def _look_for_pattern(self) -> None:
        """Rejections come in bursts: the last one is answered."""
        await asyncio.sleep(PATTERN_AFTER_S)
        try:
            found = await self.reader.patterns()
        except (H2QError, sqlite3.Error) as problem:
            self.show_message(str(problem), "error")
            return
        self.pattern = next((one for one in found if one.line not in self._declined), None)
        self.draw_figures()
        self.h2q.refresh_footer()

    def draw_figures(self) -> None:
        super().draw_figures()
        if self.pattern is not None:
            words = f" {pattern_words(self.pattern)}   " + _("F filters it")
            self.query_one("#corpus-funnel", CellLines).set_lines([safe(words, "$text-accent")])

    def action_pattern(self) -> None:
        """Makes a rule of what the rejections share, after saying what it would do."""
        pattern = self.pattern
        if pattern is None:
            return
        question = n_(
            "{words}. Reject {n} other, and what comes?",
            "{words}. Reject {n} others, and what comes?",
            pattern.others,
        ).format(words=pattern_words(pattern), n=f"{pattern.others:,}")

        def answered(yes: bool | None) -> None:
            if yes:
                self.put(lambda store: store.set_rule(pattern.line), max(1, pattern.others))
                self.show_message(
                    _("the rule holds: {line}; u takes it back").format(line=pattern.line), "success"
                )
            self._declined.add(pattern.line)
            self.pattern = None
            self.draw_figures()

        self.app.push_screen(Confirm(question), answered)

    def action_flag(self) -> None:
        """A mark for later on the row under the cursor, or on the range; the same key takes it off."""
        ids = list(self.table.selected) or [self.table.cursor_id]
        first = self.reader.items.get(ids[0])
        on = first is None or not first.flagged
        self.table.set_selecting(False)
        self.lay_over(ids, lambda store: store.flag(ids, on), flagged=on)
        self.draw_detail(again=True)

    async def action_edit(self) -> None:
        """One turn, in the person's editor or in place. Of several turns it asks which."""
        await self.show_now()
        detail = self.reader.detail(self.table.cursor_id)
        if detail is None:
            self.show_message(_("This conversation cannot be read now."), "warning")
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
        self.app.push_screen(LinePrompt(question, check=check), answered)

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
                self.show_message(str(problem), "error")
                return
        title = _("Turn {n}").format(n=turn.position + 1)
        self.app.push_screen(EditText(title, turn.text), keep)

    def _keep(self, id_: str, turn: ReviewTurn, text: str | None) -> None:
        if text is None:
            return
        if text == turn.text:
            self.show_message(_("nothing is changed"))
            return
        if not text.strip():
            self.show_message(_("a turn cannot be edited to nothing; x rejects the conversation"), "warning")
            return
        self._acts += 1
        self.put(lambda store: store.edit(id_, turn.position, text), 1, follow=asyncio.Event())
        self.show_message(_("edited; d shows what changed, u takes it back"), "success")
