"""Folders of sockets that nobody listens on any more: they lie in the system's temporary folder, one for each
workspace, and outlive a workspace that was deleted or a process that was killed."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import time
from pathlib import Path

from engine.core.errors import UsageProblem
from engine.core.i18n import _
from engine.runs import lock

STALE_AFTER_S = 3600.0
"""Age from which a folder without a listener is given up; a younger one may belong to a process that is starting."""
_NAME = re.compile(r"h2q-(?:\d+-)?[0-9a-f]{12}")


def make_private_dir(folder: Path) -> None:
    """Makes `folder` 0700 and ours. Raises UsageProblem when somebody else made it, or it is a link."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UsageProblem(_("the folder for sockets belongs to somebody else: {path}").format(path=folder))
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    # Whoever sweeps dead folders beside it leaves a young one alone.
    os.utime(folder)


def remove_stale_dirs(own: Path, now: float | None = None) -> list[Path]:
    """Removes the dead folders beside `own` that are this person's; names them. What cannot be removed stays."""
    now = time.time() if now is None else now
    gone = []
    with contextlib.suppress(OSError):
        for folder in own.parent.iterdir():
            if folder != own and _NAME.fullmatch(folder.name) and _is_dead(folder, now) and _remove(folder):
                gone.append(folder)
    return gone


def remove_if_empty(folder: Path) -> None:
    """Removes `folder` when nothing is left in it."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _is_dead(folder: Path, now: float) -> bool:
    try:
        found = folder.lstat()
        if (
            not stat.S_ISDIR(found.st_mode)
            or found.st_uid != os.getuid()
            or now - found.st_mtime < STALE_AFTER_S
        ):
            return False
        return not any(_lives(path) for path in folder.iterdir())
    except OSError:
        return False


def _lives(path: Path) -> bool:
    """Whether somebody listens on a socket or holds a lock; a file of another kind is not ours to remove."""
    if path.suffix == ".sock":
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
            asked.settimeout(0.2)
            try:
                asked.connect(str(path))
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
