"""How conversations leave memory: erased from the pages, with all that the corpus says of them."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from engine.memory.memory_points import points_of, remove_point, sweep_points
from engine.memory.transactions import TURNS_AT_ONCE, Writer, import_lock
from engine.memory.window_ids import leave_windows


def sweep_if_idle(connection: sqlite3.Connection, path: Path) -> None:
    """Removes what a killed import left, unless an import is running."""
    with import_lock(path, wait_s=0) as held:
        if held:
            sweep(connection)


def sweep(connection: sqlite3.Connection) -> None:
    """Removes the rows of imports that were never completed. Call it with the import lock held."""
    broken = [row[0] for row in connection.execute("SELECT id FROM imports WHERE completed_at IS NULL")]
    for import_id in broken:
        ids = [
            r[0] for r in connection.execute("SELECT id FROM conversations WHERE import_id = ?", (import_id,))
        ]
        _delete(connection, ids)
        sweep_points(connection, import_id)
        with Writer(connection).open():
            connection.execute("DELETE FROM imports WHERE id = ?", (import_id,))


def erase(connection: sqlite3.Connection, ids: Iterable[str]) -> list[str]:
    """See `MemoryStore.forget`."""
    wanted = list(dict.fromkeys(ids))
    points = points_of(connection, wanted)
    gone: list[str] = []
    while wanted:
        id_ = wanted.pop()
        if (
            id_ in gone
            or not connection.execute("SELECT 1 FROM conversations WHERE id = ?", (id_,)).fetchone()
        ):
            continue
        gone.append(id_)
        wanted += [
            r[0] for r in connection.execute("SELECT id FROM conversations WHERE superseded_by = ?", (id_,))
        ]
    writer = Writer(connection)
    salt = salt_of(writer)
    with writer.open():
        for id_ in gone:
            source, external_id, hash_ = connection.execute(
                "SELECT source, external_id, content_hash FROM conversations WHERE id = ?", (id_,)
            ).fetchone()
            connection.execute(
                "INSERT OR REPLACE INTO forgotten VALUES (?, ?)",
                (forgotten_key(salt, source, external_id, hash_), time.time()),
            )
            writer.spend()
        for id_, source, content in points:
            connection.execute(
                "INSERT OR REPLACE INTO forgotten VALUES (?, ?)",
                (forgotten_key(salt, source, id_, ""), time.time()),
            )
            remove_point(connection, id_, content)
            writer.spend()
    _delete(connection, gone)
    give_back_pages(connection)
    return [*gone, *(id_ for id_, _source, _content in points)]


def _delete(connection: sqlite3.Connection, ids: list[str]) -> None:
    writer = Writer(connection)
    with writer.open():
        for id_ in ids:
            hash_ = connection.execute(
                "SELECT content_hash FROM conversations WHERE id = ?", (id_,)
            ).fetchone()[0]
            # Turns first and a few at once: one long conversation must not hold the others up.
            while connection.execute(
                "DELETE FROM turns WHERE conversation_id = ? AND position IN "
                "(SELECT position FROM turns WHERE conversation_id = ? LIMIT ?)",
                (id_, id_, TURNS_AT_ONCE),
            ).rowcount:
                writer.spend()
            leave_windows(connection, id_)
            for statement in _OF_A_CONVERSATION:
                connection.execute(statement, {"id": id_})
            if not connection.execute(
                "SELECT 1 FROM conversations WHERE content_hash = ?", (hash_,)
            ).fetchone():
                connection.execute("DELETE FROM embeddings WHERE content_hash = ?", (hash_,))
            writer.spend()


_OF_A_CONVERSATION = (
    "UPDATE conversations SET superseded_by = NULL WHERE superseded_by = :id",
    "UPDATE ledger SET twin = NULL, evidence = '{}' WHERE twin = :id",
    "UPDATE corpus SET twin = NULL WHERE twin = :id",
    "DELETE FROM decisions WHERE conversation_id = :id",
    "DELETE FROM ledger WHERE conversation_id = :id",
    "DELETE FROM corpus WHERE conversation_id = :id",
    "DELETE FROM assessments WHERE conversation_id = :id",
    "DELETE FROM conversations WHERE id = :id",
)


def give_back_pages(connection: sqlite3.Connection) -> bool:
    """Returns free pages to the file system and empties the log.

    False when a reader kept the log from being emptied; the next call, or the last to close, does it.
    """
    while connection.execute("PRAGMA freelist_count").fetchone()[0]:
        before = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute("PRAGMA incremental_vacuum(64)").fetchall()
        if connection.execute("PRAGMA page_count").fetchone()[0] == before:
            break
    return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)


def salt_of(writer: Writer) -> str:
    """Makes the marks of forgotten conversations useless to whoever would guess at their texts elsewhere."""
    with writer.open():
        writer.connection.execute(
            "INSERT OR IGNORE INTO meta VALUES ('forgotten_salt', ?)", (os.urandom(16).hex(),)
        )
    row = writer.connection.execute("SELECT value FROM meta WHERE key = 'forgotten_salt'").fetchone()
    return str(row[0])


def forgotten_key(salt: str, source: str, external_id: str, hash_: str) -> str:
    name = f"{source}\0{external_id}" if external_id else hash_
    return sha256(f"{salt}\0{name}".encode()).hexdigest()
