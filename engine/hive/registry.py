"""The registry of a hive: one SQLite file with uploads, adapters, rounds, versions and tokens.

A change is durable when a method returns (`synchronous=FULL`). Files are in place before the row that names them is
written, so every row has its files; files without a row are what a killed server left, and are swept.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine.core.errors import BadInput
from engine.core.files import make_dirs
from engine.core.i18n import _

DATABASE = "registry.db"
_MIGRATIONS = (
    """
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE tokens (
        name TEXT PRIMARY KEY, hash TEXT NOT NULL, may_aggregate INTEGER NOT NULL, created_at REAL NOT NULL,
        revoked_at REAL
    ) WITHOUT ROWID;
    CREATE TABLE contributors (
        user_id TEXT PRIMARY KEY, bytes_received INTEGER NOT NULL DEFAULT 0, refused INTEGER NOT NULL DEFAULT 0,
        last_at REAL
    ) WITHOUT ROWID;
    CREATE TABLE uploads (
        id TEXT PRIMARY KEY, user_id TEXT NOT NULL, announced TEXT NOT NULL, size INTEGER NOT NULL,
        received INTEGER NOT NULL, expires_at REAL NOT NULL, admitted TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    CREATE TABLE rounds (
        number INTEGER PRIMARY KEY, opened_at REAL NOT NULL, closed_at REAL, version TEXT NOT NULL DEFAULT ''
    );
    CREATE TABLE adapters (
        id TEXT PRIMARY KEY, user_id TEXT NOT NULL, folder TEXT NOT NULL, base_model TEXT NOT NULL,
        base_fingerprint TEXT NOT NULL, uploaded_at REAL NOT NULL, round INTEGER NOT NULL REFERENCES rounds(number),
        sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, norm REAL NOT NULL, rank INTEGER NOT NULL,
        training_samples INTEGER NOT NULL, samples_counted INTEGER NOT NULL, epochs INTEGER NOT NULL,
        used_in TEXT NOT NULL DEFAULT '', withdrawn INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE INDEX adapters_time ON adapters(uploaded_at);
    -- One vote for each user and round, and one for each adapter.
    CREATE UNIQUE INDEX adapters_vote ON adapters(round, user_id) WHERE withdrawn = 0;
    CREATE UNIQUE INDEX adapters_copy ON adapters(round, sha256) WHERE withdrawn = 0;
    CREATE TABLE versions (
        version TEXT PRIMARY KEY, created_at REAL NOT NULL, state TEXT NOT NULL, info TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX versions_current ON versions(state) WHERE state = 'current';
    INSERT INTO rounds (number, opened_at) VALUES (1, (julianday('now') - 2440587.5) * 86400.0);
    """,
)


class Registry:
    """One process's access. Methods may be called from any thread; each is one transaction."""

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        """Opens the registry in `folder`. Raises BadInput for one of a newer version or a damaged one, OSError."""
        self.path = folder / DATABASE
        if create:
            make_dirs(folder)
            with suppress(OSError):
                folder.chmod(0o700)
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(
                self.path if create else f"{self.path.resolve().as_uri()}?mode=rw", uri=not create, timeout=30, isolation_level=None,
                check_same_thread=False,
            )  # fmt: skip
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._migrate()
        except sqlite3.Error as problem:
            raise BadInput(
                _("the registry of the hive cannot be opened ({reason})").format(reason=problem),
                path=self.path,
            ) from problem
        with suppress(OSError):
            self.path.chmod(0o600)

    def _migrate(self) -> None:
        with self.transaction() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > len(_MIGRATIONS):
                raise BadInput(_("the registry of the hive is from a newer version"), path=self.path)
            for number, script in enumerate(_MIGRATIONS[version:], version + 1):
                for statement in _statements(script):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version={number}")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and no other writer beside it. Raises sqlite3.Error."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def row(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        """The first row of a query."""
        return next(iter(self.rows(query, values)), None)

    def number(self, query: str, values: Sequence[Any] = ()) -> int:
        """The one number that a query asks for; 0 for NULL."""
        found = self.row(query, values)
        return int(found[0] or 0) if found is not None else 0

    def fact(self, name: str) -> str:
        """A value that the hive keeps under a name; "" when it was never set."""
        found = self.row("SELECT value FROM facts WHERE name = ?", (name,))
        return str(found[0]) if found is not None else ""

    def set_facts(self, **facts: str) -> None:
        with self.transaction() as db:
            for name, value in facts.items():
                db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def changes(self) -> int:
        """A number that is another one after a change by any other process."""
        return self.number("PRAGMA data_version")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script: `executescript` would commit the transaction it runs in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
