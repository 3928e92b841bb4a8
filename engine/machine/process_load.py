"""How busy this process and its children keep the machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import psutil


class ProcessTreeCpu:
    """Samples of the process tree: the share of all cores that it used since the sample before."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._process = psutil.Process()
        self._clock = clock
        self._before = self._seconds()
        self._at = clock()

    def sample(self) -> float:
        """Percent of the whole machine, 0 to 100. What a child did before the first look at it is not counted."""
        now, after = self._clock(), self._seconds()
        spent = sum(after[pid] - self._before[pid] for pid in after if pid in self._before)
        share = spent / (now - self._at) / (psutil.cpu_count() or 1) if now > self._at else 0.0
        self._before, self._at = after, now
        return round(100 * max(0.0, min(1.0, share)), 1)

    def _seconds(self) -> dict[int, float]:
        found = {}
        with contextlib.suppress(psutil.Error):
            for process in (self._process, *self._process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    found[process.pid] = times.user + times.system
        return found
