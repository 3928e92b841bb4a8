"""What another threshold for near duplicates would change, before it is saved: the build's own rule on its own rows."""

from __future__ import annotations

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.corpus.dedup.drop import drop_exact, drop_near, near_twins
from engine.corpus.enums import Stage, State
from engine.corpus.filters.cache import load
from engine.corpus.ledger import Database
from engine.corpus.review.decision_log import verdicts

SHOWN = 8


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """In conversations; at the stage that the setting concerns."""

    threshold: float | None = None
    """Of near duplicates; None for another setting."""
    now: int
    """Left out today."""
    then: int
    leave: int
    """In the corpus today, and left out then."""
    back: int
    """The other way round."""
    leaving: list[str]
    """First lines of some of them."""
    returning: list[str]
    turns_now: int = 0
    """Turns in which something is masked or replaced today."""
    turns_then: int = 0


def outcome(store: Database, threshold: float) -> Outcome:
    """Compares the near duplicates at `threshold` with those of the last build; writes nothing.

    Raises BadInput when an earlier version built the corpus.
    """
    connection = store.connection
    facts = {
        id_: (automatic, stage, line)
        for id_, automatic, stage, line in connection.execute(
            "SELECT conversation_id, automatic, stage, first_line FROM corpus ORDER BY conversation_id"
        )
    }
    known = load(connection, dict.fromkeys(facts, b""))
    if len(known.items) < len(facts):
        raise BadInput(
            _("the corpus was built by an earlier version of this program"), hint="h2q-tui corpus build"
        )
    decided = verdicts(connection)
    drop_exact(known.items, decided)
    drop_near(known.items, decided, near_twins(connection, known, threshold))
    near = {
        id_
        for id_, (automatic, stage, _line) in facts.items()
        if automatic == State.DROPPED and stage == Stage.NEAR
    }
    then = {item.id for item in known.items if item.dropped is not None and item.dropped.stage == Stage.NEAR}
    leave, back = sorted(then - near), sorted(near - then)
    return Outcome(
        threshold=threshold,
        now=len(near),
        then=len(then),
        leave=len(leave),
        back=len(back),
        leaving=[facts[id_][2] for id_ in leave[:SHOWN]],
        returning=[facts[id_][2] for id_ in back[:SHOWN]],
    )
