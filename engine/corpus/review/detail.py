"""One conversation as the review shows it: its turns as they are trained on, and what the filters say of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from engine.corpus import ledger
from engine.corpus.enums import Action, Stage
from engine.corpus.redaction import redact
from engine.corpus.review import history
from engine.corpus.review.decision_log import Edit, about_this_text, edits, unread_turns
from engine.corpus.review.types import ReviewDetail, ReviewItem, ReviewTurn, Why

KIN = 20


def detail(connection: sqlite3.Connection, item: ReviewItem) -> ReviewDetail:
    """Turns, reasons, spans and verdicts of the conversation of `item`."""
    changes = edits(connection, [item.id]).get(item.id, {})
    rows = [row for row in ledger.rows_of(connection, [item.id]) if about_this_text(row, changes)]
    why = [
        Why(
            stage=row.stage,
            action=row.action,
            reason=row.reason,
            turn=row.turn,
            spans=row.evidence.spans,
            similarity=row.evidence.similarity,
            score=row.evidence.score,
            twin=row.twin,
        )
        for row in rows
    ]
    turns = _turns(connection, item.id, changes)
    unread = unread_turns(connection, item.id)
    why = [row for row in why if row.turn not in unread]
    why += _fresh(turns, unread)
    title = connection.execute("SELECT title FROM conversations WHERE id = ?", (item.id,)).fetchone()
    kin = connection.execute(
        "SELECT conversation_id FROM corpus WHERE cluster = ? AND conversation_id != ? ORDER BY 1 LIMIT ?",
        (item.cluster, item.id, KIN),
    ).fetchall()
    return ReviewDetail(
        item=item,
        title=title[0] if title else "",
        turns=[_marked(turn, why, unread=turn.position in unread) for turn in turns],
        why=why,
        decisions=history.of_conversation(connection, item.id),
        kin=[row[0] for row in kin],
    )


def _turns(connection: sqlite3.Connection, id_: str, changes: Mapping[int, Edit]) -> list[ReviewTurn]:
    """With the text in force: of an edited turn the person's."""
    turns = []
    for position, role, text, time in connection.execute(
        "SELECT position, role, text, time FROM turns WHERE conversation_id = ? ORDER BY position", (id_,)
    ):
        change = changes.get(position)
        now = text if change is None else change.text
        turns.append(
            ReviewTurn(
                position=position,
                role=role,
                text=now,
                redacted=now,
                spans=[],
                masked="",
                time=time,
                original=None if change is None else text,
            )
        )
    return turns


def _fresh(turns: Sequence[ReviewTurn], unread: set[int]) -> list[Why]:
    """What the filters say of turns that the last build has not seen."""
    if not unread:
        return []
    # Their patterns take longer to compile than the app to start; few conversations are edited.
    from engine.corpus.review.edited_turn import look

    found = []
    question = ""
    for turn in turns:
        if turn.position in unread:
            seen = look(turn.role, turn.text, question)
            marks: list[tuple[str, str, str, list[tuple[str, int, int]], float | None]] = []
            if seen.masked:
                marks.append((Stage.LOW_VALUE, Action.MASK, seen.masked, [], seen.score))
            if seen.spans:
                types = ", ".join(sorted({type_ for type_, _start, _end in seen.spans}))
                marks.append((Stage.SENSITIVE, Action.REDACT, types, seen.spans, None))
            if seen.markers:
                marks.append((Stage.INJECTION, Action.HOLD, "marker", seen.markers, None))
            for stage, action, reason, spans, score in marks:
                found.append(
                    Why(
                        stage=stage,
                        action=action,
                        reason=reason,
                        turn=turn.position,
                        spans=spans,
                        similarity=None,
                        score=score,
                        twin=None,
                    )
                )
        if turn.role == "user":
            question = turn.text
    return found


def _marked(turn: ReviewTurn, why: Sequence[Why], *, unread: bool) -> ReviewTurn:
    """A turn with what the filters marked in it, redacted."""
    spans = next((row.spans for row in why if row.turn == turn.position and row.action == Action.REDACT), [])
    masked = next((row.reason for row in why if row.turn == turn.position and row.action == Action.MASK), "")
    return replace(turn, spans=spans, masked=masked, redacted=redact(turn.text, spans), unread=unread)
