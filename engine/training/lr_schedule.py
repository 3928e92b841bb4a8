"""Schedules of the learning rate and of Muon's momentum, as pure functions of the step."""

from __future__ import annotations

import math
from enum import StrEnum

DECAY_START = 0.2
FLOOR = 0.02


class Schedule(StrEnum):
    """Shape of the learning rate over a phase."""

    LINEAR = "linear"
    """Warm-up, constant, then linear decay to 2 % over the last 80 % of the steps."""
    COSINE = "cosine"
    """Half a cosine from the peak to zero."""


def lr_factor(schedule: Schedule, step: int, max_steps: int, warmup: int) -> float:
    """Factor on the peak learning rate at `step` (from 0) of `max_steps`, in (0, 1] before the end."""
    rising = min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
    done = min(1.0, step / max(1, max_steps))
    if schedule is Schedule.COSINE:
        return rising * 0.5 * (1 + math.cos(math.pi * done))
    falling = max(0.0, (done - DECAY_START) / (1 - DECAY_START))
    return rising * (1 - (1 - FLOOR) * falling)


def momentum(step: int, *, first: float = 0.85, last: float = 0.95, over: int = 50) -> float:
    """Muon's momentum, which rises over the first steps because early gradients change direction quickly."""
    return first + (last - first) * min(1.0, step / over)
