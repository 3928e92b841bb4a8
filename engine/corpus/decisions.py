"""What the person decided: rows that are only ever added and marked as undone. Light: the app imports it.

One log holds verdicts, edits of turns, flags and rules, so that one undo takes back whatever came last.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

from engine.corpus.ledger import LedgerRow
from engine.memory.points import Conversation


class Mark(StrEnum):
    """Decisions that leave the state of a conversation as it is; they share the column of the verdicts."""

    EDITED = "edited"
    """`text` stands for turn `turn`."""
    FLAGGED = "flagged"
    UNFLAGGED = "unflagged"
    RULE = "rule"
    """`text` is a filter line: what stands under it is left out of every build. Without a conversation."""
    NO_RULE = "no_rule"
    """Takes a rule back."""


VERDICT = "verdict IN ('accepted', 'rejected', 'pending')"
"""Condition of the rows that set a state."""


class Edit(NamedTuple):
    """What stands for the text of a turn; `seq` is the decision that says so."""

    seq: int
    text: str


def verdicts(connection: sqlite3.Connection, ids: Sequence[str] | None = None) -> dict[str, str]:
    """The verdict in force for each conversation that has one (or for each of `ids`)."""
    # SQLite gives the bare columns of the row that holds the maximum.
    query = f"SELECT conversation_id, verdict, MAX(seq) FROM decisions WHERE undone = 0 AND {VERDICT}"  # noqa: S608
    if ids is None:
        rows = connection.execute(query + " GROUP BY conversation_id")
    else:
        rows = connection.execute(
            query + " AND conversation_id IN (SELECT value FROM json_each(?)) GROUP BY conversation_id",  # noqa: S608
            (msgspec.json.encode(list(ids)).decode(),),
        )
    return {id_: verdict for id_, verdict, _ in rows}


def edits(connection: sqlite3.Connection, ids: Sequence[str] | None = None) -> dict[str, dict[int, Edit]]:
    """The edit in force of each edited turn, by conversation and position."""
    query = (
        "SELECT conversation_id, turn, MAX(seq), text FROM decisions WHERE undone = 0 AND verdict = 'edited'"
    )
    values: tuple[str, ...] = ()
    if ids is not None:
        query += " AND conversation_id IN (SELECT value FROM json_each(?))"
        values = (msgspec.json.encode(list(ids)).decode(),)
    found: dict[str, dict[int, Edit]] = {}
    for id_, turn, seq, text in connection.execute(query + " GROUP BY conversation_id, turn", values):
        found.setdefault(id_, {})[turn] = Edit(seq, text)
    return found


def ever_edited(connection: sqlite3.Connection) -> set[str]:
    """Conversations with a turn that is or was written anew."""
    rows = connection.execute("SELECT DISTINCT conversation_id FROM decisions WHERE verdict = 'edited'")
    return {id_ for (id_,) in rows}


def unread_turns(connection: sqlite3.Connection, id_: str) -> set[int]:
    """Turns whose text in force is not the one that the last build looked at."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'corpus_edits'").fetchone()
    read = set(msgspec.json.decode(row[0], type=list[int])) if row else set()
    now = {position: change.seq for position, change in edits(connection, [id_]).get(id_, {}).items()}
    then = {
        turn: seq
        for seq, turn in connection.execute(
            "SELECT seq, turn FROM decisions WHERE conversation_id = ? AND verdict = 'edited'", (id_,)
        )
        if seq in read
    }
    return {turn for turn in now.keys() | then.keys() if now.get(turn, 0) != then.get(turn, 0)}


def about_this_text(row: LedgerRow, changes: Mapping[int, Edit]) -> bool:
    """Whether a row of the ledger is about the text in force."""
    return row.turn < 0 or row.evidence.edit == (changes[row.turn].seq if row.turn in changes else 0)


def edited(conversation: Conversation, changes: Mapping[int, Edit]) -> Conversation:
    """A conversation as the person wants it; its id stays that of memory."""
    turns = tuple(
        msgspec.structs.replace(turn, text=changes[position].text) if position in changes else turn
        for position, turn in enumerate(conversation.turns)
    )
    return msgspec.structs.replace(conversation, turns=turns)


def rules(connection: sqlite3.Connection) -> list[str]:
    """The filter lines whose conversations are left out, oldest first."""
    found: dict[str, None] = {}
    for verdict, line in connection.execute(
        "SELECT verdict, text FROM decisions WHERE undone = 0 AND verdict IN ('rule', 'no_rule') ORDER BY seq"
    ):
        if verdict == Mark.RULE:
            found[line] = None
        else:
            found.pop(line, None)
    return list(found)
