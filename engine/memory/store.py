"""The memory of a person: one SQLite file (WAL, `synchronous=FULL`) with every conversation that was taken in.

Rows arrive under an import in write transactions of at most 50 ms and are seen only when it is complete.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from engine.core.chat import Role
from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.memory import deletion, ingest
from engine.memory.ingest import ImportResult
from engine.memory.records import Conversation, Item, Recollection, Turn
from engine.memory.schema import MIGRATIONS, mend_of, migrate, schema_version
from engine.memory.search import Hit, fold, search

_ROLES = {role.value: role for role in Role}
_CHUNK = 200
"""Conversations whose turns are read by one query."""


class MemoryStats(msgspec.Struct, frozen=True, kw_only=True):
    """What `memory stats --json` prints."""

    conversations: int
    turns: int
    characters: int
    sources: dict[str, int]
    """Conversations by source."""
    dated: int
    """Conversations with a time."""
    oldest: float | None
    newest: float | None
    imports: int
    points: int
    """Memory points that are no conversations."""
    superseded: int
    """Shorter forms of conversations that grew."""
    bytes: int
    """Size of `memory.db` with its log."""


class MemoryStore:
    """Reads and writes `memory.db`. A context manager; use one from one thread at a time.

    Raises BadInput when the file is no database, is damaged, or was written by a newer program.
    """

    def __init__(self, path: Path, readonly: bool = False) -> None:
        """`readonly` on a file that is not there gives an empty store and makes none."""
        self.path = path
        self.readonly = readonly
        try:
            self.connection = _connect(path, readonly)
        except sqlite3.DatabaseError as error:
            raise BadInput(
                _("The memory cannot be opened ({reason})").format(reason=error),
                path=path,
                hint=mend_of(error),
            ) from None
        if not readonly:
            deletion.sweep_if_idle(self.connection, path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    def add(
        self,
        conversations: Iterable[Item],
        source: str = "",
        path: str = "",
        *,
        again: bool = False,
    ) -> ImportResult:
        """Takes conversations in, all or none: when the iterable raises, nothing of it stays.

        What is there already is `unchanged`; a conversation that grew supersedes its shorter form. With
        `again`, conversations that were forgotten are taken too. Waits up to ten seconds for another import.
        Raises Busy, BadInput (from the iterable), OSError (disk full).
        """
        return ingest.add(self.connection, self.path, conversations, source=source, origin=path, again=again)

    def conversations(self) -> Iterator[Conversation]:
        """All current conversations: dated ones from old to new, then the undated by id."""
        ids = self.connection.execute(
            "SELECT id FROM current_conversations ORDER BY started_at IS NULL, started_at, id"
        ).fetchall()
        yield from self.of([id_ for (id_,) in ids])

    def of(self, ids: Sequence[str]) -> Iterator[Conversation]:
        """The conversations of those ids, in that order; what memory has not is left out."""
        for start in range(0, len(ids), _CHUNK):
            yield from self._read(
                "SELECT c.* FROM json_each(?) j JOIN conversations c ON c.id = j.value ORDER BY j.key",
                (json.dumps(list(ids[start : start + _CHUNK])),),
            )

    def newest(self, limit: int, *, source: str | None = None, offset: int = 0) -> Iterator[Conversation]:
        """Current conversations from new to old, the undated last."""
        yield from self._read(
            "SELECT * FROM current_conversations WHERE ? IS NULL OR source = ? "
            "ORDER BY COALESCE(updated_at, started_at) IS NULL, COALESCE(updated_at, started_at) DESC, id "
            "LIMIT ? OFFSET ?",
            (source, source, limit, offset),
        )

    def get(self, conversation_id: str) -> Conversation | None:
        """The conversation of that id, also a superseded one; None when memory has none."""
        query = (
            "SELECT c.* FROM conversations c JOIN imports i ON i.id = c.import_id "
            "WHERE c.id = ? AND i.completed_at IS NOT NULL"
        )
        return next(self._read(query, (conversation_id,)), None)

    def find(self, prefix: str) -> str:
        """The id that begins with `prefix`. Raises BadInput when none or several do."""
        rows = self.connection.execute(
            "SELECT id FROM conversations WHERE substr(id, 1, ?) = ? LIMIT 4", (len(prefix), prefix)
        ).fetchall()
        if prefix and len(rows) == 1:
            return str(rows[0][0])
        if not prefix or not rows:
            raise BadInput(_("No conversation has the id {id}").format(id=prefix), hint="h2q-tui memory list")
        raise BadInput(
            _("Several conversations begin with {id}: {ids}").format(
                id=prefix, ids=", ".join(r[0] for r in rows)
            ),
            hint="h2q-tui memory list",
        )

    def count(self) -> int:
        return int(self.connection.execute("SELECT COUNT(*) FROM current_conversations").fetchone()[0])

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

    def search(self, text: str, limit: int = 50) -> list[Hit]:
        """Turns that contain `text`, whatever its case and width (NFKC), newest conversation first."""
        return search(self.connection, text, limit)

    def points_with(self, text: str) -> list[str]:
        """Ids of the memory points that contain `text`, compared as `search` does."""
        wanted = fold(text)
        rows = self.connection.execute("SELECT id, content, summary, keywords FROM memory_points ORDER BY id")
        return [row[0] for row in rows if wanted and any(wanted in fold(field) for field in row[1:])]

    def points(self, text: str = "", *, limit: int = 50, offset: int = 0) -> list[Recollection]:
        """Memory points that are no conversations, newest first; with `text`, those that contain it."""
        wanted = set(self.points_with(text)) if text else None
        rows = self.connection.execute(
            "SELECT p.id, p.source, p.content, p.summary, p.keywords, p.created_at FROM memory_points p "
            "JOIN imports i ON i.id = p.import_id WHERE i.completed_at IS NOT NULL "
            "ORDER BY p.created_at IS NULL, p.created_at DESC, p.id"
        )
        found = (row for row in rows if wanted is None or row[0] in wanted)
        return [
            Recollection(
                id=row[0],
                source=row[1],
                content=row[2],
                summary=row[3],
                keywords=tuple(json.loads(row[4])),
                created_at=row[5],
            )
            for row in islice(found, offset, offset + limit)
        ]

    def forget(self, ids: Iterable[str]) -> list[str]:
        """Erases conversations with their shorter forms and everything the corpus says of them, and memory
        points.

        Deleted pages are overwritten, given back to the file system, and the log is emptied. Returns the
        ids that went. Files outside the database are `engine.pipeline.forget`'s.
        """
        return deletion.erase(self.connection, ids)

    def _read(self, query: str, values: tuple[object, ...] = ()) -> Iterator[Conversation]:
        cursor = self.connection.execute(query, values)
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor]
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            turns = self._turns([row["id"] for row in chunk])
            for row in chunk:
                yield Conversation(
                    id=row["id"],
                    source=row["source"],
                    external_id=row["external_id"],
                    title=row["title"],
                    started_at=row["started_at"],
                    updated_at=row["updated_at"],
                    turns=tuple(turns[row["id"]]),
                )

    def _turns(self, ids: list[str]) -> dict[str, list[Turn]]:
        turns: dict[str, list[Turn]] = {id_: [] for id_ in ids}
        query = (
            "SELECT conversation_id, role, text, time, external_id, alternatives FROM turns "
            "WHERE conversation_id IN (SELECT value FROM json_each(?)) ORDER BY conversation_id, position"
        )
        for id_, role, text, time, external_id, alternatives in self.connection.execute(
            query, (json.dumps(ids),)
        ):
            turns[id_].append(
                Turn(
                    role=_ROLES[role],
                    text=text,
                    time=time,
                    external_id=external_id,
                    alternatives=() if alternatives == "[]" else tuple(json.loads(alternatives)),
                )
            )
        return turns


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
    for pragma in (
        "auto_vacuum=INCREMENTAL",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",
        # Copying the log back is done between transactions (`writing.Writer`); this is for other writers.
        "wal_autocheckpoint=4000",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    path.chmod(0o600)
    migrate(connection)
    return connection
