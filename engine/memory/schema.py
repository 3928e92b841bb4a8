"""The schema of `memory.db` as a list of migrations. SQLite in WAL mode, `synchronous=FULL`.

`memory.store` writes the first group of tables, `corpus.ledger` and `corpus.review` the second,
`corpus.split` the third. Times are seconds since the epoch (REAL), texts UTF-8.
"""

from __future__ import annotations

import sqlite3

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.memory.checksums import MIGRATION as CHECKSUM_MIGRATION
from engine.memory.integrity import is_damage, reason_of

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE imports (
        id TEXT PRIMARY KEY, source TEXT NOT NULL, path TEXT NOT NULL, started_at REAL NOT NULL,
        completed_at REAL, taken INTEGER NOT NULL DEFAULT 0, unchanged INTEGER NOT NULL DEFAULT 0,
        skipped TEXT NOT NULL DEFAULT '{}'
    );
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY, import_id TEXT NOT NULL REFERENCES imports(id), source TEXT NOT NULL,
        external_id TEXT NOT NULL DEFAULT '', title TEXT NOT NULL DEFAULT '',
        started_at REAL, updated_at REAL, added_at REAL NOT NULL,
        turns INTEGER NOT NULL, characters INTEGER NOT NULL, content_hash TEXT NOT NULL,
        superseded_by TEXT
    );
    CREATE INDEX conversations_hash ON conversations(content_hash);
    CREATE INDEX conversations_import ON conversations(import_id);
    CREATE INDEX conversations_external ON conversations(source, external_id) WHERE external_id != '';
    CREATE INDEX conversations_superseded ON conversations(superseded_by) WHERE superseded_by IS NOT NULL;
    CREATE TABLE turns (
        conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
        position INTEGER NOT NULL, role TEXT NOT NULL, text TEXT NOT NULL, time REAL,
        external_id TEXT NOT NULL DEFAULT '', alternatives TEXT NOT NULL DEFAULT '[]',
        prefix INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (conversation_id, position)
    ) WITHOUT ROWID;
    CREATE INDEX turns_prefix ON turns(prefix) WHERE prefix != 0;
    -- What a reader sees: complete imports only, and the newest form of a conversation that grew. A row is
    -- superseded from the moment the import that did it is complete.
    CREATE VIEW current_conversations AS
        SELECT c.* FROM conversations c JOIN imports i ON i.id = c.import_id
        LEFT JOIN conversations n ON n.id = c.superseded_by LEFT JOIN imports ni ON ni.id = n.import_id
        WHERE i.completed_at IS NOT NULL AND (c.superseded_by IS NULL OR ni.completed_at IS NULL);
    CREATE TABLE forgotten (key TEXT PRIMARY KEY, time REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE memory_points (
        id TEXT PRIMARY KEY, source TEXT NOT NULL, content TEXT NOT NULL, summary TEXT NOT NULL DEFAULT '',
        keywords TEXT NOT NULL DEFAULT '[]', created_at REAL, import_id TEXT REFERENCES imports(id)
    );
    CREATE TABLE embeddings (
        content_hash TEXT NOT NULL, embedder TEXT NOT NULL, vector BLOB NOT NULL,
        PRIMARY KEY (content_hash, embedder)
    ) WITHOUT ROWID;

    CREATE TABLE ledger (
        conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
        stage TEXT NOT NULL, action TEXT NOT NULL, reason TEXT NOT NULL,
        turn INTEGER NOT NULL DEFAULT -1, evidence TEXT NOT NULL DEFAULT '{}', twin TEXT,
        build_id TEXT NOT NULL, time REAL NOT NULL
    );
    CREATE INDEX ledger_conversation ON ledger(conversation_id);
    CREATE TABLE corpus (
        conversation_id TEXT PRIMARY KEY REFERENCES conversations(id) ON DELETE CASCADE,
        build_id TEXT NOT NULL, state TEXT NOT NULL, stage TEXT NOT NULL DEFAULT '',
        reason TEXT NOT NULL DEFAULT '', cluster TEXT NOT NULL DEFAULT '', language TEXT NOT NULL DEFAULT '',
        quality REAL NOT NULL DEFAULT 0, pairs INTEGER NOT NULL DEFAULT 0,
        first_line TEXT NOT NULL DEFAULT '', sort_time REAL, twin TEXT, split TEXT NOT NULL DEFAULT '',
        automatic TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX corpus_order ON corpus(sort_time DESC, conversation_id);
    CREATE TABLE decisions (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, conversation_id TEXT NOT NULL, verdict TEXT NOT NULL,
        previous TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', time REAL NOT NULL,
        undone INTEGER NOT NULL DEFAULT 0, batch INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX decisions_conversation ON decisions(conversation_id);

    CREATE TABLE test_windows (
        id INTEGER PRIMARY KEY AUTOINCREMENT, opened_at REAL NOT NULL, retired_at REAL,
        looks INTEGER NOT NULL DEFAULT 0, ids_hash TEXT NOT NULL
    );
    CREATE TABLE window_members (
        window_id INTEGER NOT NULL REFERENCES test_windows(id), conversation_id TEXT NOT NULL,
        cluster TEXT NOT NULL, PRIMARY KEY (window_id, conversation_id)
    ) WITHOUT ROWID;

    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    """,
    # Edits of a turn, flags and rules are decisions too: one log, one undo.
    """
    ALTER TABLE decisions ADD COLUMN turn INTEGER NOT NULL DEFAULT -1;
    ALTER TABLE decisions ADD COLUMN text TEXT NOT NULL DEFAULT '';
    """,
    # Cached filter results, so that a build filters only what changed; `made_of` is the fingerprint of a corpus
    # row's inputs, NULL forces the row to be rewritten.
    """
    CREATE TABLE assessments (
        conversation_id TEXT PRIMARY KEY REFERENCES conversations(id) ON DELETE CASCADE,
        key BLOB NOT NULL, item BLOB NOT NULL, facts BLOB NOT NULL, sketches BLOB NOT NULL
    );
    ALTER TABLE corpus ADD COLUMN made_of BLOB;
    """,
    # The review lists the other members of a conversation's cluster.
    """
    CREATE INDEX corpus_cluster ON corpus(cluster);
    """,
    # Answers that their source excludes from training.
    """
    ALTER TABLE turns ADD COLUMN masked INTEGER NOT NULL DEFAULT 0;
    """,
    CHECKSUM_MIGRATION,
    # Importers that read more of the same file replace what earlier ones read.
    """
    ALTER TABLE imports ADD COLUMN importers INTEGER NOT NULL DEFAULT 1;
    """,
)
"""Migration n brings `PRAGMA user_version` from n to n + 1. Append, never edit one that has shipped."""


def migrate(connection: sqlite3.Connection) -> None:
    """Applies the missing migrations, each in one transaction; safe when two processes migrate concurrently.

    `connection` is in autocommit mode. Raises BadInput when a newer version wrote the database.
    """
    while (version := schema_version(connection)) < len(MIGRATIONS):
        connection.execute("BEGIN IMMEDIATE")
        try:
            if schema_version(connection) == version:
                for statement in _statements(MIGRATIONS[version]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            # On a full disk SQLite rolls back by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    if version > len(MIGRATIONS):
        raise BadInput(
            _("memory.db has schema {theirs}; this version supports up to {ours}").format(
                theirs=version, ours=len(MIGRATIONS)
            ),
            hint="pipx upgrade h2q-tui",
        )


def schema_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def recovery_command(error: sqlite3.DatabaseError | UnicodeDecodeError) -> str:
    """The command that helps with an unusable database.

    Restoring a backup is for a damaged file only: with a full disk, missing permission or a lock
    (`OperationalError`) the data is intact and would be replaced by an older state.
    """
    if is_damage(error):
        return "h2q-tui backup restore"
    return "h2q-tui check" if isinstance(error, sqlite3.OperationalError) else "h2q-tui backup restore"


def describe_sqlite_error(error: sqlite3.Error) -> str:
    """A translated text for SQLite's common I/O errors; SQLite's own message for others."""
    code = getattr(error, "sqlite_errorcode", None)
    reasons = {
        sqlite3.SQLITE_FULL: _("the disk is full"),
        sqlite3.SQLITE_BUSY: _("another program is writing to it"),
        sqlite3.SQLITE_READONLY: _("the file is read-only"),
        sqlite3.SQLITE_CANTOPEN: _("the file cannot be opened"),
        sqlite3.SQLITE_IOERR: _("disk I/O error"),
    }
    return reasons.get(code & 0xFF, reason_of(error)) if code is not None else reason_of(error)


def _statements(script: str) -> list[str]:
    """Splits a script into statements; `executescript` would commit the open transaction."""
    statements = []
    current = ""
    for part in script.split(";"):
        current += part + ";"
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements
