"""The lock of backups, restores and deletions, and the removal of what killed processes left behind.

Every temporary folder here holds a copy of memory, and is locked by its process. One that is not locked is stale.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.core.errors import Busy
from engine.core.files import is_same_file, locked_folder, remove_stale, try_lock
from engine.core.i18n import _
from engine.core.outputs import recover_replaced
from engine.core.paths import Workspace
from engine.workspace.outside import sweep_outside

_LOCK = ".backup.lock"
_WAIT_S = 60.0
_STAGING = tuple(f".{use}.*" for use in ("backup", "restore", "forget", "add", "unpack", "edit"))


@contextmanager
def backup_lock(workspace: Workspace, *, wait_s: float = _WAIT_S) -> Iterator[None]:
    """Held by everything that creates, replaces or deletes copies of memory. Not reentrant.

    Creates the workspace's folder. Raises Busy when another process holds it longer than `wait_s`, OSError.
    """
    workspace.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = workspace.root / _LOCK
    deadline = time.monotonic() + wait_s
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            acquired = try_lock(fd)
        except BaseException:
            os.close(fd)
            raise
        if not acquired:
            os.close(fd)
            if time.monotonic() >= deadline:
                raise Busy(
                    _("Another process is backing up, restoring or deleting; try again when it has finished"),
                    hint="h2q-tui backup list",
                ) from None
            time.sleep(0.05)
            continue
        # `reset --all` deletes the file: a lock on the old one excludes nobody.
        if is_same_file(fd, path):
            break
        os.close(fd)
    try:
        yield
    finally:
        os.close(fd)


def delete_lock_file(workspace: Workspace) -> None:
    """Deletes the file of `backup_lock`, which the caller holds."""
    (workspace.root / _LOCK).unlink(missing_ok=True)


@contextmanager
def staging_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A temporary folder in `parent`, locked until it is deleted at the end of the block. Raises OSError.

    `sweep_leftovers` knows its prefixes.
    """
    with locked_folder(parent, prefix) as folder:
        yield folder


def stale_root_entries(workspace: Workspace) -> list[str]:
    """Names in the workspace's folder that an interrupted restore or reset left behind."""
    return sorted(
        path.name for pattern in (".restore.*", ".*.removed") for path in workspace.root.glob(pattern)
    )


def sweep_leftovers(workspace: Workspace, *, everywhere: bool = False) -> int:
    """Deletes temporary folders and files of killed processes; returns how many. Those in use stay.

    Temporary files are searched next to the configuration, with `everywhere` in the whole workspace. Never
    raises OSError.
    """
    removed = 0
    with suppress(OSError):
        for path in _leftovers(workspace, everywhere):
            removed += remove_stale(path)
        removed += sweep_outside(workspace)
    return removed


def _leftovers(workspace: Workspace, everywhere: bool) -> Iterator[Path]:
    for folder in (workspace.root, workspace.backups, workspace.memory_db.parent):
        for pattern in _STAGING:
            yield from _folders(folder, pattern)
    for folder in (workspace.models, workspace.adapters, workspace.exports):
        recover_replaced(folder)
        for pattern in (".*.new.*", ".*.old.*", ".*.removed"):
            yield from _folders(folder, pattern)
    yield from _folders(workspace.runs, ".*.removed")
    for pattern in (".files.*", ".written.*"):
        yield from _folders(workspace.ollama, pattern)
    models = workspace.models_json
    yield from list(models.parent.glob(f".{models.name}.*.tmp"))
    if everywhere:
        yield from [path for path in workspace.root.rglob(".*.tmp") if path.is_file()]
    else:
        yield from [*workspace.root.glob(".*.tmp"), *workspace.config.glob(".*.tmp")]


def _folders(parent: Path, pattern: str) -> list[Path]:
    return [path for path in parent.glob(pattern) if path.is_dir() and not path.is_symlink()]
