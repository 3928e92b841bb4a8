"""Axes of a plot: round steps, ranges that keep still, labels of a fixed width, and few points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

LABEL = 6
"""Cells of an axis label, so that the canvas never shifts sideways."""
MAX_POINTS = 200
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_OUTER = 0.1
"""Share of the values that may lie outside a robust range, at its upper end."""
_REACH = 0.6
"""Values that far beyond the range of the others, as a share of it, still widen a robust range."""
_FEW = 8
"""Values below which none is taken for an outlier."""


@dataclass
class AxisRange:
    """Range and ticks of an axis."""

    low: float
    high: float
    ticks: list[float] = field(default_factory=list)


def nice_step(span: float, ticks: int) -> float:
    """A round number (1, 2, 2.5, 5 times a power of ten) of which about `ticks` fit into `span`."""
    if span <= 0 or not math.isfinite(span):
        return 1.0
    raw = span / max(1, ticks)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step * power for step in _STEPS if step * power >= raw * 0.999)


def fixed_range(low: float, high: float, before: AxisRange | None, ticks: int = 3) -> AxisRange:
    """The range for data from `low` to `high`: `before` while the data lies in it and fills a third of it,
    else one that ends on whole steps."""
    if (
        before is not None
        and before.low <= low
        and high <= before.high
        and (high - low) * 3 >= (before.high - before.low)
    ):
        return before
    if high - low < 1e-12:
        pad = abs(high) * 0.05 or 0.5
        low, high = low - pad, high + pad
    step = nice_step(high - low, ticks)
    bottom, top = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    count = round((top - bottom) / step)
    return AxisRange(bottom, top, [bottom + n * step for n in range(count + 1)])


def log_range(low: float, high: float, ticks: int = 4) -> AxisRange:
    """Whole halves of a power of two around positive data, for a logarithmic axis (in log2 units)."""
    bottom, top = math.floor(math.log2(low) * 2) / 2, math.ceil(math.log2(high) * 2) / 2
    if top <= bottom:
        top = bottom + 0.5
    count = round((top - bottom) * 2)
    stride = max(1, math.ceil(count / max(1, ticks)))
    return AxisRange(bottom, top, [bottom + n / 2 for n in range(0, count + 1, stride)])


def label(value: float) -> str:
    """A number in at most six cells: `2.40`, `0.0143`, `3e-05`, `12k`."""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e8:
        return f"{value:.0e}".replace("e+", "e")
    if size >= 100_000:
        return f"{value / 1000:.0f}k"
    if size >= 1000:
        return f"{value / 1000:.4g}k" if value % 100 == 0 else f"{value:.0f}"
    if size >= 1:
        return f"{value:.4g}"
    if size >= 0.001:
        return f"{value:.4f}".rstrip("0")
    return f"{value:.0e}"


def labels(values: Sequence[float]) -> list[str]:
    """The ticks of one axis: alike in form and told apart, at most six cells each where that is possible.

    `0.5`, `1.0`, `1.5`; `5.0e-5`, `1.0e-4`; with thousands `50k`, `100k`.
    """
    error = 0.01 * min((above - below for below, above in itertools.pairwise(values)), default=1.0)
    plain = [[f"{value:.{digits}f}" for value in values] for digits in range(5)]
    short = [[_short(value, digits) for value in values] for digits in range(3)]
    thousands = any(abs(value) >= 1000 for value in values)
    for texts in () if thousands else (*plain, *short):
        exact = all(abs(float(text) - value) <= error for text, value in zip(texts, values, strict=True))
        if exact and max(map(len, texts), default=0) <= LABEL:
            return texts
    texts = [label(value) for value in values]
    return ["" if text in texts[:place] else text for place, text in enumerate(texts)]


def _short(value: float, digits: int) -> str:
    """`1.5e-4`; 0 is `0`."""
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(exponent)}" if value else "0"


def thin(points: Sequence[tuple[float, float]], limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `limit` points: the lowest and the highest of each bucket, the first and the last one."""
    if len(points) <= limit:
        return list(points)
    size = math.ceil(len(points) / ((limit - 2) // 2))
    kept = {points[0], points[-1]}
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        kept.add(min(bucket, key=lambda point: point[1]))
        kept.add(max(bucket, key=lambda point: point[1]))
    return sorted(kept)


def robust_range(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest value, without a few far ones: so that the first steps of a training, or one bad step,
    do not flatten the rest.

    At most a tenth of the values is left out above, 1 % below, and only when they lie far from the others.
    """
    ordered = sorted(values)
    if len(ordered) < _FEW:
        return ordered[0], ordered[-1]
    low = ordered[int(0.01 * len(ordered))]
    high = ordered[len(ordered) - 1 - max(1, int(_OUTER * len(ordered)))]
    reach = _REACH * (high - low)
    return (
        min(value for value in ordered if value >= low - reach),
        max(value for value in ordered if value <= high + reach),
    )


def fitted_end(last: float, end: float, least: float = 10.0) -> float:
    """The end of an axis whose data reaches `last` of `end`: halves of `end` while the data fits into it.

    The axis changes only when the data has doubled. At least `least`.
    """
    fitted = max(end, last)
    while fitted / 2 >= max(last * 1.02, least):
        fitted /= 2
    return fitted
