"""Damage of a database file: SQLite's checks and texts that are not valid UTF-8. No result quotes a text."""

from __future__ import annotations

import sqlite3
import time

from engine.core.chat import Role
from engine.core.i18n import _

_STEPS_PER_CHECK = 20_000
"""Virtual machine instructions of SQLite between two checks of the time limit."""


class DamagedText(str):
    """A text that is not valid UTF-8 in the database; each invalid byte is replaced by U+FFFD."""

    __slots__ = ()


def decode_text(data: bytes) -> str:
    """The `text_factory` of every connection to memory: one damaged text must not end a query."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return DamagedText(data.decode(errors="replace"))


def find_damage(
    connection: sqlite3.Connection, *, indexes: bool = True, limit_s: float | None = None
) -> str | None:
    """The first damage found, as a translated text; None when there is none or when `limit_s` ran out.

    With `indexes`, also compares indexes with tables (`integrity_check`, else `quick_check`). Raises
    `sqlite3.OperationalError` when the file cannot be read at all.
    """
    deadline = None if limit_s is None else time.monotonic() + limit_s
    if deadline is not None:
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_PER_CHECK)
    try:
        return _find(connection, "integrity_check" if indexes else "quick_check")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return None
        raise
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        connection.set_progress_handler(None, 0)


def _find(connection: sqlite3.Connection, check: str) -> str | None:
    result = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
    if result != "ok":
        return str(result)
    factory = connection.text_factory
    connection.text_factory = bytes
    try:
        for table, columns in _text_columns(connection).items():
            names = ", ".join(f'"{name}"' for name in columns)
            for row in connection.execute(f'SELECT {names} FROM "{table}"'):  # noqa: S608
                if not all(_is_utf8(value) for value in row):
                    return _("a text in the table {table} is not valid UTF-8").format(table=table)
        if "turns" in _tables(connection):
            roles = ",".join(f"'{role.value}'" for role in Role)
            query = f"SELECT 1 FROM turns WHERE role NOT IN ({roles}) LIMIT 1"  # noqa: S608
            if connection.execute(query).fetchone():
                return _("a turn has an unknown role")
    finally:
        connection.text_factory = factory
    return None


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
