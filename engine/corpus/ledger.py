"""The ledger: one row for every decision of a stage about a conversation or a turn. Filters delete nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec


class Database(Protocol):
    """What the corpus needs of the memory store: its connection, in autocommit mode."""

    @property
    def connection(self) -> sqlite3.Connection: ...


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why, in figures. Never the private text itself."""

    spans: list[tuple[str, int, int]] = []
    """(type, start, end) in code points of the turn."""
    score: float | None = None
    """Of a low-value turn: 1.0 is courtesy alone."""
    similarity: float | None = None
    """Jaccard index with the twin."""
    edit: int = 0
    """Number of the decision whose text the row is about; 0: of the text as it came. A row about a text that is
    no longer the one in force says nothing."""


class LedgerRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """`turn` is -1 when the row is about the whole conversation."""

    conversation: str
    stage: str
    action: str
    reason: str
    turn: int = -1
    evidence: Evidence = Evidence()
    twin: str | None = None
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
                row.twin,
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
            twin=twin,
            time=when,
        )
