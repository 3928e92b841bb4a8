"""Bounds the time that one turn takes to filter, and lets a stop interrupt it.

A pattern that runs does not return to Python, and no other thread runs meanwhile; but it looks for signals. A timer
therefore interrupts the filters, in the main thread of a process only. Elsewhere there is no limit.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_TICK_S = 0.2
"""Processor time between two interruptions."""
_BASE_S = 5.0
_CHARACTERS_PER_S = 20_000
"""A turn may take `_BASE_S` and a second for each so many characters; usual are a million."""


class TurnTimeout(BaseException):
    """A turn took too long. Not an `Exception`, so that no filter takes it for its own."""


class _TimedTurn:
    seconds = math.inf
    """Processor time that the turn may take."""
    deadline = math.inf
    """Processor time of the main thread at which it is given up; inf until the first interruption within the turn,
    since a look at the clock for each turn would cost more than many of them."""


@contextmanager
def interruptible(check: Callable[[], None] | None = None) -> Iterator[None]:
    """Calls `check` several times a second while the block computes; what it raises is raised in the block.

    In the block `TurnLimit` has effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def tick(_number: int, _frame: FrameType | None) -> None:
        if check is not None:
            check()
        if _TimedTurn.seconds == math.inf:
            return
        now = time.thread_time()
        if now > _TimedTurn.deadline:
            _TimedTurn.seconds = math.inf
            raise TurnTimeout
        _TimedTurn.deadline = min(_TimedTurn.deadline, now + _TimedTurn.seconds)

    before = signal.signal(signal.SIGVTALRM, tick)
    signal.setitimer(signal.ITIMER_VIRTUAL, _TICK_S, _TICK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class TurnLimit:
    """Raises TurnTimeout when the block takes too long for a turn of so many characters."""

    def __init__(self, characters: int) -> None:
        self._seconds = _BASE_S + characters / _CHARACTERS_PER_S

    def __enter__(self) -> None:
        _TimedTurn.seconds = self._seconds
        _TimedTurn.deadline = math.inf

    def __exit__(self, *_: object) -> None:
        _TimedTurn.seconds = math.inf
