"""The panel with the cases of the verdict on the screen: which one, its answers blind or named, and the switch."""

from __future__ import annotations

from collections.abc import Mapping

from textual.content import Content

from engine.core.i18n import _
from engine.memory.records import Conversation
from engine.validation.stored_verdicts import StoredVerdict
from engine.validation.votes import choice_of, new_is_left, vote_on
from tui.tabs.validate.cases import CaseDeck, CaseEntry, CaseGroup, Sides, case_blocks
from tui.terminal.text import safe
from tui.widgets.conversation import ConversationView

SWITCH_CELLS = 44
"""Cells of the panel from which the switch between the groups is spelt out."""


class CasePanel:
    """What stands in `view`. An answered question is blind until it is voted on or `toggle_diff` names the sides."""

    def __init__(self) -> None:
        self.view = ConversationView(id="validate-case", classes="panel")
        self.deck = CaseDeck()
        self._verdict: StoredVerdict | None = None
        self._diff = True
        self._revealed: set[tuple[str, str]] = set()
        """Reports and cases whose sides were named without a vote, until the app ends."""

    def take(self, verdict: StoredVerdict | None) -> None:
        """Shows the cases of a verdict; those of a report that was read again at the same place."""
        same = verdict is not None and self._verdict is not None and verdict.file == self._verdict.file
        self._verdict = verdict
        if verdict is not None and same:
            self.deck.replace(verdict.report)
        else:
            self.deck = CaseDeck(verdict.report if verdict is not None else None)

    @property
    def blind(self) -> bool:
        """Whether the case on the screen can be voted on."""
        case = self.deck.current
        return case is not None and case.answer is not None and self._sides(case).blind

    def choice(self, side: str) -> str:
        """What a vote for `side` of the case on the screen means."""
        case = self.deck.current
        return choice_of(self._verdict.report.run_id, case.key, side) if self._verdict and case else ""

    def toggle_diff(self) -> None:
        """Marks the differences, or not; names the sides of a blind case first."""
        case = self.deck.current
        if self._verdict is not None and case is not None and self.blind:
            self._revealed.add((self._verdict.id, case.key))
            self._diff = True
        else:
            self._diff = not self._diff

    def draw(self, conversations: Mapping[str, Conversation | None]) -> None:
        """Draws the case; `conversations` are those that were read, None where memory has one no more."""
        case = self.deck.current
        title = f"‹ {case.title()} ›" if case is not None else ""
        self.view.border_subtitle = safe(f"{title} [ ] =" if self.blind else title)
        self.draw_switch()
        if case is None:
            self.view.set_blocks([])
            return
        id_ = case.conversation
        loaded = id_ in conversations
        self.view.set_blocks(case_blocks(case, conversations.get(id_), self._sides(case), loaded=loaded))

    def draw_switch(self) -> None:
        """The groups with their keys in the border; the one on the screen in brackets."""
        labels = {
            CaseGroup.QUESTIONS: _("questions {n}"),
            CaseGroup.WINS: _("w wins {n}"),
            CaseGroup.LOSSES: _("W losses {n}"),
        }
        if self.view.size.width < SWITCH_CELLS:
            labels |= {CaseGroup.WINS: "w +{n}", CaseGroup.LOSSES: "W −{n}"}
        parts = []
        for group, label in labels.items():
            text = label.format(n=self.deck.size(group))
            parts.append(safe(f"[{text}]", "bold") if group is self.deck.group else safe(text))
        self.view.border_title = Content(" ").join(parts)

    def _sides(self, case: CaseEntry) -> Sides:
        if self._verdict is None or not case.key:
            return Sides(diff=self._diff)
        report = self._verdict.report
        vote = vote_on(report, case.key)
        return Sides(
            diff=self._diff,
            blind=vote is None and (self._verdict.id, case.key) not in self._revealed,
            new_first=new_is_left(report.run_id, case.key),
            vote=vote.choice if vote is not None else "",
        )
