"""Rules of the person's own: filter lines whose conversations a build leaves out."""

from __future__ import annotations

from collections.abc import Mapping

from engine.corpus import ledger
from engine.corpus.enums import Action, Stage, State
from engine.corpus.ledger import Database, LedgerRow
from engine.corpus.review.decision_log import rules
from engine.corpus.review.filter_query import parse
from engine.memory.transactions import write_in_chunks


def apply_rules(store: Database, decided: Mapping[str, str], *, build: str, now: float) -> int:
    """Drops what stands under a rule and bears no verdict of the person; returns how many."""
    connection = store.connection
    dropped: set[str] = set()
    for line in rules(connection):
        where = parse(line)
        found = connection.execute(
            "SELECT k.conversation_id FROM corpus k JOIN conversations c ON c.id = k.conversation_id "  # noqa: S608
            f"WHERE {where.sql} AND k.automatic != ?",
            (*where.values, State.DROPPED),
        ).fetchall()
        dropped |= {id_ for (id_,) in found if id_ not in decided}

    def drop(id_: str) -> None:
        row = LedgerRow(conversation=id_, stage=Stage.RULE, action=Action.DROP, reason="rule")
        ledger.insert(connection, [row], build=build, now=now)
        connection.execute(
            # What stands there is no longer what the stages made: the next build writes it anew.
            "UPDATE corpus SET state = ?, automatic = ?, stage = ?, reason = 'rule', made_of = NULL "
            "WHERE conversation_id = ?",
            (State.DROPPED, State.DROPPED, Stage.RULE, id_),
        )

    write_in_chunks(connection, sorted(dropped), drop)
    return len(dropped)
