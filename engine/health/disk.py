"""Checks of the disk of the workspace: space, kind of file system and locks, and the cache of Hugging Face."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from engine.core.filenames import shell_command
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.health.grades import (
    GB,
    Fix,
    Grade,
    Judgement,
    NotKnown,
    existing_folder,
    fails,
    fixable,
    passes,
    warns,
)

ELSEWHERE = "h2q-tui --data-dir ~/h2q check"
"""The workspace in the home folder, which is on a local disk as a rule."""


class DiskReading(NamedTuple):
    path: str
    free: int
    """Bytes."""


def read_disk(ws: Workspace) -> DiskReading:
    return DiskReading(str(ws.root), shutil.disk_usage(existing_folder(ws.root)).free)


def judge_disk(reading: DiskReading) -> Judgement:
    text = _("{free:.1f} GB free for {path}").format(free=reading.free / GB, path=reading.path)
    if reading.free < 0.5 * GB:
        return fails(_("{detail}; 0.5 GB are needed").format(detail=text), "df -h")
    return warns(text, "df -h") if reading.free < 5 * GB else passes(text)


class LocksReading(NamedTuple):
    """Whether a lock that one process holds is seen by another, and what file system it is on."""

    path: str
    filesystem: str
    """As the system names it: "ext4", "apfs", "nfs4"; "" where it is not known."""
    works: bool | None
    """None: nothing here that can be locked without writing."""
    error: str = ""
    """Name of the error: "ENOLCK"."""


_NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "afp",
    "9p",
    "ncp",
    "ceph",
    "gluster",
    "lustre",
    "webdav",
    "davfs",
    "fuse.sshfs",
    "macfuse",
)
_TEMPORARY = ("tmpfs", "ramfs", "overlay", "aufs")
_NO_MODES = ("vfat", "msdos", "exfat", "fuseblk", "ntfs")


def read_locks(ws: Workspace) -> LocksReading:
    """Locks a file of the workspace twice, or the folder that it will lie in; nothing is written."""
    place = ws.schema_file if ws.schema_file.is_file() else existing_folder(ws.root)
    works, error = try_twice(place)
    return LocksReading(str(ws.root), filesystem_of(place), works, error)


def try_twice(path: Path) -> tuple[bool | None, str]:
    """Whether a lock on `path` keeps a second descriptor out, and the name of the error."""
    first = second = -1
    try:
        first = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        second = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        for fd in (first, second):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True, ""
        return False, ""
    except OSError as problem:
        name = errno.errorcode.get(problem.errno or 0, str(problem.errno))
        # Over NFS a folder, or a file that is open for reading alone, cannot be locked exclusively (flock(2)).
        return (
            None if problem.errno in (errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM) else False
        ), name
    finally:
        for fd in (first, second):
            if fd >= 0:
                os.close(fd)


def filesystem_of(path: Path) -> str:
    """The kind of file system that `path` is on; "" where it is not known."""
    try:
        real = path.resolve()
        parts = psutil.disk_partitions(all=True)
    except (OSError, RuntimeError, psutil.Error):
        return ""
    best = max(
        (part for part in parts if real.is_relative_to(part.mountpoint)),
        key=lambda part: len(part.mountpoint),
        default=None,
    )
    return best.fstype if best is not None else ""


def is_network(filesystem: str) -> bool:
    """Whether a kind of file system lies on another machine."""
    return filesystem.startswith(_NETWORK)


def judge_locks(reading: LocksReading) -> Judgement:
    kind = reading.filesystem
    where = _("{path} on {filesystem}").format(path=reading.path, filesystem=kind or "?")
    if reading.works is False:
        text = _("{where}: locks do not work here ({reason}); two programs would write at the same time")
        return fails(text.format(where=where, reason=reading.error or "flock"), ELSEWHERE)
    if is_network(kind):
        text = _(
            "{where}: a network file system; SQLite may damage the memory there (sqlite.org/useovernet.html)"
        )
        return warns(text.format(where=where), ELSEWHERE)
    if reading.works is None:
        raise NotKnown(
            _("{where}: nothing here can be locked to try it ({reason})").format(
                where=where, reason=reading.error
            )
        )
    if kind in _TEMPORARY:
        text = _("{where}: what is written there ends with the container or at the next start")
        return warns(text.format(where=where), ELSEWHERE)
    if kind in _NO_MODES:
        text = _("{where}: this file system has no permissions; other users can read the conversations")
        return warns(text.format(where=where), ELSEWHERE)
    return passes(_("{where}, locks work").format(where=where))


# The cache of Hugging Face


class CacheReading(NamedTuple):
    path: str
    size: int
    """Bytes of all blobs."""
    prunable: int
    """Bytes that `hf cache prune` deletes: downloads that did not end, and what only revisions without a name have."""
    complete: bool = True
    """Whether all of it was looked at in time."""
    free: int = 0
    """Bytes free on its disk."""


_CACHE_S = 2.0
_NOTICED = GB
"""Bytes that could be freed from which they are worth a warning."""


def cache_path() -> Path:
    """The folder of huggingface_hub, as that finds it (HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME)."""
    environ = os.environ
    if found := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(found).expanduser()
    home = environ.get("HF_HOME")
    if not home:
        home = str(Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(home).expanduser() / "hub"


def read_cache(_ws: Workspace) -> CacheReading | None:
    """None without a cache."""
    try:
        path = cache_path()
        models = sorted(folder for folder in path.iterdir() if (folder / "blobs").is_dir())
    except (FileNotFoundError, RuntimeError):
        return None
    size = prunable = 0
    end, complete = time.monotonic() + _CACHE_S, True
    for model in models:
        if time.monotonic() > end:
            complete = False
            break
        total, unused = _sizes(model)
        size, prunable = size + total, prunable + unused
    return CacheReading(str(path), size, prunable, complete, shutil.disk_usage(path).free)


def _sizes(model: Path) -> tuple[int, int]:
    """Bytes of a model's blobs, and those that pruning deletes."""
    named = {text for ref in (model / "refs").rglob("*") if ref.is_file() and (text := _small_text(ref))}
    used, detached = set[str](), set[str]()
    for snapshot in _entries(model / "snapshots"):
        (used if snapshot.name in named else detached).update(_linked_blobs(snapshot))
    total = unused = 0
    for blob in _entries(model / "blobs"):
        try:
            found = blob.lstat()
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode):
            total += found.st_size
            if blob.name.endswith(".incomplete") or blob.name in detached - used:
                unused += found.st_size
    return total, unused


def _small_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _linked_blobs(snapshot: Path) -> set[str]:
    """Names of the blobs that a snapshot links to."""
    names = set()
    for folder, _folders, files in os.walk(snapshot):
        for name in files:
            try:
                names.add(Path(os.readlink(Path(folder) / name)).name)  # noqa: PTH115 - the link itself, not its target
            except OSError:
                continue
    return names


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def judge_cache(reading: CacheReading | None) -> Judgement:
    if reading is None:
        return passes(_("none"))
    text = _(
        "{size:.1f} GB in {path}, {free:.1f} GB of it in unfinished downloads and revisions without a name"
    ).format(size=reading.size / GB, path=reading.path, free=reading.prunable / GB)
    if not reading.complete:
        text = _("at least {detail}").format(detail=text)
    if reading.prunable >= _NOTICED:
        fix = Fix(
            change=_(
                "Delete {size:.1f} GB of {path}: unfinished downloads, and revisions that were fetched by their hash alone"
            ).format(size=reading.prunable / GB, path=reading.path),
            command=(*hf_command(), "cache", "prune", "--cache-dir", reading.path, "--yes"),
            outside=True,
        )
        return fixable(Grade.WARN, text, fix)
    if reading.size > reading.free:
        text = _("{detail}; more than is free on that disk").format(detail=text)
        return warns(text, shell_command(*hf_command(), "cache", "ls"))
    return passes(text)


def hf_command() -> tuple[str, ...]:
    """The program of huggingface_hub; as a module where it is not on the PATH."""
    return ("hf",) if shutil.which("hf") else (sys.executable, "-m", "huggingface_hub.cli.hf")
