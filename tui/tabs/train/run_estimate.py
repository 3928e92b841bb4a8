"""One line of the sheet for a new run: time, steps and memory that a mode will take."""

from __future__ import annotations

from collections.abc import Sequence

from engine.core.i18n import _
from engine.runs.estimates import Estimate, MeasuredRun, Workload, estimate, estimate_evolution
from engine.runs.event_text import format_about
from engine.runs.kinds import TrainMode


def estimate_line(load: Workload, runs: Sequence[MeasuredRun]) -> str:
    """`about 4 min, 180 steps, 0.8 GB (as run 1129-0311 took)`, or that it is a rough estimate.

    Of an adapter on a base of unknown size there is none: it depends on the base too much.
    """
    found = estimate(load, runs)
    if not found.run and load.mode is TrainMode.LORA and not load.base_parameters:
        return _("time and memory on this base: not measured yet")
    return _line(found)


def evolution_line(load: Workload, cycles: int, runs: Sequence[MeasuredRun]) -> str:
    """The same for `cycles` cycles of an evolution."""
    return _line(estimate_evolution(load, cycles, runs))


def _line(found: Estimate) -> str:
    parts = [_("about {time}").format(time=format_about(found.total_s))]
    if found.steps:
        parts.append(_("{steps} steps").format(steps=f"{found.steps:,}"))
    if found.memory_mb:
        parts.append(f"{found.memory_mb / 1024:.1f} GB")
    figures = _(", ").join(parts)
    if found.run:
        return _("{figures} (measured in run {run})").format(figures=figures, run=found.run[:9])
    return _("{figures} (rough: nothing like it was measured here)").format(figures=figures)
