"""Leaving the app: threads that only read get a moment to end, threads that change something get all the time they need."""

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

from engine.core.errors import UsageProblem
from engine.core.i18n import _

if TYPE_CHECKING:
    from textual.app import App

T = TypeVar("T")
PATIENCE_S = 1.0
"""Seconds to wait for threads that only read: the screen for their result is gone."""

_changing: Counter[threading.Thread] = Counter()
"""Nesting depth of `uninterruptible` in each thread."""
_left = threading.Condition()
_read_only = False


def refuse_changes(refused: bool = True) -> None:
    """From now on, `uninterruptible` refuses: this process only looks at the workspace."""
    global _read_only
    _read_only = refused


@contextmanager
def uninterruptible() -> Iterator[None]:
    """A change of the workspace: the program does not end before the current thread leaves this block, however long
    it takes. Raises UsageProblem in a read-only app."""
    if _read_only:
        raise UsageProblem(_("This app is read-only: nothing was changed"))
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
    """One daemon thread for each call; none of them can keep the program from ending.

    The threads of a common pool are joined at the end of the program, so that one that reads from a disk which
    does not answer would hold it for ever. asyncio takes no other class than this one's parent.
    """

    def __init__(self) -> None:
        super().__init__()
        self._over = False
        self._adding = threading.Lock()
        self._working: set[threading.Thread] = set()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Starts the call immediately. Raises RuntimeError after `shutdown`."""
        future: Future[T] = Future()
        thread = threading.Thread(
            target=self._run_call, args=(future, partial(fn, *args, **kwargs)), name="work", daemon=True
        )
        with self._adding:
            if self._over:
                raise RuntimeError("no new work after the end")
            self._working.add(thread)
            thread.start()
        return future

    def _run_call(self, future: Future[T], call: Callable[[], T]) -> None:
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
        """Accepts no more calls. With `wait` returns when all are done, or after PATIENCE_S when none of the rest is
        `uninterruptible`."""
        with self._adding:
            self._over = True
        super().shutdown(wait=False)
        deadline = time.monotonic() + PATIENCE_S
        for thread in tuple(self._working) if wait else ():
            thread.join(max(0.0, deadline - time.monotonic()))
        if wait:
            with _left:  # a thread may wait forever for a loop that has ended
                _left.wait_for(lambda: self._working.isdisjoint(_changing))


def run_app(app: App[None]) -> None:
    """Runs the app until the user leaves it."""
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(DaemonThreadExecutor())
        runner.run(app.run_async(mouse=True))
