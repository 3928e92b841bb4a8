"""Leaving the app: what still works in threads is given a moment, and what changes something the time it takes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from textual.app import App

T = TypeVar("T")
PATIENCE_S = 1.0
"""What only reads is waited for so long: its answer is for a screen that is gone."""

_changing: Counter[threading.Thread] = Counter()
"""How many times each thread is inside `uninterruptible`."""
_left = threading.Condition()


@contextmanager
def uninterruptible() -> Iterator[None]:
    """What the present thread does inside is finished before the program ends, however long it takes."""
    thread = threading.current_thread()
    with _left:
        _changing[thread] += 1
    try:
        yield
    finally:
        with _left:
            _changing[thread] -= 1
            if not _changing[thread]:
                del _changing[thread]
                _left.notify_all()


class DaemonThreadExecutor(ThreadPoolExecutor):
    """A thread for each call, none of which can keep the program from ending.

    The threads of a common pool are joined at the end of the program, so that one that reads from a disk which
    does not answer would hold it for ever. asyncio takes no other class than this one's parent.
    """

    def __init__(self) -> None:
        super().__init__()
        self._over = False
        self._adding = threading.Lock()
        self._working: set[threading.Thread] = set()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Starts the call at once. Raises RuntimeError after `shutdown`."""
        future: Future[T] = Future()
        thread = threading.Thread(
            target=self._carry_out, args=(future, partial(fn, *args, **kwargs)), name="work", daemon=True
        )
        with self._adding:
            if self._over:
                raise RuntimeError("no new work after the end")
            self._working.add(thread)
            thread.start()
        return future

    def _carry_out(self, future: Future[T], call: Callable[[], T]) -> None:
        try:
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as problem:
                    future.set_exception(problem)
                else:
                    future.set_result(result)
        finally:
            self._working.discard(threading.current_thread())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more work. With `wait` returns when all is done, or after PATIENCE_S when nothing is left
        that must come `uninterruptible`."""
        with self._adding:
            self._over = True
        super().shutdown(wait=False)
        deadline = time.monotonic() + PATIENCE_S
        for thread in tuple(self._working) if wait else ():
            thread.join(max(0.0, deadline - time.monotonic()))
        if wait:
            with _left:  # the thread itself may wait for a loop that has ended, with what it found
                _left.wait_for(lambda: self._working.isdisjoint(_changing))


def run_app(app: App[None]) -> None:
    """Runs the app until the user leaves it."""
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(DaemonThreadExecutor())
        runner.run(app.run_async(mouse=True))
