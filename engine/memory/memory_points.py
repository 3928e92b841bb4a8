"""Rows that accompany conversations: summary points of other programs, and embeddings that were imported."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from hashlib import sha256

from engine.memory.records import Embedding, SummaryPoint
from engine.memory.transactions import ChunkedWriter


def insert_point(connection: sqlite3.Connection, point: SummaryPoint, import_id: str) -> bool:
    """Inserts a memory point; False when its id is known already."""
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
    """Key of a memory point's embedding: SHA-256 of its content."""
    return sha256(content.encode("utf-8")).hexdigest()


def insert_embedding(connection: sqlite3.Connection, embedding: Embedding) -> None:
    """Inserts the embedding of a known conversation or point; one of a forgotten item is dropped."""
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


def find_points(connection: sqlite3.Connection, ids: Iterable[str]) -> list[tuple[str, str, str, str | None]]:
    """Id, source, content and import of the memory points among `ids`."""
    return [
        (row[0], row[1], row[2], row[3])
        for row in connection.execute(
            "SELECT id, source, content, import_id FROM memory_points WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(ids)),),
        )
    ]


def delete_point(connection: sqlite3.Connection, id_: str, content: str) -> None:
    """Deletes a memory point with its embeddings."""
    connection.execute("DELETE FROM memory_points WHERE id = ?", (id_,))
    connection.execute("DELETE FROM embeddings WHERE content_hash = ?", (point_hash(content),))


def delete_points_of_import(connection: sqlite3.Connection, import_id: str) -> None:
    """Deletes the memory points of an incomplete import."""
    rows = connection.execute(
        "SELECT id, content FROM memory_points WHERE import_id = ?", (import_id,)
    ).fetchall()
    writer = ChunkedWriter(connection)
    with writer.transaction():
        for id_, content in rows:
            delete_point(connection, id_, content)
            writer.commit_if_due()
