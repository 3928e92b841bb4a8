"""One line of the sheet for a new run: time, steps and memory that a mode will take."""

from __future__ import annotations

from collections.abc import Sequence

from engine.core.i18n import _
from engine.runs.estimates import MeasuredRun, Workload, estimate
from engine.runs.event_text import format_left
from engine.runs.kinds import TrainMode


def estimate_line(load: Workload, runs: Sequence[MeasuredRun]) -> str:
    """`about 4 min, 180 steps, 0.8 GB, as measured in run 1129-0311`, or that nothing like it was measured.

    Of an adapter on a base that was never trained here no figure is given: it depends on the base too much.
    """
    found = estimate(load, runs)
    if not found.run and load.mode is TrainMode.LORA:
        return _("time and memory on this base: not measured yet; the run says them before its first step")
    parts = [_("about {time}").format(time=format_left(found.total_s))]
    if found.steps:
        parts.append(_("{steps} steps").format(steps=f"{found.steps:,}"))
    if found.memory_mb:
        parts.append(f"{found.memory_mb / 1024:.1f} GB")
    text = _(", ").join(parts)
    if found.run:
        return _("{figures}, as measured in run {run}").format(figures=text, run=found.run[:9])
    return _("{figures}: a rough estimate, nothing like it was measured here yet").format(figures=text)
