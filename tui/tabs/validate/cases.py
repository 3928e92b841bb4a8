"""The entries of the Validate tab: the user's questions with both answers, then every case of the test set."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType

from engine.core.chat import Role
from engine.core.i18n import _
from engine.memory.records import Conversation
from engine.validation.report import AnswerPair, CaseScore, ValidationReport
from tui.widgets.conversation import ConversationView, StyledSpan, TextBlock

DIFF_CHARACTERS = 4000
"""Characters of each answer that are compared; the comparison is quadratic."""
_WORDS = re.compile(r"[A-Za-z0-9_]+|\s+|.", re.DOTALL)


@dataclass(frozen=True)
class CaseEntry:
    """One entry: an answered question, or a scored conversation."""

    number: int
    total: int
    group: int = 0
    gain: float = 0.0
    """Bits per byte that the new model saves; above 0 is a win. 0 for an answered question."""
    answer: AnswerPair | None = None
    score: CaseScore | None = None

    @property
    def conversation(self) -> str:
        """Id of the conversation, "" for an answered question."""
        return self.score.conversation if self.score is not None else ""

    def title(self) -> str:
        """Title of its panel."""
        if self.score is None:
            return _("Your question {n} of {total}").format(n=self.number, total=self.total)
        return _("Case {n} of {total}  (group {group})  {gain}").format(
            n=self.number, total=self.total, group=self.group, gain=f"{self.gain:+.3f}".replace("-", "−")
        )


class CaseView(ConversationView):
    """One case; left and right go to its neighbours."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "step(-1)", show=False),
        Binding("right,l", "step(1)", show=False),
    ]

    def __init__(self, step: Callable[[int], None]) -> None:
        """`step` shows the case that many places further."""
        super().__init__(id="validate-case", classes="panel")
        self._step = step

    def action_step(self, by: int) -> None:
        self._step(by)


def list_cases(report: ValidationReport) -> list[CaseEntry]:
    """The answered questions, then the cases from the largest gain to the largest loss."""
    found = [CaseEntry(n, len(report.answers), answer=answer) for n, answer in enumerate(report.answers, 1)]
    groups = {cluster: n for n, cluster in enumerate(dict.fromkeys(case.cluster for case in report.cases), 1)}
    scored = sorted(report.cases, key=lambda case: case.new - case.base)
    for n, score in enumerate(scored, 1):
        gain = (score.base - score.new) / math.log(2)
        found.append(CaseEntry(n, len(scored), groups[score.cluster], gain, score=score))
    return found


def case_blocks(
    case: CaseEntry, conversation: Conversation | None, *, loaded: bool, diff: bool
) -> list[TextBlock]:
    """The blocks of a case. `loaded`: its conversation has been read from memory."""
    if case.answer is not None:
        answer = case.answer
        base, new = (
            compare(answer.base, answer.new)
            if diff
            else ((StyledSpan(answer.base),), (StyledSpan(answer.new),))
        )
        return [
            TextBlock(_("question"), (StyledSpan(answer.question),), "head"),
            TextBlock("", (StyledSpan(""),)),
            TextBlock(_("Base"), base),
            TextBlock("", (StyledSpan(""),)),
            TextBlock(_("New"), new),
            TextBlock("", (StyledSpan(""),)),
            TextBlock(_("reference"), (StyledSpan(answer.wanted, "dim"),)),
        ]
    assert case.score is not None
    score = case.score
    blocks = [
        TextBlock(
            _("score"),
            (
                StyledSpan(
                    _("base {base}, new {new} bits/byte on {bytes} bytes").format(
                        base=f"{score.base / math.log(2):.3f}",
                        new=f"{score.new / math.log(2):.3f}",
                        bytes=f"{score.bytes:,}",
                    ),
                    "success" if case.gain > 0 else "error" if case.gain < 0 else "",
                ),
            ),
        )
    ]
    if score.cut:
        blocks.append(
            TextBlock("", (StyledSpan(_("a part was beyond the context length and was not scored"), "dim"),))
        )
    blocks.append(TextBlock("", (StyledSpan(""),)))
    if conversation is None:
        text = _("This conversation is no longer in memory.") if loaded else "…"
        return [*blocks, TextBlock("", (StyledSpan(text, "dim"),))]
    names = {
        Role.USER: _("question"),
        Role.ASSISTANT: _("reference"),
        Role.SYSTEM: _("system"),
        Role.TOOL: _("tool"),
    }
    for turn in conversation.turns:
        text = _("(not imported)") if turn.is_empty else turn.text
        blocks.append(
            TextBlock(names[turn.role], (StyledSpan(text),), "head" if turn.role is Role.USER else "dim")
        )
    return blocks


def compare(base: str, new: str) -> tuple[tuple[StyledSpan, ...], tuple[StyledSpan, ...]]:
    """Two answers with their differences marked: by words in Latin script, else by characters."""
    left, right = _WORDS.findall(base[:DIFF_CHARACTERS]), _WORDS.findall(new[:DIFF_CHARACTERS])
    first: list[StyledSpan] = []
    second: list[StyledSpan] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        same = kind == "equal"
        if b > a:
            first.append(StyledSpan("".join(left[a:b]), "" if same else "warning"))
        if d > c:
            second.append(StyledSpan("".join(right[c:d]), "" if same else "success"))
    first.append(StyledSpan(base[DIFF_CHARACTERS:]))
    second.append(StyledSpan(new[DIFF_CHARACTERS:]))
    return tuple(first), tuple(second)
