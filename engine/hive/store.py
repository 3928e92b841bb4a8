"""The files of a hive, in HiveMind's layout, and their rows in the registry. Every write is durable when it returns.

hive/registry.db, registry.json          the registry, and HiveMind's file with the same adapters and versions
hive/<user>/<time>/                      adapter_config.json, adapter_model.safetensors, metadata.json
hive/aggregated/<version>/               the same two, and aggregation_info.json
hive/.uploads/<id>                       what has arrived of an upload
"""

from __future__ import annotations

import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from engine.core.files import (
    fsync_dir,
    locked_folder,
    make_dirs,
    remove_stale,
    sync_file,
    write_json,
    write_synced,
)
from engine.core.i18n import _
from engine.core.local_time import local_time
from engine.hive.hivemind_files import adapter_metadata, registry_file
from engine.hive.lora_file import BadAdapter
from engine.hive.protocol import (
    ARCHIVE_CONFIG,
    ARCHIVE_WEIGHTS,
    AdapterInfo,
    Contributor,
    RoundInfo,
    Rule,
)
from engine.hive.registry import Registry

AGGREGATED = "aggregated"
METADATA = "metadata.json"
_UPLOADS = ".uploads"
_UPLOAD = re.compile("[0-9a-f]{32}")
_INCOMING = ".incoming."
JOINED = ".joined."
"""How the folder in which a version is made begins."""
UNFINISHED = ".unfinished"
"""A file in the folder of an adapter or a version until its row is written: nothing else is swept."""
_JSON = "registry.json"
_COLUMNS = (*AdapterInfo.__struct_fields__, "folder")
_INSERT = "INSERT INTO adapters ({}) VALUES ({})".format(  # noqa: S608
    ", ".join(_COLUMNS), ", ".join(f":{name}" for name in _COLUMNS)
)


class AdapterStore:
    """The adapters of a hive."""

    def __init__(self, folder: Path) -> None:
        """Opens the hive in `folder`, which is created. Raises BadInput, OSError."""
        self.folder = folder
        self.uploads = folder / _UPLOADS
        self.aggregated = folder / AGGREGATED
        self.registry = Registry(folder)
        make_dirs(self.uploads)
        make_dirs(self.aggregated)

    def close(self) -> None:
        self.registry.close()

    def add(self, weights: Path, config: bytes, adapter: AdapterInfo, *, upload_id: str = "") -> AdapterInfo:
        """Takes an admitted adapter into the open round.

        Args:
            config: the content of `adapter_config.json`.
            weights: a file on the disk of the hive; the caller deletes it afterwards.
            adapter: its `id` and `round` are given by the store.
            upload_id: the upload that it arrived by, which is marked as finished in the same step.

        Raises BadAdapter (`VOTE`) when its user has another one in the round, OSError, sqlite3.Error. What it raises
        leaves nothing in the store.
        """
        sync_file(weights)
        with locked_folder(self.folder, _INCOMING) as staged:
            content = staged / "adapter"
            content.mkdir()
            write_synced(content / ARCHIVE_CONFIG, config)
            write_synced(content / METADATA, _indented(metadata_of(adapter)))
            fsync_dir(content)
            write_synced(content / UNFINISHED, b"")
            _link_or_move(weights, content / ARCHIVE_WEIGHTS)
            fsync_dir(content)
            place = self._free_place(adapter.user_id)
            make_dirs(place.parent)
            content.rename(place)
            fsync_dir(place.parent)
            fsync_dir(self.folder)
            try:
                stored = self._register(adapter, place, upload_id)
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                raise
            set_finished(place)
            return stored

    def _free_place(self, user: str) -> Path:
        """A folder `<user>/<time>` that is not there yet, and whose id is not in the registry."""
        stamp = local_time("%Y%m%d_%H%M%S", time.time())
        for number in range(10_000):
            name = stamp if number == 0 else f"{stamp}_{number}"
            place = self.folder / user / name
            known = self.registry.row("SELECT 1 FROM adapters WHERE id = ?", (f"{user}_{name}",))
            if not place.exists() and known is None:
                return place
        return self.folder / user / f"{stamp}_{secrets.token_hex(8)}"

    def _register(self, adapter: AdapterInfo, place: Path, upload_id: str) -> AdapterInfo:
        with self.registry.transaction() as db:
            (number,) = db.execute("SELECT max(number) FROM rounds").fetchone()
            known = db.execute(
                "SELECT user_id FROM adapters WHERE round = ? AND withdrawn = 0 AND (user_id = ? OR sha256 = ?)",
                (number, adapter.user_id, adapter.sha256),
            ).fetchone()
            if known is not None:
                raise already_voted(adapter.user_id, same_user=known[0] == adapter.user_id)
            stored = msgspec.structs.replace(adapter, id=f"{adapter.user_id}_{place.name}", round=number)
            row = {**msgspec.structs.asdict(stored), "folder": f"{adapter.user_id}/{place.name}"}
            db.execute(_INSERT, row)
            db.execute(
                "INSERT INTO contributors (user_id, last_at) VALUES (:user, :at) "
                "ON CONFLICT (user_id) DO UPDATE SET last_at = :at",
                {"user": adapter.user_id, "at": adapter.uploaded_at},
            )
            if upload_id:
                db.execute("UPDATE uploads SET admitted = ? WHERE id = ?", (stored.id, upload_id))
        self.write_registry_json()
        return stored

    def adapters(self, user: str = "") -> list[AdapterInfo]:
        """Newest first; of one user, or of all."""
        rows = self.registry.rows(
            "SELECT * FROM adapters WHERE ?1 IN ('', user_id) ORDER BY uploaded_at DESC, id DESC", (user,)
        )
        return [_adapter(row) for row in rows]

    def pending(self) -> list[AdapterInfo]:
        """The adapters of the open round, oldest first."""
        rows = self.registry.rows(
            "SELECT * FROM adapters WHERE used_in = '' AND withdrawn = 0 AND round = (SELECT max(number) FROM rounds) "
            "ORDER BY uploaded_at, id"
        )
        return [_adapter(row) for row in rows]

    def adapter(self, adapter_id: str) -> AdapterInfo:
        """Raises KeyError for an unknown adapter."""
        row = self.registry.row("SELECT * FROM adapters WHERE id = ?", (adapter_id,))
        if row is None:
            raise KeyError(adapter_id)
        return _adapter(row)

    def folder_of(self, adapter_id: str) -> Path:
        """Raises KeyError for an unknown adapter."""
        row = self.registry.row("SELECT folder FROM adapters WHERE id = ?", (adapter_id,))
        if row is None:
            raise KeyError(adapter_id)
        return self.folder / str(row[0])

    def withdraw(self, adapter_id: str, user: str) -> bool:
        """Takes an adapter out of the open round; whether it waited there. `user`: "" for any."""
        with self.registry.transaction() as db:
            changed = db.execute(
                "UPDATE adapters SET withdrawn = 1 "
                "WHERE id = :id AND used_in = '' AND withdrawn = 0 AND (:user = '' OR user_id = :user)",
                {"id": adapter_id, "user": user},
            ).rowcount
        self.write_registry_json()
        return bool(changed)

    def vote_of(self, user: str, sha256: str) -> AdapterInfo | None:
        """The adapter of the open round by which this user has voted, or that is the same file."""
        row = self.registry.row(
            "SELECT * FROM adapters WHERE round = (SELECT max(number) FROM rounds) AND withdrawn = 0 "
            "AND (user_id = ? OR sha256 = ?) ORDER BY user_id = ? DESC",
            (user, sha256, user),
        )
        return None if row is None else _adapter(row)

    def peer_norms(self, user: str) -> list[float]:
        """Norms of the newest adapters of the other users, one each, so that nobody shifts the bounds alone."""
        rows = self.registry.rows(
            "SELECT norm, max(uploaded_at) FROM adapters WHERE user_id != ? AND withdrawn = 0 GROUP BY user_id",
            (user,),
        )
        return [float(row[0]) for row in rows]

    def round_number(self) -> int:
        """Of the open round."""
        return self.registry.number("SELECT max(number) FROM rounds")

    def rounds(self) -> list[RoundInfo]:
        """Newest first."""
        rows = self.registry.rows(
            "SELECT r.*, count(a.id) AS adapters, coalesce(sum(a.samples_counted), 0) AS samples FROM rounds r "
            "LEFT JOIN adapters a ON a.round = r.number AND a.withdrawn = 0 GROUP BY r.number ORDER BY r.number DESC"
        )
        return [
            RoundInfo(
                number=row["number"],
                opened_at=row["opened_at"],
                closed_at=row["closed_at"],
                adapters=row["adapters"],
                samples_counted=row["samples"],
                version=row["version"],
            )
            for row in rows
        ]

    def contributors(self) -> list[Contributor]:
        """By name: who has sent something, and who has a token."""
        rows = self.registry.rows(
            "SELECT name, coalesce(c.bytes_received, 0) AS bytes, coalesce(c.refused, 0) AS refused, c.last_at, "
            "(SELECT count(*) FROM adapters WHERE user_id = name AND withdrawn = 0) AS adapters, "
            "(SELECT coalesce(sum(samples_counted), 0) FROM adapters WHERE user_id = name AND withdrawn = 0) AS samples "
            "FROM (SELECT user_id AS name FROM contributors UNION SELECT name FROM tokens WHERE revoked_at IS NULL) "
            "LEFT JOIN contributors c ON c.user_id = name ORDER BY name"
        )
        return [
            Contributor(
                user_id=row["name"],
                adapters=row["adapters"],
                samples_counted=row["samples"],
                bytes_received=row["bytes"],
                refused=row["refused"],
                last_at=row["last_at"],
            )
            for row in rows
        ]

    def count_traffic(self, user: str, received: int, *, refused: bool = False) -> None:
        """Adds to what came of a user."""
        with self.registry.transaction() as db:
            db.execute(
                "INSERT INTO contributors VALUES (:user, :bytes, :refused, NULL) ON CONFLICT (user_id) DO UPDATE "
                "SET bytes_received = bytes_received + :bytes, refused = refused + :refused",
                {"user": user, "bytes": received, "refused": int(refused)},
            )

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A folder for files that arrive by one request, locked, and deleted at the end of the block."""
        with locked_folder(self.folder, _INCOMING) as staged:
            yield staged

    def write_registry_json(self) -> None:
        """Writes HiveMind's registry file. A full disk leaves the older one: it is a copy."""
        with suppress(OSError):
            write_json(self.folder / _JSON, registry_file(self.registry, self.folder), mode=0o600)

    def sweep(self, now: float) -> None:
        """Deletes what killed requests left, and uploads that have expired. A folder that was finished stays, also one
        that the registry does not know: a registry that was lost or replaced takes nothing with it."""
        for path in self.folder.glob(f"{_INCOMING}*"):
            remove_stale(path)
        with self.registry.transaction() as db:
            db.execute("DELETE FROM uploads WHERE expires_at < ?", (now,))
        uploads = {row[0] for row in self.registry.rows("SELECT id FROM uploads")}
        for path in self.uploads.iterdir():
            if _UPLOAD.fullmatch(path.name) and path.name not in uploads:
                path.unlink(missing_ok=True)
        for path in self.aggregated.glob(f"{JOINED}*"):
            remove_stale(path)
        known = {row[0] for row in self.registry.rows("SELECT folder FROM adapters")}
        known |= {f"{AGGREGATED}/{row[0]}" for row in self.registry.rows("SELECT version FROM versions")}
        for mark in self.folder.glob(f"*/*/{UNFINISHED}"):
            place = mark.parent
            if f"{place.parent.name}/{place.name}" in known:
                set_finished(place)
            else:
                shutil.rmtree(place, ignore_errors=True)


def set_finished(place: Path) -> None:
    """Its row is written."""
    with suppress(OSError):
        (place / UNFINISHED).unlink()


def already_voted(user: str, *, same_user: bool) -> BadAdapter:
    """The refusal of a second adapter."""
    if same_user:
        return BadAdapter(
            Rule.VOTE,
            _(
                "{user} has an adapter in this round already; it can be withdrawn, or the next round waited for"
            ).format(user=user),
        )
    return BadAdapter(Rule.VOTE, _("another user has sent the same adapter in this round"))


def metadata_of(adapter: AdapterInfo) -> dict[str, Any]:
    """HiveMind's `metadata.json`, with what is known more."""
    more = {"sha256": adapter.sha256, "norm": adapter.norm, "base_sha256": adapter.base_fingerprint}
    return {**adapter_metadata(msgspec.structs.asdict(adapter)), **more}


def _link_or_move(file: Path, place: Path) -> None:
    """The file under a second name, so that a server killed before the row is written has lost nothing; where the disk
    has no links, only under that name."""
    try:
        place.hardlink_to(file)
    except OSError:
        file.replace(place)


def _adapter(row: sqlite3.Row) -> AdapterInfo:
    values = {name: row[name] for name in AdapterInfo.__struct_fields__}
    return AdapterInfo(**{**values, "withdrawn": bool(values["withdrawn"])})


def _indented(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
