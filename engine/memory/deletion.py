"""Deletes conversations from memory: rows, their traces in the corpus and test windows, and the freed pages."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import NamedTuple

from engine.memory.checksums import update_state
from engine.memory.erased_notes import EDITS_IN_FORCE, erase_notes
from engine.memory.memory_points import delete_point, delete_points_of_import, find_points
from engine.memory.search import fold
from engine.memory.transactions import ROWS_PER_CHECK, ChunkedWriter


def delete_incomplete_imports(connection: sqlite3.Connection) -> None:
    """Deletes the rows of imports that never completed. The caller holds the import lock.

    One with counts was complete: a changed byte hides it, and its rows stay.
    """
    for import_id in _incomplete_imports(connection):
        ids = [
            r[0] for r in connection.execute("SELECT id FROM conversations WHERE import_id = ?", (import_id,))
        ]
        _delete(connection, ids)
        delete_points_of_import(connection, import_id)
        with ChunkedWriter(connection).transaction():
            connection.execute("DELETE FROM imports WHERE id = ?", (import_id,))


def delete_incomplete_imports_at_once(connection: sqlite3.Connection) -> None:
    """`delete_incomplete_imports` in one transaction that writes as little as possible, for a full disk.

    Raises `sqlite3.OperationalError` when it writes too much after all, or would hold more than 400 MB in memory.

    Pages of which all rows go are not written at all but cut off, also by the next checkpoint.
    """
    (characters,) = connection.execute(
        "SELECT COALESCE(SUM(characters), 0) FROM conversations WHERE import_id IN "
        "(SELECT id FROM imports WHERE completed_at IS NULL)"
    ).fetchone()
    if characters > _LARGEST_AT_ONCE:
        raise sqlite3.OperationalError("too large to be deleted in one transaction")
    for pragma in ("secure_delete=FAST", "cache_spill=OFF"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    try:
        connection.execute("BEGIN IMMEDIATE")
        for import_id in _incomplete_imports(connection):
            for (shorter,) in connection.execute(
                "SELECT id FROM conversations WHERE superseded_by IN "
                "(SELECT id FROM conversations WHERE import_id = ?)",
                (import_id,),
            ).fetchall():
                update_state(connection, shorter, superseded_by=None)
            for statement in _DELETE_IMPORT:
                connection.execute(statement, {"id": import_id})
        while _free_one_page(connection):
            pass
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    finally:
        for pragma in ("secure_delete=ON", "cache_spill=ON"):
            connection.execute(f"PRAGMA {pragma}").fetchall()


_LARGEST_AT_ONCE = 100_000_000
"""Characters; a page of 4 KB may hold one turn of a thousand."""


def has_incomplete_imports(connection: sqlite3.Connection) -> bool:
    """Whether an import is running or was ended before it was complete."""
    return bool(_incomplete_imports(connection))


def _incomplete_imports(connection: sqlite3.Connection) -> list[str]:
    return [
        row[0]
        for row in connection.execute(
            "SELECT id FROM imports WHERE completed_at IS NULL AND taken = 0 AND unchanged = 0"
        )
    ]


_DELETE_IMPORT = (
    "DELETE FROM turns WHERE conversation_id IN (SELECT id FROM conversations WHERE import_id = :id)",
    "DELETE FROM conversations WHERE import_id = :id",
    "DELETE FROM memory_points WHERE import_id = :id",
    "DELETE FROM imports WHERE id = :id",
)


def ids_containing(connection: sqlite3.Connection, text: str) -> list[str]:
    """Ids of the conversations and memory points that hold `text`: turns, titles, alternatives and edits in force,
    also of shorter forms. Compared as in `search`."""
    wanted = fold(text)
    if not wanted:
        return []
    found: dict[str, None] = {}
    queries = (
        "SELECT id, title, id, source FROM conversations",
        "SELECT conversation_id, text, alternatives, '' FROM turns",
        f"SELECT conversation_id, text, '', '' FROM decisions WHERE {EDITS_IN_FORCE} "  # noqa: S608
        "AND conversation_id IN (SELECT id FROM conversations)",
        "SELECT id, content, summary, keywords FROM memory_points",
    )
    for query in queries:
        for id_, *values in connection.execute(query):
            if id_ not in found and any(_contains(value, wanted) for value in values):
                found[id_] = None
    return list(found)


def _contains(value: object, wanted: str) -> bool:
    if not isinstance(value, str):
        return False
    if value.startswith("[") and value.endswith("]"):
        with suppress(ValueError, RecursionError):
            value = value + " ".join(part for part in json.loads(value) if isinstance(part, str))
    return wanted in fold(value)


def texts_of(connection: sqlite3.Connection, ids: Iterable[str]) -> Iterator[str]:
    """Every text of some conversations and memory points: turns, alternatives, titles, edits, summaries."""
    wanted = json.dumps(list(ids))
    for query in (
        "SELECT text, alternatives FROM turns WHERE conversation_id IN (SELECT value FROM json_each(?))",
        "SELECT title, '[]' FROM conversations WHERE id IN (SELECT value FROM json_each(?))",
        "SELECT text, '[]' FROM decisions WHERE conversation_id IN (SELECT value FROM json_each(?))",
        "SELECT content, keywords FROM memory_points WHERE id IN (SELECT value FROM json_each(?))",
        "SELECT summary, '[]' FROM memory_points WHERE id IN (SELECT value FROM json_each(?))",
    ):
        for text, more in connection.execute(query, (wanted,)):
            if isinstance(text, str):
                yield text
            with suppress(ValueError, TypeError, RecursionError):
                yield from (part for part in json.loads(more) if isinstance(part, str))


def with_shorter_forms(connection: sqlite3.Connection, ids: Iterable[str]) -> list[str]:
    """`ids` with the conversations that they superseded."""
    found: dict[str, None] = {}
    pending = deque(ids)
    while pending:
        id_ = pending.popleft()
        if id_ not in found:
            found[id_] = None
            pending += [
                row[0]
                for row in connection.execute("SELECT id FROM conversations WHERE superseded_by = ?", (id_,))
            ]
    return list(found)


def _outdated_cuts(connection: sqlite3.Connection, ids: Sequence[str]) -> list[str]:
    """Replaced dialogues that hold messages of `ids`: another silence had cut the same chat elsewhere."""
    rows = connection.execute(
        "SELECT o.id, o.external_id, c.external_id FROM conversations c JOIN conversations o ON o.source = c.source "
        "AND o.superseded_by IS NOT NULL AND o.started_at <= c.updated_at AND o.updated_at >= c.started_at "
        "WHERE c.id IN (SELECT value FROM json_each(?)) AND c.external_id LIKE '%#%'",
        (json.dumps(list(ids)),),
    ).fetchall()
    found = {id_: None for id_, one, two in rows if _contact(one) and _contact(one) == _contact(two)}
    return [id_ for id_ in found if id_ not in set(ids)]


def _contact(external_id: str) -> str:
    """The contact of a dialogue's external id; "" for another conversation. See `Recut.contact`."""
    contact, _sign, began = external_id.rpartition("#")
    return contact if began.isdigit() else ""


def imports_without(connection: sqlite3.Connection, ids: Iterable[str]) -> dict[str, str]:
    """Id and path of the imports of which no row is left without `ids`."""
    return dict(
        connection.execute(
            "SELECT id, path FROM imports WHERE id NOT IN (SELECT import_id FROM conversations "
            "WHERE id NOT IN (SELECT value FROM json_each(?1))) AND id NOT IN (SELECT import_id FROM memory_points "
            "WHERE import_id IS NOT NULL AND id NOT IN (SELECT value FROM json_each(?1)))",
            (json.dumps(list(ids)),),
        )
    )


class Forgotten(NamedTuple):
    """What a call of `forget` deleted."""

    ids: list[str]
    rules: int
    """Number of rules in force that quoted it and ended."""
    notes: int
    """Number of rules, reasons, former edits and import paths that were blanked."""


def forget(
    connection: sqlite3.Connection, ids: Iterable[str], *, text: str = "", quoted: Sequence[str] = ()
) -> Forgotten:
    """Deletes conversations and memory points for good and marks them as forgotten; see `MemoryStore.forget`."""
    wanted = with_shorter_forms(connection, ids)
    erased = [*quoted, *texts_of(connection, wanted)]
    points = find_points(connection, wanted)
    deleted = [
        id_
        for id_ in wanted
        if connection.execute("SELECT 1 FROM conversations WHERE id = ?", (id_,)).fetchone()
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
        for id_, source, content, _import_id in points:
            connection.execute(
                "INSERT OR REPLACE INTO forgotten VALUES (?, ?)",
                (forgotten_key(salt, source, id_, ""), time.time()),
            )
            delete_point(connection, id_, content)
            writer.commit_if_due()
    outdated = _outdated_cuts(connection, deleted)
    with writer.transaction():
        for id_ in outdated:
            # What it replaced stays replaced.
            for (shorter,) in connection.execute(
                "SELECT id FROM conversations WHERE superseded_by = ?", (id_,)
            ).fetchall():
                (form,) = connection.execute(
                    "SELECT superseded_by FROM conversations WHERE id = ?", (id_,)
                ).fetchone()
                update_state(connection, shorter, superseded_by=form)
    # They are not marked: their other messages were not forgotten.
    _delete(connection, [*outdated, *deleted])
    with writer.transaction():
        # The name of a file may be as private as its content, and so may the names in it that were not understood.
        # A running import has no rows yet.
        connection.execute(
            "UPDATE imports SET path = '', skipped = '{}' WHERE path || skipped != '{}' "
            "AND completed_at IS NOT NULL AND id NOT IN (SELECT import_id FROM conversations) AND id NOT IN "
            "(SELECT import_id FROM memory_points WHERE import_id IS NOT NULL)"
        )
        rules, notes = erase_notes(connection, erased, fold(text))
    _rewrite_file(connection)
    release_free_pages(connection)
    return Forgotten([*deleted, *(point[0] for point in points)], rules, notes)


def _delete(connection: sqlite3.Connection, ids: list[str]) -> None:
    writer = ChunkedWriter(connection)
    with writer.transaction():
        for id_ in ids:
            (hash_,) = connection.execute(
                "SELECT content_hash FROM conversations WHERE id = ?", (id_,)
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


def _rewrite_file(connection: sqlite3.Connection) -> None:
    """Rewrites all pages: what another program or a build of SQLite without `secure_delete` freed is still in them.

    Leaves a large file, a full disk and a database in use as they are; deleted rows are overwritten in any case.
    """
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    if pages * size <= _LARGEST_REWRITE:
        with suppress(sqlite3.OperationalError):
            connection.execute("VACUUM")


_LARGEST_REWRITE = 512 << 20


def release_free_pages(connection: sqlite3.Connection) -> bool:
    """Returns free pages to the file system and truncates the WAL.

    False when a reader prevented the truncation; the next call, or the last connection to close, does it.
    """
    writer = ChunkedWriter(connection)
    with writer.transaction():
        while _free_one_page(connection):
            writer.commit_if_due()
    return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)


def _free_one_page(connection: sqlite3.Connection) -> bool:
    """Cuts the last page off. The module sqlite3 ends `incremental_vacuum` after its first page, whatever its limit."""
    before = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute("PRAGMA incremental_vacuum").fetchall()
    return bool(connection.execute("PRAGMA page_count").fetchone()[0] != before)


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
