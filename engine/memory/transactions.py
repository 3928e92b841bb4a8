"""Short write transactions, so that one writer never blocks the others for long, and the import lock."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from engine.core.files import try_lock

T = TypeVar("T")

MAX_TRANSACTION_S = 0.05
"""Upper bound for a write transaction, its commit included."""
_BUDGET_S = 0.012
_MIN_BUDGET_S = 0.002
_CHECKPOINT_EVERY = 20
"""Transactions between two WAL checkpoints."""
_DECAY = 0.9
"""Of the worst times seen, per measurement."""
ROWS_PER_CHECK = 32
"""Rows written or deleted between two calls of `ChunkedWriter.commit_if_due`."""


class ChunkedWriter:
    """Splits a long write into short transactions: call `commit_if_due()` between statements."""

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], float] = time.monotonic) -> None:
        self.connection = connection
        self._clock = clock
        self.transactions = 0
        self._began = 0.0
        self._checked = 0.0
        self._worst_step_s = 0.0
        """Recent worst time between two checks of the clock."""
        self._worst_commit_s = 0.0
        """Recent worst time of a commit: the disk's share of the limit."""

    @contextmanager
    def transaction(self) -> Iterator[ChunkedWriter]:
        """Commits at the end of the block; an exception rolls back what was written since the last commit."""
        self._begin()
        try:
            yield self
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        self._commit()

    def commit_if_due(self) -> None:
        """Commits and begins the next transaction once the time budget is used up."""
        now = self._clock()
        self._worst_step_s = max(now - self._checked, _DECAY * self._worst_step_s)
        self._checked = now
        budget = min(_BUDGET_S, max(_MIN_BUDGET_S, MAX_TRANSACTION_S / 2 - self._worst_commit_s))
        # The next step counts too: on a busy machine it may be slow.
        if now - self._began + self._worst_step_s > budget:
            self._commit()
            self._begin()

    def _begin(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self._began = self._checked = self._clock()

    def _commit(self) -> None:
        before = self._clock()
        self.connection.execute("COMMIT")
        now = self._clock()
        self.transactions += 1
        _longest.set(max(_longest.get(), now - self._began))
        self._worst_commit_s = max(now - before, _DECAY * self._worst_commit_s)
        if self.transactions % _CHECKPOINT_EVERY == 0:
            # Here the write lock is free; an automatic checkpoint would run inside some commit.
            self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def write_in_chunks(
    connection: sqlite3.Connection,
    items: Sequence[T],
    write: Callable[[T], None],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Calls `write` for each item, in as many short transactions as needed."""
    if not items:
        return
    writer = ChunkedWriter(connection, clock)
    with writer.transaction():
        for item in items:
            write(item)
            writer.commit_if_due()


@contextmanager
def deferred_fsync(connection: sqlite3.Connection) -> Iterator[None]:
    """Commits inside the block do not wait for the disk; the first commit after it makes all of them durable.

    In WAL mode commits stay atomic and in order: after a power failure a prefix of them survives
    (`PRAGMA synchronous=NORMAL`, https://sqlite.org/wal.html). For rows that readers cannot see before the later commit.
    """
    connection.execute("PRAGMA synchronous=NORMAL")
    try:
        yield
    finally:
        connection.execute("PRAGMA synchronous=FULL")


_longest: ContextVar[float] = ContextVar("longest transaction", default=0.0)


@contextmanager
def longest_transaction() -> Iterator[Callable[[], float]]:
    """Yields a function that returns the longest transaction of any writer inside the block, in seconds."""
    token = _longest.set(0.0)
    try:
        yield _longest.get
    finally:
        _longest.reset(token)


@contextmanager
def import_lock(path: Path, *, wait_s: float) -> Iterator[bool]:
    """Yields whether the import lock of the database `path` was acquired within `wait_s`; released after the block."""
    fd = os.open(path.with_name(".import.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _lock(fd, wait_s)
    finally:
        os.close(fd)


def _lock(fd: int, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while True:
        if try_lock(fd):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
