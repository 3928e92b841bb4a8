"""Writes decisions to the database: one thread with its own connection, in order.

The screen does not wait. A decision that could not be written stays in the queue and is retried.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.corpus.review.database import UnusableDatabase
from engine.corpus.review.store import ReviewStore
from engine.corpus.review.types import ReviewDecision
from engine.memory.schema import describe_sqlite_error

RETRY_S = 1.0
LATE_S = 0.3
"""Seconds after which an unwritten decision is shown."""


@dataclass(frozen=True, eq=False)
class WriteJob:
    """One write. `work` returns the decisions that it made or undid."""

    work: Callable[[ReviewStore], Sequence[ReviewDecision]]
    done: Callable[[Sequence[ReviewDecision]], object]
    """Called in the writer's thread."""
    count: int = 1
    """Number of decisions in it."""
    since: float = field(default_factory=time.monotonic)


class DecisionQueue:
    """Writes jobs in their order.

    `changed` is called, in the writer's thread, when a problem appears or goes away; `refused` with a job that
    can never be written (its conversation is gone), which is then let go, and its sentence.
    """

    def __init__(
        self, path: Path, changed: Callable[[], object], refused: Callable[[WriteJob, str], object]
    ) -> None:
        self._path = path
        self._changed = changed
        self._refused = refused
        self._jobs: deque[WriteJob] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self.problem = ""
        """Why the first job cannot be written now, else ""."""

    @property
    def unwritten(self) -> int:
        """Number of decisions that are not in the database yet."""
        return sum(job.count for job in tuple(self._jobs))

    @property
    def late(self) -> bool:
        """Whether a decision has waited so long that the user should know."""
        first = next(iter(tuple(self._jobs)), None)
        return first is not None and time.monotonic() - first.since > LATE_S

    def put(self, job: WriteJob) -> None:
        """Adds a job; returns immediately."""
        with self._wake:
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="decisions", daemon=True)
                self._thread.start()
            self._wake.notify()

    def close(self, timeout: float = 3.0) -> int:
        """Writes the rest, for at most `timeout` seconds; returns the number of decisions that were not written."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(timeout)
        return self.unwritten

    def _run(self) -> None:
        store = ReviewStore(self._path)
        try:
            while True:
                with self._wake:
                    while not self._jobs and not self._closing:
                        self._wake.wait()
                    if not self._jobs:
                        return
                    job = self._jobs[0]
                if not self._write(store, job):
                    if self._closing:
                        return
                    with self._wake:
                        self._wake.wait(RETRY_S)
        finally:
            store.close()

    def _write(self, store: ReviewStore, job: WriteJob) -> bool:
        """Whether the job is done, written or refused."""
        before = self.problem
        try:
            decisions = job.work(store)
        except (sqlite3.Error, OSError, UnusableDatabase) as problem:
            self.problem = (
                describe_sqlite_error(problem) if isinstance(problem, sqlite3.Error) else str(problem)
            )
            if before != self.problem:
                self._changed()
            return False
        except Exception as problem:
            # No exception may end the thread: the decisions behind it would never be written.
            self._jobs.popleft()
            self._refused(job, str(problem))
            return True
        self._jobs.popleft()
        self.problem = ""
        job.done(decisions)
        if before:
            self._changed()
        return True
