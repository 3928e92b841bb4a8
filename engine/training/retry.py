"""Errors of files that pass by themselves are tried again, a little later each time."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSES_S = (0.1, 0.4, 1.6)
"""Waits before the second, third and fourth attempt."""
TRANSIENT = frozenset(
    (
        errno.EIO,
        errno.EAGAIN,
        errno.EINTR,
        errno.EBUSY,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ENFILE,
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ECONNRESET,
    )
)
"""What network file systems, USB disks and busy systems give and take back. A full disk is not among them."""


def retry_transient(work: Callable[[], T], on_error: Callable[[OSError], None] | None = None) -> T:
    """The result of `work`, tried again after errors of `TRANSIENT`, each of which is told.

    Raises the OSError of the last attempt, or at once any that does not pass.
    """
    for pause in PAUSES_S:
        try:
            return work()
        except OSError as problem:
            if problem.errno not in TRANSIENT:
                raise
            if on_error is not None:
                on_error(problem)
            time.sleep(pause)
    return work()
