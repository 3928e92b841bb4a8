"""What a benchmark says: ours against a named baseline, measured in one run, as a ratio."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import msgspec


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `python -m bench --json` (DESIGN 5)."""

    name: str
    ours: float
    baseline: float
    ratio: float
    """How many times better ours is: above 1 ours wins, whichever way the unit runs."""
    target: float
    """The least ratio that is good enough."""
    met: bool
    unit: str
    """Of `ours` and `baseline`, e.g. "s", "tokens/s", "% of a core"."""
    notes: str = ""
    """What was compared, in one sentence, with what a reader must know to trust it."""


def compare(
    name: str,
    *,
    ours: float,
    baseline: float,
    target: float,
    unit: str,
    lower_is_better: bool,
    notes: str = "",
) -> BenchResult:
    """A result from two figures of one run.

    Raises ValueError when a figure is not finite, negative, or when the one divided by is zero: a
    benchmark that measured nothing has no ratio.
    """
    top, bottom = (baseline, ours) if lower_is_better else (ours, baseline)
    if not (math.isfinite(top) and math.isfinite(bottom)) or top < 0 or bottom <= 0:
        raise ValueError(f"{name}: cannot compare {ours} with {baseline} {unit}")
    ratio = top / bottom
    return BenchResult(
        name=name,
        ours=ours,
        baseline=baseline,
        ratio=ratio,
        target=target,
        met=ratio >= target,
        unit=unit,
        notes=notes,
    )


@dataclass(frozen=True)
class Benchmark:
    """A named measurement of a module `bench/*.py`, listed in its `BENCHMARKS`."""

    name: str
    about: str
    """One line for the list of benchmarks."""
    run: Callable[[bool], list[BenchResult]]
    """Called with `full`: True takes the time the issue asks for, False a shorter run with the same ratio."""
    seconds: float = 30.0
    """About how long the short run takes on two cores."""
