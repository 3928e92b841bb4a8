"""flock as liveness: a run is alive while its lock is held; the kernel releases it however the holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

from engine.core.files import try_lock

_TIMEOUT_S = 1.0
_RETRY_S = 0.01


def acquire(path: Path, *, timeout_s: float = _TIMEOUT_S) -> int | None:
    """Descriptor of an exclusive lock on `path`, which the caller closes; None while another process holds it.

    Waits up to `timeout_s`, because `is_locked` of a reader holds a shared lock for a moment. Raises OSError, and
    RunFailed where the file system has no locks.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if try_lock(fd):
                return fd
        except BaseException:
            os.close(fd)
            raise
        if time.monotonic() >= deadline:
            os.close(fd)
            return None
        time.sleep(_RETRY_S)


def is_locked(path: Path) -> bool:
    """Whether a process holds `path` exclusively; False for a missing file.

    True when this process has no file descriptor left to look: a run must not be taken for dead. Raises RunFailed
    where the file system has no locks.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as problem:
        return problem.errno in (errno.EMFILE, errno.ENFILE)
    try:
        return not try_lock(fd, shared=True)
    finally:
        os.close(fd)


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
