"""Conversations through the filters that look at each alone, on several cores where there is enough to do."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Self

import msgspec

from engine.corpus.filters.normalise import fold
from engine.corpus.filters.run import CorpusSettings
from engine.corpus.filters.worker import ANSWERS, Answer, Filters, Work, assess_batch, receive, send
from engine.runs.launch import engine_environment

WORTH = 1_000
"""Conversations from which the start of helpers, some 0.2 s, is won back."""
_MOST_HELPERS = 3
_BATCH = 25
_AHEAD = 3
"""Batches that wait at a helper, so that it is never idle; at the end nobody waits long for it."""


def assess_each(works: Iterable[Work], filters: Filters, *, helpers: int = 0) -> Iterator[list[Answer]]:
    """What the filters say of each conversation, in batches, in any order.

    `helpers` are processes beside this one, which does its share; `helpers_for` says how many are worth it.
    """
    source = iter(works)
    batches = iter(lambda: list(islice(source, _BATCH)), [])
    if not helpers:
        for batch in batches:
            yield assess_batch(batch, filters)
        return
    with _Helpers(helpers, filters) as pool:
        waiting: list[tuple[list[Work], Future[bytes | None]]] = []
        for batch in batches:
            if len(waiting) < _AHEAD * helpers:
                waiting.append((batch, pool.ask(batch)))
            else:
                yield assess_batch(batch, filters)
            for asked in [one for one in waiting if one[1].done()]:
                waiting.remove(asked)
                yield _answered(*asked, filters)
        for asked in waiting:
            # What no helper has begun is done here.
            yield assess_batch(asked[0], filters) if asked[1].cancel() else _answered(*asked, filters)


def helpers_for(count: int) -> int:
    """Helpers worth starting for so many conversations: one for each further core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_HELPERS, cores - 1) if count >= WORTH else 0


def filters_of(settings: CorpusSettings) -> Filters:
    """What of the settings goes to the helpers."""
    return Filters(
        sensitive=settings.sensitive,
        sensitive_types={str(type_): handling for type_, handling in settings.sensitive_types.items()},
        low_value=settings.low_value,
        low_value_from=settings.low_value_from,
        phrases=frozenset(map(fold, settings.low_value_phrases)),
    )


def _answered(asked: list[Work], answer: Future[bytes | None], filters: Filters) -> list[Answer]:
    """What no helper answered, because it was ended, is done here."""
    message = answer.result()
    return ANSWERS.decode(message) if message else assess_batch(asked, filters)


_TURN_S = 0.0005
"""A thread that speaks with a helper waits so long at most for the interpreter while this process filters; with the 5 ms
of Python a helper was idle for two fifths of the time."""


class _Helpers:
    """Processes of `engine.corpus.filters.worker`, each with a thread that waits for its answers."""

    def __init__(self, count: int, filters: Filters) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="corpus")
        self._first = msgspec.msgpack.encode(filters)
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._turn_before = sys.getswitchinterval()
        for _number in range(count):
            self._idle.put(self._start())

    def __enter__(self) -> Self:
        sys.setswitchinterval(_TURN_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.setswitchinterval(self._turn_before)
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
                [sys.executable, "-P", "-m", "engine.corpus.filters.worker"],
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
