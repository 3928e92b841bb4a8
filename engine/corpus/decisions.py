"""What the person decided: rows that are only ever added and marked as undone. Light: the app imports it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec


def verdicts(connection: sqlite3.Connection, ids: Sequence[str] | None = None) -> dict[str, str]:
    """The verdict in force for each conversation that has one (or for each of `ids`)."""
    # SQLite gives the bare columns of the row that holds the maximum.
    query = "SELECT conversation_id, verdict, MAX(seq) FROM decisions WHERE undone = 0"
    if ids is None:
        rows = connection.execute(query + " GROUP BY conversation_id")
    else:
        rows = connection.execute(
            f"{query} AND conversation_id IN (SELECT value FROM json_each(?)) GROUP BY conversation_id",  # noqa: S608
            (msgspec.json.encode(list(ids)).decode(),),
        )
    return {id_: verdict for id_, verdict, _ in rows}
