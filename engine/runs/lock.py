"""flock as liveness: who holds the lock of a run is alive; the kernel frees it whatever kills the holder."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

_PATIENCE_S = 1.0
_PAUSE_S = 0.01


def acquire(path: Path, *, patience_s: float = _PATIENCE_S) -> int | None:
    """An exclusive lock on `path`: its descriptor, to be closed by the caller, or None when another holds it.

    Waits up to `patience_s`, because a reader's probe holds a shared lock for a moment. Raises OSError.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                return None
            time.sleep(_PAUSE_S)
        except BaseException:
            os.close(fd)
            raise


def is_locked(path: Path) -> bool:
    """Whether some process holds `path` exclusively. A missing file is held by nobody."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def adopt(fd: int, path: Path) -> bool:
    """Whether inherited `fd` is the lock on `path` and ours; then it is kept from our own children."""
    try:
        here, there = os.fstat(fd), path.stat()
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            return False
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(fd, False)
    except OSError:
        return False
    return True
