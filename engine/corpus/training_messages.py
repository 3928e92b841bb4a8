"""Conversations as they are trained on: redacted, with the loss taken off the turns that the ledger masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256

import msgspec

from engine.core.chat import ChatMessage
from engine.corpus import ledger
from engine.corpus.enums import Action, Split
from engine.corpus.ledger import Database
from engine.corpus.redaction import redact
from engine.corpus.review.decision_log import Edit, about_this_text, edits, ever_edited, unread_turns
from engine.corpus.review.edited_turn import look

_CHUNK = 200


class Prepared(msgspec.Struct, frozen=True):
    """One conversation of the corpus. `train` of its messages says what bears the loss."""

    id: str
    cluster: str
    messages: list[ChatMessage]
    newest: float | None

    @property
    def pairs(self) -> int:
        """Answers with loss."""
        return sum(message.role == "assistant" and message.train for message in self.messages)


def prepared(store: Database, part: Split | None) -> Iterator[Prepared]:
    """The accepted conversations of one split (None: of all), by id."""
    where = "state = 'accepted'" if part is None else "state = 'accepted' AND split = ?"
    rows = store.connection.execute(
        f"SELECT conversation_id, cluster, pairs, sort_time FROM corpus WHERE {where} ORDER BY conversation_id",  # noqa: S608
        () if part is None else (part.value,),
    ).fetchall()
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        ids = [row[0] for row in chunk]
        changes = edits(store.connection, ids)
        turns = _turns(store, ids, changes)
        marks = _marks(store, ids, changes)
        for id_, (low, spans) in _unread_marks(store, turns).items():
            masked, known = marks.setdefault(id_, (set(), {}))
            masked |= low
            known.update(spans)
        for id_, cluster, pairs, newest in chunk:
            masked, spans = marks.get(id_, (set(), {}))
            yield Prepared(
                id_, cluster, _messages(turns.get(id_, []), masked if pairs else set(), spans), newest
            )


def _messages(
    turns: Sequence[tuple[int, str, str]], masked: set[int], spans: dict[int, list[tuple[str, int, int]]]
) -> list[ChatMessage]:
    """With `pairs` 0 the person restored a conversation of courtesy alone: then its answers are what is wanted."""
    return [
        ChatMessage(
            role=role,
            content=redact(text, spans[position]) if position in spans else text,
            train=role == "assistant" and position not in masked,
        )
        for position, role, text in turns
        if text.strip()
    ]


def _turns(
    store: Database, ids: list[str], changes: Mapping[str, Mapping[int, Edit]]
) -> dict[str, list[tuple[int, str, str]]]:
    turns: dict[str, list[tuple[int, str, str]]] = {}
    for id_, position, role, text in store.connection.execute(
        "SELECT conversation_id, position, role, text FROM turns "
        "WHERE conversation_id IN (SELECT value FROM json_each(?)) ORDER BY conversation_id, position",
        (msgspec.json.encode(ids).decode(),),
    ):
        change = changes.get(id_, {}).get(position)
        turns.setdefault(id_, []).append((position, role, text if change is None else change.text))
    return turns


def _unread_marks(
    store: Database, turns: Mapping[str, list[tuple[int, str, str]]]
) -> dict[str, tuple[set[int], dict[int, list[tuple[str, int, int]]]]]:
    """Masks and private spans of turns whose text changed since the last build: nothing unlooked-at reaches a
    dataset."""
    found: dict[str, tuple[set[int], dict[int, list[tuple[str, int, int]]]]] = {}
    for id_ in ever_edited(store.connection) & turns.keys():
        unread = unread_turns(store.connection, id_)
        masked, spans = found.setdefault(id_, (set(), {}))
        question = ""
        for position, role, text in turns[id_]:
            if position in unread:
                seen = look(role, text, question)
                spans[position] = seen.spans
                if seen.masked:
                    masked.add(position)
            if role == "user":
                question = text
    return found


def _marks(
    store: Database, ids: list[str], changes: Mapping[str, Mapping[int, Edit]]
) -> dict[str, tuple[set[int], dict[int, list[tuple[str, int, int]]]]]:
    """Masked turns and redacted spans of each conversation."""
    marks: dict[str, tuple[set[int], dict[int, list[tuple[str, int, int]]]]] = {}
    for row in ledger.rows_of(store.connection, ids):
        if not about_this_text(row, changes.get(row.conversation, {})):
            continue
        masked, spans = marks.setdefault(row.conversation, (set(), {}))
        if row.action == Action.MASK:
            masked.add(row.turn)
        elif row.action == Action.REDACT:
            spans[row.turn] = row.evidence.spans
    return marks


def exchange_keys(messages: Sequence[ChatMessage]) -> list[tuple[int, str]]:
    """For each answer its index and a key of what it answers and its words: equal when both stand verbatim elsewhere."""
    keys = []
    question = ""
    for index, message in enumerate(messages):
        if message.role == "user":
            question = message.content
        elif message.role == "assistant":
            digest = sha256(
                f"{question.strip()}\x1f{message.content.strip()}".encode("utf-8", "surrogatepass")
            )
            keys.append((index, digest.hexdigest()[:24]))
    return keys
