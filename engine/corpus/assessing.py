"""Every conversation of memory through the filters, on several cores where there is enough to do."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

import msgspec

from engine.corpus.assess import Assessed, CorpusSettings
from engine.corpus.decisions import Edit
from engine.corpus.filters.normalise import fold
from engine.corpus.worker import ASSESSED, Filters, Work, assess_batch, receive, send
from engine.memory.points import Conversation
from engine.runs.process import engine_environment

WORTH = 1_000
"""Conversations from which the start of helpers, some 0.15 s, is won back."""
_MOST_HELPERS = 4
_BATCH = 100


class Source(Protocol):
    """What is read: `engine.memory.store.MemoryStore` is one."""

    def conversations(self) -> Iterator[Conversation]: ...
    def count(self) -> int: ...


def assess_all(
    store: Source,
    settings: CorpusSettings,
    changes: Mapping[str, Mapping[int, Edit]],
    on_progress: Callable[[int, int], None] | None = None,
    *,
    helpers: int | None = None,
) -> list[Assessed]:
    """What the filters say of each conversation, in the order of the store.

    Args:
        changes: the person's edits by conversation and turn.
        helpers: processes beside this one; by default one for each core where there is enough to do, else none.
    """
    total = store.count()
    filters = filters_of(settings)
    works = (Work(one, dict(changes.get(one.id, {}))) for one in store.conversations())
    if helpers is None:
        helpers = _cores() if total >= WORTH else 0
    items: list[Assessed] = []
    for batch in _in_batches(works, filters, helpers if helpers > 1 else 0):
        items += batch
        if on_progress:
            on_progress(len(items), max(total, len(items)))
    if on_progress and not items:
        on_progress(0, 0)
    return items


def filters_of(settings: CorpusSettings) -> Filters:
    """What of the settings goes to the helpers."""
    return Filters(
        sensitive=settings.sensitive,
        sensitive_types={str(type_): handling for type_, handling in settings.sensitive_types.items()},
        low_value=settings.low_value,
        phrases=frozenset(map(fold, settings.low_value_phrases)),
    )


def _in_batches(works: Iterator[Work], filters: Filters, helpers: int) -> Iterator[list[Assessed]]:
    batches = _batched(works)
    if not helpers:
        for batch in batches:
            yield assess_batch(batch, filters)
        return
    with _Helpers(helpers, filters) as pool:
        waiting: deque[tuple[list[Work], Future[bytes | None]]] = deque()
        for batch in batches:
            waiting.append((batch, pool.ask(batch)))
            if len(waiting) > 2 * helpers:
                yield _answered(*waiting.popleft(), filters)
        while waiting:
            yield _answered(*waiting.popleft(), filters)


def _answered(asked: list[Work], answer: Future[bytes | None], filters: Filters) -> list[Assessed]:
    """What no helper answered, because it was ended, is done here."""
    message = answer.result()
    return ASSESSED.decode(message) if message else assess_batch(asked, filters)


def _batched(works: Iterable[Work]) -> Iterator[list[Work]]:
    batch: list[Work] = []
    for work in works:
        batch.append(work)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


class _Helpers:
    """Processes of `engine.corpus.worker`, each with a thread that waits for its answers."""

    def __init__(self, count: int, filters: Filters) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="corpus")
        self._first = msgspec.msgpack.encode(filters)
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        for _number in range(count):
            self._idle.put(self._start())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.kill()
            process.communicate()

    def ask(self, batch: list[Work]) -> Future[bytes | None]:
        """The answer, None when the helper is gone."""
        return self._threads.submit(self._ask, msgspec.msgpack.encode(batch))

    def _ask(self, message: bytes) -> bytes | None:
        process = self._idle.get()
        answer = None
        if process and process.stdin and process.stdout:
            with suppress(OSError):
                send(process.stdin, message)
                answer = receive(process.stdout)
        self._idle.put(process if answer else None)
        return answer

    def _start(self) -> subprocess.Popen[bytes] | None:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "engine.corpus.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # An interrupt at the terminal is for the run; its end is theirs too.
                start_new_session=True,
                env=engine_environment(),
            )
        except OSError:
            return None
        self._processes.append(process)
        if process.stdin:
            with suppress(OSError):
                send(process.stdin, self._first)
        return process


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return min(_MOST_HELPERS, len(os.sched_getaffinity(0)))
    return min(_MOST_HELPERS, os.cpu_count() or 1)
