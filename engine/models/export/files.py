"""Files of an export that are whole or not there, with room for them looked for first."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from engine.atomic import fsync_dir
from engine.errors import RunFailed
from engine.i18n import _

_ROOM = 64 << 20
"""Bytes that stay free on the disk."""


def check_room(folder: Path, size: int) -> None:
    """Raises RunFailed when `size` bytes more would fill the disk of `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size + _ROOM:
        raise RunFailed(
            _("the export needs {need:.2f} GB and the disk has {free:.2f} GB free: {path}").format(
                need=(size + _ROOM) / 2**30, free=free / 2**30, path=folder
            ),
            mend="df -h",
        )


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; what was written there is synced and takes the name. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(fd)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`; its files are synced and it takes the name, an old one goes. Raises OSError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        for file in temporary.iterdir():
            file.chmod(0o644)
            sync(file)
        fsync_dir(temporary)
        old = None
        if folder.exists():
            old = folder.with_name(f".{folder.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        temporary.rename(folder)
        fsync_dir(folder.parent)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def sync(file: Path) -> None:
    """Makes the bytes of `file` durable."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sha256_of(file: Path, step: Callable[[], None] | None = None) -> str:
    """Of all bytes; `step` is called now and then and may raise to stop."""
    digest = sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
            if step is not None:
                step()
    return digest.hexdigest()
