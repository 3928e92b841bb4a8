"""Reads SQLite databases of other programs from a copy: the program may be writing to the original."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.memory.importers.readers.temporary import temporary_folder

MAGIC = b"SQLite format 3\0"


def is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(16) == MAGIC
    except OSError:
        return False


def has_tables(path: Path, names: Collection[str]) -> bool:
    """Whether the database holds all of the tables. The file is not copied: databases of editors are large."""
    try:
        # Immutable: neither locks nor a WAL are looked at, and no file is written next to the database.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as connection:
            tables = {
                row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
    except (sqlite3.Error, UnicodeDecodeError, OSError):
        tables = set()
    return tables.issuperset(names) or (not tables and set(names) <= set(table_columns(path)))


def table_columns(path: Path) -> dict[str, frozenset[str]]:
    """The columns of each table; empty when the database cannot be read."""
    try:
        info = path.stat()
    except OSError:
        return {}
    return _table_columns(path, info.st_size, info.st_mtime_ns)


@lru_cache(maxsize=8)
def _table_columns(path: Path, size: int, modified: int) -> dict[str, frozenset[str]]:
    # Several importers ask about one file, and each answer takes a copy of it.
    try:
        with _open_copy(path) as connection:
            return _columns(connection)
    except (BadInput, sqlite3.Error, UnicodeDecodeError):
        return {}


def query_rows(path: Path, required: Mapping[str, Sequence[str]], query: str) -> Iterator[tuple[Any, ...]]:
    """The rows of `query`, one at a time. Raises BadInput when a table or column in `required` is missing or the
    database is damaged."""
    with _open_copy(path) as connection:
        try:
            tables = _columns(connection)
            missing = [
                f"{table}.{column}"
                for table, columns in required.items()
                for column in columns
                if column not in tables.get(table, ())
            ]
            if missing:
                raise BadInput(
                    _("Unsupported database version ({missing} missing)").format(
                        missing=_(", ").join(missing)
                    ),
                    path=path,
                )
            yield from connection.execute(query)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise BadInput(_("The database is damaged ({reason})").format(reason=error), path=path) from None


@contextmanager
def _open_copy(path: Path) -> Iterator[sqlite3.Connection]:
    """Connects to a copy of the database, WAL included. Raises BadInput."""
    with temporary_folder() as folder:
        copy = folder / "copy.db"
        try:
            _copy(path, copy)
            with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
                # Text in a damaged database may be invalid UTF-8: such bytes become U+FFFD.
                connection.text_factory = lambda data: data.decode("utf-8", "replace")
                yield connection
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise BadInput(_("The database is damaged ({reason})").format(reason=error), path=path) from None
        except OSError as error:
            raise BadInput(
                _("The file cannot be read ({reason})").format(reason=error.strerror or error), path=path
            ) from None


def _copy(path: Path, copy: Path) -> None:
    wal = path.with_name(path.name + "-wal")
    with path.open("rb") as file:
        wal_mode = file.read(20)[18:20] == b"\x02\x02"
    if wal_mode and not wal.exists():
        # No process has it open, and opening it would create a WAL next to it.
        shutil.copyfile(path, copy)
        return
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.OperationalError:
        # A read-only folder, or a lock that is not released.
        shutil.copyfile(path, copy)
        if wal.exists():
            shutil.copyfile(wal, copy.with_name(copy.name + "-wal"))


def _columns(connection: sqlite3.Connection) -> dict[str, frozenset[str]]:
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        name: frozenset(
            row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (name,))
        )
        for name in names
    }
