"""A stream of an event loop as a blocking iterator that a cancellation ends while it waits."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from functools import cache
from typing import TypeVar

T = TypeVar("T")

CANCEL_POLL_S = 0.05
"""Seconds between checks for a cancellation while the stream is silent."""
_CLOSE_S = 5.0
"""Seconds to wait for a stream that is closed early."""


class _End:
    """Last in the queue: the stream is closed, and why it failed."""

    def __init__(self) -> None:
        self.problem: Exception | None = None


def iterate(stream: AsyncGenerator[T, None], cancelled: threading.Event | None = None) -> Iterator[T]:
    """The items of `stream`, until it ends or `cancelled` is set; the stream is closed in either case.

    It runs in the event loop of a thread that all streams share.
    """
    items: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
    end = _End()

    async def pump() -> None:
        try:
            async with aclosing(stream):
                async for item in stream:
                    items.put(item)
        except Exception as problem:
            end.problem = problem
        finally:
            items.put(end)

    future = asyncio.run_coroutine_threadsafe(pump(), _loop())
    item: T | _End | None = None
    try:
        while cancelled is None or not cancelled.is_set():
            try:
                item = items.get(timeout=CANCEL_POLL_S)
            except queue.Empty:
                continue
            if isinstance(item, _End):
                break
            yield item
    finally:
        if item is not end:
            future.cancel()
            _wait_for_end(items)
    if item is end and end.problem is not None:
        raise end.problem


def _wait_for_end(items: queue.SimpleQueue[T | _End]) -> None:
    """Until the stream is closed, so that what it came from is free again."""
    try:
        while not isinstance(items.get(timeout=_CLOSE_S), _End):
            pass
    except queue.Empty:
        pass


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="streams", daemon=True).start()
    return loop
