"""Deletes conversations from memory: rows, their traces in the corpus and test windows, and the freed pages."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from engine.memory.checksums import update_state
from engine.memory.memory_points import delete_point, delete_points_of_import, find_points
from engine.memory.transactions import ROWS_PER_CHECK, ChunkedWriter, import_lock


def delete_incomplete_imports_if_idle(connection: sqlite3.Connection, path: Path) -> None:
    """Deletes the rows of a killed import, unless an import is running."""
    with import_lock(path, wait_s=0) as locked:
        if locked:
            delete_incomplete_imports(connection)


def delete_incomplete_imports(connection: sqlite3.Connection) -> None:
    """Deletes the rows of imports that never completed. The caller holds the import lock.

    One with counts was complete: a changed byte hides it, and its rows stay.
    """
    incomplete = [
        row[0]
        for row in connection.execute(
            "SELECT id FROM imports WHERE completed_at IS NULL AND taken = 0 AND unchanged = 0"
        )
    ]
    for import_id in incomplete:
        ids = [
            r[0] for r in connection.execute("SELECT id FROM conversations WHERE import_id = ?", (import_id,))
        ]
        _delete(connection, ids)
        delete_points_of_import(connection, import_id)
        with ChunkedWriter(connection).transaction():
            connection.execute("DELETE FROM imports WHERE id = ?", (import_id,))


def forget(connection: sqlite3.Connection, ids: Iterable[str]) -> list[str]:
    """Deletes conversations and memory points for good and marks them as forgotten; see `MemoryStore.forget`."""
    wanted = list(dict.fromkeys(ids))
    points = find_points(connection, wanted)
    deleted: list[str] = []
    while wanted:
        id_ = wanted.pop()
        if (
            id_ in deleted
            or not connection.execute("SELECT 1 FROM conversations WHERE id = ?", (id_,)).fetchone()
        ):
            continue
        deleted.append(id_)
        wanted += [
            r[0] for r in connection.execute("SELECT id FROM conversations WHERE superseded_by = ?", (id_,))
        ]
    writer = ChunkedWriter(connection)
    salt = forgotten_salt(writer)
    with writer.transaction():
        for id_ in deleted:
            source, external_id, hash_ = connection.execute(
                "SELECT source, external_id, content_hash FROM conversations WHERE id = ?", (id_,)
            ).fetchone()
            connection.execute(
                "INSERT OR REPLACE INTO forgotten VALUES (?, ?)",
                (forgotten_key(salt, source, external_id, hash_), time.time()),
            )
            writer.commit_if_due()
        for id_, source, content, import_id in points:
            connection.execute(
                "INSERT OR REPLACE INTO forgotten VALUES (?, ?)",
                (forgotten_key(salt, source, id_, ""), time.time()),
            )
            delete_point(connection, id_, content)
            connection.execute(_BLANK_IMPORT_PATH, (import_id, import_id, import_id))
            writer.commit_if_due()
    _delete(connection, deleted)
    release_free_pages(connection)
    return [*deleted, *(point[0] for point in points)]


def _delete(connection: sqlite3.Connection, ids: list[str]) -> None:
    writer = ChunkedWriter(connection)
    with writer.transaction():
        for id_ in ids:
            hash_, import_id = connection.execute(
                "SELECT content_hash, import_id FROM conversations WHERE id = ?", (id_,)
            ).fetchone()
            # Turns first and a few at a time: one long conversation must not block other writers.
            while connection.execute(
                "DELETE FROM turns WHERE conversation_id = ? AND position IN "
                "(SELECT position FROM turns WHERE conversation_id = ? LIMIT ?)",
                (id_, id_, ROWS_PER_CHECK),
            ).rowcount:
                writer.commit_if_due()
            _remove_from_test_windows(connection, id_)
            for (shorter,) in connection.execute(
                "SELECT id FROM conversations WHERE superseded_by = ?", (id_,)
            ).fetchall():
                update_state(connection, shorter, superseded_by=None)
            for statement in _DELETE_CONVERSATION:
                connection.execute(statement, {"id": id_})
            connection.execute(_BLANK_IMPORT_PATH, (import_id, import_id, import_id))
            if not connection.execute(
                "SELECT 1 FROM conversations WHERE content_hash = ?", (hash_,)
            ).fetchone():
                connection.execute("DELETE FROM embeddings WHERE content_hash = ?", (hash_,))
            writer.commit_if_due()


_DELETE_CONVERSATION = (
    "UPDATE ledger SET twin = NULL, evidence = '{}' WHERE twin = :id",
    "UPDATE corpus SET twin = NULL WHERE twin = :id",
    "DELETE FROM decisions WHERE conversation_id = :id",
    "DELETE FROM ledger WHERE conversation_id = :id",
    "DELETE FROM corpus WHERE conversation_id = :id",
    "DELETE FROM assessments WHERE conversation_id = :id",
    "DELETE FROM conversations WHERE id = :id",
)


_BLANK_IMPORT_PATH = (
    "UPDATE imports SET path = '' WHERE id = ? AND NOT EXISTS (SELECT 1 FROM conversations WHERE import_id = ?) "
    "AND NOT EXISTS (SELECT 1 FROM memory_points WHERE import_id = ?)"
)
"""The name of a file may be as private as its content: it goes with the last row of the import."""


def release_free_pages(connection: sqlite3.Connection) -> bool:
    """Returns free pages to the file system and truncates the WAL.

    False when a reader prevented the truncation; the next call, or the last connection to close, does it.
    """
    while connection.execute("PRAGMA freelist_count").fetchone()[0]:
        before = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute("PRAGMA incremental_vacuum(64)").fetchall()
        if connection.execute("PRAGMA page_count").fetchone()[0] == before:
            break
    return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)


def forgotten_salt(writer: ChunkedWriter) -> str:
    """The database's random salt, so that keys of forgotten conversations cannot be used to guess their texts."""
    with writer.transaction():
        writer.connection.execute(
            "INSERT OR IGNORE INTO meta VALUES ('forgotten_salt', ?)", (os.urandom(16).hex(),)
        )
    row = writer.connection.execute("SELECT value FROM meta WHERE key = 'forgotten_salt'").fetchone()
    return str(row[0])


def forgotten_key(salt: str, source: str, external_id: str, hash_: str) -> str:
    """Key under which a forgotten item is remembered: by its external id, else by its content hash."""
    name = f"{source}\0{external_id}" if external_id else hash_
    return sha256(f"{salt}\0{name}".encode()).hexdigest()


_BY_TIME, _BY_HASH = "time", "hash"
"""How the members of a test window were chosen: by the dates of the conversations, or by a hash of their clusters."""


def hash_test_window(ids: Iterable[str], *, dated: bool) -> str:
    """Fingerprint of a test window's members: "time:" or "hash:", then the SHA-256 of the sorted ids."""
    digest = sha256("\n".join(sorted(ids)).encode()).hexdigest()
    return f"{_BY_TIME if dated else _BY_HASH}:{digest}"


def _remove_from_test_windows(connection: sqlite3.Connection, conversation_id: str) -> None:
    """Removes a conversation from its test windows and updates their fingerprints; call it inside a transaction.

    A window whose members do not match its fingerprint keeps it, so that the mismatch is still detected.
    """
    windows = connection.execute(
        "SELECT w.id, w.ids_hash FROM test_windows w JOIN window_members m ON m.window_id = w.id "
        "WHERE m.conversation_id = ?",
        (conversation_id,),
    ).fetchall()
    for window, fingerprint in windows:
        rows = connection.execute("SELECT conversation_id FROM window_members WHERE window_id = ?", (window,))
        ids = {id_ for (id_,) in rows}
        dated = fingerprint.startswith(f"{_BY_TIME}:")
        if hash_test_window(ids, dated=dated) == fingerprint:
            remaining = hash_test_window(ids - {conversation_id}, dated=dated)
            connection.execute("UPDATE test_windows SET ids_hash = ? WHERE id = ?", (remaining, window))
    connection.execute("DELETE FROM window_members WHERE conversation_id = ?", (conversation_id,))
