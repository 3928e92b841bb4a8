"""Build stages that depend on the user: rules, and conversations that grew since the user decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.corpus import ledger
from engine.corpus.enums import CorpusStage, LedgerAction, ReviewState
from engine.corpus.filters.run import CorpusEntry
from engine.corpus.ledger import Database, LedgerRow
from engine.corpus.review.decision_log import active_rules
from engine.corpus.review.filter_query import parse_filter
from engine.memory.transactions import write_in_chunks


def apply_rules(store: Database, decided: Mapping[str, str], *, build: str, now: float) -> int:
    """Drops the matches of the user's rules, except conversations that the user decided; returns how many."""
    connection = store.connection
    dropped: set[str] = set()
    for line in active_rules(connection):
        where = parse_filter(line)
        found = connection.execute(
            "SELECT k.conversation_id FROM corpus k JOIN conversations c ON c.id = k.conversation_id "  # noqa: S608
            f"WHERE {where.sql} AND k.automatic != ?",
            (*where.values, ReviewState.DROPPED),
        ).fetchall()
        dropped |= {id_ for (id_,) in found if id_ not in decided}

    def drop(id_: str) -> None:
        row = LedgerRow(conversation=id_, stage=CorpusStage.RULE, action=LedgerAction.DROP, reason="rule")
        ledger.insert(connection, [row], build=build, now=now)
        connection.execute(
            # NULL: the row is not the output of the stages any more, so the next build rewrites it.
            "UPDATE corpus SET state = ?, automatic = ?, stage = ?, reason = 'rule', made_of = NULL "
            "WHERE conversation_id = ?",
            (ReviewState.DROPPED, ReviewState.DROPPED, CorpusStage.RULE, id_),
        )

    write_in_chunks(connection, sorted(dropped), drop)
    return len(dropped)


def flag_changed_since_review(
    entries: Sequence[CorpusEntry], before: Mapping[str, str], decided: Mapping[str, str], *, review: str
) -> None:
    """Holds conversations that grew since the user decided: the earlier decision does not cover the new turns.

    A longer form of a rejected conversation is held. One of an accepted conversation is held when a filter would drop
    it or when everything is reviewed. Edits carry over by themselves (`decision_log.edits_in_force`).

    Args:
        before: the state decided for the shorter form, by the id of the longer form.
        decided: the state decided for the conversation itself; those are left alone.
        review: the setting, "manual" when everything waits for review.
    """
    for entry in entries:
        state = None if entry.id in decided else before.get(entry.id)
        if state == ReviewState.REJECTED:
            _hold(entry, "rejected_before")
        elif state == ReviewState.ACCEPTED and (entry.dropped is not None or review == "manual"):
            entry.dropped = None
            _hold(entry, "accepted_before")


def _hold(entry: CorpusEntry, reason: str) -> None:
    row = LedgerRow(conversation=entry.id, stage=CorpusStage.REVIEW, action=LedgerAction.HOLD, reason=reason)
    entry.rows.append(row)
    entry.held = row
