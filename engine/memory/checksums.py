"""Checksums of conversations: a changed byte that is still valid text is never read as what was imported.

`conversations.checksum` covers what never changes (the turns, source, external id, counts), `state_checksum` what an
import may change (title, times, `superseded_by`). Triggers keep the number of rows and the sum of their checksums in
the table `census`, so that a row that vanished is noticed too. 0 is the checksum of a row of an older version.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import groupby

import msgspec

from engine.memory.records import hash_texts
from engine.memory.transactions import write_in_chunks

_BYTES = 5
"""Sums of 40-bit numbers stay below 2 ** 63 for four million rows."""
_encode = msgspec.msgpack.Encoder().encode

CONTENT_COLUMNS = (
    "id",
    "import_id",
    "source",
    "external_id",
    "added_at",
    "turns",
    "characters",
    "content_hash",
)
"""Columns of a conversation that its checksum covers, besides its turns."""
STATE_COLUMNS = ("id", "title", "started_at", "updated_at", "superseded_by")
TURN_COLUMNS = ("role", "text", "time", "external_id", "alternatives", "masked")

MIGRATION = """
    ALTER TABLE conversations ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE conversations ADD COLUMN state_checksum INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX conversations_unsealed ON conversations(checksum) WHERE checksum = 0;
    CREATE TABLE census (id INTEGER PRIMARY KEY CHECK (id = 1), rows INTEGER NOT NULL, total INTEGER NOT NULL);
    INSERT INTO census SELECT 1, COUNT(*), 0 FROM conversations;
    CREATE TRIGGER census_insert AFTER INSERT ON conversations BEGIN
        UPDATE census SET rows = rows + 1, total = total + NEW.checksum + NEW.state_checksum;
    END;
    CREATE TRIGGER census_update AFTER UPDATE OF checksum, state_checksum ON conversations BEGIN
        UPDATE census SET total = total - OLD.checksum - OLD.state_checksum + NEW.checksum + NEW.state_checksum;
    END;
    CREATE TRIGGER census_delete AFTER DELETE ON conversations BEGIN
        UPDATE census SET rows = rows - 1, total = total - OLD.checksum - OLD.state_checksum;
    END;
    """
"""Adds columns, table and triggers; `seal` fills the columns of older rows."""


def checksum(values: Iterable[object]) -> int:
    """40 bits of a hash of values as SQLite returns them; never 0."""
    return int.from_bytes(blake2b(_encode(list(values)), digest_size=_BYTES).digest(), "big") or 1


def content_checksum(row: Iterable[object], turns: Iterable[Sequence[object]]) -> int:
    """The checksum of `CONTENT_COLUMNS` and of each turn's `TURN_COLUMNS`."""
    return checksum([*row, *(value for turn in turns for value in turn)])


def is_intact(
    content: Sequence[object],
    state: Sequence[object],
    seals: Sequence[int],
    turns: Sequence[Sequence[object]],
) -> bool:
    """Whether a row is as it was written. `content` and `state` are its columns, `seals` its two checksums.

    Without checksums only roles and texts are compared, with the content hash.
    """
    try:
        if not any(seals):
            return hash_texts((str(role), str(text)) for role, text, *_rest in turns) == content[-1]
        return seals[0] == content_checksum(content, turns) and seals[1] == checksum(state)
    except (TypeError, ValueError, OverflowError):  # a value of another type than its column's
        return False


def find_changed(connection: sqlite3.Connection) -> Iterator[str]:
    """Ids of the conversations that are not as they were written, by reading all of them.

    Those of a running import may lack turns and do not count. Works for databases of older versions too. Raises
    `sqlite3.DatabaseError`.
    """
    columns = {row[1] for row in connection.execute("PRAGMA table_info(conversations)")}
    if not columns:
        return
    sealed = "checksum" in columns
    seals = "checksum, state_checksum" if sealed else "0, 0"
    turn_columns = ", ".join(TURN_COLUMNS if sealed else TURN_COLUMNS[:2])
    with _snapshot(connection), _lenient_texts(connection):
        running = {
            id_
            for (id_,) in connection.execute(
                "SELECT id FROM imports WHERE completed_at IS NULL AND taken = 0 AND unchanged = 0"
            )
        }
        rows = connection.execute(
            f"SELECT {', '.join(CONTENT_COLUMNS + STATE_COLUMNS)}, {seals} "  # noqa: S608
            "FROM conversations NOT INDEXED ORDER BY id"
        )
        turns = groupby(
            connection.execute(
                f"SELECT conversation_id, {turn_columns} FROM turns "  # noqa: S608
                "ORDER BY conversation_id, position"
            ),
            lambda row: row[0],
        )
        owner, group = _next(turns)
        for row in rows:
            content, state, seal_ = _split(row)
            while owner is not None and str(owner) < str(row[0]):
                owner, group = _next(turns)
            own = []
            if owner == row[0]:
                own = [turn[1:] for turn in group]
                owner, group = _next(turns)
            if content[1] not in running and not is_intact(content, state, seal_, own):
                yield str(row[0])


def _next(
    groups: Iterator[tuple[object, Iterator[tuple[object, ...]]]],
) -> tuple[object, Iterator[tuple[object, ...]]]:
    return next(groups, (None, iter(())))


def _split(row: Sequence[object]) -> tuple[Sequence[object], Sequence[object], Sequence[int]]:
    end = len(CONTENT_COLUMNS)
    return row[:end], row[end:-2], row[-2:]  # type: ignore[return-value]


def rows_are_missing(connection: sqlite3.Connection) -> bool:
    """Whether conversations vanished or appeared without the program: their number, checksums or imports differ."""
    rows, total, count, found, orphans = connection.execute(
        "SELECT n.rows, n.total, COUNT(c.id), COALESCE(SUM(c.checksum + c.state_checksum), 0), "
        "COUNT(c.id) - COUNT(i.id) FROM census n LEFT JOIN conversations c NOT INDEXED "
        "LEFT JOIN imports i ON i.id = c.import_id"
    ).fetchone()
    # Only a complete import has counts.
    hidden = connection.execute(
        "SELECT 1 FROM imports WHERE completed_at IS NULL AND (taken != 0 OR unchanged != 0)"
    ).fetchone()
    return (rows, total) != (count, found) or bool(orphans) or hidden is not None


def changed_shorter_forms(connection: sqlite3.Connection) -> list[str]:
    """Ids of superseded conversations whose state changed: they may be current ones that a changed byte hides."""
    with _lenient_texts(connection):
        return [
            str(row[0])
            for row in connection.execute(
                f"SELECT {', '.join(STATE_COLUMNS)}, state_checksum FROM conversations "  # noqa: S608
                "WHERE superseded_by IS NOT NULL AND state_checksum != 0"
            )
            if checksum(row[:-1]) != row[-1]
        ]


def seal(connection: sqlite3.Connection) -> None:
    """Gives rows of older versions their checksums; one whose text differs from its content hash stays without."""
    ids = [id_ for (id_,) in connection.execute("SELECT id FROM conversations WHERE checksum = 0")]

    def seal_one(id_: str) -> None:
        row = connection.execute(
            f"SELECT {', '.join(CONTENT_COLUMNS + STATE_COLUMNS)}, checksum, state_checksum "  # noqa: S608
            "FROM conversations WHERE id = ?",
            (id_,),
        ).fetchone()
        if row is None:
            return
        content, state, seals = _split(row)
        turns = connection.execute(
            f"SELECT {', '.join(TURN_COLUMNS)} FROM turns WHERE conversation_id = ? ORDER BY position",  # noqa: S608
            (id_,),
        ).fetchall()
        if not any(seals) and is_intact(content, state, seals, turns):
            connection.execute(
                "UPDATE conversations SET checksum = ?, state_checksum = ? WHERE id = ?",
                (content_checksum(content, turns), checksum(state), id_),
            )

    with _lenient_texts(connection):
        write_in_chunks(connection, ids, seal_one)


def update_state(connection: sqlite3.Connection, id_: str, **values: object) -> None:
    """Sets some of `STATE_COLUMNS` of a conversation, with its checksum; a changed row keeps the wrong one."""
    row = connection.execute(
        f"SELECT {', '.join(STATE_COLUMNS)}, state_checksum FROM conversations WHERE id = ?",  # noqa: S608
        (id_,),
    ).fetchone()
    if row is None:
        return
    state = dict(zip(STATE_COLUMNS, row, strict=False))
    intact = checksum(state.values()) == row[-1]
    state |= values
    assignments = ", ".join(f"{name} = ?" for name in values)
    connection.execute(
        f"UPDATE conversations SET {assignments}, state_checksum = ? WHERE id = ?",  # noqa: S608
        (*values.values(), checksum(state.values()) if intact else row[-1], id_),
    )


@contextmanager
def _lenient_texts(connection: sqlite3.Connection) -> Iterator[None]:
    """Inside the block, a text that is not valid UTF-8 is read as bytes."""

    def decode(data: bytes) -> str | bytes:
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data

    factory = connection.text_factory
    connection.text_factory = decode
    try:
        yield
    finally:
        connection.text_factory = factory


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """One state of the database for all queries inside the block."""
    own = not connection.in_transaction
    if own:
        connection.execute("BEGIN")
    try:
        yield
    finally:
        if own and connection.in_transaction:
            connection.execute("ROLLBACK")
