"""Backups of memory, review decisions and configuration: one compressed archive with a manifest of hashes."""

from __future__ import annotations

import io
import os
import sqlite3
import tarfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from engine.core.errors import BadInput, Busy
from engine.core.files import file_sha256, fsync_dir, write_bytes
from engine.core.i18n import _
from engine.core.json_text import encode_json
from engine.core.paths import Workspace
from engine.memory.checksums import find_changed
from engine.memory.integrity import find_damage, find_page_damage, reason_of
from engine.memory.schema import MIGRATIONS, recovery_command, schema_version
from engine.memory.transactions import import_lock
from engine.workspace.leftovers import backup_lock, staging_folder, sweep_leftovers

KEEP = 8
"""Number of sound backups that are kept; the oldest are deleted first."""
KEEP_DAMAGED = 2
"""Number of backups of a damaged memory that are kept besides the sound ones."""
WEEK_S = 7 * 86400.0
_MEMORY = "memory/memory.db"
_CONFIG = ("config/h2q.toml", "config/models.json", "last_training.json", "workspace.json")
_MEMBERS = frozenset({_MEMORY, *_CONFIG})
_COPY_PAGES = 256
_MANIFEST = "manifest.json"
_RENAMED = "damaged-"
"""Prefix of a memory that was too damaged to be copied before a restore."""
_MAX_MEMBER_BYTES = 64 * 2**30


class BackupManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The first member of a backup archive. Members outside `files` are never extracted."""

    schema: int = 1
    created_at: float
    reason: str
    conversations: int
    files: dict[str, str]
    """Member name to the SHA-256 of its content."""
    number: int = 0
    """Order of creation, from 1; 0 in backups of older versions, which had only the date."""
    damage: str = ""
    """Why the copied memory is damaged; empty for a sound one."""


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """One backup; an element of `backup list --json`."""

    stamp: str
    """Local time in the file name, `YYYYMMDD_HHMMSS`."""
    path: str
    bytes: int
    created_at: float
    reason: str
    """"manual", "weekly", "migration" or "restore"."""
    conversations: int
    number: int = 0
    """Order of creation, from 1; 0 when unknown."""
    damage: str = ""
    """Why the copied memory is damaged; empty for a sound one."""


def create_backup(workspace: Workspace, reason: str = "manual", *, now: float | None = None) -> Backup:
    """Backs up memory (SQLite's online backup: a run may be writing) and configuration; keeps the newest 8.

    A damaged memory is copied and marked; such a copy never replaces a sound one. Raises OSError (disk full),
    BadInput when the memory cannot be read at all, Busy while another process makes or restores a backup.
    """
    with backup_lock(workspace):
        sweep_leftovers(workspace)
        return _create(workspace, reason, time.time() if now is None else now)


def _create(workspace: Workspace, reason: str, created: float, *, keep: Path | None = None) -> Backup:
    """Creates a backup and deletes old ones, neither it nor `keep`. The caller holds `backup_lock`."""
    workspace.backups.mkdir(mode=0o700, parents=True, exist_ok=True)
    with staging_folder(workspace.backups, ".backup.") as staged:
        conversations, damage = _copy_files(workspace, staged)
        names = [str(file.relative_to(staged)) for file in sorted(staged.rglob("*")) if file.is_file()]
        manifest = BackupManifest(
            created_at=created,
            reason=reason,
            conversations=conversations,
            files={name: file_sha256(staged / name) for name in names},
            number=1 + max((backup.number for backup in list_backups(workspace, now=created)), default=0),
            damage=damage,
        )
        packed = staged / ".packed"
        _pack(packed, staged, manifest)
        path = _free_name(workspace, created)
        packed.replace(path)
    fsync_dir(workspace.backups)
    kept = {path.resolve(), *([keep.resolve()] if keep else [])}
    for old in _superfluous(list_backups(workspace, now=created)):
        if Path(old.path).resolve() not in kept:
            Path(old.path).unlink(missing_ok=True)
    return _describe(path, manifest)


def _superfluous(backups: list[Backup]) -> list[Backup]:
    """The backups to delete, of `backups` from newest to oldest."""
    sound = [backup for backup in backups if not backup.damage]
    damaged = [backup for backup in backups if backup.damage]
    return [*sound[KEEP:], *damaged[KEEP_DAMAGED:]]


def weekly_backup(workspace: Workspace, *, now: float | None = None) -> Backup | None:
    """Creates a backup when the newest is older than a week and the settings enable it; else returns None.

    A date ahead of now does not count: the clock was wrong. Never raises OSError: the run that calls it has
    already succeeded, and `h2q-tui backup list` shows the backups.
    """
    from engine.core.config import load_settings

    moment = time.time() if now is None else now
    try:
        if not load_settings(workspace).backup_weekly or not workspace.memory_db.exists():
            return None
        dates = (backup.created_at for backup in list_backups(workspace, now=moment))
        newest = max((date for date in dates if date <= moment), default=0.0)
        return create_backup(workspace, "weekly", now=moment) if moment - newest > WEEK_S else None
    except (OSError, BadInput, Busy):
        return None


def list_backups(workspace: Workspace, *, now: float | None = None) -> list[Backup]:
    """Newest first, in the order of creation; other files are skipped.

    The clock may have been wrong, so the order is that of their numbers. Backups of older versions have none:
    they are older, in the order of their dates, and those dated ahead of `now` are the oldest.
    """
    moment = time.time() if now is None else now
    backups = []
    for path in workspace.backups.glob("backup_*.tar.gz"):
        try:
            with _open_archive(path) as archive:
                backups.append(_describe(path, _read_manifest(archive, path)))
        except BadInput:
            continue
    return sorted(
        backups,
        key=lambda backup: (backup.number, backup.created_at <= moment, backup.created_at, backup.stamp),
        reverse=True,
    )


def newest_backup(workspace: Workspace) -> Backup | None:
    """The backup to restore: the newest of a sound memory, else the newest; None when there is none."""
    backups = list_backups(workspace)
    return next((backup for backup in backups if not backup.damage), backups[0] if backups else None)


def find_backup(workspace: Workspace, name: str | None) -> Path:
    """The backup with a stamp or a path; None: `newest_backup`. Raises BadInput when there is none."""
    if name is None:
        newest = newest_backup(workspace)
        if newest is None:
            raise BadInput(_("There is no backup yet"), path=workspace.backups, hint="h2q-tui backup create")
        return Path(newest.path)
    backups = list_backups(workspace)
    chosen = next((Path(b.path) for b in backups if b.stamp == name), None) or Path(name).expanduser()
    if not chosen.is_file():
        raise BadInput(_("There is no backup {name}").format(name=name), hint="h2q-tui backup list")
    return chosen


def restore_backup(workspace: Workspace, path: Path) -> Backup:
    """Restores the files of a backup, each by an atomic rename after all hashes are verified.

    The current state is backed up first. Raises BadInput (damaged, from a newer version), Busy (an import or
    another backup is running), OSError; nothing is replaced then.
    """
    workspace.backups.mkdir(mode=0o700, parents=True, exist_ok=True)
    with backup_lock(workspace):
        sweep_leftovers(workspace)
        with staging_folder(workspace.root, ".restore.") as staged:
            manifest = _unpack(path, staged)
            _check_memory(staged / _MEMORY, path)
            workspace.memory_db.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with import_lock(workspace.memory_db, wait_s=0) as locked:
                if not locked:
                    raise Busy(
                        _("An import is running; the memory cannot be replaced now"), hint="h2q-tui runs list"
                    )
                _save_current(workspace, keep=path)
                if _MEMORY in manifest.files:
                    _replace_memory(staged / _MEMORY, workspace.memory_db)
            for name in manifest.files:
                if name != _MEMORY:
                    write_bytes(workspace.root / name, (staged / name).read_bytes(), mode=0o600)
    return _describe(path, manifest)


def remove_from_backups(
    workspace: Workspace, ids: list[str], *, text: str = "", quoted: Sequence[str] = ()
) -> tuple[int, int]:
    """Rewrites every backup that contains one of the conversations, or `text` anywhere, without them.

    Rules, reasons and paths that quote them or the texts `quoted` go too.

    A damaged backup and a damaged memory that a restore renamed are deleted, because they may contain them.
    Returns the numbers of rewritten and of deleted files. The caller holds `backup_lock` unless it is alone.
    Raises OSError.
    """
    rewritten = removed = 0
    for path in sorted(workspace.backups.glob("backup_*.tar.gz")):
        with staging_folder(workspace.backups, ".forget.") as staged:
            try:
                manifest = _unpack(path, staged)
                changed = _forget_in(staged / _MEMORY, ids, path, text=text, quoted=quoted)
            except BadInput:
                path.unlink()
                removed += 1
                continue
            if not changed:
                continue
            packed = staged / ".packed"
            files = {name: file_sha256(staged / name) for name in manifest.files}
            count = _count(staged / _MEMORY)
            _pack(packed, staged, msgspec.structs.replace(manifest, files=files, conversations=count))
            packed.replace(path)
            rewritten += 1
    if rewritten or removed:
        fsync_dir(workspace.backups)
    renamed = sorted(workspace.memory_db.parent.glob(f"{_RENAMED}*"))
    for path in renamed:
        path.unlink()
        removed += path.name.endswith(workspace.memory_db.name)
    if renamed:
        fsync_dir(workspace.memory_db.parent)
    return rewritten, removed


def _copy_files(workspace: Workspace, staged: Path) -> tuple[int, str]:
    """Copies the memory and the configuration; returns the number of conversations and the memory's damage."""
    conversations, damage = 0, ""
    if workspace.memory_db.exists():
        copy = staged / _MEMORY
        copy.parent.mkdir()
        try:
            with (
                closing(
                    sqlite3.connect(f"{workspace.memory_db.as_uri()}?mode=ro", uri=True, timeout=10)
                ) as database,
                closing(sqlite3.connect(copy)) as target_db,
            ):
                database.backup(target_db, pages=_COPY_PAGES)
                # A single file without a WAL.
                target_db.execute("PRAGMA journal_mode=DELETE").fetchall()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise BadInput(
                _("The memory cannot be read ({reason})").format(reason=reason_of(error)),
                path=workspace.memory_db,
                hint=recovery_command(error),
            ) from None
        damage = _damage_of(copy) or ""
        try:
            conversations = _count(copy)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            damage = damage or type(error).__name__
    for name in _CONFIG:
        source = workspace.root / name
        if source.is_file():
            write_bytes(staged / name, source.read_bytes(), mode=0o600)
    return conversations, damage


def _count(memory: Path) -> int:
    with closing(sqlite3.connect(memory)) as connection:
        if schema_version(connection) == 0:
            return 0
        return int(connection.execute("SELECT COUNT(*) FROM current_conversations").fetchone()[0])


def _damage_of(memory: Path) -> str | None:
    """Why an unpacked or copied memory is damaged; None when it is sound or missing."""
    if not memory.exists():
        return None
    with closing(sqlite3.connect(memory, isolation_level=None)) as connection:
        return find_damage(connection)


def _check_memory(memory: Path, path: Path) -> None:
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
            _("The backup has schema {theirs}; this version supports up to {ours}").format(
                theirs=version, ours=len(MIGRATIONS)
            ),
            path=path,
            hint="pipx upgrade h2q-tui",
        )


def _save_current(workspace: Workspace, *, keep: Path) -> None:
    """Backs up the files that a restore replaces; a memory too damaged for that is renamed instead.

    `keep` is the backup to restore, which must not be deleted as the oldest.
    """
    memory = workspace.memory_db
    if not memory.exists():
        return
    try:
        _create(workspace, "restore", time.time(), keep=keep)
    except BadInput:
        _rename_damaged(memory)


def _rename_damaged(memory: Path) -> None:
    prefix = f"{_RENAMED}{time.strftime('%Y%m%d_%H%M%S')}-"
    for name in (memory.name, memory.name + "-wal", memory.name + "-shm"):
        if memory.with_name(name).exists():
            memory.with_name(name).rename(memory.with_name(prefix + name))
    fsync_dir(memory.parent)


def _replace_memory(staged: Path, target: Path) -> None:
    """Copies the pages with SQLite's backup API: processes that have the database open see the new content."""
    try:
        _copy_pages(staged, target)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise
        raise Busy(_("The memory is in use and cannot be replaced now"), hint="h2q-tui runs list") from None
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        # Too damaged to be overwritten by SQLite.
        _rename_damaged(target)
        _copy_pages(staged, target)
    target.chmod(0o600)


def _copy_pages(staged: Path, target: Path) -> None:
    with (
        closing(sqlite3.connect(staged)) as source,
        closing(sqlite3.connect(target, timeout=10, isolation_level=None)) as target_db,
    ):
        source.backup(target_db)
        target_db.execute("PRAGMA journal_mode=WAL").fetchall()
        target_db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


_NOTES = ("SELECT id, path, skipped FROM imports", "SELECT seq, text, reason, undone FROM decisions")
"""What `forget` changes besides the rows of conversations."""


def _forget_in(memory: Path, ids: list[str], path: Path, *, text: str, quoted: Sequence[str]) -> bool:
    """Whether an unpacked memory was changed: it contained one of the conversations, or a note that quotes them.

    Conversations that are not as they were imported go too: they may be the wanted ones. Raises BadInput when its
    pages are damaged.
    """
    if not memory.exists():
        return False
    from engine.memory.store import MemoryStore

    with closing(sqlite3.connect(memory, isolation_level=None)) as connection:
        try:
            if find_page_damage(connection):
                raise _damaged(path)
            damaged = list(find_changed(connection))
        except (sqlite3.Error, UnicodeDecodeError):
            raise _damaged(path) from None
    with MemoryStore(memory) as store:
        wanted = [*ids, *damaged, *(store.ids_containing(text) if text else ())]
        before = [store.connection.execute(query).fetchall() for query in _NOTES]
        deleted = store.forget(wanted, text=text, quoted=quoted).ids
        after = [store.connection.execute(query).fetchall() for query in _NOTES]
        store.connection.execute("PRAGMA journal_mode=DELETE").fetchall()
    return bool(deleted) or before != after


def _describe(path: Path, manifest: BackupManifest) -> Backup:
    return Backup(
        stamp=path.name.removeprefix("backup_").removesuffix(".tar.gz"),
        path=str(path),
        bytes=path.stat().st_size,
        created_at=manifest.created_at,
        reason=manifest.reason,
        conversations=manifest.conversations,
        number=manifest.number,
        damage=manifest.damage,
    )


def _free_name(workspace: Workspace, created: float) -> Path:
    stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(created))
    number = 1
    while (path := workspace.backups / f"backup_{stamp}{f'-{number}' if number > 1 else ''}.tar.gz").exists():
        number += 1
    return path


def _pack(target: Path, staged: Path, manifest: BackupManifest) -> None:
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive:
            data = encode_json(manifest)
            info = tarfile.TarInfo(_MANIFEST)
            info.size, info.mode = len(data), 0o600
            archive.addfile(info, io.BytesIO(data))
            for name in manifest.files:
                info = tarfile.TarInfo(name)
                info.size, info.mode = (staged / name).stat().st_size, 0o600
                with (staged / name).open("rb") as content:
                    archive.addfile(info, content)
        file.flush()
        os.fsync(file.fileno())


def _unpack(path: Path, folder: Path) -> BackupManifest:
    """Extracts the members of the manifest into `folder` and verifies every hash.

    Raises BadInput for a member outside `_MEMBERS`, and when one is missing or altered.
    """
    with _open_archive(path) as archive:
        manifest = _read_manifest(archive, path)
        for member in archive:
            if member.name == _MANIFEST:
                continue
            if member.name not in manifest.files or member.name not in _MEMBERS or not member.isfile():
                raise _damaged(path)
            content = archive.extractfile(member)
            if content is None or member.size > _MAX_MEMBER_BYTES:
                raise _damaged(path)
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                while chunk := content.read(2**20):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
    for name, digest in manifest.files.items():
        if name not in _MEMBERS or not (folder / name).is_file() or file_sha256(folder / name) != digest:
            raise _damaged(path)
    return manifest


@contextmanager
def _open_archive(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, mode="r:gz") as archive:
            yield archive
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _damaged(path) from None


def _read_manifest(archive: tarfile.TarFile, path: Path) -> BackupManifest:
    member = archive.next()
    content = (
        archive.extractfile(member) if member and member.name == _MANIFEST and member.size < 2**20 else None
    )
    if content is None:
        raise _damaged(path)
    try:
        return msgspec.json.decode(content.read(), type=BackupManifest)
    except msgspec.DecodeError:
        raise _damaged(path) from None


def _damaged(path: Path) -> BadInput:
    return BadInput(_("The file is damaged or not a backup"), path=path, hint="h2q-tui backup list")
