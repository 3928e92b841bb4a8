"""What the filters say of one conversation by itself: masked turns, redactions, markers, language, quality."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from engine.core.chat import Role
from engine.corpus.dedup.exact import content_key
from engine.corpus.enums import Action, Stage
from engine.corpus.filters import low_value, prompt_injection
from engine.corpus.filters import pii as sensitive
from engine.corpus.filters.normalise import fold, fold_joined
from engine.corpus.filters.result import Item, digest_of, drop_row
from engine.corpus.language import language_of
from engine.corpus.ledger import Evidence, LedgerRow
from engine.corpus.quality import quality_of
from engine.corpus.title import first_line
from engine.memory.records import Conversation, Turn

_OPENING = 6
"""Folded characters from which an opening question says which conversations belong together."""
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
    @property
    def low_value_from(self) -> float: ...


class CorpusSettings(FilterSettings, Protocol):
    """What of `engine.core.config.Settings` the corpus depends on."""

    @property
    def review(self) -> str: ...
    @property
    def near_threshold(self) -> float: ...
    @property
    def embedder(self) -> str: ...
    @property
    def low_value_phrases(self) -> tuple[str, ...]: ...


class Facts(msgspec.Struct, frozen=True, array_like=True):
    """What is known of one conversation by itself and needed only when its rows are written."""

    first_line: str
    quality: float
    pairs: int
    """Answers with content: what would be trained."""
    rows: list[LedgerRow]


class Assessed(NamedTuple):
    """One conversation through the filters that look at it alone."""

    item: Item
    facts: Facts
    folded: str
    """Its words, as they are compared."""
    opening: str
    """Folded first question with content; "" when too short to tell conversations apart."""


def assess(conversation: Conversation, settings: FilterSettings, phrases: Collection[str] = ()) -> Assessed:
    """Low value, sensitive and injection for one conversation; `phrases` are the person's own, folded."""
    turns = conversation.non_empty_turns()
    rows = _masked(conversation.id, turns, settings, phrases)
    low = {row.turn for row in rows}
    answers = [turn.text for position, turn in turns if turn.role is Role.ASSISTANT and position not in low]
    asked = False
    pairs = 0
    for position, turn in turns:
        asked = asked or turn.role is Role.USER
        pairs += asked and turn.role is Role.ASSISTANT and position not in low
    first = next(
        (place for place, (at, turn) in enumerate(turns) if turn.role is Role.USER and at not in low), None
    )
    texts = [turn.text for _, turn in turns]
    folded = [fold(text) for text in texts]
    opening = folded[first] if first is not None and len(folded[first]) >= _OPENING else ""
    words = fold_joined(texts, folded)
    item = Item(
        id=conversation.id,
        end=conversation.end_time(),
        key=content_key((turn.role, text) for (_, turn), text in zip(turns, folded, strict=True)),
        words=digest_of(words),
        opening=digest_of(opening),
        opening_turn=turns[first][0] if first is not None else 0,
        lengths=(len(words), len(opening)),
        characters=sum(map(len, texts)),
        language=language_of(" ".join(texts)),
        dropped=_unfit(conversation.id, turns, rows, pairs),
    )
    if item.dropped:
        rows.append(item.dropped)
    _find_private(item, rows, conversation, settings)
    facts = Facts(
        first_line=first_line(texts[first or 0] if texts else ""),
        quality=quality_of(answers, masked=len(low)),
        pairs=pairs,
        rows=rows,
    )
    return Assessed(item, facts, words, opening)


def _unfit(
    id_: str, turns: Sequence[tuple[int, Turn]], masked: Sequence[LedgerRow], pairs: int
) -> LedgerRow | None:
    """Why there is nothing in it to train on; None when there is."""
    roles = {turn.role for _, turn in turns}
    if pairs:
        return None
    if not masked or not {Role.USER, Role.ASSISTANT} <= roles:
        return drop_row(id_, Stage.COLLECT, "no_pair")
    spoiled = next((row.reason for row in masked if row.reason in _SPOILED), "courtesy")
    return drop_row(id_, Stage.LOW_VALUE, spoiled)


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
        low = verdict.low and (verdict.score >= settings.low_value_from or verdict.kind.value in _SPOILED)
        reason = verdict.kind.value if low else "phrase" if phrases and fold(turn.text) in phrases else ""
        if reason:
            rows.append(
                LedgerRow(
                    conversation=id_,
                    stage=Stage.LOW_VALUE,
                    action=Action.MASK,
                    reason=reason,
                    turn=position,
                    evidence=Evidence(score=verdict.score if low else 1.0),
                )
            )
    return rows


def _find_private(
    item: Item, rows: list[LedgerRow], conversation: Conversation, settings: FilterSettings
) -> None:
    """Adds rows for private spans and for markers that could act on the template."""
    forbidden: set[str] = set()
    for position, turn in enumerate(conversation.turns):
        spans = [span for span in sensitive.find(turn.text) if _handling(settings, span.type) != "keep"]
        if spans:
            forbidden.update(span.type.value for span in spans if _handling(settings, span.type) == "drop")
            rows.append(
                LedgerRow(
                    conversation=item.id,
                    stage=Stage.SENSITIVE,
                    action=Action.REDACT,
                    reason=", ".join(sorted({span.type.value for span in spans})),
                    turn=position,
                    evidence=Evidence(spans=[(span.type.value, span.start, span.end) for span in spans]),
                )
            )
        markers = list(prompt_injection.find(turn.text))
        if markers:
            item.held = LedgerRow(
                conversation=item.id,
                stage=Stage.INJECTION,
                action=Action.HOLD,
                reason="marker",
                turn=position,
                evidence=Evidence(spans=markers),
            )
            rows.append(item.held)
    if forbidden:
        reason = "private" if settings.sensitive == "drop" else ", ".join(sorted(forbidden))
        row = drop_row(item.id, Stage.SENSITIVE, reason)
        rows.append(row)
        item.dropped = item.dropped or row


def _handling(settings: FilterSettings, type_: sensitive.SensitiveType) -> str:
    """What the person wants done with private data of a type: "redact", "drop" or "keep"."""
    return settings.sensitive_types.get(type_.value, settings.sensitive)
