"""How fast a disk fills, and how fast it is read and written."""

from __future__ import annotations

from collections import deque

import psutil

from engine.machine.probe import read_or_none

WINDOW_S = 15 * 60.0
"""Window of the trend of the free disk space."""
MIN_SPAN_S = 60.0
"""Shortest span of readings that gives a trend."""


def fill_rate(readings: list[tuple[float, int]]) -> float | None:
    """Bytes per second by which the free space shrinks, from (time, free) readings in order: positive while it fills,
    negative while space is freed; None for a span that is too short to tell."""
    if len(readings) < 2:
        return None
    (since, before), (now, free) = readings[0], readings[-1]
    return (before - free) / (now - since) if now - since >= MIN_SPAN_S else None


def time_until_full(free: int, rate: float | None) -> float | None:
    """Seconds until `free` bytes are used at `rate` bytes per second; None while the disk does not fill."""
    return free / rate if rate is not None and rate > 0 else None


class FreeSpaceTrend:
    """The free space of the last WINDOW_S."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, int]] = deque()

    def add(self, now: float, free: int) -> float | None:
        """Takes a reading; returns `fill_rate`."""
        if self._readings and now < self._readings[-1][0]:
            self._readings.clear()  # the clock was set back
        self._readings.append((now, free))
        while now - self._readings[0][0] > WINDOW_S:
            self._readings.popleft()
        return fill_rate(list(self._readings))


class DiskTraffic:
    """Bytes that all disks read and write per second."""

    def __init__(self) -> None:
        self._before: tuple[float, int, int] | None = None

    def read(self, now: float) -> tuple[float, float] | None:
        """Bytes read and bytes written per second since the last call; None at the first one and without counters."""
        counters = read_or_none(psutil.disk_io_counters)
        before = self._before
        if counters is None:
            return None
        self._before = now, counters.read_bytes, counters.write_bytes
        if before is None or now <= before[0]:
            return None
        span = now - before[0]
        return (
            max(0.0, (counters.read_bytes - before[1]) / span),
            max(0.0, (counters.write_bytes - before[2]) / span),
        )
