"""The folded words of conversations, read from memory when two of them are to be compared."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import msgspec

from engine.corpus.filters.normalise import fold
from engine.corpus.filters.result import Item
from engine.corpus.review.decision_log import edits


def folded_words(connection: sqlite3.Connection, ids: Sequence[str]) -> list[str]:
    """The words of each conversation as the person wants it, folded, in the order of `ids`."""
    changes = edits(connection, ids)
    folded: dict[str, str] = {}
    rows = connection.execute(
        "SELECT conversation_id, position, text FROM turns "
        "WHERE conversation_id IN (SELECT value FROM json_each(?)) ORDER BY conversation_id, position",
        (_json(ids),),
    )
    for id_, turns in groupby(rows, key=itemgetter(0)):
        change = changes.get(id_, {})
        parts = [change[position].text if position in change else text for _id, position, text in turns]
        folded[id_] = fold(" ".join(text for text in parts if text.strip()))
    return [folded.get(id_, "") for id_ in ids]


def folded_openings(connection: sqlite3.Connection, items: Sequence[Item]) -> list[str]:
    """The first question with content of each item, folded."""
    ids = [item.id for item in items]
    changes = edits(connection, ids)
    turns = dict(
        connection.execute(
            "SELECT t.conversation_id, t.text FROM json_each(?) j JOIN turns t "
            "ON t.conversation_id = json_extract(j.value, '$[0]') "
            "AND t.position = json_extract(j.value, '$[1]')",
            (_json([(item.id, item.opening_turn) for item in items]),),
        )
    )
    return [
        fold(
            changes[item.id][item.opening_turn].text
            if item.opening_turn in changes.get(item.id, {})
            else turns.get(item.id, "")
        )
        for item in items
    ]


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
