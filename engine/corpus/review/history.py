"""Undo and redo over the log of decisions, without limit and across restarts.

The log only grows: an undo marks the newest decision in force, and what was made together with it, as undone; a redo
takes the mark off again. A new decision ends the redo for good of what is undone when it is made.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from engine.corpus.review.decision_log import VERDICT
from engine.corpus.review.types import DECISION_COLUMNS, Decision, make_decision
from engine.memory.transactions import write_in_chunks

IN_FORCE, UNDONE, GONE = 0, 1, 2
"""Values of `decisions.undone`."""

_DECISION = f"SELECT {DECISION_COLUMNS} FROM decisions"  # noqa: S608


def undo(connection: sqlite3.Connection) -> list[Decision]:
    """Takes the last decision, or all of its batch, back; returns them, [] when nothing is left."""
    newest = connection.execute(f"{_DECISION} WHERE undone = 0 ORDER BY seq DESC LIMIT 1").fetchone()
    return _mark(connection, newest, UNDONE)


def redo(connection: sqlite3.Connection) -> list[Decision]:
    """Gives back what was undone last; [] when there is nothing, or a new decision came since."""
    oldest = connection.execute(
        f"{_DECISION} WHERE undone = 1 AND seq > (SELECT COALESCE(MAX(seq), 0) FROM decisions WHERE undone = 0) "  # noqa: S608
        "ORDER BY seq LIMIT 1"
    ).fetchone()
    return _mark(connection, oldest, IN_FORCE)


def end_redo(connection: sqlite3.Connection) -> None:
    """Forgets what could be given back: inside the transaction of a new decision."""
    newest = connection.execute("SELECT undone FROM decisions ORDER BY seq DESC LIMIT 1").fetchone()
    # What is undone stands at the end of the log, so that a look at its last row says whether there is any.
    if newest is not None and newest[0] != IN_FORCE:
        connection.execute("UPDATE decisions SET undone = ? WHERE undone = ?", (GONE, UNDONE))


def in_force(connection: sqlite3.Connection) -> int:
    """Decisions that may be undone."""
    return int(connection.execute("SELECT COUNT(*) FROM decisions WHERE undone = 0").fetchone()[0])


def of_conversation(connection: sqlite3.Connection, id_: str, limit: int = 50) -> list[Decision]:
    """The decisions in force about one conversation, newest first."""
    rows = connection.execute(
        f"{_DECISION} WHERE conversation_id = ? AND undone = 0 ORDER BY seq DESC LIMIT ?", (id_, limit)
    )
    return [make_decision(row) for row in rows]


def _mark(connection: sqlite3.Connection, row: tuple[Any, ...] | None, value: int) -> list[Decision]:
    """Marks a decision and its batch as UNDONE or IN_FORCE: the newest first when undoing, so that a process that
    dies halfway leaves a log that the next undo or redo goes on with."""
    if row is None:
        return []
    first = make_decision(row)
    rows: Iterable[tuple[Any, ...]] = [row]
    if first.batch:
        rows = connection.execute(
            f"{_DECISION} WHERE batch = ? AND undone = ? ORDER BY seq {'DESC' if value == UNDONE else 'ASC'}",
            (first.batch, UNDONE if value == IN_FORCE else IN_FORCE),
        ).fetchall()
    decisions = [make_decision(row) for row in rows]

    def write(decision: Decision) -> None:
        connection.execute("UPDATE decisions SET undone = ? WHERE seq = ?", (value, decision.seq))
        connection.execute(
            "UPDATE corpus SET state = COALESCE((SELECT verdict FROM decisions WHERE conversation_id = ? "  # noqa: S608
            f"AND undone = 0 AND {VERDICT} ORDER BY seq DESC LIMIT 1), automatic) WHERE conversation_id = ?",
            (decision.id, decision.id),
        )

    write_in_chunks(connection, decisions, write)
    return decisions
