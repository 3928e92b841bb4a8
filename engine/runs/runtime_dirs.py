"""Folders for sockets in the system's temporary folder, one per workspace, and the removal of stale ones.

They outlive deleted workspaces and killed processes.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import time
from pathlib import Path

from engine.core.private_socket import make_private_dir
from engine.runs import lock

STALE_AFTER_S = 3600.0
"""Age from which a folder without a listener is stale; a younger one may belong to a process that starts."""
_NAME = re.compile(r"h2q-(?:\d+-)?[0-9a-f]{12}")


def make_socket_dir(folder: Path) -> None:
    """Creates `folder` with mode 0700, or marks it as used. Raises ServiceUnreachable when another user owns it."""
    make_private_dir(folder)
    # `remove_stale_dirs` of other processes keeps recently used folders.
    os.utime(folder)


def remove_stale_dirs(own: Path, now: float | None = None) -> list[Path]:
    """Removes and returns the stale folders next to `own` that this user owns. Errors are ignored."""
    now = time.time() if now is None else now
    removed = []
    with contextlib.suppress(OSError):
        for folder in own.parent.iterdir():
            if folder != own and _NAME.fullmatch(folder.name) and _is_stale(folder, now) and _remove(folder):
                removed.append(folder)
    return removed


def remove_if_empty(folder: Path) -> None:
    """Removes `folder` if it is empty."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _is_stale(folder: Path, now: float) -> bool:
    try:
        found = folder.lstat()
        if (
            not stat.S_ISDIR(found.st_mode)
            or found.st_uid != os.getuid()
            or now - found.st_mtime < STALE_AFTER_S
        ):
            return False
        return not any(_in_use(path) for path in folder.iterdir())
    except OSError:
        return False


def _in_use(path: Path) -> bool:
    """Whether a process listens on a socket or holds a lock. Files of other kinds count as in use."""
    if path.suffix == ".sock":
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(0.2)
            try:
                probe.connect(str(path))
            except (ConnectionRefusedError, FileNotFoundError):
                return False
            except OSError:
                return True
            return True
    return path.suffix != ".lock" or lock.is_locked(path)


def _remove(folder: Path) -> bool:
    try:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    except OSError:
        return False
    return True
