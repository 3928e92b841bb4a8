"""Conversations that grew since the person decided about them: the verdict is not lost, and is none about the new turns.

A longer form has turns that nobody has looked at. One whose beginning was rejected is held until it is looked at
again; one whose beginning was accepted against a filter, or while everything is reviewed, is held too and says so.
Edits go over by themselves (`decisions.edits`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.corpus.enums import Action, Stage, State
from engine.corpus.filters.result import Item
from engine.corpus.ledger import LedgerRow

REJECTED = "rejected_before"
ACCEPTED = "accepted_before"


def hold_grown(
    items: Sequence[Item], before: Mapping[str, str], decided: Mapping[str, str], *, review: str
) -> None:
    """Holds those of `items` that grew since the person decided; none with a verdict of its own.

    Args:
        before: the verdict about the shorter form, by id.
        decided: the verdict about the conversation itself.
        review: the setting: "manual" when everything waits for the person.
    """
    for item in items:
        verdict = None if item.id in decided else before.get(item.id)
        if verdict == State.REJECTED:
            _hold(item, REJECTED)
        elif verdict == State.ACCEPTED and (item.dropped is not None or review == "manual"):
            item.dropped = None
            _hold(item, ACCEPTED)


def _hold(item: Item, reason: str) -> None:
    row = LedgerRow(conversation=item.id, stage=Stage.REVIEW, action=Action.HOLD, reason=reason)
    item.rows.append(row)
    item.held = row
