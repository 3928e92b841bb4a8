"""Databases of other programs, read through a copy: the program may have them open and be writing."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from engine.core.errors import BadInput
from engine.core.i18n import _

_MAGIC = b"SQLite format 3\0"


def is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(16) == _MAGIC
    except OSError:
        return False


def tables(path: Path) -> dict[str, frozenset[str]]:
    """The columns of each table; empty when the database cannot be read."""
    try:
        with _copied(path) as connection:
            return _tables(connection)
    except (BadInput, sqlite3.Error, UnicodeDecodeError):
        return {}


def rows(path: Path, needed: Mapping[str, Sequence[str]], query: str) -> Iterator[tuple[Any, ...]]:
    """The rows of `query`, read one at a time. Raises BadInput when a table or column of `needed` is missing,
    and when the database is damaged."""
    with _copied(path) as connection:
        try:
            there = _tables(connection)
            missing = [
                f"{table}.{column}"
                for table, columns in needed.items()
                for column in columns
                if column not in there.get(table, ())
            ]
            if missing:
                raise BadInput(
                    _("This database is of a version that is not read ({missing} missing)").format(
                        missing=", ".join(missing)
                    ),
                    path=path,
                )
            yield from connection.execute(query)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise BadInput(_("The database is damaged ({reason})").format(reason=error), path=path) from None


@contextmanager
def _copied(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a copy of the database, with what its log holds. Raises BadInput."""
    with tempfile.TemporaryDirectory(prefix="h2q-") as folder:
        copy = Path(folder) / "copy.db"
        try:
            _copy(path, copy)
            with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
                # In a damaged database texts may not be UTF-8: each byte that is none becomes a mark.
                connection.text_factory = lambda data: data.decode("utf-8", "replace")
                yield connection
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise BadInput(_("The database is damaged ({reason})").format(reason=error), path=path) from None
        except OSError as error:
            raise BadInput(
                _("The file cannot be read ({reason})").format(reason=error.strerror or error), path=path
            ) from None


def _copy(path: Path, copy: Path) -> None:
    log = path.with_name(path.name + "-wal")
    with path.open("rb") as file:
        logged = file.read(20)[18:20] == b"\x02\x02"
    if logged and not log.exists():
        # Nobody has it open, and opening it would leave a log beside it.
        shutil.copyfile(path, copy)
        return
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.OperationalError:
        # A folder that cannot be written, or a lock that is not given up.
        shutil.copyfile(path, copy)
        if log.exists():
            shutil.copyfile(log, copy.with_name(copy.name + "-wal"))


def _tables(connection: sqlite3.Connection) -> dict[str, frozenset[str]]:
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        name: frozenset(
            row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (name,))
        )
        for name in names
    }
