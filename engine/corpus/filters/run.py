"""Filters one conversation: masked turns, PII, prompt injection markers, title, language and quality."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b, sha256
from typing import NamedTuple

import msgspec

from engine.core.chat import Role
from engine.corpus.enums import CorpusStage, LedgerAction
from engine.corpus.features import language_of, quality_score, title_of
from engine.corpus.filters.folding import fold, fold_turns
from engine.corpus.filters.normalise import letters
from engine.corpus.filters.time_limit import TurnLimit, TurnTimeout
from engine.corpus.filters.turn import LOW_QUALITY, SOURCE_MASKS, FilterSettings, TurnResult, filter_turn
from engine.corpus.ledger import Evidence, LedgerRow
from engine.corpus.review.decision_log import TurnEdit, apply_edits
from engine.memory.records import Conversation, Turn

_MIN_OPENING = 6
"""Letters and digits below which an opening question does not identify a cluster."""
_ENCODER = msgspec.msgpack.Encoder()


class CorpusEntry(msgspec.Struct, array_like=True):
    """One conversation on its way through the build: digests and figures, no text.

    The deduplication stages compare entries, add ledger rows and may drop them. Stored in the filter cache.
    """

    id: str
    end_time: float | None
    """Time of its last turn, seconds since the epoch; None without a date."""
    content_key: bytes
    """Digest of role and folded text of each turn: equal for exact duplicates."""
    text_digest: bytes
    """`digest_of` the folded text of all turns."""
    opening_digest: bytes
    """`digest_of` the folded first question with content; b"" when too short to identify a cluster."""
    opening_turn: int
    """Position of that question."""
    lengths: tuple[int, int]
    """Letters and digits of the text and of the opening question."""
    characters: int
    language: str
    dropped: LedgerRow | None = None
    """The first row that dropped it."""
    held: LedgerRow | None = None
    """The row that holds it for review."""
    rows: list[LedgerRow] = []
    """Rows of the stages that compare conversations."""
    cluster: str = ""

    def drop(
        self,
        stage: CorpusStage,
        reason: str,
        *,
        duplicate_of: str | None = None,
        similarity: float | None = None,
    ) -> None:
        """Adds a drop row; the first one decides the stage that is shown."""
        row = _drop_row(self.id, stage, reason, duplicate_of=duplicate_of, similarity=similarity)
        self.rows.append(row)
        self.dropped = self.dropped or row


class FilterResult(msgspec.Struct, frozen=True, array_like=True):
    """What the build writes about one conversation besides its entry. Stored in the filter cache."""

    title: str
    quality: float
    pairs: int
    """Answers with content: what would be trained on."""
    rows: list[LedgerRow]


class FilteredConversation(msgspec.Struct, frozen=True, array_like=True):
    """Entry and result, encoded as the cache stores them, with the texts that are sketched."""

    id: str
    entry: bytes
    """A CorpusEntry in MessagePack."""
    result: bytes
    """A FilterResult in MessagePack."""
    text: str
    """Its letters and digits."""
    opening: str
    """Those of the opening question; "" when too short to identify a cluster."""


class FilterTask(msgspec.Struct, frozen=True, array_like=True):
    """A conversation as imported, and the edits of its turns by position."""

    conversation: Conversation
    edits: dict[int, TurnEdit] = {}


def filter_conversation(task: FilterTask, settings: FilterSettings) -> FilteredConversation:
    """Runs all filters that need one conversation only."""
    conversation = apply_edits(task.conversation, task.edits) if task.edits else task.conversation
    turns = conversation.non_empty_turns()
    results = _turn_results(conversation.turns, settings)
    masked = {position for position, found in results if found.masked}
    pairs = _count_pairs(turns, masked)
    rows = [_mask_row(task, position, found) for position, found in results if found.masked]
    dropped = _without_pairs(conversation.id, turns, rows) if not pairs else None
    rows += [dropped] if dropped else []
    held: LedgerRow | None = None
    for position, found in results:
        if found.pii:
            rows.append(_redact_row(task, position, found))
        if found.markers:
            held = _hold_row(task, position, found)
            rows.append(held)
        if found.unchecked:
            held = _turn_row(
                task, position, CorpusStage.SENSITIVE, LedgerAction.HOLD, "unchecked", Evidence()
            )
            rows.append(held)
    private = _pii_drop(conversation.id, results, settings)
    rows += [private] if private else []

    texts = [turn.text for _position, turn in turns]
    folded = [fold(text) for text in texts]
    plain = [letters(text) for text in texts]
    first = next(
        (i for i, (position, turn) in enumerate(turns) if turn.role is Role.USER and position not in masked),
        None,
    )
    asked = first is not None and len(plain[first]) >= _MIN_OPENING
    opening = plain[first] if first is not None and asked else ""
    text = "".join(plain)
    answers = [
        turn.text for position, turn in turns if turn.role is Role.ASSISTANT and position not in masked
    ]
    entry = CorpusEntry(
        id=conversation.id,
        end_time=conversation.end_time(),
        content_key=_content_key((turn.role, one) for (_, turn), one in zip(turns, folded, strict=True)),
        text_digest=digest_of(fold_turns(folded)),
        opening_digest=digest_of(folded[first]) if first is not None and asked else b"",
        opening_turn=turns[first][0] if first is not None else 0,
        lengths=(len(text), len(opening)),
        characters=sum(map(len, texts)),
        language=language_of(" ".join(texts)),
        dropped=dropped or private,
        held=held,
    )
    result = FilterResult(
        title=title_of(texts[first or 0] if texts else ""),
        quality=quality_score(answers, masked=len(masked)),
        pairs=pairs,
        rows=rows,
    )
    return FilteredConversation(entry.id, _ENCODER.encode(entry), _ENCODER.encode(result), text, opening)


def digest_of(folded: str) -> bytes:
    """16-byte digest of a folded text; b"" for an empty one."""
    if not folded:
        return b""
    return blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _content_key(turns: Iterable[tuple[str, str]]) -> bytes:
    """Digest of turns as (role, folded text)."""
    words = "".join(f"{role}\x1f{folded}\x1e" for role, folded in turns)
    return sha256(words.encode("utf-8", "surrogatepass")).digest()[:16]


class _PositionedResult(NamedTuple):
    position: int
    result: TurnResult


_UNCHECKED = TurnResult(masked="", score=0.0, pii=[], markers=[], unchecked=True)


def _turn_results(turns: Sequence[Turn], settings: FilterSettings) -> list[_PositionedResult]:
    """The results of the turns with text."""
    results = []
    question = ""
    is_omitted = False
    """Whether the newest question was not imported."""
    for position, turn in enumerate(turns):
        if turn.role is Role.USER:
            is_omitted = turn.is_empty
        if turn.is_empty:
            continue
        try:
            with TurnLimit(len(turn.text) + len(question)):
                result = filter_turn(turn.role, turn.text, question, settings)
        except TurnTimeout:
            result = _UNCHECKED
        if turn.role is Role.ASSISTANT and (turn.masked or is_omitted):
            result = result._replace(masked="excluded" if turn.masked else "omitted_question", score=0.0)
        results.append(_PositionedResult(position, result))
        if turn.role is Role.USER:
            question = turn.text
    return results


def _count_pairs(turns: Sequence[tuple[int, Turn]], masked: set[int]) -> int:
    """Answers after the first question that are not masked."""
    asked = False
    pairs = 0
    for position, turn in turns:
        asked = asked or turn.role is Role.USER
        pairs += asked and turn.role is Role.ASSISTANT and position not in masked
    return pairs


def _without_pairs(id_: str, turns: Sequence[tuple[int, Turn]], masked: Sequence[LedgerRow]) -> LedgerRow:
    """The drop row of a conversation without anything to train on."""
    roles = {turn.role for _, turn in turns}
    if not masked or not {Role.USER, Role.ASSISTANT} <= roles:
        return _drop_row(id_, CorpusStage.COLLECT, "no_pair")
    reason = next((row.reason for row in masked if row.reason in SOURCE_MASKS), "")
    if reason:
        return _drop_row(id_, CorpusStage.COLLECT, reason)
    reason = next((row.reason for row in masked if row.reason in LOW_QUALITY), "courtesy")
    return _drop_row(id_, CorpusStage.LOW_VALUE, reason)


def _pii_drop(id_: str, results: Sequence[_PositionedResult], settings: FilterSettings) -> LedgerRow | None:
    """The drop row of a conversation with PII of a type whose handling is "drop"."""
    types = {type_ for _position, found in results for type_, _start, _end in found.pii}
    forbidden = sorted(type_ for type_ in types if settings.pii_handling(type_) == "drop")
    if not forbidden:
        return None
    reason = "private" if settings.sensitive == "drop" else ", ".join(forbidden)
    return _drop_row(id_, CorpusStage.SENSITIVE, reason)


def _mask_row(task: FilterTask, position: int, found: TurnResult) -> LedgerRow:
    stage = CorpusStage.COLLECT if found.masked in SOURCE_MASKS else CorpusStage.LOW_VALUE
    return _turn_row(task, position, stage, LedgerAction.MASK, found.masked, Evidence(score=found.score))


def _redact_row(task: FilterTask, position: int, found: TurnResult) -> LedgerRow:
    return _turn_row(
        task,
        position,
        CorpusStage.SENSITIVE,
        LedgerAction.REDACT,
        found.pii_types,
        Evidence(spans=found.pii),
    )


def _hold_row(task: FilterTask, position: int, found: TurnResult) -> LedgerRow:
    return _turn_row(
        task, position, CorpusStage.INJECTION, LedgerAction.HOLD, "marker", Evidence(spans=found.markers)
    )


def _turn_row(
    task: FilterTask, position: int, stage: CorpusStage, action: LedgerAction, reason: str, evidence: Evidence
) -> LedgerRow:
    """A row about a turn. It names the decision whose text it is about."""
    if position in task.edits:
        evidence = msgspec.structs.replace(evidence, edit=task.edits[position].seq)
    return LedgerRow(
        conversation=task.conversation.id,
        stage=stage,
        action=action,
        reason=reason,
        turn=position,
        evidence=evidence,
    )


def _drop_row(
    id_: str,
    stage: CorpusStage,
    reason: str,
    *,
    duplicate_of: str | None = None,
    similarity: float | None = None,
) -> LedgerRow:
    return LedgerRow(
        conversation=id_,
        stage=stage,
        action=LedgerAction.DROP,
        reason=reason,
        duplicate_of=duplicate_of,
        evidence=Evidence(similarity=similarity),
    )
