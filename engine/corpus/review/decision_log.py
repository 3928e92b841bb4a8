"""What the person decided: rows that are only ever added and marked as undone. Light: the app imports it.

One log holds verdicts, edits of turns, flags and rules, so that one undo takes back whatever came last.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

import msgspec

from engine.corpus.ledger import LedgerRow
from engine.memory.records import Conversation


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
    """The edit in force of each edited turn, by conversation and position.

    A conversation that grew keeps the edits of its shorter forms where the turn came as it was.
    """
    values: tuple[str, ...] = ()
    if ids is None:
        forms = _LONGER_FORMS.format(first=_EDITED)
    else:
        forms = _SHORTER_FORMS
        values = (msgspec.json.encode(list(ids)).decode(),)
    found: dict[str, dict[int, Edit]] = {}
    for id_, turn, seq, text in connection.execute(forms + _EDITS_IN_FORCE, values):
        found.setdefault(id_, {})[turn] = Edit(seq, text)
    return found


_LONGER_FORMS = (
    "WITH RECURSIVE forms(id, form) AS ({first} UNION SELECT f.id, c.superseded_by FROM forms f "
    "JOIN conversations c ON c.id = f.form WHERE c.superseded_by IS NOT NULL) "
)
"""(id, form): each conversation of `first` with each longer form of it."""
_SHORTER_FORMS = (
    "WITH RECURSIVE forms(id, form) AS (SELECT value, value FROM json_each(?) UNION SELECT c.id, f.form FROM forms f "
    "JOIN conversations c ON c.superseded_by = f.id) "
)
"""(id, form): each conversation of a JSON list, as `form`, with each shorter form of it and itself."""


_EDITED = "SELECT conversation_id, conversation_id FROM decisions WHERE verdict = 'edited'"
_GREW = "SELECT id, superseded_by FROM conversations WHERE superseded_by IS NOT NULL"
_ALL_FORMS = "SELECT DISTINCT form FROM forms"
_OF_FORMS = "FROM forms f JOIN decisions d ON d.conversation_id = f.id "
_EDITS = (
    f"{_OF_FORMS}LEFT JOIN turns t ON t.conversation_id = f.id AND t.position = d.turn "
    "LEFT JOIN turns n ON n.conversation_id = f.form AND n.position = d.turn "
    "WHERE d.verdict = 'edited' AND (f.id = f.form OR (t.text = n.text AND t.role = n.role)) "
)
_EDITS_IN_FORCE = (
    f"SELECT f.form, d.turn, MAX(d.seq), d.text {_EDITS} AND d.undone = 0 GROUP BY f.form, d.turn"
)
EDITS_SQL = _LONGER_FORMS.format(first=_EDITED) + (
    f"SELECT f.form AS id, d.turn AS turn, d.text AS text, MAX(d.seq) {_EDITS} AND d.undone = 0 GROUP BY f.form, d.turn"
)
"""(id, turn, text) of every edit in force, for a subquery."""
_EVER_EDITED = f"SELECT d.seq, d.turn {_EDITS} ORDER BY d.seq"
_VERDICTS = (
    f"SELECT f.form, d.verdict, MAX(d.seq) {_OF_FORMS}WHERE d.undone = 0 AND {VERDICT} GROUP BY f.form"
)


def of_shorter_forms(connection: sqlite3.Connection) -> dict[str, str]:
    """The last verdict in force about a shorter form of each conversation that grew, by the id of the longer one."""
    rows = connection.execute(_LONGER_FORMS.format(first=_GREW) + _VERDICTS)
    return {id_: verdict for id_, verdict, _seq in rows}


def ever_edited(connection: sqlite3.Connection) -> set[str]:
    """Conversations with a turn that is or was written anew, in them or in a shorter form of them."""
    rows = connection.execute(_LONGER_FORMS.format(first=_EDITED) + _ALL_FORMS)
    return {id_ for (id_,) in rows}


def unread_turns(connection: sqlite3.Connection, id_: str) -> set[int]:
    """Turns whose text in force is not the one that the last build looked at."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'corpus_edits'").fetchone()
    read = set(msgspec.json.decode(row[0], type=list[int])) if row else set()
    now = {position: change.seq for position, change in edits(connection, [id_]).get(id_, {}).items()}
    then = {
        turn: seq
        for seq, turn in connection.execute(
            _SHORTER_FORMS + _EVER_EDITED,
            (msgspec.json.encode([id_]).decode(),),
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


def fingerprint(connection: sqlite3.Connection) -> tuple[int, str]:
    """How many decisions are in force, and a sha256 that tells them and their order apart from any others."""
    digest = sha256()
    count = 0
    for row in connection.execute(
        "SELECT conversation_id, verdict, turn, text, reason FROM decisions WHERE undone = 0 ORDER BY seq"
    ):
        digest.update(msgspec.json.encode(row) + b"\n")
        count += 1
    return count, digest.hexdigest()


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
