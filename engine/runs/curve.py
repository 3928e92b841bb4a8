"""A training curve in bounded memory, and the annotations that explain it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LIMIT = 400
"""Maximum number of points in `Series.x` and `Series.y`."""
_MERGE_AT = LIMIT - 8
MEANS = 256
"""Maximum number of buckets of a `MeanSeries`."""
SMOOTHING = 20
"""Buckets of a `MeanSeries` for each one that its line looks ahead and back."""


class Series:
    """Points in the order of `x`, downsampled evenly as they arrive.

    Every bucket of neighbouring points keeps its minimum and maximum; buckets double in size at `LIMIT`. Going
    back in `x` (a run that resumes from an earlier checkpoint) drops the later points.
    """

    __slots__ = ("_count", "_first", "_high", "_last", "_low", "_points", "_stride")

    def __init__(self) -> None:
        self._points: list[tuple[float, float]] = []
        self._stride = 1
        self._count = 0
        self._first: tuple[float, float] | None = None
        self._last = self._low = self._high = (0.0, 0.0)

    @property
    def x(self) -> list[float]:
        return [point[0] for point in self.points()]

    @property
    def y(self) -> list[float]:
        return [point[1] for point in self.points()]

    def __len__(self) -> int:
        return len(self.points())

    def points(self) -> list[tuple[float, float]]:
        """All points, in ascending `x`."""
        if self._first is None:
            return []
        tail = sorted({self._low, self._high, self._last}) if self._count else [self._last]
        return sorted({self._first, *self._points, *tail})

    def append(self, x: float, y: float) -> None:
        """Adds one finite point."""
        point = (x, y)
        if self._first is None:
            self._first = point
        elif x <= self._last[0]:
            self._rewind(x, point)
        self._last = point
        if self._count == 0:
            self._low = self._high = point
        elif y < self._low[1]:
            self._low = point
        elif y > self._high[1]:
            self._high = point
        self._count += 1
        if self._count >= self._stride:
            self._close_bucket()

    def _close_bucket(self) -> None:
        self._count = 0
        if self._stride == 1:
            self._points.append(self._last)
        else:
            self._points.extend(_extremes(self._low, self._high, self._last))
        if len(self._points) >= _MERGE_AT:
            merged: list[tuple[float, float]] = []
            for start in range(0, len(self._points), 4):
                group = self._points[start : start + 4]
                low, high = min(group, key=_height), max(group, key=_height)
                merged.extend(_extremes(low, high, group[-1]))
            self._points = merged
            self._stride = max(4, self._stride * 2)

    def _rewind(self, x: float, point: tuple[float, float]) -> None:
        while self._points and self._points[-1][0] >= x:
            self._points.pop()
        self._count = 0
        if self._first is not None and self._first[0] >= x:
            self._first = point


def _height(point: tuple[float, float]) -> float:
    return point[1]


def _extremes(
    low: tuple[float, float], high: tuple[float, float], last: tuple[float, float]
) -> tuple[tuple[float, float], ...]:
    """The minimum and maximum of a bucket, in the order of `x`."""
    if low[0] == high[0]:
        return (low,) if low[0] == last[0] else (low, last)
    return (low, high) if low[0] < high[0] else (high, low)


@dataclass
class _Bucket:
    """The mean of `count` neighbouring points, and the newest of them."""

    x: float
    mean: float
    count: int
    last: float


class MeanSeries:
    """Points in the order of `x` as means of buckets, of which there are never more than `MEANS`.

    Buckets hold the same number of points; it doubles when there are too many. Going back in `x` drops the
    later buckets, as in `Series`.
    """

    __slots__ = ("_buckets", "_stride")

    def __init__(self) -> None:
        self._buckets: list[_Bucket] = []
        self._stride = 1

    def __len__(self) -> int:
        return len(self._buckets)

    def append(self, x: float, y: float) -> None:
        """Adds one finite point."""
        while self._buckets and self._buckets[-1].x >= x:
            self._buckets.pop()
        newest = self._buckets[-1] if self._buckets else None
        if newest is None or newest.count >= self._stride:
            self._buckets.append(_Bucket(x, y, 1, y))
            if len(self._buckets) > MEANS:
                self._merge()
            return
        newest.count += 1
        newest.mean += (y - newest.mean) / newest.count
        newest.x, newest.last = x, y

    def _merge(self) -> None:
        """Joins neighbours in pairs; a single one at the end stays."""
        self._stride *= 2
        pairs = zip(self._buckets[::2], self._buckets[1::2], strict=False)
        rest = self._buckets[-1:] if len(self._buckets) % 2 else []
        joined = []
        for first, second in pairs:
            count = first.count + second.count
            mean = first.mean + (second.mean - first.mean) * second.count / count
            joined.append(_Bucket(second.x, mean, count, second.last))
        self._buckets = joined + rest

    def samples(self) -> list[tuple[float, float]]:
        """One point of each bucket as it arrived, in ascending `x`."""
        return [(bucket.x, bucket.last) for bucket in self._buckets]

    def smoothed(self) -> list[tuple[float, float]]:
        """The line through the points: each mean averaged with its neighbours, in ascending `x`.

        A window of a tenth of the buckets, with weights that fall linearly from its middle; narrower at the
        start, so that a fall is not blurred. Less noise than a running average, and no lag.
        """
        count = len(self._buckets)
        reach = max(1, count // SMOOTHING)
        line = []
        for place, bucket in enumerate(self._buckets):
            back = min(reach, place)
            total = weights = 0.0
            for other in range(place - back, min(count, place + back + 1)):
                weight = self._buckets[other].count * (1 - abs(other - place) / (back + 1))
                total += weight * self._buckets[other].mean
                weights += weight
            line.append((bucket.x, total / weights))
        return line


class AnnotationKind(StrEnum):
    """What an annotation is about."""

    RECOVERY = "recovery"
    """A bad step was discarded or skipped."""
    ROLLBACK = "rollback"
    """Training went back to a checkpoint."""
    RESUME = "resume"
    """Training resumed from a checkpoint of an earlier process."""
    GOVERNOR = "governor"
    """The memory governor acted."""
    COMMAND = "command"
    """The user changed something, or paused the run."""
    CHECKPOINT = "checkpoint"
    CYCLE = "cycle"
    """An evolution cycle started or ended."""


@dataclass(frozen=True)
class Annotation:
    """An event that explains the curve from this step on, e.g. a learning rate set by hand."""

    phase: str
    step: int
    """Position on the curve: in a later evolution cycle, after the steps of the earlier ones."""
    text: str
    kind: AnnotationKind = AnnotationKind.COMMAND
    t: float = 0.0
