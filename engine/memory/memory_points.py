"""What comes with conversations: memory points that are summaries, and vectors that another program made."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from hashlib import sha256

from engine.memory.records import Embedding, Recollection
from engine.memory.transactions import Writer


def remember(connection: sqlite3.Connection, point: Recollection, import_id: str) -> bool:
    """Adds a memory point; False when it is there already."""
    return bool(
        connection.execute(
            "INSERT OR IGNORE INTO memory_points VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                point.id,
                point.source,
                point.content,
                point.summary,
                json.dumps(point.keywords, ensure_ascii=False),
                point.created_at,
                import_id,
            ),
        ).rowcount
    )


def point_hash(content: str) -> str:
    """What the vector of a memory point is kept under."""
    return sha256(content.encode("utf-8")).hexdigest()


def embed(connection: sqlite3.Connection, embedding: Embedding) -> None:
    """Keeps a vector of something that is in memory: what was forgotten leaves none behind."""
    table, column, value = (
        ("memory_points", "id", embedding.point)
        if embedding.point
        else ("conversations", "content_hash", embedding.content_hash)
    )
    if connection.execute(f"SELECT 1 FROM {table} WHERE {column} = ?", (value,)).fetchone():  # noqa: S608
        connection.execute(
            "INSERT OR IGNORE INTO embeddings VALUES (?, ?, ?)",
            (embedding.content_hash, embedding.embedder, embedding.vector),
        )


def points_of(connection: sqlite3.Connection, ids: Iterable[str]) -> list[tuple[str, str, str]]:
    """Id, source and content of the memory points among `ids`."""
    return [
        (row[0], row[1], row[2])
        for row in connection.execute(
            "SELECT id, source, content FROM memory_points WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(ids)),),
        )
    ]


def remove_point(connection: sqlite3.Connection, id_: str, content: str) -> None:
    """Removes a memory point with its vectors."""
    connection.execute("DELETE FROM memory_points WHERE id = ?", (id_,))
    connection.execute("DELETE FROM embeddings WHERE content_hash = ?", (point_hash(content),))


def sweep_points(connection: sqlite3.Connection, import_id: str) -> None:
    """Removes the memory points of an import that was never completed."""
    rows = connection.execute(
        "SELECT id, content FROM memory_points WHERE import_id = ?", (import_id,)
    ).fetchall()
    writer = Writer(connection)
    with writer.open():
        for id_, content in rows:
            remove_point(connection, id_, content)
            writer.spend()
