"""What other settings for low value and private data would change, before they are saved: the build's own filters on
the conversations that they may concern."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from engine.core.config import Settings
from engine.corpus.enums import Action, Stage, State
from engine.corpus.filters.cache import ConversationStore
from engine.corpus.filters.pool import assess_each, filters_of, helpers_for
from engine.corpus.filters.result import Item
from engine.corpus.filters.run import Facts
from engine.corpus.filters.worker import Work
from engine.corpus.review.decision_log import edits, verdicts
from engine.corpus.what_if import SHOWN, Outcome

_READ = 500


class _Now(NamedTuple):
    automatic: str
    stage: str
    line: str


def outcome_of(store: ConversationStore, stage: Stage, then: Settings) -> Outcome:
    """Compares what a build with `then` would leave out at `stage` with what the last build did; writes nothing.

    Counts conversations, and turns that bear no loss or in which something is replaced.
    """
    connection = store.connection
    now = {
        id_: _Now(automatic, at, line)
        for id_, automatic, at, line in connection.execute(
            "SELECT conversation_id, automatic, stage, first_line FROM corpus ORDER BY conversation_id"
        )
    }
    action = Action.MASK if stage == Stage.LOW_VALUE else Action.REDACT
    turns_now = connection.execute(
        "SELECT COUNT(*) FROM ledger WHERE stage = ? AND action = ?", (stage, action)
    ).fetchone()[0]
    out_now = {id_ for id_, row in now.items() if row.automatic == State.DROPPED and row.stage == stage}
    out_then: set[str] = set()
    turns_then = 0
    changes = edits(connection)
    ids = list(now)
    works = (
        Work(talk, dict(changes.get(talk.id, {})))
        for start in range(0, len(ids), _READ)
        for talk in store.by_ids(ids[start : start + _READ])
    )
    for batch in assess_each(works, filters_of(then), helpers=helpers_for(len(ids))):
        for answer in batch:
            facts = msgspec.msgpack.decode(answer.facts, type=Facts)
            turns_then += sum(row.stage == stage and row.action == action for row in facts.rows)
            dropped = msgspec.msgpack.decode(answer.item, type=Item).dropped
            if dropped is not None and dropped.stage == stage:
                out_then.add(answer.id)
    decided = verdicts(connection)
    leave = sorted(id_ for id_ in out_then - out_now if id_ not in decided)
    back = sorted(id_ for id_ in out_now - out_then if id_ not in decided)
    return Outcome(
        now=len(out_now),
        then=len(out_then),
        leave=len(leave),
        back=len(back),
        leaving=[now[id_].line for id_ in leave[:SHOWN]],
        returning=[now[id_].line for id_ in back[:SHOWN]],
        turns_now=turns_now,
        turns_then=turns_then,
    )
