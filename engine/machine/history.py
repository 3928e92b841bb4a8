"""What the machine and the run on it did over time: points in memory, and their means in equal bins of time.

Pure data, no clock. Every value is a float, NaN where there is none.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

SERIES = (
    "cpu_1",
    "cpu_2",
    "cpu_3",
    "cpu_4",
    "memory_total",
    "memory_used",
    "memory_run",
    "memory_cached",
    "memory_budget",
    "swap_used",
    "cpu_stalled",
    "memory_stalled",
    "io_stalled",
    "disk_free",
    "temperature",
    "power",
    "gpu_busy",
    "gpu_memory",
    "loss",
    "tokens_per_s",
)
"""Names of the values of a point, in order. `cpu_1` to `cpu_4` are the groups of cores in percent, memory is in bytes, the
stalls in percent, `gpu_memory` in bytes of all processors."""
_PLACE = {name: place for place, name in enumerate(SERIES)}
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
HOLD_S = 35.0
"""For how long a value stands when no new one comes, the distance of two records on disk; after that there is a gap."""


class HistoryPoint(NamedTuple):
    """The values of SERIES at `t`, seconds since the epoch."""

    t: float
    values: array[float]

    def value(self, series: str) -> float | None:
        """The value of a series; None where there is none."""
        found = self.values[_PLACE[series]]
        return None if math.isnan(found) else found


def make_point(t: float, values: Mapping[str, float | None]) -> HistoryPoint:
    """A point from values by name; those that are missing or not finite are none."""
    row = array("f", [math.nan]) * len(SERIES)
    for name, value in values.items():
        if value is not None and math.isfinite(value):
            row[_PLACE[name]] = value
    return HistoryPoint(t, row)


class _Bin:
    """Sums of the values that fell into one bin."""

    __slots__ = ("counts", "sums")

    def __init__(self) -> None:
        self.sums = [0.0] * len(SERIES)
        self.counts = [0] * len(SERIES)

    def add(self, values: array[float]) -> None:
        for place, value in enumerate(values):
            if value == value:
                self.sums[place] += value
                self.counts[place] += 1

    def mean(self, place: int) -> float | None:
        return self.sums[place] / self.counts[place] if self.counts[place] else None


class BinnedHistory:
    """Means of points in bins of `step` seconds, which begin at multiples of it: a column that is full never changes."""

    def __init__(self, step: float, points: Iterable[HistoryPoint] = ()) -> None:
        self.step = step
        self._bins: dict[int, _Bin] = {}
        for point in points:
            self.add(point)

    def add(self, point: HistoryPoint) -> None:
        """Takes a point into its bin."""
        self._bins.setdefault(math.floor(point.t / self.step), _Bin()).add(point.values)

    def forget_before(self, t: float) -> None:
        """Drops the bins that end before `t`."""
        first = math.floor(t / self.step)
        if self._bins and min(self._bins) < first - 64:
            self._bins = {number: one for number, one in self._bins.items() if number >= first}

    def columns(self, series: str, end: float, width: int, hold_s: float) -> list[float | None]:
        """The means of the last `width` bins up to the one with `end`; an empty bin has the value before it, up to
        `hold_s` seconds later, then None."""
        place, last = _PLACE[series], math.floor(end / self.step)
        reach = max(0, math.ceil(hold_s / self.step))
        held: tuple[int, float] | None = None
        found: list[float | None] = []
        for number in range(last - width + 1 - reach, last + 1):
            one = self._bins.get(number)
            value = one.mean(place) if one is not None else None
            if value is not None:
                held = number, value
            elif held is not None and number - held[0] <= reach:
                value = held[1]
            if number > last - width:
                found.append(value)
        return found


class MachineHistory:
    """An hour of points at the rate they come in, and older ones that were read from disk."""

    CACHED_STEPS = 8

    def __init__(self) -> None:
        self._points: deque[HistoryPoint] = deque()
        self._older: list[HistoryPoint] = []
        self._binned: OrderedDict[float, BinnedHistory] = OrderedDict()

    def load(self, older: Iterable[HistoryPoint]) -> None:
        """Takes points from before those in memory, in any order."""
        first = self._points[0].t if self._points else math.inf
        self._older = sorted((one for one in older if one.t < first), key=lambda one: one.t)
        self._binned.clear()

    def add(self, point: HistoryPoint) -> None:
        """Takes the newest point. When the clock was set back, what lies after it is dropped."""
        if self._points and point.t < self._points[-1].t:
            self._points = deque(one for one in self._points if one.t < point.t)
            self._older = [one for one in self._older if one.t < point.t]
            self._binned.clear()
        self._points.append(point)
        while point.t - self._points[0].t > HOUR_S:
            self._older.append(self._points.popleft())
        if len(self._older) > 2 * HOUR_S:
            # A minute's distance is enough for the ranges that reach beyond the hour.
            self._older = thin_out(self._older, 60.0)
        for binned in self._binned.values():
            binned.add(point)

    def clear(self) -> None:
        """Forgets everything in memory."""
        self._points.clear()
        self._older = []
        self._binned.clear()

    @property
    def last(self) -> HistoryPoint | None:
        """The newest point."""
        return self._points[-1] if self._points else None

    def __len__(self) -> int:
        return len(self._points)

    def points(self) -> Iterable[HistoryPoint]:
        """All points, oldest first."""
        yield from self._older
        yield from self._points

    def columns(
        self, series: str, *, end: float, span: float, width: int, interval: float = 2.0
    ) -> list[float | None]:
        """The last `span` seconds up to `end` in `width` columns; `interval` is the usual distance of two points."""
        step = span / max(1, width)
        binned = self._binned.get(step)
        if binned is None:
            binned = self._binned[step] = BinnedHistory(step, self.points())
            while len(self._binned) > self.CACHED_STEPS:
                self._binned.popitem(last=False)
        self._binned.move_to_end(step)
        binned.forget_before(end - span - DAY_S / 24)
        return binned.columns(series, end, width, max(HOLD_S, 2 * interval))

    def growth(self, series: str, window_s: float) -> float | None:
        """How much higher the newest value is than the lowest of the last `window_s` seconds; None without a value."""
        last = self.last
        if last is None or (value := last.value(series)) is None:
            return None
        points = list(self._points)
        first = bisect_left(points, last.t - window_s, key=lambda one: one.t)
        return value - min(found for one in points[first:] if (found := one.value(series)) is not None)


def thin_out(points: list[HistoryPoint], gap_s: float) -> list[HistoryPoint]:
    """Points in order of time, so many left out that two are at least `gap_s` apart."""
    kept: list[HistoryPoint] = []
    for point in points:
        if not kept or point.t - kept[-1].t >= gap_s:
            kept.append(point)
    return kept
