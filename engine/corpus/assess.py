"""What the filters say of one conversation by itself: masked turns, redactions, markers, language, quality."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.corpus.collect import merged, starts_and_ends
from engine.corpus.filters import injection, low_value, sensitive
from engine.corpus.filters.exact import content_key
from engine.corpus.filters.normalise import fold, fold_joined
from engine.corpus.language import language_of
from engine.corpus.ledger import Evidence, LedgerRow
from engine.corpus.quality import quality_of
from engine.corpus.states import Action, Stage
from engine.memory.points import Conversation, Role, Turn

_OPENING = 6
"""Folded characters from which an opening question says which conversations belong together."""
_FIRST_LINE = 160
_SPOILED = frozenset((low_value.Kind.REPETITION.value, low_value.Kind.TRUNCATED.value))
"""Reasons that are no courtesy."""


class FilterSettings(Protocol):
    """What of the settings the filters of one conversation depend on."""

    @property
    def sensitive(self) -> str: ...
    @property
    def sensitive_types(self) -> Mapping[Any, str]: ...
    @property
    def low_value(self) -> str: ...


class CorpusSettings(FilterSettings, Protocol):
    """What of `engine.config.Settings` the corpus depends on."""

    @property
    def review(self) -> str: ...
    @property
    def near_threshold(self) -> float: ...
    @property
    def embedder(self) -> str: ...
    @property
    def low_value_phrases(self) -> tuple[str, ...]: ...


@dataclass
class Assessed:
    """One conversation on its way through the stages. Later stages add rows and may drop it."""

    id: str
    start: float | None
    end: float | None
    key: str
    """Of its folded words: equal for exact duplicates."""
    folded: str
    opening: str
    """Folded first question with content; "" when too short to tell conversations apart."""
    characters: int
    first_line: str
    language: str
    quality: float
    pairs: int
    """Answers with content: what would be trained."""
    rows: list[LedgerRow] = field(default_factory=list)
    dropped: LedgerRow | None = None
    held: LedgerRow | None = None
    cluster: str = ""

    def drop(
        self, stage: Stage, reason: str, *, twin: str | None = None, similarity: float | None = None
    ) -> None:
        """Leaves it out of the corpus; the first stage that does so names it."""
        row = LedgerRow(
            conversation=self.id,
            stage=stage,
            action=Action.DROP,
            reason=reason,
            twin=twin,
            evidence=Evidence(similarity=similarity),
        )
        self.rows.append(row)
        self.dropped = self.dropped or row


def assess(conversation: Conversation, settings: FilterSettings, phrases: Collection[str] = ()) -> Assessed:
    """Low value, sensitive and injection for one conversation; `phrases` are the person's own, folded."""
    turns = merged(conversation.turns)
    masked = _masked(conversation.id, turns, settings, phrases)
    low = {row.turn for row in masked}
    answers = [turn.text for position, turn in turns if turn.role is Role.ASSISTANT and position not in low]
    asked = False
    pairs = 0
    for position, turn in turns:
        asked = asked or turn.role is Role.USER
        pairs += asked and turn.role is Role.ASSISTANT and position not in low
    questions = [turn.text for position, turn in turns if turn.role is Role.USER and position not in low]
    first = next(iter(questions), turns[0][1].text if turns else "")
    texts = [turn.text for _, turn in turns]
    folded = [fold(text) for text in texts]
    opening = folded[texts.index(first)] if texts else ""
    start, end = starts_and_ends(conversation)
    result = Assessed(
        id=conversation.id,
        start=start,
        end=end,
        key=content_key((turn.role.value, text) for (_, turn), text in zip(turns, folded, strict=True)),
        folded=fold_joined(texts, folded),
        opening=opening if len(opening) >= _OPENING and questions else "",
        characters=sum(map(len, texts)),
        first_line=" ".join(first.split())[:_FIRST_LINE],
        language=language_of(" ".join(texts)),
        quality=quality_of(answers, masked=len(low)),
        pairs=pairs,
        rows=masked,
    )
    if not any(turn.role is Role.USER for _, turn in turns) or not any(
        turn.role is Role.ASSISTANT for _, turn in turns
    ):
        result.drop(Stage.COLLECT, "no_pair")
    elif not pairs:
        spoiled = next((row.reason for row in masked if row.reason in _SPOILED), "courtesy")
        result.drop(Stage.LOW_VALUE if low else Stage.COLLECT, spoiled if low else "no_pair")
    _find_private(result, conversation, settings)
    return result


def _masked(
    id_: str, turns: list[tuple[int, Turn]], settings: FilterSettings, phrases: Collection[str]
) -> list[LedgerRow]:
    """A row for each turn that loses its loss."""
    if settings.low_value == "keep":
        return []
    rows: list[LedgerRow] = []
    question = ""
    for position, turn in turns:
        if turn.role is Role.ASSISTANT:
            verdict = low_value.judge_in_context(turn.text, question)
        elif turn.role is Role.USER:
            verdict, question = low_value.judge(turn.text), turn.text
        else:
            continue
        reason = (
            verdict.kind.value if verdict.low else "phrase" if phrases and fold(turn.text) in phrases else ""
        )
        if reason:
            rows.append(
                LedgerRow(
                    conversation=id_,
                    stage=Stage.LOW_VALUE,
                    action=Action.MASK,
                    reason=reason,
                    turn=position,
                    evidence=Evidence(score=verdict.score if verdict.low else 1.0),
                )
            )
    return rows


def _find_private(result: Assessed, conversation: Conversation, settings: FilterSettings) -> None:
    """Adds rows for private spans and for markers that could act on the template."""
    forbidden: set[str] = set()
    for position, turn in enumerate(conversation.turns):
        spans = [span for span in sensitive.find(turn.text) if _handling(settings, span.type) != "keep"]
        if spans:
            forbidden.update(span.type.value for span in spans if _handling(settings, span.type) == "drop")
            result.rows.append(
                LedgerRow(
                    conversation=result.id,
                    stage=Stage.SENSITIVE,
                    action=Action.REDACT,
                    reason=", ".join(sorted({span.type.value for span in spans})),
                    turn=position,
                    evidence=Evidence(spans=[(span.type.value, span.start, span.end) for span in spans]),
                )
            )
        markers = [(kind, start, end) for kind, start, end in injection.find(turn.text)]
        if markers:
            result.held = LedgerRow(
                conversation=result.id,
                stage=Stage.INJECTION,
                action=Action.HOLD,
                reason="marker",
                turn=position,
                evidence=Evidence(spans=markers),
            )
            result.rows.append(result.held)
    if forbidden:
        result.drop(
            Stage.SENSITIVE, "private" if settings.sensitive == "drop" else ", ".join(sorted(forbidden))
        )


def _handling(settings: FilterSettings, type_: sensitive.SensitiveType) -> str:
    """What the person wants done with private data of a type: "redact", "drop" or "keep"."""
    return settings.sensitive_types.get(type_.value, settings.sensitive)
