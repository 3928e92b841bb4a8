"""The log of the user's decisions: states, edits of turns, flags and rules, with undo and redo.

Rows are only ever added and marked as undone. One log holds all kinds, so that undo takes back whatever came last,
without limit and across restarts. Writes take transactions of a few milliseconds, are durable when the call returns,
and raise `sqlite3.OperationalError` when the database cannot be written. Light: the app imports it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.corpus.enums import ReviewState
from engine.corpus.ledger import LedgerRow
from engine.corpus.review.types import DECISION_COLUMNS, ReviewDecision, make_decision
from engine.memory.records import Conversation, replace_surrogates
from engine.memory.transactions import write_in_chunks


class DecisionKind(StrEnum):
    """Decisions that do not set a state; they share the column `verdict` with the states."""

    EDITED = "edited"
    """`text` replaces turn `turn`."""
    FLAGGED = "flagged"
    UNFLAGGED = "unflagged"
    RULE = "rule"
    """`text` is a filter line whose matches every build drops. Without a conversation."""
    NO_RULE = "no_rule"
    """Ends a rule."""


class TurnEdit(NamedTuple):
    """The user's text of a turn; `seq` is its decision."""

    seq: int
    text: str


STATES = (ReviewState.ACCEPTED, ReviewState.REJECTED, ReviewState.PENDING)
"""States that a decision may set."""
_SETS_STATE = "verdict IN ('accepted', 'rejected', 'pending')"
_DECISION = f"SELECT {DECISION_COLUMNS} FROM decisions"  # noqa: S608
_IN_FORCE, _UNDONE, _DISCARDED = 0, 1, 2
"""Values of `decisions.undone`."""


# Reading


def decided_states(connection: sqlite3.Connection, ids: Sequence[str] | None = None) -> dict[str, str]:
    """The state that the user decided, for each conversation that has one (or for those among `ids`)."""
    # SQLite returns the bare columns of the row that holds the maximum.
    query = f"SELECT conversation_id, verdict, MAX(seq) FROM decisions WHERE undone = 0 AND {_SETS_STATE}"  # noqa: S608
    if ids is None:
        rows = connection.execute(query + " GROUP BY conversation_id")
    else:
        rows = connection.execute(
            query + " AND conversation_id IN (SELECT value FROM json_each(?)) GROUP BY conversation_id",  # noqa: S608
            (_json(ids),),
        )
    return {id_: verdict for id_, verdict, _seq in rows}


_LONGER_FORMS = (
    "WITH RECURSIVE forms(id, form) AS ({first} UNION SELECT f.id, c.superseded_by FROM forms f "
    "JOIN conversations c ON c.id = f.form WHERE c.superseded_by IS NOT NULL) "
)
"""(id, form): each conversation of `first` with each longer form of it."""
_SHORTER_FORMS = (
    "WITH RECURSIVE forms(id, form) AS (SELECT value, value FROM json_each(?) UNION SELECT c.id, f.form FROM forms f "
    "JOIN conversations c ON c.superseded_by = f.id) "
)
"""(id, form): each conversation of a JSON list, as `form`, with itself and each shorter form of it."""
_EDITED_IDS = "SELECT conversation_id, conversation_id FROM decisions WHERE verdict = 'edited'"
_SUPERSEDED_IDS = "SELECT id, superseded_by FROM conversations WHERE superseded_by IS NOT NULL"
_DECISIONS_OF_FORMS = "FROM forms f JOIN decisions d ON d.conversation_id = f.id "
_EDITS = (
    f"{_DECISIONS_OF_FORMS}LEFT JOIN turns t ON t.conversation_id = f.id AND t.position = d.turn "
    "LEFT JOIN turns n ON n.conversation_id = f.form AND n.position = d.turn "
    "WHERE d.verdict = 'edited' AND (f.id = f.form OR (t.text = n.text AND t.role = n.role)) "
)
_EDITS_IN_FORCE = (
    f"SELECT f.form, d.turn, MAX(d.seq), d.text {_EDITS} AND d.undone = 0 GROUP BY f.form, d.turn"
)
EDITS_SQL = _LONGER_FORMS.format(first=_EDITED_IDS) + (
    f"SELECT f.form AS id, d.turn AS turn, d.text AS text, MAX(d.seq) {_EDITS} AND d.undone = 0 GROUP BY f.form, d.turn"
)
"""(id, turn, text) of every edit in force, for a subquery."""
_EVER_EDITED = _LONGER_FORMS.format(first=_EDITED_IDS) + "SELECT DISTINCT form FROM forms"  # noqa: S608


def edits_in_force(
    connection: sqlite3.Connection, ids: Sequence[str] | None = None
) -> dict[str, dict[int, TurnEdit]]:
    """The edit in force of each edited turn, by conversation and position.

    A conversation that grew inherits the edits of its shorter forms where the imported turn is unchanged.
    """
    values: tuple[str, ...] = ()
    if ids is None:
        forms = _LONGER_FORMS.format(first=_EDITED_IDS)
    else:
        forms = _SHORTER_FORMS
        values = (_json(ids),)
    found: dict[str, dict[int, TurnEdit]] = {}
    for id_, turn, seq, text in connection.execute(forms + _EDITS_IN_FORCE, values):
        found.setdefault(id_, {})[turn] = TurnEdit(seq, text)
    return found


def states_of_shorter_forms(connection: sqlite3.Connection) -> dict[str, str]:
    """The last state decided for a shorter form of each conversation that grew, by the id of the longer form."""
    rows = connection.execute(
        _LONGER_FORMS.format(first=_SUPERSEDED_IDS)
        + f"SELECT f.form, d.verdict, MAX(d.seq) {_DECISIONS_OF_FORMS}WHERE d.undone = 0 AND {_SETS_STATE} GROUP BY f.form"
    )
    return {id_: verdict for id_, verdict, _seq in rows}


def ever_edited(connection: sqlite3.Connection) -> set[str]:
    """Conversations with a turn that is or was edited, in them or in a shorter form of them."""
    rows = connection.execute(_EVER_EDITED)
    return {id_ for (id_,) in rows}


def turns_changed_since_build(connection: sqlite3.Connection, id_: str) -> set[int]:
    """Turns whose text in force is not the one that the last build filtered."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'corpus_edits'").fetchone()
    built = set(msgspec.json.decode(row[0], type=list[int])) if row else set()
    now = {position: edit.seq for position, edit in edits_in_force(connection, [id_]).get(id_, {}).items()}
    then = {
        turn: seq
        for seq, turn in connection.execute(
            f"{_SHORTER_FORMS}SELECT d.seq, d.turn {_EDITS} ORDER BY d.seq", (_json([id_]),)
        )
        if seq in built
    }
    return {turn for turn in now.keys() | then.keys() if now.get(turn, 0) != then.get(turn, 0)}


def describes_current_text(row: LedgerRow, edits: Mapping[int, TurnEdit]) -> bool:
    """Whether a ledger row is about the text in force."""
    return row.turn < 0 or row.evidence.edit == (edits[row.turn].seq if row.turn in edits else 0)


def apply_edits(conversation: Conversation, edits: Mapping[int, TurnEdit]) -> Conversation:
    """A conversation with the text in force; its id stays."""
    turns = tuple(
        msgspec.structs.replace(turn, text=edits[position].text) if position in edits else turn
        for position, turn in enumerate(conversation.turns)
    )
    return msgspec.structs.replace(conversation, turns=turns)


def fingerprint(connection: sqlite3.Connection) -> tuple[int, str]:
    """The number of decisions in force, and the sha256 of them in order."""
    digest = sha256()
    count = 0
    for row in connection.execute(
        "SELECT conversation_id, verdict, turn, text, reason FROM decisions WHERE undone = 0 ORDER BY seq"
    ):
        digest.update(msgspec.json.encode(row) + b"\n")
        count += 1
    return count, digest.hexdigest()


def active_rules(connection: sqlite3.Connection) -> list[str]:
    """The filter lines whose matches are dropped, oldest first."""
    found: dict[str, None] = {}
    for verdict, line in connection.execute(
        "SELECT verdict, text FROM decisions WHERE undone = 0 AND verdict IN ('rule', 'no_rule') ORDER BY seq"
    ):
        if verdict == DecisionKind.RULE:
            found[line] = None
        else:
            found.pop(line, None)
    return list(found)


def decisions_of(connection: sqlite3.Connection, id_: str, limit: int = 50) -> list[ReviewDecision]:
    """The decisions in force on one conversation, newest first."""
    rows = connection.execute(
        f"{_DECISION} WHERE conversation_id = ? AND undone = 0 ORDER BY seq DESC LIMIT ?", (id_, limit)
    )
    return [make_decision(row) for row in rows]


def count_in_force(connection: sqlite3.Connection) -> int:
    """The number of decisions that can be undone."""
    return int(connection.execute("SELECT COUNT(*) FROM decisions WHERE undone = 0").fetchone()[0])


# Writing


def decide(
    connection: sqlite3.Connection,
    ids: Sequence[str],
    state: str,
    reason: str = "",
    *,
    together: bool = False,
    now: float | None = None,
) -> list[ReviewDecision]:
    """Sets the state of each of `ids` that is in the corpus; `together` makes them one undo step.

    Raises BadInput for a state that cannot be set.
    """
    if state not in STATES:
        raise BadInput(
            _("{verdict} is not a decision: accepted, rejected or pending").format(verdict=state),
            hint="h2q-tui corpus --help",
        )
    batch = _next_batch(connection) if together else 0
    return _write(connection, ids, state, replace_surrogates(reason), batch=batch, now=now)


def flag(
    connection: sqlite3.Connection, ids: Sequence[str], on: bool, *, now: float | None = None
) -> list[ReviewDecision]:
    """Flags each of `ids`, or removes the flags, as one undo step."""
    kind = DecisionKind.FLAGGED if on else DecisionKind.UNFLAGGED
    return _write(connection, ids, kind, "", batch=_next_batch(connection), now=now)


def edit(
    connection: sqlite3.Connection, id_: str, turn: int, text: str, *, now: float | None = None
) -> list[ReviewDecision]:
    """Replaces the text of a turn (by position, from 0). Raises BadInput for an empty text."""
    text = replace_surrogates(text)
    if not text.strip():
        raise BadInput(_("a turn cannot be empty"), hint=f"h2q-tui corpus reject {id_[:12]}")
    return _write(connection, [id_], DecisionKind.EDITED, "", batch=0, now=now, turn=turn, text=text)


def set_rule(
    connection: sqlite3.Connection,
    line: str,
    on: bool,
    rejected: Sequence[str],
    *,
    now: float | None = None,
) -> list[ReviewDecision]:
    """Adds or ends a rule, and rejects `rejected`, as one undo step. Raises BadInput for an empty line."""
    if not line.strip():
        raise BadInput(_("a rule needs a filter"), hint="h2q-tui corpus rule --help")
    batch = _next_batch(connection)
    written: list[ReviewDecision] = []

    def write(kind: DecisionKind) -> None:
        _discard_undone(connection)
        row = connection.execute(
            f"INSERT INTO decisions (conversation_id, verdict, previous, time, batch, text) "  # noqa: S608
            f"VALUES ('', ?, '', ?, ?, ?) RETURNING {DECISION_COLUMNS}",
            (kind, time.time() if now is None else now, batch, line.strip()),
        ).fetchone()
        written.append(make_decision(row))

    write_in_chunks(connection, [DecisionKind.RULE if on else DecisionKind.NO_RULE], write)
    return written + _write(connection, rejected, ReviewState.REJECTED, "rule", batch=batch, now=now)


def _next_batch(connection: sqlite3.Connection) -> int:
    """A number for decisions that are undone together."""
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
) -> list[ReviewDecision]:
    written: list[ReviewDecision] = []
    when = time.time() if now is None else now

    def write(id_: str) -> None:
        _discard_undone(connection)
        row = connection.execute(
            "INSERT INTO decisions (conversation_id, verdict, previous, reason, time, batch, turn, text) "  # noqa: S608
            "SELECT conversation_id, ?, state, ?, ?, ?, ?, ? FROM corpus WHERE conversation_id = ? "
            f"RETURNING {DECISION_COLUMNS}",
            (verdict, reason, when, batch, turn, text, id_),
        ).fetchone()
        if row is None:
            return
        if verdict in STATES:
            connection.execute("UPDATE corpus SET state = ? WHERE conversation_id = ?", (verdict, id_))
        written.append(make_decision(row))

    write_in_chunks(connection, ids, write)
    return written


# Undo and redo


def undo(connection: sqlite3.Connection) -> list[ReviewDecision]:
    """Undoes the last decision with its batch; returns them, [] when there is nothing to undo."""
    newest = connection.execute(f"{_DECISION} WHERE undone = 0 ORDER BY seq DESC LIMIT 1").fetchone()
    return _mark(connection, newest, _UNDONE)


def redo(connection: sqlite3.Connection) -> list[ReviewDecision]:
    """Restores what was undone last; [] when there is nothing, or a new decision came since."""
    oldest = connection.execute(
        f"{_DECISION} WHERE undone = 1 AND seq > (SELECT COALESCE(MAX(seq), 0) FROM decisions WHERE undone = 0) "  # noqa: S608
        "ORDER BY seq LIMIT 1"
    ).fetchone()
    return _mark(connection, oldest, _IN_FORCE)


def _discard_undone(connection: sqlite3.Connection) -> None:
    """Ends redo of what is undone: called in the transaction of a new decision."""
    newest = connection.execute("SELECT undone FROM decisions ORDER BY seq DESC LIMIT 1").fetchone()
    # Undone decisions are at the end of the log, so the last row shows whether there are any.
    if newest is not None and newest[0] != _IN_FORCE:
        connection.execute("UPDATE decisions SET undone = ? WHERE undone = ?", (_DISCARDED, _UNDONE))


def _mark(connection: sqlite3.Connection, row: tuple[Any, ...] | None, value: int) -> list[ReviewDecision]:
    """Marks a decision and its batch as undone or in force.

    Undo goes from the newest, so that after a crash halfway the next undo or redo continues.
    """
    if row is None:
        return []
    first = make_decision(row)
    rows: Iterable[tuple[Any, ...]] = [row]
    if first.batch:
        rows = connection.execute(
            f"{_DECISION} WHERE batch = ? AND undone = ? ORDER BY seq {'DESC' if value == _UNDONE else 'ASC'}",
            (first.batch, _UNDONE if value == _IN_FORCE else _IN_FORCE),
        ).fetchall()
    decisions = [make_decision(row) for row in rows]

    def write(decision: ReviewDecision) -> None:
        connection.execute("UPDATE decisions SET undone = ? WHERE seq = ?", (value, decision.seq))
        connection.execute(
            "UPDATE corpus SET state = COALESCE((SELECT verdict FROM decisions WHERE conversation_id = ? "  # noqa: S608
            f"AND undone = 0 AND {_SETS_STATE} ORDER BY seq DESC LIMIT 1), automatic) WHERE conversation_id = ?",
            (decision.id, decision.id),
        )

    write_in_chunks(connection, decisions, write)
    return decisions


def _json(ids: Sequence[str]) -> str:
    return msgspec.json.encode(list(ids)).decode()
