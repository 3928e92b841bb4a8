"""The cases of a verdict: the user's questions with both answers, then what the new model won and lost."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from engine.core.chat import Role
from engine.core.i18n import _
from engine.memory.records import Conversation
from engine.validation.report import AnswerPair, CaseScore, ValidationReport
from engine.validation.votes import case_key
from tui.widgets.conversation import StyledSpan, TextBlock

DIFF_CHARACTERS = 4000
"""Characters of each answer that are compared; the comparison is quadratic."""
_WORDS = re.compile(r"[A-Za-z0-9_]+|\s+|.", re.DOTALL)


class CaseGroup(StrEnum):
    """What is stepped through."""

    QUESTIONS = "questions"
    WINS = "wins"
    LOSSES = "losses"


@dataclass(frozen=True)
class CaseEntry:
    """One entry: an answered question, or a scored conversation, with its answers where there are some."""

    number: int
    total: int
    group: int = 0
    gain: float = 0.0
    """Bits per byte that the new model saves; above 0 is a win. 0 for an answered question."""
    answer: AnswerPair | None = None
    score: CaseScore | None = None
    key: str = ""
    """Its name in blind votes where one of the questions is about it, also among wins and losses."""

    @property
    def conversation(self) -> str:
        """Id of the conversation, "" for an answered question."""
        return self.score.conversation if self.score is not None else ""

    def title(self) -> str:
        """Its number and its gain."""
        if self.score is None:
            return _("Your question {n} of {total}").format(n=self.number, total=self.total)
        return _("Case {n} of {total}  (group {group})  {gain}").format(
            n=self.number, total=self.total, group=self.group, gain=f"{self.gain:+.3f}".replace("-", "−")
        )


class CaseDeck:
    """The cases of a report in three groups, each with the place where the reader is."""

    def __init__(self, report: ValidationReport | None = None) -> None:
        self.entries: dict[CaseGroup, list[CaseEntry]] = list_cases(report) if report is not None else {}
        self.group = CaseGroup.QUESTIONS
        self._places: dict[CaseGroup, int] = {}
        self.rewind()

    def size(self, group: CaseGroup) -> int:
        return len(self.entries.get(group, ()))

    @property
    def place(self) -> int:
        """Place of the entry that is shown, from 0."""
        return self._places[self.group]

    @property
    def current(self) -> CaseEntry | None:
        """The entry that is shown; None where the group is empty."""
        return self.entries[self.group][self.place] if self.size(self.group) else None

    @property
    def at_start(self) -> bool:
        """Whether the first entry is shown, as when the verdict was opened."""
        first = next((group for group in CaseGroup if self.size(group)), CaseGroup.QUESTIONS)
        return self.group is first and self.place == 0

    def replace(self, report: ValidationReport) -> None:
        """Takes the cases of the same report as it was read again, at the same place."""
        self.entries = list_cases(report)
        self._places = {
            group: min(place, max(0, self.size(group) - 1)) for group, place in self._places.items()
        }

    def step(self, by: int) -> None:
        """Goes `by` entries further in the group, round at the ends."""
        if size := self.size(self.group):
            self._places[self.group] = (self.place + by) % size

    def show(self, group: CaseGroup) -> None:
        """Shows a group at the place where it was left; the questions, where it is on the screen already."""
        other = CaseGroup.QUESTIONS if group is self.group else group
        if self.size(other):
            self.group = other

    def rewind(self) -> None:
        """Back to the first question."""
        self._places = dict.fromkeys(CaseGroup, 0)
        self.group = next((group for group in CaseGroup if self.size(group)), CaseGroup.QUESTIONS)


def list_cases(report: ValidationReport) -> dict[CaseGroup, list[CaseEntry]]:
    """The answered questions, the wins from the largest, and the losses from the worst; no gain is no win."""
    asked = [n for n, answer in enumerate(report.answers, 1) if answer.shown_as == "question"]
    answers = {answer.conversation: answer for answer in report.answers if answer.conversation}
    keys = {report.answers[n - 1].conversation: case_key(report, n) for n in asked}
    groups = {cluster: n for n, cluster in enumerate(dict.fromkeys(case.cluster for case in report.cases), 1)}
    ordered = sorted(report.cases, key=lambda case: case.new - case.base)
    wins = [case for case in ordered if case.new < case.base]
    losses = [case for case in reversed(ordered) if case.new >= case.base]

    def scored(cases: Sequence[CaseScore]) -> list[CaseEntry]:
        return [
            CaseEntry(
                number,
                len(cases),
                groups[score.cluster],
                (score.base - score.new) / math.log(2),
                answers.get(score.conversation),
                score,
                keys.get(score.conversation, ""),
            )
            for number, score in enumerate(cases, 1)
        ]

    return {
        CaseGroup.QUESTIONS: [
            CaseEntry(place, len(asked), answer=report.answers[n - 1], key=case_key(report, n))
            for place, n in enumerate(asked, 1)
        ],
        CaseGroup.WINS: scored(wins),
        CaseGroup.LOSSES: scored(losses),
    }


@dataclass(frozen=True)
class Sides:
    """How the two answers of a case are shown."""

    diff: bool = True
    """Their differences marked."""
    blind: bool = False
    """Whose they are is hidden."""
    new_first: bool = False
    """The new model's answer stands first, as it was voted on."""
    vote: str = ""
    """"base", "new" or "equal"; "" without a vote."""


def case_blocks(
    case: CaseEntry, conversation: Conversation | None, sides: Sides, *, loaded: bool
) -> list[TextBlock]:
    """The blocks of a case. `loaded`: its conversation has been read from memory."""
    if case.score is None:
        assert case.answer is not None
        return [
            TextBlock(_("asked"), (StyledSpan(case.answer.question),), "head"),
            *_answers(case.answer, sides),
            _GAP,
            TextBlock(_("wanted"), (StyledSpan(case.answer.wanted, "dim"),)),
        ]
    blocks = [*_score(case.score, case.gain), _GAP]
    if case.answer is not None:
        blocks += [
            TextBlock(_("asked"), (StyledSpan(case.answer.question),), "head"),
            *_answers(case.answer, sides),
            _GAP,
        ]
    if conversation is None:
        if loaded and case.answer is not None:
            return [*blocks, TextBlock(_("wanted"), (StyledSpan(case.answer.wanted, "dim"),))]
        text = _("This conversation is no longer in memory.") if loaded else "…"
        return [*blocks, TextBlock("", (StyledSpan(text, "dim"),))]
    return blocks + _turns(conversation, asked=case.answer is None)


_GAP = TextBlock("", (StyledSpan(""),))


def _answers(answer: AnswerPair, sides: Sides) -> list[TextBlock]:
    """Both answers; blind without their names and without marks, which would tell what is new."""
    if sides.blind:
        first, second = (answer.new, answer.base) if sides.new_first else (answer.base, answer.new)
        return [
            _GAP,
            TextBlock("[", (StyledSpan(first),)),
            _GAP,
            TextBlock("]", (StyledSpan(second),)),
            _GAP,
            TextBlock(
                "", (StyledSpan(_("Which is better? [ or ], = for equal; d shows whose they are."), "dim"),)
            ),
        ]
    base, new = (
        compare(answer.base, answer.new)
        if sides.diff
        else ((StyledSpan(answer.base),), (StyledSpan(answer.new),))
    )
    rows = [TextBlock(_("Base"), base), TextBlock(_("New"), new)]
    if sides.vote:
        chosen = {
            "base": _("You found the base's answer better."),
            "new": _("You found the new model's answer better."),
        }.get(sides.vote, _("You found both equal."))
        rows = rows[::-1] if sides.new_first else rows
        return [_GAP, rows[0], _GAP, rows[1], _GAP, TextBlock("", (StyledSpan(chosen, "head"),))]
    return [_GAP, rows[0], _GAP, rows[1]]


def _score(score: CaseScore, gain: float) -> list[TextBlock]:
    text = _("base {base}, new {new} bits/byte on {bytes} bytes").format(
        base=f"{score.base / math.log(2):.3f}",
        new=f"{score.new / math.log(2):.3f}",
        bytes=f"{score.bytes:,}",
    )
    kind = "success" if gain > 0 else "error" if gain < 0 else ""
    blocks = [TextBlock(_("score"), (StyledSpan(text, kind),))]
    if score.cut:
        blocks.append(
            TextBlock("", (StyledSpan(_("a part was beyond the context length and was not scored"), "dim"),))
        )
    return blocks


def _turns(conversation: Conversation, *, asked: bool) -> list[TextBlock]:
    """The conversation; without its first question where that stands above its answers."""
    names = {
        Role.USER: _("asked"),
        Role.ASSISTANT: _("wanted"),
        Role.SYSTEM: _("system"),
        Role.TOOL: _("tool"),
    }
    turns = list(conversation.turns)
    if not asked:
        first = next((n for n, turn in enumerate(turns) if turn.role is Role.ASSISTANT), len(turns))
        turns = turns[first:]
    blocks = []
    for turn in turns:
        text = _("(not imported)") if turn.is_empty else turn.text
        kind = "head" if turn.role is Role.USER else "dim"
        blocks.append(TextBlock(names[turn.role], (StyledSpan(text),), kind))
    return blocks


def compare(base: str, new: str) -> tuple[tuple[StyledSpan, ...], tuple[StyledSpan, ...]]:
    """Two answers with their differences marked: by words in Latin script, else by characters."""
    left, right = _WORDS.findall(base[:DIFF_CHARACTERS]), _WORDS.findall(new[:DIFF_CHARACTERS])
    first: list[StyledSpan] = []
    second: list[StyledSpan] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        same = kind == "equal"
        if b > a:
            first.append(StyledSpan("".join(left[a:b]), "" if same else "removed"))
        if d > c:
            second.append(StyledSpan("".join(right[c:d]), "" if same else "added"))
    first.append(StyledSpan(base[DIFF_CHARACTERS:]))
    second.append(StyledSpan(new[DIFF_CHARACTERS:]))
    return tuple(first), tuple(second)
