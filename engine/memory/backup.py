"""Backups: the memory with the review decisions, and the configuration, as one compressed file."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

import msgspec

from engine.atomic import fsync_dir, write_bytes
from engine.errors import BadInput, Busy
from engine.i18n import _
from engine.memory.schema import MIGRATIONS, schema_version
from engine.memory.writing import import_lock
from engine.paths import Workspace

KEEP = 8
"""Backups that stay; the oldest goes first."""
WEEK_S = 7 * 86400.0
_MANIFEST = "manifest.json"
_MEMORY = "memory/memory.db"
_CONFIG = ("config/h2q.toml", "config/models.json", "last_training.json", "workspace.json")
_MAX_MEMBER = 64 * 2**30
_COPY_PAGES = 256


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """One backup, as `backup list --json` prints it."""

    stamp: str
    """Its name: local time, `YYYYMMDD_HHMMSS`."""
    path: str
    bytes: int
    created_at: float
    reason: str
    """"manual", "weekly", "migration" or "restore"."""
    conversations: int


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    schema: int = 1
    created_at: float
    reason: str
    conversations: int
    files: dict[str, str]
    """Name in the archive to the sha256 of its content."""


def create_backup(workspace: Workspace, reason: str = "manual", *, now: float | None = None) -> Backup:
    """Copies memory (SQLite's online backup: a run may be writing) and configuration, and keeps the newest 8.

    Raises OSError (disk full), BadInput when the memory is damaged.
    """
    created = time.time() if now is None else now
    workspace.backups.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".backup.", dir=workspace.backups) as folder:
        staged = Path(folder)
        conversations = _stage(workspace, staged)
        names = [str(file.relative_to(staged)) for file in sorted(staged.rglob("*")) if file.is_file()]
        manifest = _Manifest(
            created_at=created,
            reason=reason,
            conversations=conversations,
            files={name: _digest(staged / name) for name in names},
        )
        packed = staged / ".packed"
        _pack(packed, staged, names, manifest)
        path = _free_name(workspace, created)
        packed.replace(path)
    fsync_dir(workspace.backups)
    backup = _describe(path, manifest)
    for old in list_backups(workspace)[KEEP:]:
        Path(old.path).unlink(missing_ok=True)
    return backup


def weekly_backup(workspace: Workspace, *, now: float | None = None) -> Backup | None:
    """A backup when the newest is older than a week and the settings want one; else None. Never raises OSError:
    the work it follows is done, and `h2q-tui backup list` shows what there is."""
    from engine.config import load_settings

    moment = time.time() if now is None else now
    try:
        if not load_settings(workspace).backup_weekly or not workspace.memory_db.exists():
            return None
        newest = max((backup.created_at for backup in list_backups(workspace)), default=0.0)
        return create_backup(workspace, "weekly", now=moment) if moment - newest > WEEK_S else None
    except (OSError, BadInput):
        return None


def list_backups(workspace: Workspace) -> list[Backup]:
    """Newest first; files that are no backups are left out."""
    found = []
    for path in workspace.backups.glob("backup_*.tar.gz"):
        try:
            with _open(path) as archive:
                found.append(_describe(path, _manifest(archive, path)))
        except BadInput:
            continue
    return sorted(found, key=lambda backup: (backup.created_at, backup.stamp), reverse=True)


def find_backup(workspace: Workspace, name: str | None) -> Path:
    """The backup of that stamp, or the file of that name; None: the newest. Raises BadInput."""
    backups = list_backups(workspace)
    if name is None:
        if not backups:
            raise BadInput(_("There is no backup yet"), path=workspace.backups, mend="h2q-tui backup create")
        return Path(backups[0].path)
    chosen = next((Path(b.path) for b in backups if b.stamp == name), None) or Path(name).expanduser()
    if not chosen.is_file():
        raise BadInput(_("There is no backup {name}").format(name=name), mend="h2q-tui backup list")
    return chosen


def restore_backup(workspace: Workspace, path: Path) -> Backup:
    """Puts back what the backup holds, each file by rename after every hash was checked.

    What is there now is backed up first. Raises BadInput (damaged, from a newer program), Busy (an import is
    running), OSError; nothing has been replaced then.
    """
    workspace.backups.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".restore.", dir=workspace.root) as folder:
        staged = Path(folder)
        manifest = _unpack(path, staged)
        _check_schema(staged / _MEMORY, path)
        workspace.memory_db.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with import_lock(workspace.memory_db, wait_s=0) as held:
            if not held:
                raise Busy(
                    _("An import is running; the memory cannot be replaced now"), mend="h2q-tui runs list"
                )
            if workspace.memory_db.exists():
                create_backup(workspace, "restore")
            if _MEMORY in manifest.files:
                _replace_memory(staged / _MEMORY, workspace.memory_db)
        for name in manifest.files:
            if name != _MEMORY:
                write_bytes(workspace.root / name, (staged / name).read_bytes(), mode=0o600)
    return _describe(path, manifest)


def without_conversations(workspace: Workspace, ids: list[str]) -> int:
    """Rewrites every backup that holds one of the conversations, without them; returns how many were.

    A backup that cannot be read is removed, for it may hold them. Raises OSError.
    """
    changed = 0
    for path in sorted(workspace.backups.glob("backup_*.tar.gz")):
        with tempfile.TemporaryDirectory(prefix=".forget.", dir=workspace.backups) as folder:
            staged = Path(folder)
            try:
                manifest = _unpack(path, staged)
                if not _erase_in(staged / _MEMORY, ids):
                    continue
            except (BadInput, sqlite3.DatabaseError):
                path.unlink()
                changed += 1
                continue
            names = list(manifest.files)
            rewritten = _Manifest(
                created_at=manifest.created_at,
                reason=manifest.reason,
                conversations=_count(staged / _MEMORY),
                files={name: _digest(staged / name) for name in names},
            )
            packed = staged / ".packed"
            _pack(packed, staged, names, rewritten)
            packed.replace(path)
            changed += 1
    if changed:
        fsync_dir(workspace.backups)
    return changed


def _stage(workspace: Workspace, staged: Path) -> int:
    conversations = 0
    if workspace.memory_db.exists():
        copy = staged / _MEMORY
        copy.parent.mkdir()
        try:
            with (
                closing(
                    sqlite3.connect(f"{workspace.memory_db.as_uri()}?mode=ro", uri=True, timeout=10)
                ) as ours,
                closing(sqlite3.connect(copy)) as theirs,
            ):
                ours.backup(theirs, pages=_COPY_PAGES)
                # One plain file: a log beside it would be another file to keep together.
                theirs.execute("PRAGMA journal_mode=DELETE").fetchall()
            conversations = _count(copy)
        except sqlite3.DatabaseError as error:
            raise BadInput(
                _("The memory cannot be read ({reason})").format(reason=error),
                path=workspace.memory_db,
                mend="h2q-tui backup restore",
            ) from None
    for name in _CONFIG:
        source = workspace.root / name
        if source.is_file():
            write_bytes(staged / name, source.read_bytes(), mode=0o600)
    return conversations


def _count(memory: Path) -> int:
    with closing(sqlite3.connect(memory)) as connection:
        if schema_version(connection) == 0:
            return 0
        return int(connection.execute("SELECT COUNT(*) FROM current_conversations").fetchone()[0])


def _pack(target: Path, staged: Path, names: list[str], manifest: _Manifest) -> None:
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive:
            data = msgspec.json.encode(manifest)
            info = tarfile.TarInfo(_MANIFEST)
            info.size, info.mode = len(data), 0o600
            archive.addfile(info, io.BytesIO(data))
            for name in names:
                info = tarfile.TarInfo(name)
                info.size, info.mode = (staged / name).stat().st_size, 0o600
                with (staged / name).open("rb") as content:
                    archive.addfile(info, content)
        file.flush()
        os.fsync(file.fileno())


def _unpack(path: Path, folder: Path) -> _Manifest:
    """Takes the members that the manifest names, and only them, into `folder`; checks every hash."""
    with _open(path) as archive:
        manifest = _manifest(archive, path)
        allowed = {_MEMORY, *_CONFIG}
        for member in archive:
            if member.name not in manifest.files or member.name not in allowed or not member.isfile():
                raise _damaged(path)
            content = archive.extractfile(member)
            if content is None or member.size > _MAX_MEMBER:
                raise _damaged(path)
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                while piece := content.read(2**20):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
    for name, digest in manifest.files.items():
        if name not in allowed or not (folder / name).is_file() or _digest(folder / name) != digest:
            raise _damaged(path)
    return manifest


@contextmanager
def _open(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, mode="r:gz") as archive:
            yield archive
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _damaged(path) from None


def _manifest(archive: tarfile.TarFile, path: Path) -> _Manifest:
    member = archive.next()
    content = (
        archive.extractfile(member) if member and member.name == _MANIFEST and member.size < 2**20 else None
    )
    if content is None:
        raise _damaged(path)
    try:
        return msgspec.json.decode(content.read(), type=_Manifest)
    except (msgspec.DecodeError, json.JSONDecodeError):
        raise _damaged(path) from None


def _check_schema(memory: Path, path: Path) -> None:
    if not memory.exists():
        return
    try:
        with closing(sqlite3.connect(memory)) as connection:
            version = schema_version(connection)
            sound = connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
    except sqlite3.DatabaseError:
        raise _damaged(path) from None
    if not sound:
        raise _damaged(path)
    if version > len(MIGRATIONS):
        raise BadInput(
            _("The backup has schema {theirs}, and this program knows {ours}").format(
                theirs=version, ours=len(MIGRATIONS)
            ),
            path=path,
            mend="pipx upgrade h2q-tui",
        )


def _replace_memory(staged: Path, target: Path) -> None:
    """Copies the pages into the database by SQLite's own means: whoever has it open sees the new content."""
    try:
        with (
            closing(sqlite3.connect(staged)) as ours,
            closing(sqlite3.connect(target, timeout=10, isolation_level=None)) as theirs,
        ):
            ours.backup(theirs)
            theirs.execute("PRAGMA journal_mode=WAL").fetchall()
            theirs.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.DatabaseError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise Busy(
                _("The memory is in use and cannot be replaced now"), mend="h2q-tui runs list"
            ) from None
        # A damaged database takes no pages; the copy is whole and takes its place.
        for name in (target.name + "-wal", target.name + "-shm"):
            target.with_name(name).unlink(missing_ok=True)
        staged.replace(target)
        fsync_dir(target.parent)
    target.chmod(0o600)


def _erase_in(memory: Path, ids: list[str]) -> bool:
    if not memory.exists():
        return False
    from engine.memory.store import MemoryStore

    with MemoryStore(memory) as store:
        gone = store.forget(ids)
        store.connection.execute("PRAGMA journal_mode=DELETE").fetchall()
    return bool(gone)


def _digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _describe(path: Path, manifest: _Manifest) -> Backup:
    return Backup(
        stamp=path.name.removeprefix("backup_").removesuffix(".tar.gz"),
        path=str(path),
        bytes=path.stat().st_size,
        created_at=manifest.created_at,
        reason=manifest.reason,
        conversations=manifest.conversations,
    )


def _free_name(workspace: Workspace, created: float) -> Path:
    stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(created))
    number = 1
    while (path := workspace.backups / f"backup_{stamp}{f'-{number}' if number > 1 else ''}.tar.gz").exists():
        number += 1
    return path


def _damaged(path: Path) -> BadInput:
    return BadInput(_("The backup is damaged or is none"), path=path, mend="h2q-tui backup list")
