"""How conversations get into memory and out of it: short write transactions, seen when an import is complete."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import msgspec

from engine.errors import Busy
from engine.i18n import _
from engine.memory.points import Conversation, Skipped, prefix_hashes

BUDGET_S = 0.02
"""A transaction is committed once it is this old, so that with its last statement and its fsync no other
writer waits more than 50 ms."""
_BATCH_CHARACTERS = 200_000
"""Text gathered, outside any transaction, before one is opened."""
_TURNS_AT_ONCE = 32
_WAIT_S = 10.0


class ImportResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an import took. Conversations are counted, except in `skipped`, which counts what its reasons name."""

    import_id: str
    taken: int
    unchanged: int
    """There already, alone or as the beginning of a longer one."""
    superseded: int
    """Shorter forms that a taken one replaced."""
    skipped: dict[str, int]
    transactions: int = 0
    longest_transaction_s: float = 0.0


class _Writer:
    """Short transactions on one connection: `spend()` between statements commits when the budget is used up."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.transactions = 0
        self.longest = 0.0
        self._began = 0.0

    @contextmanager
    def open(self) -> Iterator[_Writer]:
        self._begin()
        try:
            yield self
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        self._commit()

    def spend(self) -> None:
        if time.monotonic() - self._began > BUDGET_S:
            self._commit()
            self._begin()

    def _begin(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self._began = time.monotonic()

    def _commit(self) -> None:
        self.connection.execute("COMMIT")
        self.transactions += 1
        self.longest = max(self.longest, time.monotonic() - self._began)


def add(
    connection: sqlite3.Connection,
    path: Path,
    conversations: Iterable[Conversation | Skipped],
    *,
    source: str,
    origin: str,
    again: bool,
) -> ImportResult:
    """See `MemoryStore.add`."""
    with _import_lock(path, wait_s=_WAIT_S) as held:
        if not held:
            raise Busy(_("Another import into this memory is running"), mend="h2q-tui runs list")
        sweep(connection)
        import_id = time.strftime("%Y%m%d%H%M%S") + "-" + os.urandom(3).hex()
        writer = _Writer(connection)
        with writer.open():
            connection.execute(
                "INSERT INTO imports (id, source, path, started_at) VALUES (?, ?, ?, ?)",
                (import_id, source, origin, time.time()),
            )
        taking = _Taking(writer, import_id, again)
        try:
            for batch in _batches(conversations):
                taking.take(batch)
            with writer.open():
                connection.execute(
                    "UPDATE imports SET completed_at = ?, taken = ?, unchanged = ?, skipped = ? WHERE id = ?",
                    (time.time(), taking.taken, taking.unchanged, json.dumps(taking.skipped), import_id),
                )
                connection.execute(
                    "DELETE FROM forgotten WHERE key IN (SELECT value FROM json_each(?))",
                    (json.dumps(taking.remembered),),
                )
        except BaseException:
            sweep(connection)
            raise
    return ImportResult(
        import_id=import_id,
        taken=taking.taken,
        unchanged=taking.unchanged,
        superseded=taking.superseded,
        skipped=taking.skipped,
        transactions=writer.transactions,
        longest_transaction_s=writer.longest,
    )


def _batches(items: Iterable[Conversation | Skipped]) -> Iterator[list[Conversation | Skipped]]:
    batch: list[Conversation | Skipped] = []
    characters = 0
    for item in items:
        batch.append(item)
        characters += 100 + (sum(len(t.text) for t in item.turns) if isinstance(item, Conversation) else 0)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _Taking:
    """One import on its way in."""

    def __init__(self, writer: _Writer, import_id: str, again: bool) -> None:
        self.writer = writer
        self.connection = writer.connection
        self.import_id = import_id
        self.again = again
        self.salt = _salt(writer)
        self.taken = 0
        self.unchanged = 0
        self.superseded = 0
        self.remembered: list[str] = []
        self.skipped: dict[str, int] = {}

    def take(self, batch: list[Conversation | Skipped]) -> None:
        prepared = []
        for item in batch:
            if isinstance(item, Skipped):
                self._skip(item.reason, item.count)
            elif not any(turn.text for turn in item.turns):
                self._skip("empty conversation")
            else:
                prepared.append((item, prefix_hashes(item.turns)))
        if prepared:
            with self.writer.open():
                for conversation, hashes in prepared:
                    self._take_one(conversation, hashes)
                    self.writer.spend()

    def _skip(self, reason: str, count: int = 1) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + count

    def _take_one(self, conversation: Conversation, hashes: list[str]) -> None:
        execute = self.connection.execute
        key = _forgotten_key(self.salt, conversation.source, conversation.external_id, hashes[-1])
        if execute("SELECT 1 FROM forgotten WHERE key = ?", (key,)).fetchone():
            if not self.again:
                self._skip("forgotten earlier")
                return
            self.remembered.append(key)
        known = execute("SELECT updated_at FROM conversations WHERE id = ?", (conversation.id,)).fetchone()
        if known:
            self.unchanged += 1
            if conversation.external_id and (conversation.updated_at or 0) > (known[0] or 0):
                execute(
                    "UPDATE conversations SET updated_at = ?, title = ? WHERE id = ?",
                    (conversation.updated_at, conversation.title, conversation.id),
                )
                self._settle(conversation)
            return
        older = self._shorter_forms(conversation, hashes)
        if older is None:
            self.unchanged += 1
            return
        self._insert(conversation, hashes)
        self.taken += 1
        for id_ in older:
            execute("UPDATE conversations SET superseded_by = ? WHERE id = ?", (conversation.id, id_))
        self.superseded += len(older)

    def _shorter_forms(self, conversation: Conversation, hashes: list[str]) -> list[str] | None:
        """Ids that `conversation` replaces; None when memory has a newer or longer form of it already."""
        execute = self.connection.execute
        if conversation.external_id:
            rows = execute(
                "SELECT id, updated_at, turns FROM conversations "
                "WHERE source = ? AND external_id = ? AND superseded_by IS NULL",
                (conversation.source, conversation.external_id),
            ).fetchall()
            ours = _age(conversation.updated_at, len(conversation.turns), conversation.id)
            return (
                None if any(_age(row[1], row[2], row[0]) > ours for row in rows) else [row[0] for row in rows]
            )
        if len(hashes) < 2:
            return []
        longer = execute(
            "SELECT 1 FROM turns t JOIN conversations c ON c.id = t.conversation_id "
            "WHERE t.prefix = ? AND t.position = ? AND c.source = ? AND c.external_id = '' LIMIT 1",
            (_prefix(hashes[-1]), len(hashes) - 1, conversation.source),
        ).fetchone()
        if longer:
            return None
        return [
            row[0]
            for row in execute(
                "SELECT id FROM conversations WHERE content_hash IN (SELECT value FROM json_each(?)) "
                "AND source = ? AND external_id = '' AND superseded_by IS NULL",
                (json.dumps(hashes[1:-1]), conversation.source),
            )
        ]

    def _settle(self, conversation: Conversation) -> None:
        """The person went back to an earlier branch: the newest form is the current one."""
        where = (conversation.source, conversation.external_id)
        rows = self.connection.execute(
            "SELECT id, updated_at, turns FROM conversations WHERE source = ? AND external_id = ?", where
        ).fetchall()
        newest = max(rows, key=lambda row: _age(row[1], row[2], row[0]))[0]
        self.connection.execute(
            "UPDATE conversations SET superseded_by = NULLIF(?, id) WHERE source = ? AND external_id = ?",
            (newest, *where),
        )

    def _insert(self, conversation: Conversation, hashes: list[str]) -> None:
        self.connection.execute(
            "INSERT INTO conversations (id, import_id, source, external_id, title, started_at, updated_at, "
            "added_at, turns, characters, content_hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                conversation.id,
                self.import_id,
                conversation.source,
                conversation.external_id,
                conversation.title,
                conversation.started_at,
                conversation.updated_at,
                time.time(),
                len(conversation.turns),
                sum(len(turn.text) for turn in conversation.turns),
                hashes[-1],
            ),
        )
        # A conversation with an id of its own grows under that id and needs no prefixes.
        by_content = not conversation.external_id
        rows = [
            (
                conversation.id,
                position,
                turn.role,
                turn.text,
                turn.time,
                turn.external_id,
                json.dumps(turn.alternatives, ensure_ascii=False),
                _prefix(hashes[position]) if by_content and position else 0,
            )
            for position, turn in enumerate(conversation.turns)
        ]
        for start in range(0, len(rows), _TURNS_AT_ONCE):
            self.connection.executemany(
                "INSERT INTO turns (conversation_id, position, role, text, time, external_id, alternatives, prefix) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                rows[start : start + _TURNS_AT_ONCE],
            )
            self.writer.spend()


def _age(updated_at: float | None, turns: int, id_: str) -> tuple[float, int, str]:
    return (float("-inf") if updated_at is None else updated_at, turns, id_)


def _prefix(hash_: str) -> int:
    """64 bits of a hash as SQLite's signed integer; never 0, which means none."""
    return int.from_bytes(bytes.fromhex(hash_[:16]), "big", signed=True) or 1


def sweep_if_idle(connection: sqlite3.Connection, path: Path) -> None:
    """Removes what a killed import left, unless an import is running."""
    with _import_lock(path, wait_s=0) as held:
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
        with _Writer(connection).open():
            connection.execute("DELETE FROM imports WHERE id = ?", (import_id,))


def erase(connection: sqlite3.Connection, ids: Iterable[str]) -> list[str]:
    """See `MemoryStore.forget`."""
    wanted = list(dict.fromkeys(ids))
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
    writer = _Writer(connection)
    salt = _salt(writer)
    with writer.open():
        for id_ in gone:
            source, external_id, hash_ = connection.execute(
                "SELECT source, external_id, content_hash FROM conversations WHERE id = ?", (id_,)
            ).fetchone()
            connection.execute(
                "INSERT OR REPLACE INTO forgotten VALUES (?, ?)",
                (_forgotten_key(salt, source, external_id, hash_), time.time()),
            )
            writer.spend()
    _delete(connection, gone)
    give_back_pages(connection)
    return gone


def _delete(connection: sqlite3.Connection, ids: list[str]) -> None:
    writer = _Writer(connection)
    with writer.open():
        for id_ in ids:
            hash_ = connection.execute(
                "SELECT content_hash FROM conversations WHERE id = ?", (id_,)
            ).fetchone()[0]
            # Turns first and a few at once: one long conversation must not hold the others up.
            while connection.execute(
                "DELETE FROM turns WHERE conversation_id = ? AND position IN "
                "(SELECT position FROM turns WHERE conversation_id = ? LIMIT ?)",
                (id_, id_, _TURNS_AT_ONCE),
            ).rowcount:
                writer.spend()
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
    "DELETE FROM window_members WHERE conversation_id = :id",
    "DELETE FROM ledger WHERE conversation_id = :id",
    "DELETE FROM corpus WHERE conversation_id = :id",
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


def _salt(writer: _Writer) -> str:
    """Makes the marks of forgotten conversations useless to whoever would guess at their texts elsewhere."""
    with writer.open():
        writer.connection.execute(
            "INSERT OR IGNORE INTO meta VALUES ('forgotten_salt', ?)", (os.urandom(16).hex(),)
        )
    row = writer.connection.execute("SELECT value FROM meta WHERE key = 'forgotten_salt'").fetchone()
    return str(row[0])


def _forgotten_key(salt: str, source: str, external_id: str, hash_: str) -> str:
    name = f"{source}\0{external_id}" if external_id else hash_
    return sha256(f"{salt}\0{name}".encode()).hexdigest()


@contextmanager
def _import_lock(path: Path, *, wait_s: float) -> Iterator[bool]:
    """Whether the lock of imports was got within `wait_s`; it is held inside the block."""
    fd = os.open(path.with_name(".import.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _lock(fd, wait_s)
    finally:
        os.close(fd)


def _lock(fd: int, wait_s: float, sleep: Callable[[float], None] = time.sleep) -> bool:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            sleep(0.05)
