"""The memory store: one SQLite file (WAL, `synchronous=FULL`) with every imported conversation.

An import writes its rows in transactions of at most 50 ms; they become visible when it is complete.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from engine.core.chat import Role
from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.memory import checksums, deletion
from engine.memory.disk_reserve import clean_failed_imports, is_disk_full, with_reserve
from engine.memory.import_batch import ImportResult, import_items
from engine.memory.integrity import (
    DamagedText,
    damage_as_bad_input,
    damage_behind,
    damaged_memory,
    marked_damage,
    reason_of,
    replace_invalid,
)
from engine.memory.records import Conversation, ImportItem, SummaryPoint, Turn
from engine.memory.schema import MIGRATIONS, migrate, recovery_command, schema_version
from engine.memory.search import SearchHit, fold, search
from engine.memory.transactions import import_lock

_ROLES = {role.value: role for role in Role}
_READ_CHUNK = 200
"""Conversations whose turns are read by one query."""


class MemoryStats(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of `memory stats --json`."""

    conversations: int
    turns: int
    characters: int
    sources: dict[str, int]
    """Conversations by source."""
    dated: int
    """Conversations with a date."""
    oldest: float | None
    newest: float | None
    imports: int
    points: int
    """Summary points."""
    superseded: int
    """Shorter forms of conversations that grew."""
    bytes: int
    """Size of `memory.db` with its WAL."""


class MemoryStore:
    """Reads and writes `memory.db`. A context manager; not for use by two threads at once.

    Raises BadInput when the file is not a database, is damaged, or was written by a newer version; damage that a
    query finds inside a `with` block is BadInput at its end, and a full disk OSError.
    """

    def __init__(self, path: Path, readonly: bool = False) -> None:
        """With `readonly`, a missing file gives an empty store and is not created."""
        self.path = path
        self.readonly = readonly
        self.damaged: list[str] = []
        """Ids of conversations that were skipped because they are damaged."""
        try:
            self.connection = with_reserve(path, lambda: _connect(path, readonly))
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise BadInput(
                _("The memory cannot be opened ({reason})").format(reason=reason_of(error)),
                path=path,
                hint=recovery_command(error),
            ) from None
        self.connection.text_factory = replace_invalid
        if not readonly:
            with damage_as_bad_input(path):
                with import_lock(path, wait_s=0) as idle:
                    if idle:
                        clean_failed_imports(self.connection, path)
                checksums.seal(self.connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        damage = damage_behind(error, self.connection)
        self.close()
        if is_disk_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)) from None
        if damage:
            raise damaged_memory(damage, self.path) from None

    def close(self) -> None:
        self.connection.close()

    def add(
        self,
        items: Iterable[ImportItem],
        source: str | Callable[[], str] = "",
        path: str = "",
        *,
        again: bool = False,
    ) -> ImportResult:
        """Imports `items`, all or none: when the iterable raises, nothing is added.

        A `source` that is known only when all items are read is a function.

        Known conversations count as `unchanged`; one that grew supersedes its shorter form. With `again`,
        forgotten conversations are imported too. Waits up to ten seconds for another import to finish.
        Raises Busy, BadInput (from the iterable), OSError (disk full).
        """
        return import_items(self.connection, self.path, items, source=source, origin=path, again=again)

    def conversations(self) -> Iterator[Conversation]:
        """All current conversations: dated ones from oldest to newest, then undated ones by id.

        Damaged ones are skipped here and in the methods below; their ids are in `damaged`. Raises BadInput when
        others are missing.
        """
        ids = [
            id_
            for (id_,) in self.connection.execute(
                "SELECT id FROM current_conversations ORDER BY started_at IS NULL, started_at, id"
            ).fetchall()
        ]
        read = set()
        for conversation in self.by_ids(ids):
            read.add(conversation.id)
            yield conversation
        if lost := [id_ for id_ in ids if id_ not in read]:
            # A damaged index does not find them; another process may have deleted them meanwhile.
            rows = self.connection.execute(
                "SELECT c.id FROM conversations c NOT INDEXED WHERE c.id IN (SELECT value FROM json_each(?))",
                (json.dumps(lost),),
            )
            present = {id_ for (id_,) in rows}
            self._add_damaged([id_ for id_ in lost if id_ in present or "\ufffd" in id_])
        self._add_damaged(checksums.changed_shorter_forms(self.connection))
        if not self.damaged and checksums.rows_are_missing(self.connection):
            raise damaged_memory(_("conversations are missing"), self.path)

    def check_all(self) -> None:
        """Compares all conversations with their checksums and adds those that changed to `damaged`.

        Raises BadInput when others are missing.
        """
        self._add_damaged(checksums.find_changed(self.connection))
        if not self.damaged and checksums.rows_are_missing(self.connection):
            raise damaged_memory(_("conversations are missing"), self.path)

    def _add_damaged(self, ids: Iterable[str]) -> None:
        self.damaged += [id_ for id_ in dict.fromkeys(ids) if id_ not in self.damaged]

    def by_ids(self, ids: Sequence[str]) -> Iterator[Conversation]:
        """The conversations with these ids, in this order; unknown ids are skipped."""
        for start in range(0, len(ids), _READ_CHUNK):
            yield from self._read(
                "SELECT c.* FROM json_each(?) j JOIN conversations c ON c.id = j.value ORDER BY j.key",
                (json.dumps(list(ids[start : start + _READ_CHUNK])),),
            )

    def newest(self, limit: int, *, source: str | None = None, offset: int = 0) -> Iterator[Conversation]:
        """Current conversations from newest to oldest, undated ones last."""
        yield from self._read(
            "SELECT * FROM current_conversations WHERE ? IS NULL OR source = ? "
            "ORDER BY COALESCE(updated_at, started_at) IS NULL, COALESCE(updated_at, started_at) DESC, id "
            "LIMIT ? OFFSET ?",
            (source, source, limit, offset),
        )

    def get(self, conversation_id: str) -> Conversation | None:
        """The conversation with this id, also a superseded one; None when there is none.

        Raises BadInput when it is damaged.
        """
        query = (
            "SELECT c.* FROM conversations c JOIN imports i ON i.id = c.import_id "
            "WHERE c.id = ? AND i.completed_at IS NOT NULL"
        )
        found = next(self._read(query, (conversation_id,)), None)
        if found is None and conversation_id in self.damaged:
            raise BadInput(
                _("The conversation {id} is damaged").format(id=conversation_id),
                hint="h2q-tui backup restore",
            )
        return found

    def resolve_id(self, prefix: str) -> str:
        """The id that begins with `prefix`. Raises BadInput when none or more than one does."""
        rows = self.connection.execute(
            "SELECT id FROM conversations WHERE substr(id, 1, ?) = ? LIMIT 4", (len(prefix), prefix)
        ).fetchall()
        if prefix and len(rows) == 1:
            return str(rows[0][0])
        if not prefix or not rows:
            raise BadInput(_("No conversation has the id {id}").format(id=prefix), hint="h2q-tui memory list")
        raise BadInput(
            _("Several conversations begin with {id}: {ids}").format(
                id=prefix, ids=_(", ").join(r[0] for r in rows)
            ),
            hint="h2q-tui memory list",
        )

    def count(self) -> int:
        return int(self.connection.execute("SELECT COUNT(*) FROM current_conversations").fetchone()[0])

    def mean_characters(self) -> float:
        """Characters of a conversation on average; 0 without any."""
        row = self.connection.execute("SELECT AVG(characters) FROM current_conversations").fetchone()
        return float(row[0] or 0.0)

    def stats(self) -> MemoryStats:
        one = self.connection.execute(
            "SELECT COUNT(*), COALESCE(SUM(turns), 0), COALESCE(SUM(characters), 0), "
            "COUNT(COALESCE(started_at, updated_at)), MIN(started_at), MAX(COALESCE(updated_at, started_at)) "
            "FROM current_conversations"
        ).fetchone()
        sources = self.connection.execute(
            "SELECT source, COUNT(*) FROM current_conversations GROUP BY source ORDER BY 2 DESC, 1"
        ).fetchall()
        imports = self.connection.execute(
            "SELECT COUNT(*) FROM imports WHERE completed_at IS NOT NULL"
        ).fetchone()
        rows = self.connection.execute(
            "SELECT COUNT(*) FROM conversations c JOIN imports i ON i.id = c.import_id WHERE i.completed_at IS NOT NULL"
        ).fetchone()
        points = self.connection.execute(
            "SELECT COUNT(*) FROM memory_points p JOIN imports i ON i.id = p.import_id "
            "WHERE i.completed_at IS NOT NULL"
        ).fetchone()
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return MemoryStats(
            conversations=one[0],
            turns=one[1],
            characters=one[2],
            sources=dict(sources),
            dated=one[3],
            oldest=one[4],
            newest=one[5],
            imports=imports[0],
            points=points[0],
            superseded=rows[0] - one[0],
            bytes=sum(file.stat().st_size for file in files if file.exists()),
        )

    def search(self, text: str, limit: int = 50) -> list[SearchHit]:
        """Turns that contain `text`, ignoring case and width (NFKC), newest conversation first."""
        return search(self.connection, text, limit)

    def point_ids_containing(self, text: str) -> list[str]:
        """Ids of the summary points that contain `text`, compared as in `search`."""
        wanted = fold(text)
        rows = self.connection.execute("SELECT id, content, summary, keywords FROM memory_points ORDER BY id")
        return [row[0] for row in rows if wanted and any(wanted in fold(field) for field in row[1:])]

    def points(self, text: str = "", *, limit: int = 50, offset: int = 0) -> list[SummaryPoint]:
        """Summary points, newest first; with `text`, those that contain it."""
        wanted = set(self.point_ids_containing(text)) if text else None
        rows = self.connection.execute(
            "SELECT p.id, p.source, p.content, p.summary, p.keywords, p.created_at FROM memory_points p "
            "JOIN imports i ON i.id = p.import_id WHERE i.completed_at IS NOT NULL "
            "ORDER BY p.created_at IS NULL, p.created_at DESC, p.id"
        )
        matching = (row for row in rows if wanted is None or row[0] in wanted)
        return [
            SummaryPoint(
                id=row[0],
                source=row[1],
                content=row[2],
                summary=row[3],
                keywords=tuple(json.loads(row[4])),
                created_at=row[5],
            )
            for row in islice(matching, offset, offset + limit)
        ]

    def forget(self, ids: Iterable[str], *, text: str = "", quoted: Sequence[str] = ()) -> deletion.Forgotten:
        """Deletes conversations with their shorter forms and their rows in the corpus, and summary points.

        Paths of imports without rows are blanked. So are rules, reasons, edits that are not in force and paths that
        contain `text` or quote what is deleted or one of the texts `quoted`. Deleted pages are overwritten and
        returned to the file system, and the WAL is truncated. `engine.pipeline.forget` cleans the files outside the
        database.
        """
        return deletion.forget(self.connection, ids, text=text, quoted=quoted)

    def ids_containing(self, text: str) -> list[str]:
        """Ids of all conversations and summary points that hold `text` anywhere, shorter forms included."""
        return deletion.ids_containing(self.connection, text)

    def _read(self, query: str, values: tuple[object, ...] = ()) -> Iterator[Conversation]:
        with marked_damage(self.connection):
            cursor = self.connection.execute(query, values)
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor]
        for start in range(0, len(rows), _READ_CHUNK):
            chunk = rows[start : start + _READ_CHUNK]
            turns = self._turns([row["id"] for row in chunk])
            for row in chunk:
                conversation = _conversation(row, turns[row["id"]])
                if conversation is not None:
                    yield conversation
                else:
                    self._add_damaged([row["id"]])

    def _turns(self, ids: list[str]) -> dict[str, list[_TurnRow]]:
        turns: dict[str, list[_TurnRow]] = {id_: [] for id_ in ids}
        query = (
            "SELECT conversation_id, role, text, time, external_id, alternatives, masked FROM turns "
            "WHERE conversation_id IN (SELECT value FROM json_each(?)) ORDER BY conversation_id, position"
        )
        with marked_damage(self.connection):
            for id_, *row in self.connection.execute(query, (json.dumps(ids),)):
                if id_ in turns:  # a damaged index finds other rows
                    turns[id_].append(tuple(row))
        return turns


_TurnRow = tuple[Any, ...]
"""Role, text, time, external id, alternatives and mask, as they are in the database."""


def _conversation(row: dict[str, Any], turns: list[_TurnRow]) -> Conversation | None:
    """The conversation of a row and its turns; None when one of them is damaged."""
    texts = [row["id"], row["source"], row["external_id"], row["title"]]
    times = [row["started_at"], row["updated_at"]]
    for _role, text, time, external_id, alternatives, _masked in turns:
        texts += [text, external_id, alternatives]
        times.append(time)
    if any(not isinstance(text, str) or isinstance(text, DamagedText) for text in texts):
        return None
    if any(not isinstance(time, float | int | None) for time in times) or len(turns) != row["turns"]:
        return None
    content = [row[name] for name in checksums.CONTENT_COLUMNS]
    state = [row[name] for name in checksums.STATE_COLUMNS]
    if not checksums.is_intact(content, state, (row["checksum"], row["state_checksum"]), turns):
        return None
    try:
        return Conversation(
            id=row["id"],
            source=row["source"],
            external_id=row["external_id"],
            title=row["title"],
            started_at=row["started_at"],
            updated_at=row["updated_at"],
            turns=tuple(
                Turn(
                    role=_ROLES[role],
                    text=text,
                    time=time,
                    external_id=external_id,
                    alternatives=() if alternatives == "[]" else tuple(json.loads(alternatives)),
                    masked=bool(masked),
                )
                for role, text, time, external_id, alternatives, masked in turns
            ),
        )
    except (KeyError, ValueError, TypeError):
        # An unknown role, or alternatives that are not JSON.
        return None


def _connect(path: Path, readonly: bool) -> sqlite3.Connection:
    if readonly and path.exists():
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            timeout=10,
            check_same_thread=False,
        )
        if schema_version(connection) == len(MIGRATIONS):
            return connection
        connection.close()
        _connect(path, readonly=False).close()
        return _connect(path, readonly=True)
    if readonly:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        migrate(connection)
        connection.execute("PRAGMA query_only=ON")
        return connection
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    try:
        _prepare(connection)
        path.chmod(0o600)
        migrate(connection)
    except BaseException:
        # At once: closing it later would checkpoint, which takes the room that `with_reserve` has freed by then.
        connection.close()
        raise
    return connection


_INCREMENTAL = 2


def _prepare(connection: sqlite3.Connection) -> None:
    # `ChunkedWriter` checkpoints between its transactions; this limit is for other writers.
    connection.execute("PRAGMA wal_autocheckpoint=4000").fetchall()
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:
        # Only then: it writes to the file, which a full disk prevents.
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL").fetchall()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
