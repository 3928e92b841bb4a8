"""Damage of a database file: SQLite's checks and texts that are not valid UTF-8. No result quotes a text."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from engine.core.chat import Role
from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.memory.checksums import find_changed, rows_are_missing

_STEPS_PER_CHECK = 20_000
"""Virtual machine instructions of SQLite between two checks of the time limit."""


class DamagedText(str):
    """A text that is not valid UTF-8 in the database; each invalid byte is replaced by U+FFFD."""

    __slots__ = ()


def is_damaged_turn(role: object, text: object) -> bool:
    """Whether a turn read inside `marked_damage` has a damaged text or an unknown role."""
    return role not in _ROLES or not isinstance(text, str) or isinstance(text, DamagedText)


_ROLES = frozenset(role.value for role in Role)

replace_invalid = partial(str, encoding="utf-8", errors="replace")
"""The `text_factory` of connections to memory: a text that is not valid UTF-8 does not end a query."""


def _mark_invalid(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return DamagedText(replace_invalid(data))


@contextmanager
def marked_damage(connection: sqlite3.Connection) -> Iterator[None]:
    """Inside the block, texts that are not valid UTF-8 are read as `DamagedText`."""
    factory = connection.text_factory
    connection.text_factory = _mark_invalid
    try:
        yield
    finally:
        connection.text_factory = factory


def is_damage(error: Exception) -> bool:
    """Whether an error of SQLite means that the file is damaged, and not a lock, a full disk or a wrong query."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    codes = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
    return (code is not None and code & 0xFF in codes) or _DECODING in str(error)


_DECODING = "Could not decode to UTF-8"
"""The message of the module sqlite3, which goes on to quote the text."""


def damage_behind(error: BaseException | None, connection: sqlite3.Connection) -> str | None:
    """Why the database is damaged if that caused `error`; None for another cause.

    Damaged schemas, ids and indexes give errors that a programming error could give too: then the file is checked.
    """
    if isinstance(error, sqlite3.Error) and is_damage(error):
        return reason_of(error)
    unclear = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    if unclear or isinstance(error, ValueError | LookupError):
        try:
            return find_damage(connection, limit_s=_CHECK_S)
        except sqlite3.Error:
            return None
    return None


_CHECK_S = 2.0


def reason_of(error: sqlite3.Error | UnicodeDecodeError) -> str:
    """SQLite's message about damage, without the text that it may quote."""
    if isinstance(error, UnicodeDecodeError) or _DECODING in str(error):
        return _("a text is not valid UTF-8")
    return str(error)


def damaged_memory(reason: str, path: Path | None = None) -> BadInput:
    """The error for a damaged memory, with the command that replaces it."""
    return BadInput(
        _("The memory is damaged ({reason})").format(reason=reason), path=path, hint="h2q-tui backup restore"
    )


@contextmanager
def damage_as_bad_input(path: Path) -> Iterator[None]:
    """Turns SQLite's errors about a damaged file into BadInput; others pass through."""
    try:
        yield
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.DatabaseError) and not is_damage(error):
            raise
        raise damaged_memory(reason_of(error), path) from None


def find_damage(connection: sqlite3.Connection, *, limit_s: float | None = None) -> str | None:
    """The first damage found, as a translated text; None when there is none or when `limit_s` ran out.

    Looks at the pages, the texts, the checksums of conversations, and compares indexes with tables
    (`integrity_check`), which is the slowest and comes last. Raises `sqlite3.OperationalError` when the file cannot
    be read at all.
    """
    deadline = None if limit_s is None else time.monotonic() + limit_s
    if deadline is not None:
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_PER_CHECK)
    try:
        return next(_damage(connection), None)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return None
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        return str(error)
    except sqlite3.DatabaseError as error:
        return str(error)
    except UnicodeDecodeError:
        return _("its schema cannot be read")
    finally:
        connection.set_progress_handler(None, 0)


def find_page_damage(connection: sqlite3.Connection) -> str | None:
    """Damage that makes a database unfit to be read or written: not that of single conversations.

    Raises as `find_damage`.
    """
    try:
        return next(_page_damage(connection, "integrity_check"), None)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        return str(error)
    except sqlite3.DatabaseError as error:
        return str(error)


def _damage(connection: sqlite3.Connection) -> Iterator[str]:
    yield from _page_damage(connection, "quick_check")
    yield from _text_damage(connection)
    tables = _tables(connection)
    if "conversations" in tables:
        # SQLite looks at the text of a view only when it is used.
        connection.execute("SELECT 1 FROM current_conversations LIMIT 1").fetchone()
        changed = next(find_changed(connection), None)
        if changed is not None:
            yield _("the conversation {id} is not as it was imported").format(id=changed)
    if "census" in tables and rows_are_missing(connection):
        yield _("conversations are missing")
    yield from _page_damage(connection, "integrity_check")


def _page_damage(connection: sqlite3.Connection, check: str) -> Iterator[str]:
    result = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
    if result != "ok":
        yield str(result)


def _text_damage(connection: sqlite3.Connection) -> Iterator[str]:
    factory = connection.text_factory
    connection.text_factory = bytes
    try:
        for (statement,) in connection.execute("SELECT sql FROM sqlite_master"):
            if not _is_utf8(statement):
                yield _("its schema cannot be read")
        for table, columns in _text_columns(connection).items():
            names = ", ".join(f'"{name}"' for name in columns)
            for row in connection.execute(f'SELECT {names} FROM "{table}"'):  # noqa: S608
                if not all(_is_utf8(value) for value in row):
                    yield _("a text in the table {table} is not valid UTF-8").format(table=table)
        if "turns" in _tables(connection):
            roles = ",".join(f"'{role.value}'" for role in Role)
            query = f"SELECT 1 FROM turns WHERE role NOT IN ({roles}) LIMIT 1"  # noqa: S608
            if connection.execute(query).fetchone():
                yield _("a turn has an unknown role")
    finally:
        connection.text_factory = factory


def _tables(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT CAST(name AS BLOB) FROM sqlite_master WHERE type = 'table'")
    return [name.decode() for (name,) in rows if not name.startswith(b"sqlite_")]


def _text_columns(connection: sqlite3.Connection) -> dict[str, list[str]]:
    columns: dict[str, list[str]] = {}
    for table in _tables(connection):
        for row in connection.execute(f'PRAGMA table_info("{table}")'):
            if row[2] == b"TEXT":
                columns.setdefault(table, []).append(row[1].decode())
    return columns


def _is_utf8(value: object) -> bool:
    if isinstance(value, bytes):
        try:
            value.decode()
        except UnicodeDecodeError:
            return False
    return True
