"""Writes one import into memory: new conversations, known ones, and longer forms that supersede shorter ones.

Rows are written in short transactions and stay invisible until the import is complete.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from engine.core.errors import Busy
from engine.core.i18n import _
from engine.memory.checksums import (
    CONTENT_COLUMNS,
    STATE_COLUMNS,
    TURN_COLUMNS,
    checksum,
    content_checksum,
    update_state,
)
from engine.memory.deletion import delete_incomplete_imports, forgotten_key, forgotten_salt
from engine.memory.disk_reserve import clean_failed_imports, free_failed_import, is_disk_full, keep_reserve
from engine.memory.memory_points import insert_embedding, insert_point
from engine.memory.records import (
    Conversation,
    Embedding,
    ImportItem,
    Recut,
    Replaced,
    Skipped,
    SummaryPoint,
    content_hash,
    prefix_hashes,
)
from engine.memory.transactions import ROWS_PER_CHECK, ChunkedWriter, deferred_fsync, import_lock

IMPORTERS = 2
"""Raised when importers read more, or other text, from the same file: the form that they read supersedes an older one."""
_FORMS = (
    "SELECT c.id, c.updated_at, i.importers, c.turns FROM conversations c JOIN imports i ON i.id = c.import_id "
    "WHERE c.source = ? AND c.external_id = ? AND c.external_id != '' AND c.updated_at IS NOT NULL"
)
"""The forms of a versioned conversation, as `_version` takes them."""
_CHUNK_CHARACTERS = 200_000
"""Text collected outside any transaction before it is written."""
_ITEM_OVERHEAD = 100
"""Characters that an item counts in addition to its text."""
_LOCK_WAIT_S = 10.0


class ImportResult(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one import, in conversations; `skipped` counts what its reasons name."""

    import_id: str
    added: int
    unchanged: int
    """Known already, as they are or as the beginning of a longer one."""
    superseded: int
    """Shorter forms that an added conversation replaced."""
    skipped: dict[str, int]
    points: int = 0
    """Summary points added."""
    transactions: int = 0


def import_items(
    connection: sqlite3.Connection,
    path: Path,
    items: Iterable[ImportItem],
    *,
    source: str | Callable[[], str],
    origin: str,
    again: bool,
) -> ImportResult:
    """Writes one import under the import lock of the database `path`; see `MemoryStore.add`.

    A `source` that is known only when all items are read is a function.
    """
    with import_lock(path, wait_s=_LOCK_WAIT_S) as locked:
        if not locked:
            raise Busy(_("Another import into this memory is running"), hint="h2q-tui runs list")
        clean_failed_imports(connection, path)
        keep_reserve(path)
        import_id = time.strftime("%Y%m%d%H%M%S") + "-" + os.urandom(3).hex()
        writer = ChunkedWriter(connection)
        with writer.transaction():
            connection.execute(
                "INSERT INTO imports (id, source, path, started_at, importers) VALUES (?, ?, ?, ?, ?)",
                (import_id, source if isinstance(source, str) else "", origin, time.time(), IMPORTERS),
            )
        batch = ImportBatch(writer, import_id, again)
        try:
            with deferred_fsync(connection):
                for chunk in _chunks(items):
                    batch.add(chunk)
            with writer.transaction():
                batch.complete("" if isinstance(source, str) else source())
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if is_disk_full(error):
                free_failed_import(connection, path)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
            # On a full disk the rows stay invisible until the next writer deletes them.
            with suppress(sqlite3.OperationalError):
                delete_incomplete_imports(connection)
            raise
    return ImportResult(
        import_id=import_id,
        added=batch.added,
        unchanged=batch.unchanged,
        superseded=batch.superseded,
        skipped=batch.skipped,
        points=batch.points,
        transactions=writer.transactions,
    )


class ImportBatch:
    """The rows and counts of one import. `add` opens transactions; `complete` runs inside one."""

    def __init__(self, writer: ChunkedWriter, import_id: str, again: bool) -> None:
        self.writer = writer
        self.connection = writer.connection
        self.import_id = import_id
        self.again = again
        self.salt = forgotten_salt(writer)
        self.added = 0
        self.unchanged = 0
        self.superseded = 0
        self.points = 0
        self.unforgotten: list[str] = []
        """Keys of forgotten conversations that `again` imports."""
        self.around_forgotten: dict[str, list[str]] = {}
        """By the id of a dialogue, the keys of the forgotten ones that it contains."""
        self.skipped: dict[str, int] = {}

    def add(self, items: list[ImportItem]) -> None:
        """Writes `items`; hashes are computed before the transaction begins."""
        conversations = []
        others: list[SummaryPoint | Embedding | Replaced] = []
        recuts: list[Recut] = []
        for item in items:
            if isinstance(item, Skipped):
                self._skip(item.reason, item.count)
            elif isinstance(item, Recut):
                recuts.append(item)
            elif isinstance(item, SummaryPoint | Embedding | Replaced):
                others.append(item)
            elif not isinstance(item, Conversation):
                continue
            elif all(turn.is_empty for turn in item.turns):
                self._skip("empty conversation")
            else:
                # Versioned conversations are never compared by their beginnings.
                versioned = _is_versioned(item)
                conversations.append(
                    (item, [content_hash(item.turns)] if versioned else prefix_hashes(item.turns))
                )
        if conversations or others or recuts:
            with self.writer.transaction():
                # An outdated cut is no newer version of a dialogue that begins at the same time.
                for recut in recuts:
                    self._recut(recut)
                for conversation, hashes in conversations:
                    self._add_conversation(conversation, hashes)
                    self.writer.commit_if_due()
                for other in others:
                    self._add_other(other)
                    self.writer.commit_if_due()

    def complete(self, source: str = "") -> None:
        """Makes the rows visible, and names the source when it was not known before."""
        self.connection.execute(
            "UPDATE imports SET completed_at = ?, taken = ?, unchanged = ?, skipped = ?, "
            "source = COALESCE(NULLIF(?, ''), source) WHERE id = ?",
            (time.time(), self.added, self.unchanged, json.dumps(self.skipped), source, self.import_id),
        )
        self.connection.execute(
            "DELETE FROM forgotten WHERE key IN (SELECT value FROM json_each(?))",
            (json.dumps(self.unforgotten),),
        )

    def _add_other(self, item: SummaryPoint | Embedding | Replaced) -> None:
        if isinstance(item, Replaced):
            self._replace(item)
            return
        if isinstance(item, Embedding):
            insert_embedding(self.connection, item)
            return
        key = forgotten_key(self.salt, item.source, item.id, "")
        if self._skip_forgotten(key):
            return
        inserted = insert_point(self.connection, item, self.import_id)
        self.points += inserted
        self.unchanged += not inserted

    def _recut(self, item: Recut) -> None:
        """Replaces the dialogues of a contact that the same messages no longer give."""
        self._find_forgotten(item)
        ids = [id_ for id_, _start, _end in item.forms]
        starts = [start for _id, start, _end in item.forms]
        of_contact = (item.source, f"{item.contact}#", f"{item.contact}$")
        rows = self.connection.execute(
            "SELECT id, external_id, started_at FROM conversations WHERE source = ? AND external_id >= ? "
            "AND external_id < ? AND superseded_by IS NULL AND started_at >= ? AND updated_at <= ?",
            (*of_contact, item.start, item.end),
        ).fetchall()
        for id_, external_id, started_at in rows:
            if id_ in ids or external_id.rpartition("#")[0] != item.contact or not self._shares(id_, item):
                continue
            form = ids[max(0, bisect_right(starts, started_at) - 1)]
            if form in self.around_forgotten and not self.again:
                continue
            update_state(self.connection, id_, superseded_by=form)
            self.superseded += 1
        # A dialogue that an outdated cut had replaced is valid again, unless a longer export has a longer form.
        valid = [id_ for id_ in ids if self.again or id_ not in self.around_forgotten]
        replaced = self.connection.execute(
            "SELECT id FROM conversations c WHERE id IN (SELECT value FROM json_each(?)) "
            "AND superseded_by IS NOT NULL AND NOT EXISTS (SELECT 1 FROM conversations o WHERE o.source = ? "
            "AND o.external_id >= ? AND o.external_id < ? AND o.superseded_by IS NULL "
            "AND o.started_at <= c.updated_at AND o.updated_at >= c.started_at)",
            (json.dumps(valid), *of_contact),
        ).fetchall()
        for (id_,) in replaced:
            update_state(self.connection, id_, superseded_by=None)

    def _find_forgotten(self, item: Recut) -> None:
        """Notes the dialogues in which a forgotten one begins: a wider silence joins it to its neighbours."""
        forgotten = {key for (key,) in self.connection.execute("SELECT key FROM forgotten")}
        if not forgotten:
            return
        for moment in item.moments:
            key = forgotten_key(self.salt, item.source, f"{item.contact}#{int(moment)}", "")
            if key in forgotten:
                for id_, start, end in item.forms:
                    if start <= moment <= end:
                        self.around_forgotten.setdefault(id_, []).append(key)

    def _shares(self, id_: str, item: Recut) -> bool:
        """Whether most turns of a conversation are messages of the chat."""
        times = self.connection.execute(
            "SELECT time FROM turns WHERE conversation_id = ? AND time IS NOT NULL", (id_,)
        ).fetchall()
        return 2 * sum(time in item.moments for (time,) in times) >= len(times) > 0

    def _replace(self, item: Replaced) -> None:
        """The form that replaces an earlier one may be in memory as the beginning of a longer one, or be forgotten."""
        row = self.connection.execute(
            "SELECT COALESCE(superseded_by, id) FROM conversations WHERE id = ?", (item.by,)
        ).fetchone()
        current = self.connection.execute(
            "SELECT 1 FROM conversations WHERE id = ? AND superseded_by IS NULL", (item.id,)
        ).fetchone()
        if row and row[0] != item.id and current:
            update_state(self.connection, item.id, superseded_by=row[0])
            self.superseded += 1

    def _skip(self, reason: str, count: int = 1) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + count

    def _skip_forgotten(self, key: str) -> bool:
        """Whether the item is skipped because the user had it forgotten."""
        if not self.connection.execute("SELECT 1 FROM forgotten WHERE key = ?", (key,)).fetchone():
            return False
        if self.again:
            self.unforgotten.append(key)
            return False
        self._skip("forgotten earlier")
        return True

    def _add_conversation(self, conversation: Conversation, hashes: list[str]) -> None:
        execute = self.connection.execute
        own = forgotten_key(self.salt, conversation.source, conversation.external_id, hashes[-1])
        if any(self._skip_forgotten(key) for key in (own, *self.around_forgotten.get(conversation.id, ()))):
            return
        known = execute(
            "SELECT started_at, updated_at FROM conversations WHERE id = ?", (conversation.id,)
        ).fetchone()
        if known:
            self.unchanged += 1
            self._update_times(conversation, *known)
            return
        shorter = self._shorter_forms(conversation, hashes)
        if shorter is None:
            self.unchanged += 1
            return
        self._insert(conversation, hashes)
        self.added += 1
        for id_ in shorter:
            update_state(self.connection, id_, superseded_by=conversation.id)
        self.superseded += len(shorter)

    def _update_times(
        self, conversation: Conversation, started_at: float | None, updated_at: float | None
    ) -> None:
        """Merges the times of another copy of a known conversation: the earliest start, the latest update."""
        newer = conversation.updated_at is not None and conversation.updated_at > (updated_at or 0)
        if _is_versioned(conversation):
            if newer and updated_at is not None:
                update_state(
                    self.connection,
                    conversation.id,
                    updated_at=_seconds(conversation.updated_at),
                    title=conversation.title,
                )
                self._make_newest_current(conversation)
            return
        older = conversation.started_at is not None and conversation.started_at < (started_at or float("inf"))
        if newer or older:
            update_state(
                self.connection,
                conversation.id,
                started_at=_seconds(conversation.started_at if older else started_at),
                updated_at=_seconds(conversation.updated_at if newer else updated_at),
            )

    def _shorter_forms(self, conversation: Conversation, hashes: list[str]) -> list[str] | None:
        """Ids that `conversation` supersedes; None when memory holds a newer or longer form of it already."""
        execute = self.connection.execute
        if _is_versioned(conversation):
            rows = execute(
                f"{_FORMS} AND c.superseded_by IS NULL",
                (conversation.source, conversation.external_id),
            ).fetchall()
            version = _version(conversation.id, conversation.updated_at, IMPORTERS, len(conversation.turns))
            if any(_version(*row) > version for row in rows):
                return None
            return [row[0] for row in rows]
        if len(hashes) < 2:
            # A single message such as "hello" begins too many unrelated conversations.
            return []
        longer = execute(
            "SELECT 1 FROM turns t JOIN conversations c ON c.id = t.conversation_id "
            "WHERE t.prefix = ? AND t.prefix != 0 AND t.position = ? AND c.source = ? AND c.external_id = ? LIMIT 1",
            (_hash_bits(hashes[-1]), len(hashes) - 1, conversation.source, conversation.external_id),
        ).fetchone()
        if longer:
            return None
        return [
            row[0]
            for row in execute(
                "SELECT id FROM conversations WHERE content_hash IN (SELECT value FROM json_each(?)) "
                "AND source = ? AND external_id = ? AND (external_id = '' OR updated_at IS NULL) "
                "AND superseded_by IS NULL",
                (json.dumps(hashes[1:-1]), conversation.source, conversation.external_id),
            )
        ]

    def _make_newest_current(self, conversation: Conversation) -> None:
        """Makes the newest version the current one, also after the user returned to an earlier branch."""
        where = (conversation.source, conversation.external_id)
        rows = self.connection.execute(_FORMS, where).fetchall()
        newest = max(rows, key=lambda row: _version(*row))[0]
        for id_, *_version_of_it in rows:
            update_state(self.connection, id_, superseded_by=None if id_ == newest else newest)

    def _insert(self, conversation: Conversation, hashes: list[str]) -> None:
        has_prefixes = not _is_versioned(conversation)
        turns = [
            (
                str(turn.role),
                turn.text,
                _seconds(turn.time),
                turn.external_id,
                json.dumps(turn.alternatives, ensure_ascii=False) if turn.alternatives else "[]",
                int(turn.masked),
            )
            for turn in conversation.turns
        ]
        content = (
            conversation.id,
            self.import_id,
            conversation.source,
            conversation.external_id,
            time.time(),
            len(turns),
            sum(len(turn.text) for turn in conversation.turns),
            hashes[-1],
        )
        state = (
            conversation.id,
            conversation.title,
            _seconds(conversation.started_at),
            _seconds(conversation.updated_at),
            None,
        )
        columns = (*CONTENT_COLUMNS, *STATE_COLUMNS[1:], "checksum", "state_checksum")
        self.connection.execute(
            f"INSERT INTO conversations ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608
            (*content, *state[1:], content_checksum(content, turns), checksum(state)),
        )
        rows = [
            (
                conversation.id,
                position,
                _hash_bits(hashes[position]) if has_prefixes and position else 0,
                *turn,
            )
            for position, turn in enumerate(turns)
        ]
        for start in range(0, len(rows), ROWS_PER_CHECK):
            self.connection.executemany(
                f"INSERT INTO turns (conversation_id, position, prefix, {', '.join(TURN_COLUMNS)}) "  # noqa: S608
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows[start : start + ROWS_PER_CHECK],
            )
            self.writer.commit_if_due()


def _seconds(time: float | None) -> float | None:
    """A time as SQLite returns it; it has no NaN."""
    return None if time is None or time != time else float(time)


def _chunks(items: Iterable[ImportItem]) -> Iterator[list[ImportItem]]:
    chunk: list[ImportItem] = []
    characters = 0
    for item in items:
        chunk.append(item)
        characters += _ITEM_OVERHEAD + _size(item)
        if characters >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _size(item: ImportItem) -> int:
    if isinstance(item, Conversation):
        return sum(len(turn.text) for turn in item.turns)
    if isinstance(item, SummaryPoint):
        return len(item.content)
    return len(item.vector) if isinstance(item, Embedding) else 0


def _is_versioned(conversation: Conversation) -> bool:
    """Whether external id and date tell which form of the conversation is the newest.

    An id without a date does not: real exports give one id to different conversations. Those, and the ones
    without an id, supersede a shorter form only when it is their exact beginning.
    """
    return bool(conversation.external_id) and conversation.updated_at is not None


def _version(id_: str, updated_at: float | None, importers: int, turns: int) -> tuple[float, int, int, str]:
    """Sort key of the forms of a versioned conversation; `importers` is the IMPORTERS that read it."""
    return (float("-inf") if updated_at is None else updated_at, importers, turns, id_)


def _hash_bits(hash_: str) -> int:
    """64 bits of a hex hash as SQLite's signed integer; never 0, which means none."""
    return int.from_bytes(bytes.fromhex(hash_[:16]), "big", signed=True) or 1
