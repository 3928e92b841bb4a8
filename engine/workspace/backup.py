"""Backups: the memory with the review decisions, and the configuration, as one compressed file."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

import msgspec

from engine.core.errors import BadInput, Busy
from engine.core.files import fsync_dir, write_bytes
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.memory.schema import MIGRATIONS, recovery_command, schema_version
from engine.memory.transactions import import_lock
from engine.workspace.backup_file import Manifest, damaged, digest_of, opened, pack, read_manifest, unpack

KEEP = 8
"""Backups that stay; the oldest goes first."""
WEEK_S = 7 * 86400.0
_MEMORY = "memory/memory.db"
_CONFIG = ("config/h2q.toml", "config/models.json", "last_training.json", "workspace.json")
_MEMBERS = frozenset({_MEMORY, *_CONFIG})
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
        manifest = Manifest(
            created_at=created,
            reason=reason,
            conversations=conversations,
            files={name: digest_of(staged / name) for name in names},
        )
        packed = staged / ".packed"
        pack(packed, staged, manifest)
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
    from engine.core.config import load_settings

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
            with opened(path) as archive:
                found.append(_describe(path, read_manifest(archive, path)))
        except BadInput:
            continue
    return sorted(found, key=lambda backup: (backup.created_at, backup.stamp), reverse=True)


def find_backup(workspace: Workspace, name: str | None) -> Path:
    """The backup of that stamp, or the file of that name; None: the newest. Raises BadInput."""
    backups = list_backups(workspace)
    if name is None:
        if not backups:
            raise BadInput(_("There is no backup yet"), path=workspace.backups, hint="h2q-tui backup create")
        return Path(backups[0].path)
    chosen = next((Path(b.path) for b in backups if b.stamp == name), None) or Path(name).expanduser()
    if not chosen.is_file():
        raise BadInput(_("There is no backup {name}").format(name=name), hint="h2q-tui backup list")
    return chosen


def restore_backup(workspace: Workspace, path: Path) -> Backup:
    """Puts back what the backup holds, each file by rename after every hash was checked.

    What is there now is backed up first. Raises BadInput (damaged, from a newer program), Busy (an import is
    running), OSError; nothing has been replaced then.
    """
    workspace.backups.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".restore.", dir=workspace.root) as folder:
        staged = Path(folder)
        manifest = unpack(path, staged, _MEMBERS)
        _check_schema(staged / _MEMORY, path)
        workspace.memory_db.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with import_lock(workspace.memory_db, wait_s=0) as held:
            if not held:
                raise Busy(
                    _("An import is running; the memory cannot be replaced now"), hint="h2q-tui runs list"
                )
            _save_current(workspace)
            if _MEMORY in manifest.files:
                _replace_memory(staged / _MEMORY, workspace.memory_db)
        for name in manifest.files:
            if name != _MEMORY:
                write_bytes(workspace.root / name, (staged / name).read_bytes(), mode=0o600)
    return _describe(path, manifest)


def without_conversations(workspace: Workspace, ids: list[str]) -> tuple[int, int]:
    """Rewrites every backup that holds one of the conversations, without them.

    A backup that is damaged is removed, for it may hold them. Returns how many were rewritten and how many
    removed. Raises OSError.
    """
    rewritten = removed = 0
    for path in sorted(workspace.backups.glob("backup_*.tar.gz")):
        with tempfile.TemporaryDirectory(prefix=".forget.", dir=workspace.backups) as folder:
            staged = Path(folder)
            try:
                manifest = unpack(path, staged, _MEMBERS)
                changed = _erase_in(staged / _MEMORY, ids)
            except BadInput:
                path.unlink()
                removed += 1
                continue
            if not changed:
                continue
            packed = staged / ".packed"
            files = {name: digest_of(staged / name) for name in manifest.files}
            count = _count(staged / _MEMORY)
            pack(packed, staged, msgspec.structs.replace(manifest, files=files, conversations=count))
            packed.replace(path)
            rewritten += 1
    if rewritten or removed:
        fsync_dir(workspace.backups)
    return rewritten, removed


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
                hint=recovery_command(error),
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


def _check_schema(memory: Path, path: Path) -> None:
    if not memory.exists():
        return
    try:
        with closing(sqlite3.connect(memory)) as connection:
            version = schema_version(connection)
            sound = connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
    except sqlite3.DatabaseError:
        raise damaged(path) from None
    if not sound:
        raise damaged(path)
    if version > len(MIGRATIONS):
        raise BadInput(
            _("The backup has schema {theirs}, and this program knows {ours}").format(
                theirs=version, ours=len(MIGRATIONS)
            ),
            path=path,
            hint="pipx upgrade h2q-tui",
        )


def _save_current(workspace: Workspace) -> None:
    """Backs up what a restore replaces; a memory that is too damaged for that is put aside as it is."""
    memory = workspace.memory_db
    if not memory.exists():
        return
    try:
        create_backup(workspace, "restore")
    except BadInput:
        aside = f"damaged-{time.strftime('%Y%m%d_%H%M%S')}-"
        for name in (memory.name, memory.name + "-wal", memory.name + "-shm"):
            if memory.with_name(name).exists():
                memory.with_name(name).rename(memory.with_name(aside + name))
        fsync_dir(memory.parent)


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
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise
        raise Busy(_("The memory is in use and cannot be replaced now"), hint="h2q-tui runs list") from None
    target.chmod(0o600)


def _erase_in(memory: Path, ids: list[str]) -> bool:
    if not memory.exists():
        return False
    from engine.memory.store import MemoryStore

    with MemoryStore(memory) as store:
        gone = store.forget(ids)
        store.connection.execute("PRAGMA journal_mode=DELETE").fetchall()
    return bool(gone)


def _describe(path: Path, manifest: Manifest) -> Backup:
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
