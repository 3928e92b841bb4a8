"""The versions of a hive: published durably in one step, which one is current, and the way back."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.core.files import fsync_dir, sync_file, write_synced
from engine.core.i18n import _
from engine.core.local_time import local_time
from engine.hive.names import is_version
from engine.hive.protocol import (
    ARCHIVE_CONFIG,
    ARCHIVE_INFO,
    ARCHIVE_WEIGHTS,
    LATEST,
    VersionInfo,
    VersionState,
)
from engine.hive.store import UNFINISHED, AdapterStore, set_finished
from engine.http.refused import RequestRefused, bad_request

MEMBERS = (ARCHIVE_CONFIG, ARCHIVE_WEIGHTS, ARCHIVE_INFO)


class Versions:
    """The versions of one store."""

    def __init__(self, store: AdapterStore) -> None:
        self._store = store
        self._registry = store.registry

    def all(self) -> list[VersionInfo]:
        """Newest first."""
        return [
            _info(row)
            for row in self._registry.rows("SELECT * FROM versions ORDER BY created_at DESC, version DESC")
        ]

    def current(self) -> VersionInfo | None:
        """What is downloaded as the latest."""
        row = self._registry.row("SELECT * FROM versions WHERE state = 'current'")
        return None if row is None else _info(row)

    def judged(self) -> int:
        """Candidates that a gate has judged, published or not: each has used the held-out conversations once."""
        return sum(version.gate != "" for version in self.all())

    def find(self, version: str) -> VersionInfo:
        """A published version by its name or as `latest`. Raises RequestRefused (404)."""
        if version == LATEST:
            found = self.current()
            if found is None:
                raise RequestRefused(404, "No aggregated adapter available")
            return found
        row = self._registry.row(
            "SELECT * FROM versions WHERE version = ? AND state != 'rejected'", (version,)
        )
        if row is None:
            raise RequestRefused(404, "Adapter file not found")
        return _info(row)

    def file(self, version: VersionInfo, name: str) -> Path:
        """One of `MEMBERS`. Raises RequestRefused (404) when it is gone."""
        path = self._store.aggregated / version.version / name
        if not path.is_file():
            raise RequestRefused(404, "Adapter file not found")
        return path

    def new_name(self, wanted: str) -> str:
        """A name for a new version: the wanted one, else the time. Raises RequestRefused (400)."""
        if wanted:
            if not is_version(wanted):
                raise bad_request(
                    _("a version is named with letters, digits and . _ -, at most 64 characters")
                )
            if self._is_taken(wanted):
                raise bad_request(_("there is a version {version} already").format(version=wanted))
            return wanted
        stamp = local_time("v%Y%m%d_%H%M%S", time.time())
        names = (stamp if number == 0 else f"{stamp}_{number}" for number in range(10_000))
        return next(name for name in names if not self._is_taken(name))

    def publish(self, folder: Path, version: VersionInfo, used: Sequence[str]) -> VersionInfo:
        """Makes a joined adapter the current version, marks the adapters that it was joined from, and opens the next
        round. All of it, or nothing.

        Args:
            folder: on the disk of the hive, with the three files of a version; it is moved.
            version: `previous` and `state` are given here.

        Raises OSError, sqlite3.Error.
        """
        for name in MEMBERS:
            sync_file(folder / name)
        write_synced(folder / UNFINISHED, b"")
        fsync_dir(folder)
        place = self._store.aggregated / version.version
        folder.rename(place)
        fsync_dir(place.parent)
        now = time.time()
        with self._registry.transaction() as db:
            current = db.execute("SELECT version FROM versions WHERE state = 'current'").fetchone()
            stored = msgspec.structs.replace(
                version, state=VersionState.CURRENT, previous=current[0] if current else ""
            )
            db.execute("UPDATE versions SET state = 'published' WHERE state = 'current'")
            _insert(db, stored)
            db.executemany(
                "UPDATE adapters SET used_in = ? WHERE id = ?", [(version.version, one) for one in used]
            )
            db.execute(
                "UPDATE rounds SET closed_at = ?, version = ? WHERE number = ?",
                (now, version.version, version.round),
            )
            db.execute("INSERT INTO rounds (number, opened_at) VALUES (?, ?)", (version.round + 1, now))
        set_finished(place)
        self._store.write_registry_json()
        return stored

    def reject(self, version: VersionInfo) -> VersionInfo:
        """Records what the gate stopped. The round stays open: its adapters wait, and one may be withdrawn."""
        stored = msgspec.structs.replace(version, state=VersionState.REJECTED)
        with self._registry.transaction() as db:
            _insert(db, stored)
        return stored

    def roll_back(self, version: str) -> VersionInfo:
        """Makes an earlier version current; "" for the one before. Raises RequestRefused when there is none."""
        with self._registry.transaction() as db:
            row = db.execute("SELECT * FROM versions WHERE state = 'current'").fetchone()
            if row is None:
                raise RequestRefused(404, "No aggregated adapter available")
            current = _info(row)
            wanted = version or current.previous
            found = db.execute(
                "SELECT * FROM versions WHERE version = ? AND state IN ('published', 'withdrawn')", (wanted,)
            ).fetchone()
            if found is None and not wanted:
                raise bad_request(_("there is no earlier version to go back to"))
            if found is None:
                raise bad_request(
                    _("there is no published version {version}").format(version=ascii(wanted[:64]))
                )
            db.execute("UPDATE versions SET state = 'withdrawn' WHERE state = 'current'")
            db.execute("UPDATE versions SET state = 'current' WHERE version = ?", (wanted,))
        return msgspec.structs.replace(_info(found), state=VersionState.CURRENT)

    def _is_taken(self, version: str) -> bool:
        row = self._registry.row("SELECT 1 FROM versions WHERE lower(version) = lower(?)", (version,))
        return row is not None or (self._store.aggregated / version).exists()


def write_info(folder: Path, version: VersionInfo, report: dict[str, Any]) -> None:
    """`aggregation_info.json`: HiveMind's fields, and what the join reported. Raises OSError."""
    info = {
        "version": version.version,
        "aggregated_at": local_time("%Y-%m-%dT%H:%M:%S", version.created_at),
        "source_adapters": [parent.adapter_id for parent in version.parents],
        "num_adapters": len(version.parents),
        "algorithm": version.method,
        "memory_optimized": True,
        "lineage": msgspec.to_builtins(version),
        "report": report,
    }
    write_synced(folder / ARCHIVE_INFO, msgspec.json.format(msgspec.json.encode(info), indent=2) + b"\n")


def _insert(db: sqlite3.Connection, version: VersionInfo) -> None:
    db.execute(
        "INSERT INTO versions (version, created_at, state, info) VALUES (?, ?, ?, ?)",
        (version.version, version.created_at, version.state.value, msgspec.json.encode(version).decode()),
    )


def _info(row: sqlite3.Row) -> VersionInfo:
    stored = msgspec.json.decode(row["info"], type=VersionInfo)
    return msgspec.structs.replace(stored, state=VersionState(row["state"]))
