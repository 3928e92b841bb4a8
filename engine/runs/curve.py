"""A training curve in bounded memory, and the annotations that explain it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LIMIT = 400
"""Maximum number of points in `Series.x` and `Series.y`."""
_MERGE_AT = LIMIT - 8


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


class AnnotationKind(StrEnum):
    """What an annotation is about."""

    RECOVERY = "recovery"
    """A bad step was discarded or skipped, or training rolled back."""
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
