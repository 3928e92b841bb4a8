"""The line that stands for a conversation in the list, as the person wrote it since the last build. Light."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from engine.corpus.review.decision_log import Edit, edits
from engine.corpus.review.types import ReviewItem

LONGEST = 160
"""Characters that are kept."""


def first_line(text: str) -> str:
    """The text in one line, cut."""
    return " ".join(text.split())[:LONGEST]


def as_edited(connection: sqlite3.Connection, items: Sequence[ReviewItem]) -> list[ReviewItem]:
    """The items with the lines that are in force now: a build keeps the one that it read.

    Whichever form of a turn made the line, as it came or edited, the one in force takes its place.
    """
    ids = msgspec.json.encode([item.id for item in items]).decode()
    forms: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    came: dict[tuple[str, int], str] = {}
    for id_, turn, text, original in connection.execute(
        "SELECT d.conversation_id, d.turn, d.text, t.text FROM decisions d JOIN turns t "
        "ON t.conversation_id = d.conversation_id AND t.position = d.turn "
        "WHERE d.verdict = 'edited' AND d.conversation_id IN (SELECT value FROM json_each(?))",
        (ids,),
    ):
        forms[id_][turn] |= {first_line(text), first_line(original)}
        came[id_, turn] = original
    if not forms:
        return list(items)
    in_force = edits(connection, list(forms))
    return [_with_line(item, forms.get(item.id, {}), came, in_force.get(item.id, {})) for item in items]


def _with_line(
    item: ReviewItem,
    forms: Mapping[int, set[str]],
    came: Mapping[tuple[str, int], str],
    in_force: Mapping[int, Edit],
) -> ReviewItem:
    for turn, lines in forms.items():
        if item.first_line in lines:
            edit = in_force.get(turn)
            return replace(item, first_line=first_line(edit.text if edit else came[item.id, turn]))
    return item
