"""The alerts of a workspace in SQLite: states, mutes, what was told, and the outbox.

What is reported and the states in which it is reported are written in one transaction: a process that dies before it tells the same
again, one that dies after has it in the outbox. Nothing is reported twice and nothing is lost.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import msgspec

from engine.alerts.alert_state import AlertState, Notice
from engine.alerts.message import AlertMessage
from engine.alerts.readings import AlertLevel
from engine.alerts.silence import Mute
from engine.core.paths import Workspace

DB_NAME = "outbox.db"
KEPT_NOTICES = 500
BACKOFF_S = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0)
"""Before each further attempt; the last one again and again."""
GIVEN_UP_AFTER_S = 7 * 24 * 3600.0
"""Mail programs of servers try for five days; a machine may be without a network for a week."""

_MIGRATIONS = (
    """
    CREATE TABLE states(fingerprint TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE mutes(pattern TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE notices(
        id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, level TEXT NOT NULL,
        fingerprints TEXT NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL);
    CREATE TABLE outbox(
        id INTEGER PRIMARY KEY, notice INTEGER NOT NULL, channel TEXT NOT NULL, level TEXT NOT NULL, title TEXT NOT NULL,
        text TEXT NOT NULL, html TEXT NOT NULL, short TEXT NOT NULL, created_at REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL, sent_at REAL, given_up_at REAL,
        error TEXT NOT NULL DEFAULT '');
    CREATE INDEX outbox_waiting ON outbox(next_at) WHERE sent_at IS NULL AND given_up_at IS NULL;
    CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    """,
)
_WAITING = "sent_at IS NULL AND given_up_at IS NULL"


class OutboxRow(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one channel. Times are seconds since the epoch."""

    id: int
    channel: str
    level: AlertLevel
    title: str
    text: str
    html: str
    short: str
    created_at: float
    attempts: int
    next_at: float
    sent_at: float | None
    given_up_at: float | None
    error: str

    @property
    def waiting(self) -> bool:
        return self.sent_at is None and self.given_up_at is None


class ToldNotice(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was told."""

    id: int
    at: float
    kind: str
    level: AlertLevel
    fingerprints: tuple[str, ...]
    title: str
    text: str


class AlertStore:
    """The database `alerts/outbox.db`. Several processes may have it open."""

    def __init__(self, workspace: Workspace) -> None:
        """Opens it, and creates it where it is missing. Raises sqlite3.Error, OSError."""
        folder = workspace.alerts
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = folder / DB_NAME
        self._db = sqlite3.connect(self.path, timeout=10.0, isolation_level=None)
        self.path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._migrate()

    @staticmethod
    def exists(workspace: Workspace) -> bool:
        """Whether there has been anything to store."""
        return (workspace.alerts / DB_NAME).exists()

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> AlertStore:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _migrate(self) -> None:
        while (version := int(self._db.execute("PRAGMA user_version").fetchone()[0])) < len(_MIGRATIONS):
            with self.transaction():
                if int(self._db.execute("PRAGMA user_version").fetchone()[0]) == version:
                    for statement in filter(str.strip, _MIGRATIONS[version].split(";")):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version={version + 1}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block is written, or nothing of it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # States

    def states(self) -> dict[str, AlertState]:
        """Every state by its fingerprint. One that a newer version wrote otherwise is left out."""
        found = {}
        for key, data in self._db.execute("SELECT fingerprint, data FROM states"):
            try:
                found[key] = msgspec.json.decode(data, type=AlertState)
            except msgspec.DecodeError:
                continue
        return found

    def save_states(self, before: Mapping[str, AlertState], after: Mapping[str, AlertState]) -> None:
        """Writes what differs. Call it in a transaction."""
        for key, state in after.items():
            if before.get(key) != state:
                self._db.execute(
                    "INSERT INTO states VALUES(?, ?) ON CONFLICT DO UPDATE SET data=excluded.data",
                    (key, msgspec.json.encode(state)),
                )
        for key in before.keys() - after.keys():
            self._db.execute("DELETE FROM states WHERE fingerprint=?", (key,))

    def mutes(self, now: float) -> tuple[Mute, ...]:
        """The mutes in force."""
        rows = self._db.execute("SELECT pattern, until FROM mutes WHERE until > ? ORDER BY pattern", (now,))
        return tuple(Mute(pattern=pattern, until=until) for pattern, until in rows)

    def mute(self, pattern: str, until: float) -> None:
        """Sets a mute; one whose end is past is deleted."""
        self._db.execute(
            "INSERT INTO mutes VALUES(?, ?) ON CONFLICT DO UPDATE SET until=excluded.until", (pattern, until)
        )

    def meta(self, name: str) -> str:
        """A note of the watcher; "" without one."""
        row = self._db.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def set_meta(self, name: str, value: str) -> None:
        """Writes a note."""
        self._db.execute(
            "INSERT INTO meta VALUES(?, ?) ON CONFLICT DO UPDATE SET value=excluded.value", (name, value)
        )

    # Notices and the outbox

    def tell(self, notice: Notice, message: AlertMessage, channels: Iterable[str], now: float) -> int:
        """Records a notice and puts it into the outbox of each channel; returns its id. Call it in a transaction."""
        cursor = self._db.execute(
            "INSERT INTO notices(at, kind, level, fingerprints, title, text) VALUES(?, ?, ?, ?, ?, ?)",
            (
                now,
                notice.kind.value,
                notice.level.value,
                msgspec.json.encode([state.fingerprint for state in notice.states]).decode(),
                message.title,
                message.text,
            ),
        )
        notice_id = int(cursor.lastrowid or 0)
        for channel in channels:
            self._db.execute(
                "INSERT INTO outbox(notice, channel, level, title, text, html, short, created_at, next_at) "
                "VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    notice_id, channel, message.level.value, message.title, message.text, message.html, message.short,
                    now, now,
                ),
            )  # fmt: skip
        self._db.execute("DELETE FROM notices WHERE id <= ?", (notice_id - KEPT_NOTICES,))
        return notice_id

    def notices(self, limit: int = 50) -> list[ToldNotice]:
        """What was told, newest first."""
        rows = self._db.execute(
            "SELECT id, at, kind, level, fingerprints, title, text FROM notices ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        names = ("id", "at", "kind", "level", "fingerprints", "title", "text")
        return [
            msgspec.convert(
                {**dict(zip(names, row, strict=True)), "fingerprints": msgspec.json.decode(row[4])},
                ToldNotice,
            )
            for row in rows
        ]

    def outbox(self, *, unsent: bool = False, limit: int = 100) -> list[OutboxRow]:
        """The messages, newest first; `unsent` only those that wait or were given up."""
        where = "WHERE sent_at IS NULL" if unsent else ""
        return self._rows(f"{where} ORDER BY id DESC LIMIT ?", limit)

    def due(self, now: float, limit: int = 50) -> list[OutboxRow]:
        """The messages whose next attempt is due, the most serious first, then the oldest."""
        rows = self._rows(f"WHERE {_WAITING} AND next_at <= ? ORDER BY id LIMIT ?", now, limit * 4)
        return sorted(rows, key=lambda row: (row.level.rank, row.id))[:limit]

    def next_due(self) -> float | None:
        """When the next attempt is due; None when nothing waits."""
        row = self._db.execute(f"SELECT min(next_at) FROM outbox WHERE {_WAITING}").fetchone()  # noqa: S608
        return None if row[0] is None else float(row[0])

    def sent(self, row: OutboxRow, now: float) -> None:
        """A channel has accepted the message."""
        self._db.execute(
            "UPDATE outbox SET sent_at=?, attempts=attempts+1, error='' WHERE id=?", (now, row.id)
        )

    def failed(self, row: OutboxRow, error: str, now: float) -> None:
        """An attempt failed; the next one comes later, and after a week none."""
        wait = BACKOFF_S[min(row.attempts, len(BACKOFF_S) - 1)]
        given_up = now if now - row.created_at > GIVEN_UP_AFTER_S else None
        self._db.execute(
            "UPDATE outbox SET attempts=attempts+1, next_at=?, given_up_at=?, error=? WHERE id=?",
            (now + wait, given_up, error[:500], row.id),
        )

    def try_again(self, now: float) -> int:
        """Makes every waiting or given-up message due; returns how many."""
        cursor = self._db.execute(
            "UPDATE outbox SET next_at=?, given_up_at=NULL WHERE sent_at IS NULL", (now,)
        )
        return cursor.rowcount

    def drop_channel(self, channel: str) -> None:
        """Deletes what waits for a channel that is gone."""
        self._db.execute(f"DELETE FROM outbox WHERE channel=? AND {_WAITING}", (channel,))  # noqa: S608

    def forget_sent(self, before: float) -> None:
        """Deletes what was sent before a moment."""
        self._db.execute("DELETE FROM outbox WHERE sent_at < ?", (before,))

    def _rows(self, rest: str, *values: float) -> list[OutboxRow]:
        names = OutboxRow.__struct_fields__
        query = f"SELECT {', '.join(names)} FROM outbox {rest}"  # noqa: S608
        return [
            msgspec.convert(dict(zip(names, row, strict=True)), OutboxRow)
            for row in self._db.execute(query, values)
        ]
