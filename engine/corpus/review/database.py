"""Opens `memory.db` for the review, and translates SQLite's errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.core.errors import BadInput, H2QError, RunFailed
from engine.core.i18n import _
from engine.memory.integrity import damaged_memory, is_damage, reason_of, replace_invalid
from engine.memory.schema import (
    MIGRATIONS,
    describe_sqlite_error,
    migrate,
    recovery_command,
    schema_version,
)

_TABLES = frozenset({"imports", "conversations", "turns", "corpus", "ledger", "decisions", "meta"})
"""The tables of the first schema."""


class UnusableDatabase(BadInput):
    """The file is damaged, not a memory, or written by a newer version. Pending writes may be retried: a backup can
    replace the file while the program runs."""


def connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    """A connection in autocommit mode, migrated to the newest schema.

    Raises UnusableDatabase, and `sqlite3.OperationalError` for temporary failures (a lock, a full disk).
    """
    with translate_damage(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rw'}",
            uri=True,
            isolation_level=None,
            timeout=10,
            check_same_thread=False,
        )
        connection.text_factory = replace_invalid
        try:
            _check(connection, path)
            if not readonly:
                for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
                    connection.execute(f"PRAGMA {pragma}").fetchall()
                migrate(connection)
            elif schema_version(connection) != len(MIGRATIONS):
                connection.close()
                connect(path, readonly=False).close()
                return connect(path, readonly=True)
        except BaseException:
            connection.close()
            raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Raises UnusableDatabase for the database of another program or of a newer version; writing would corrupt it."""
    version = schema_version(connection)
    if version > len(MIGRATIONS):
        raise UnusableDatabase(
            _("the memory has schema {theirs}; this version supports up to {ours}").format(
                theirs=version, ours=len(MIGRATIONS)
            ),
            path=path,
            hint="pipx upgrade h2q-tui",
        )
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not (names >= _TABLES if version else not names):
        raise UnusableDatabase(
            _("this is the database of another program"), path=path, hint="h2q-tui backup restore"
        )


@contextmanager
def translate_damage(path: Path) -> Iterator[None]:
    """Turns SQLite's errors about a damaged file into UnusableDatabase; temporary failures pass through."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and not is_damage(error):
            raise
        raise UnusableDatabase(
            _("The memory is damaged ({reason})").format(reason=reason_of(error)),
            path=path,
            hint=recovery_command(error),
        ) from error


def error_text(error: Exception, path: Path) -> str:
    """The sentence for any failure of reading or writing `path`."""
    if isinstance(error, sqlite3.Error):
        return str(as_run_failed(error, path))
    return str(error)


def as_run_failed(error: sqlite3.Error, path: Path) -> H2QError:
    """An SQLite error as an error of the app, with reason and file."""
    if is_damage(error):
        return damaged_memory(reason_of(error), path)
    text = _("The memory cannot be read or written ({reason})").format(reason=describe_sqlite_error(error))
    return RunFailed(f"{text}: {path}", hint="h2q-tui check")
