"""Writes the person's decisions: verdicts, edits of turns, flags and rules, in transactions of a few milliseconds.

Each is durable when the call returns. Raises `sqlite3.OperationalError` when the database cannot be written.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.corpus.enums import State
from engine.corpus.review import history
from engine.corpus.review.decision_log import Mark
from engine.corpus.review.types import DECISION_COLUMNS, Decision, make_decision
from engine.memory.records import replace_surrogates
from engine.memory.transactions import write_in_chunks

VERDICTS = (State.ACCEPTED, State.REJECTED, State.PENDING)


def decide(
    connection: sqlite3.Connection,
    ids: Sequence[str],
    verdict: str,
    reason: str = "",
    *,
    together: bool = False,
    now: float | None = None,
) -> list[Decision]:
    """One verdict for each of `ids` that the corpus has; `together` makes one step of them for the undo.

    Raises BadInput for what is no verdict.
    """
    if verdict not in VERDICTS:
        raise BadInput(
            _("{verdict} is no verdict: accepted, rejected or pending").format(verdict=verdict),
            hint="h2q-tui corpus --help",
        )
    batch = next_batch(connection) if together else 0
    return _write(connection, ids, verdict, replace_surrogates(reason), batch=batch, now=now)


def flag(
    connection: sqlite3.Connection, ids: Sequence[str], on: bool, *, now: float | None = None
) -> list[Decision]:
    """Marks each of `ids` for later, or takes the mark off, as one step."""
    verdict = Mark.FLAGGED if on else Mark.UNFLAGGED
    return _write(connection, ids, verdict, "", batch=next_batch(connection), now=now)


def edit(
    connection: sqlite3.Connection, id_: str, turn: int, text: str, *, now: float | None = None
) -> list[Decision]:
    """Lets `text` stand for a turn (by position, from 0). Raises BadInput for an empty text."""
    text = replace_surrogates(text)
    if not text.strip():
        raise BadInput(_("a turn cannot be edited to nothing"), hint=f"h2q-tui corpus reject {id_[:12]}")
    return _write(connection, [id_], Mark.EDITED, "", batch=0, now=now, turn=turn, text=text)


def set_rule(
    connection: sqlite3.Connection,
    line: str,
    on: bool,
    rejected: Sequence[str],
    *,
    now: float | None = None,
) -> list[Decision]:
    """Writes a rule, or its end, and rejects `rejected` by it: one step. Raises BadInput for an empty line."""
    if not line.strip():
        raise BadInput(_("a rule needs a filter"), hint="h2q-tui corpus rule --help")
    batch = next_batch(connection)
    made: list[Decision] = []

    def write(verdict: Mark) -> None:
        history.end_redo(connection)
        row = connection.execute(
            f"INSERT INTO decisions (conversation_id, verdict, previous, time, batch, text) "  # noqa: S608
            f"VALUES ('', ?, '', ?, ?, ?) RETURNING {DECISION_COLUMNS}",
            (verdict, time.time() if now is None else now, batch, line.strip()),
        ).fetchone()
        made.append(make_decision(row))

    write_in_chunks(connection, [Mark.RULE if on else Mark.NO_RULE], write)
    return made + _write(connection, rejected, State.REJECTED, "rule", batch=batch, now=now)


def next_batch(connection: sqlite3.Connection) -> int:
    """A number for decisions that are made together."""
    return int(connection.execute("SELECT COALESCE(MAX(seq), 0) FROM decisions").fetchone()[0]) + 1


def _write(
    connection: sqlite3.Connection,
    ids: Sequence[str],
    verdict: str,
    reason: str,
    *,
    batch: int,
    now: float | None,
    turn: int = -1,
    text: str = "",
) -> list[Decision]:
    made: list[Decision] = []
    when = time.time() if now is None else now

    def write(id_: str) -> None:
        history.end_redo(connection)
        row = connection.execute(
            "INSERT INTO decisions (conversation_id, verdict, previous, reason, time, batch, turn, text) "  # noqa: S608
            "SELECT conversation_id, ?, state, ?, ?, ?, ?, ? FROM corpus WHERE conversation_id = ? "
            f"RETURNING {DECISION_COLUMNS}",
            (verdict, reason, when, batch, turn, text, id_),
        ).fetchone()
        if row is None:
            return
        if verdict in VERDICTS:
            connection.execute("UPDATE corpus SET state = ? WHERE conversation_id = ?", (verdict, id_))
        made.append(make_decision(row))

    write_in_chunks(connection, ids, write)
    return made
