"""The result of a benchmark: our figure against a named baseline of the same run, as a ratio."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import msgspec


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `python -m bench --json`."""

    name: str
    ours: float
    baseline: float
    ratio: float
    """How many times better ours is; above 1 ours wins, whether lower or higher is better."""
    target: float
    """The lowest acceptable ratio."""
    met: bool
    unit: str
    """Unit of `ours` and `baseline`, e.g. "s", "tokens/s", "% of a core"."""
    notes: str = ""
    """What was compared and under which conditions, in one sentence."""


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
    """The result of two figures of one run.

    Raises ValueError when a figure is not finite or negative, or the divisor is zero.
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
    """A named benchmark, listed in `BENCHMARKS` of its module `bench/*.py`."""

    name: str
    about: str
    """Description for the list of benchmarks."""
    run: Callable[[bool], list[BenchResult]]
    """Called with `full`: False is a shorter run that measures the same ratio."""
    seconds: float = 30.0
    """Approximate duration of the short run on two cores."""
    long: bool = False
    """A proof over many runs: left out of `python -m bench` unless it is named or `--full` is given."""
