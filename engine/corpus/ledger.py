"""The ledger: one row for each action of a stage on a conversation or a turn. Filters delete nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec


class Database(Protocol):
    """The part of the memory store that the corpus needs: its connection, in autocommit mode."""

    @property
    def connection(self) -> sqlite3.Connection: ...


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """Figures behind an action. Never holds the private text itself."""

    spans: list[tuple[str, int, int]] = []
    """(type, start, end), half-open, in code points of the turn."""
    score: float | None = None
    """Share of small talk of a low-value turn, 0 to 1."""
    similarity: float | None = None
    """Similarity to the duplicate: Jaccard index, or cosine for the semantic stage."""
    edit: int = 0
    """`seq` of the decision whose text the row is about; 0 for the imported text. A row about a text that is not
    in force any more is ignored."""


class LedgerRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """`turn` is -1 when the row is about the whole conversation."""

    conversation: str
    stage: str
    action: str
    reason: str
    turn: int = -1
    evidence: Evidence = Evidence()
    duplicate_of: str | None = None
    """The conversation that this one duplicates (column `twin`)."""
    time: float = 0.0


def insert(connection: sqlite3.Connection, rows: Iterable[LedgerRow], *, build: str, now: float) -> None:
    """Adds rows inside the caller's transaction."""
    connection.executemany(
        "INSERT INTO ledger (conversation_id, stage, action, reason, turn, evidence, twin, build_id, time) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                row.conversation,
                row.stage,
                row.action,
                row.reason,
                row.turn,
                msgspec.json.encode(row.evidence).decode(),
                row.duplicate_of,
                build,
                now,
            )
            for row in rows
        ],
    )


def rows_of(connection: sqlite3.Connection, ids: Sequence[str]) -> Iterator[LedgerRow]:
    """Rows of some conversations, in the order of the stages."""
    for id_, stage, action, reason, turn, evidence, twin, when in connection.execute(
        "SELECT conversation_id, stage, action, reason, turn, evidence, twin, time FROM ledger "
        "WHERE conversation_id IN (SELECT value FROM json_each(?)) ORDER BY conversation_id, rowid",
        (msgspec.json.encode(list(ids)).decode(),),
    ):
        yield LedgerRow(
            conversation=id_,
            stage=stage,
            action=action,
            reason=reason,
            turn=turn,
            evidence=msgspec.json.decode(evidence, type=Evidence),
            duplicate_of=twin,
            time=when,
        )


def placeholder(type_: str) -> str:
    """The replacement of a redacted span, e.g. ‹PHONE›."""
    return f"‹{type_}›"


def redact(text: str, spans: Iterable[tuple[str, int, int]]) -> str:
    """`text` with each (type, start, end) replaced; spans in code points, in order, without overlap."""
    parts: list[str] = []
    position = 0
    for type_, start, end in spans:
        parts += (text[position:start], placeholder(type_))
        position = end
    return "".join((*parts, text[position:]))
