"""What several processes gain: bytes that a step moves, its time, and the share of the processes' time that is useful.

Rank 0 gives its weights to all, in a binomial tree (gloo's broadcast), and gets the sum of their gradients, by a ring
and then from all (gloo's reduce). It alone takes the optimizer's step. `python -m bench distributed` compares the model
with two processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class StepWork:
    """The work of one step."""

    weights_bytes: int
    """Of the trained parameters; their gradients have as many."""
    windows_bytes: int
    """Of all windows of the batch, as they are sent."""
    gradient_s: float
    """Seconds of one process for the gradients of the whole batch."""
    rest_s: float
    """Seconds of rank 0 for everything else."""


@dataclass(frozen=True)
class Link:
    """The connection between two processes."""

    bytes_per_s: float
    latency_s: float = 0.0
    """Of a message."""


LOOPBACK = Link(1.0e9, 1e-4)
GIGABIT = Link(1.1e8, 3e-4)
TEN_GIGABIT = Link(1.1e9, 1e-4)


@dataclass(frozen=True)
class ScalingEstimate:
    """A step of several processes."""

    rank_bytes: float
    """Sent and received by a rank other than 0."""
    first_rank_bytes: float
    """Sent and received by rank 0, which has the most to send."""
    step_s: float
    speedup: float
    """Against one process."""
    efficiency: float
    """Speed-up over the number of processes, 0 to 1."""


def estimate(work: StepWork, link: Link, processes: int) -> ScalingEstimate:
    """The expected step of `processes` equal processes, 1 or more."""
    alone = work.gradient_s + work.rest_s
    if processes == 1:
        return ScalingEstimate(0.0, 0.0, alone, 1.0, 1.0)
    rounds = math.ceil(math.log2(processes))
    others = (processes - 1) / processes
    weights, windows = work.weights_bytes, work.windows_bytes
    moved = (rounds + 2 * others) * weights + others * windows
    messages = 2 * (processes - 1) + rounds + 2 * (processes - 1)
    step = work.gradient_s / processes + work.rest_s + moved / link.bytes_per_s + messages * link.latency_s
    return ScalingEstimate(
        rank_bytes=2 * weights + windows / processes,
        first_rank_bytes=(rounds + 3 * others) * weights + others * windows,
        step_s=step,
        speedup=alone / step,
        efficiency=alone / step / processes,
    )
