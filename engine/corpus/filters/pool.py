"""Filters many conversations, in worker processes on several cores where that is worth it."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Self

import msgspec

from engine.corpus.filters.run import FilteredConversation, FilterTask, filter_conversation
from engine.corpus.filters.time_limit import interruptible
from engine.corpus.filters.turn import FilterSettings
from engine.corpus.filters.worker import RESULTS, receive, send
from engine.runs.own_process import engine_environment

MIN_CONVERSATIONS = 1_000
"""Conversations from which starting workers, some 0.2 s, pays off."""
_MAX_WORKERS = 3
_BATCH = 25
_CHECK_S = 0.2
"""Seconds between two calls of `check` while a worker is busy."""
_QUEUED_BATCHES = 3
"""Batches queued per worker: enough that it is never idle, few enough that the end does not wait for it."""


def filter_all(
    tasks: Iterable[FilterTask],
    settings: FilterSettings,
    *,
    workers: int = 0,
    check: Callable[[], None] | None = None,
) -> Iterator[list[FilteredConversation]]:
    """The filter results in batches, in any order.

    This process does its share next to `workers` worker processes (`worker_count`). `check` is called several times a
    second, also within a long turn when this is the main thread; what it raises ends the filtering and is raised here.
    """
    source = iter(tasks)
    batches = iter(lambda: list(islice(source, _BATCH)), [])
    if not workers:
        for batch in batches:
            yield _filter_here(batch, settings, check)
        return
    with _WorkerPool(workers, settings) as pool:
        waiting: list[tuple[list[FilterTask], Future[bytes | None]]] = []
        for batch in batches:
            if len(waiting) < _QUEUED_BATCHES * workers:
                waiting.append((batch, pool.submit(batch)))
            else:
                yield _filter_here(batch, settings, check)
            for submitted in [one for one in waiting if one[1].done()]:
                waiting.remove(submitted)
                yield _result(*submitted, settings, check)
        for submitted in waiting:
            # Batches that no worker has begun are filtered here.
            yield (
                _filter_here(submitted[0], settings, check)
                if submitted[1].cancel()
                else _result(*submitted, settings, check)
            )


def worker_count(conversations: int) -> int:
    """Workers to start for so many conversations: one for each core but this process's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MAX_WORKERS, cores - 1) if conversations >= MIN_CONVERSATIONS else 0


def _filter_here(
    batch: list[FilterTask], settings: FilterSettings, check: Callable[[], None] | None
) -> list[FilteredConversation]:
    with interruptible(check):
        return [filter_conversation(task, settings) for task in batch]


def _result(
    batch: list[FilterTask],
    future: Future[bytes | None],
    settings: FilterSettings,
    check: Callable[[], None] | None,
) -> list[FilteredConversation]:
    """The worker's results; the batch of a worker that died is filtered here."""
    while check is not None and not wait((future,), _CHECK_S).done:
        check()
    message = future.result()
    return RESULTS.decode(message) if message else _filter_here(batch, settings, check)


_SWITCH_INTERVAL_S = 0.0005
"""How long a thread that talks to a worker waits for the interpreter while this process filters. With Python's
default of 5 ms a worker was idle for two fifths of the time."""


class _WorkerPool:
    """Processes of `engine.corpus.filters.worker`, each with a thread that waits for its results."""

    def __init__(self, count: int, settings: FilterSettings) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="corpus")
        self._settings = msgspec.msgpack.encode(settings)
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._switch_interval_before = sys.getswitchinterval()
        for _number in range(count):
            self._idle.put(self._start())

    def __enter__(self) -> Self:
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.setswitchinterval(self._switch_interval_before)
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            # A thread that waits for its worker ends with it.
            process.kill()
        self._threads.shutdown()
        for process in self._processes:
            process.communicate()

    def submit(self, batch: list[FilterTask]) -> Future[bytes | None]:
        """The encoded results; None when the worker is gone."""
        return self._threads.submit(self._exchange, msgspec.msgpack.encode(batch))

    def _exchange(self, message: bytes) -> bytes | None:
        process = self._idle.get()
        results = None
        if process and process.stdin and process.stdout:
            with suppress(OSError):
                send(process.stdin, message)
                results = receive(process.stdout)
        self._idle.put(process if results else None)
        return results

    def _start(self) -> subprocess.Popen[bytes] | None:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "engine.corpus.filters.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # Ctrl-C at the terminal is for the run, which ends its workers itself.
                start_new_session=True,
                env=engine_environment(),
            )
        except OSError:
            return None
        self._processes.append(process)
        if process.stdin:
            with suppress(OSError):
                send(process.stdin, self._settings)
        return process
