"""Opens `memory.db` for the review, and says in words what is wrong with a file that cannot be used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.core.errors import BadInput, H2QError, RunFailed
from engine.core.i18n import _
from engine.memory.schema import MIGRATIONS, describe_sqlite_error, migrate, recovery_command, schema_version

TABLES = frozenset({"imports", "conversations", "turns", "corpus", "ledger", "decisions", "meta"})
"""What every memory has had since its first schema."""


class Unusable(BadInput):
    """The file is damaged, no memory, or that of a newer program. What waits to be written into it may wait on:
    a backup can take its place while the program runs."""


def connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    """A connection in autocommit mode, of the newest schema. Raises Unusable, and `sqlite3.OperationalError`
    for what passes by itself (a lock, a full disk)."""
    with in_words(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rw'}",
            uri=True,
            isolation_level=None,
            timeout=10,
            check_same_thread=False,
        )
        try:
            _check(connection, path)
            if not readonly:
                for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
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
    """Raises Unusable for another program's database and for a newer one; both would be spoiled by writing."""
    version = schema_version(connection)
    if version > len(MIGRATIONS):
        raise Unusable(
            _("The memory has schema {theirs}, and this program knows {ours}").format(
                theirs=version, ours=len(MIGRATIONS)
            ),
            path=path,
            hint="pipx upgrade h2q-tui",
        )
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not (names >= TABLES if version else not names):
        raise Unusable(_("This is the database of another program"), path=path, hint="h2q-tui backup restore")


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Turns SQLite's word for a file that is broken into Unusable; what may pass by itself stays as it is."""
    try:
        yield
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise Unusable(
            _("The memory is damaged ({reason})").format(reason=error),
            path=path,
            hint=recovery_command(error),
        ) from error


def sentence(error: Exception, path: Path) -> str:
    """Any failure of reading or writing `path`, for the person."""
    if isinstance(error, sqlite3.Error):
        return str(as_failure(error, path))
    return str(error)


def as_failure(error: sqlite3.Error, path: Path) -> H2QError:
    """A failure of SQLite as one of ours, with its reason in words and the file."""
    what = _("The memory cannot be read or written ({reason})").format(reason=describe_sqlite_error(error))
    return RunFailed(f"{what}: {path}", hint="h2q-tui check")
