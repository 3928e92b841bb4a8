"""What another threshold for near duplicates would change, before it is saved: the build's own rule on its own rows."""

from __future__ import annotations

import msgspec

from engine.corpus.assess import Assessed
from engine.corpus.decisions import edits, verdicts
from engine.corpus.duplicates import drop_near
from engine.corpus.filters.normalise import fold
from engine.corpus.ledger import Database, LedgerRow
from engine.corpus.states import Action, Stage, State

SHOWN = 8


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """In conversations."""

    threshold: float
    now: int
    """Left out as near duplicates today."""
    then: int
    leave: int
    """In the corpus today, and left out then."""
    back: int
    """The other way round."""
    leaving: list[str]
    """First lines of some of them."""
    returning: list[str]


def outcome(store: Database, threshold: float) -> Outcome:
    """Compares the near duplicates at `threshold` with those of the last build; writes nothing."""
    connection = store.connection
    changes = edits(connection)
    texts: dict[str, list[str]] = {}
    for id_, position, text in connection.execute(
        "SELECT t.conversation_id, t.position, t.text FROM turns t JOIN corpus k ON k.conversation_id = t.conversation_id "
        "ORDER BY t.conversation_id, t.position"
    ):
        change = changes.get(id_, {}).get(position)
        text = text if change is None else change.text
        if text.strip():
            texts.setdefault(id_, []).append(text)
    held = {
        id_
        for (id_,) in connection.execute(
            "SELECT conversation_id FROM ledger WHERE action = ?", (Action.HOLD,)
        )
    }
    items: list[Assessed] = []
    near: set[str] = set()
    lines: dict[str, str] = {}
    for id_, automatic, stage, line, end in connection.execute(
        "SELECT conversation_id, automatic, stage, first_line, sort_time FROM corpus ORDER BY conversation_id"
    ):
        parts = texts.get(id_, [])
        item = Assessed(
            id=id_,
            start=None,
            end=end,
            key="",
            folded=fold(" ".join(parts)),
            opening="",
            characters=sum(map(len, parts)),
            first_line=line,
            language="",
            quality=0.0,
            pairs=1,
        )
        if id_ in held:
            item.held = LedgerRow(conversation=id_, stage=Stage.INJECTION, action=Action.HOLD, reason="")
        if automatic == State.DROPPED and stage in (
            Stage.COLLECT,
            Stage.LOW_VALUE,
            Stage.SENSITIVE,
            Stage.EXACT,
        ):
            item.drop(stage, "")
        elif automatic == State.DROPPED and stage == Stage.NEAR:
            near.add(id_)
        items.append(item)
        lines[id_] = line
    drop_near(items, verdicts(connection), threshold)
    then = {item.id for item in items if item.dropped is not None and item.dropped.stage == Stage.NEAR}
    leave, back = sorted(then - near), sorted(near - then)
    return Outcome(
        threshold=threshold,
        now=len(near),
        then=len(then),
        leave=len(leave),
        back=len(back),
        leaving=[lines[id_] for id_ in leave[:SHOWN]],
        returning=[lines[id_] for id_ in back[:SHOWN]],
    )
