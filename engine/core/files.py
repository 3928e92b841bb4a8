"""Atomic, durable file writes (temporary name, fsync, rename, fsync of the folder), file hashes and free space.

Writes use `os.open`, `os.write`, `os.fsync` and `os.replace`, so that `bench/crash_states.py` can record them and
check every state that a power cut may leave.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from engine.core.errors import BadInput, RunFailed
from engine.core.i18n import _

_FREE_SPACE_KEPT = 64 << 20
"""Bytes to keep free on the disk."""


def fsync_dir(folder: Path) -> None:
    """Makes a rename in `folder` durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_dirs(folder: Path) -> None:
    """Creates `folder` and its parents durably: a synced file is lost with a folder that was not synced.

    Raises OSError.
    """
    if folder.is_dir():
        return
    make_dirs(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_dir(folder.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Writes and syncs a file. Its name is not durable until the folder is synced.

    Raises OSError; a partly written file stays.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        _write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replaces the content of `path`; a reader sees the old file or the new one, also after a power cut.

    Raises OSError (disk full, no permission) and leaves the old file untouched and no temporary file.
    """
    make_dirs(path.parent)
    _replace(path, data, mode, sync=True)
    fsync_dir(path.parent)


def write_bytes_unsynced(path: Path, data: bytes) -> None:
    """Like `write_bytes`, without the sync: for files that are rewritten often.

    Raises OSError and leaves the old file untouched and no temporary file.
    """
    _replace(path, data, 0o644, sync=False)


def replaceable(path: Path) -> Path:
    """The file that a write to `path` replaces: `path` itself, or the target of a link, so that links stay.

    Raises FileExistsError for a device, a FIFO, a socket or a folder: as root, a rename would destroy a device.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISLNK(path.lstat().st_mode):
            path = path.resolve()
        if not stat.S_ISREG(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "not a regular file", str(path))
    return path


def _replace(path: Path, data: bytes, mode: int, *, sync: bool) -> None:
    path = replaceable(path)
    fd, temporary = _locked_temporary(path)
    try:
        _write_all(fd, data)
        os.fchmod(fd, mode)
        if sync:
            os.fsync(fd)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _locked_temporary(path: Path) -> tuple[int, Path]:
    """A new file next to `path`, locked until its descriptor is closed, so that `remove_stale` leaves it."""
    while True:
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        # Without support for locks nothing is ever removed as stale.
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        if is_same_file(fd, Path(name)):
            return fd, Path(name)
        os.close(fd)


@contextlib.contextmanager
def locked_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, locked inside the block so that `remove_stale` leaves it. Raises OSError.

    What is left under its name at the end is deleted.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # removed as stale before it was locked
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        if is_same_file(fd, folder):
            break
        os.close(fd)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def is_same_file(fd: int, path: Path) -> bool:
    """Whether `path` is the open file `fd`: neither deleted nor replaced since."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Whether the flock was acquired; False while another process holds it.

    Raises RunFailed where the file system has no locks, OSError.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as problem:
        if problem.errno in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise RunFailed(
                _("The file system of the data folder has no file locks; it must be on a local disk"),
                hint="h2q-tui --data-dir ~/h2q check",
            ) from None
        raise
    return True


def is_in_use(path: Path) -> bool:
    """Whether a live process has a temporary file or folder locked; False when it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def remove_stale(path: Path) -> bool:
    """Deletes a temporary file or folder unless a live process has it locked; whether it did. Raises OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # it is gone, or a link
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not is_same_file(fd, path):
            return False
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _write_all(fd: int, data: bytes) -> None:
    """Writes all of `data`: a full disk or a signal may cut one write short."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """`write_bytes` of UTF-8 text; file names that are not UTF-8 stand in it as their bytes."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"), mode=mode)


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """Writes indented JSON. Raises ValueError for NaN and infinities, which are not JSON."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    # A byte of a file name that is not UTF-8 becomes the escape of a lone surrogate, which Python reads again.
    write_bytes(path, text.encode("utf-8", "backslashreplace"), mode=mode)


@contextlib.contextmanager
def atomic_file(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yields a temporary path next to `path`; afterwards the file is synced and renamed to `path`. Raises OSError.

    For files too large for memory. If the block raises, `path` is unchanged.
    """
    make_dirs(path.parent)
    path = replaceable(path)
    fd, temporary = _locked_temporary(path)
    try:
        yield temporary
        temporary.chmod(mode)
        sync_file(temporary)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    fsync_dir(path.parent)


def sync_file(file: Path) -> None:
    """Waits until the contents of `file` are on the disk. Raises OSError."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def file_sha256(path: Path, step: Callable[[], None] | None = None) -> str:
    """SHA-256 of a file in hex. `step` is called between chunks and may raise to stop. Raises OSError."""
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            if step is not None:
                step()
    return digest.hexdigest()


def check_free_space(folder: Path, size: int, *, kept: int = _FREE_SPACE_KEPT) -> None:
    """Creates `folder`. Raises RunFailed if its disk has no space for `size` bytes besides `kept`, BadInput if it is
    not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        raise BadInput(
            _("nothing can be written into this folder ({reason})").format(reason=problem.strerror),
            path=folder,
        ) from problem
    free = shutil.disk_usage(folder).free
    if free < size + kept:
        raise RunFailed(
            _("{need:.2f} GB of free disk space are needed, {free:.2f} GB are free: {path}").format(
                need=(size + kept) / 2**30, free=free / 2**30, path=folder
            ),
            hint="df -h",
        )
