"""flock as liveness: a run is alive while its lock is held; the kernel releases it however the holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

_TIMEOUT_S = 1.0
_RETRY_S = 0.01


def acquire(path: Path, *, timeout_s: float = _TIMEOUT_S) -> int | None:
    """Descriptor of an exclusive lock on `path`, which the caller closes; None while another process holds it.

    Waits up to `timeout_s`, because `is_locked` of a reader holds a shared lock for a moment. Raises OSError.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                return None
            time.sleep(_RETRY_S)
        except BaseException:
            os.close(fd)
            raise


def is_locked(path: Path) -> bool:
    """Whether a process holds `path` exclusively; False for a missing file."""
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
    """Whether inherited `fd` is the lock on `path`; then child processes do not inherit it."""
    try:
        here, there = os.fstat(fd), path.stat()
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            return False
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(fd, False)
    except OSError:
        return False
    return True
