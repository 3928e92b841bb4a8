"""Retries of transient file errors, with increasing delays."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSES_S = (0.1, 0.4, 1.6)
"""Delays before the second, third and fourth attempt."""
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
"""Transient errors of network file systems, USB disks and busy systems. A full disk is not transient."""


def retry_transient(work: Callable[[], T], on_error: Callable[[OSError], None] | None = None) -> T:
    """The result of `work`, retried after errors of `TRANSIENT`; `on_error` is called with each.

    Raises the OSError of the last attempt, or immediately any other error.
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
