"""Writing to memory without holding others up: short transactions, and one import at a time."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

LIMIT_S = 0.05
"""How long a transaction may last, its commit included (DESIGN 4)."""
_BUDGET_S = 0.012
_LEAST_S = 0.002
_CHECKPOINT_EVERY = 20
TURNS_AT_ONCE = 32
"""Rows between two looks at the clock."""


class Writer:
    """Short transactions on one connection: `spend()` between statements commits when the budget is used up."""

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], float] = time.monotonic) -> None:
        self.connection = connection
        self._clock = clock
        self.transactions = 0
        self.longest = 0.0
        self._began = 0.0
        self._looked = 0.0
        self._step_in = 0.0
        """Recent worst time between two looks at the clock."""
        self._commits_in = 0.0
        """Recent worst time of a commit: the disk's share of the limit."""

    @contextmanager
    def open(self) -> Iterator[Writer]:
        self._begin()
        try:
            yield self
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        self._commit()

    def spend(self) -> None:
        now = self._clock()
        self._step_in = max(now - self._looked, 0.9 * self._step_in)
        self._looked = now
        budget = min(_BUDGET_S, max(_LEAST_S, LIMIT_S / 2 - self._commits_in))
        # What comes until the next look is counted in: on a busy machine it may take its time.
        if now - self._began + self._step_in > budget:
            self._commit()
            self._begin()

    def _begin(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self._began = self._looked = self._clock()

    def _commit(self) -> None:
        before = self._clock()
        self.connection.execute("COMMIT")
        now = self._clock()
        self.transactions += 1
        self.longest = max(self.longest, now - self._began)
        _longest.set(max(_longest.get(), now - self._began))
        self._commits_in = max(now - before, 0.9 * self._commits_in)
        if self.transactions % _CHECKPOINT_EVERY == 0:
            # Of its own, without the write lock, instead of inside some commit.
            self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


@contextmanager
def synced_later(connection: sqlite3.Connection) -> Iterator[None]:
    """Commits inside the block do not wait for the disk; the first one after it does, and for all of them.

    In WAL mode commits stay whole and in order: after a power cut those up to some moment are there
    (`PRAGMA synchronous=NORMAL`, https://sqlite.org/wal.html). For rows that nobody is told of before that commit.
    """
    connection.execute("PRAGMA synchronous=NORMAL")
    try:
        yield
    finally:
        connection.execute("PRAGMA synchronous=FULL")


_longest: ContextVar[float] = ContextVar("longest transaction", default=0.0)


@contextmanager
def measured() -> Iterator[Callable[[], float]]:
    """Inside the block: a function that tells the longest transaction of any writer since it began, in seconds."""
    token = _longest.set(0.0)
    try:
        yield _longest.get
    finally:
        _longest.reset(token)


@contextmanager
def import_lock(path: Path, *, wait_s: float) -> Iterator[bool]:
    """Whether the lock of imports was got within `wait_s`; it is held inside the block."""
    fd = os.open(path.with_name(".import.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _lock(fd, wait_s)
    finally:
        os.close(fd)


def _lock(fd: int, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
