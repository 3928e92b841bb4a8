"""No minority pays: how much worse the worst tenth of the clusters is, and how much of that chance explains.

docs/adr/0006 says why the limit is what it is; `python -m bench verdict` shows what it refuses.
"""

from __future__ import annotations

import math

import numpy as np

from engine.validation.report import WorstTenth
from engine.validation.statistics import Floats

LOSS_BOUND = 0.05
"""Loss of the worst tenth, relative to the base's mean NLL, that is always allowed."""
SYMMETRIC_BOUND = math.sqrt(5)
"""No symmetric distribution has its worst tenth further below its median, in standard deviations."""
SAMPLING_MARGIN = 9.0
"""Added to `SYMMETRIC_BOUND` after division by the root of the clusters: what a sample may be off by."""


def worst_tenth(gains: Floats, scale: float) -> WorstTenth | None:
    """The worst tenth of the clusters, rounded down, against its limit; None below 10 clusters or without a scale.

    Args:
        gains: mean gain per cluster, above 0 is better. Shape (clusters,).
        scale: what the loss is relative to: the base's mean over clusters.

    """
    size = gains.size
    if size < 10 or not scale > 1e-9:
        return None
    loss, limit = (float(value) for value in loss_and_limit(gains / scale))
    return WorstTenth(groups=size // 10, loss=loss, limit=limit, passed=loss <= limit)


def loss_and_limit(gains: Floats) -> tuple[Floats, Floats]:
    """(mean loss of the worst tenth, its limit) over the last axis of relative gains, which has 10 clusters or more.

    The limit is `LOSS_BOUND`, or more where the clusters scatter so widely that a symmetric spread explains more. The
    spread is that of the better half around the median, which a minority that loses does not widen.
    """
    size = gains.shape[-1]
    ordered = np.sort(gains, axis=-1)
    median = np.median(ordered, axis=-1)
    better = ordered[..., size - size // 2 :] - median[..., None]
    spread = np.sqrt(np.square(better).mean(axis=-1))
    chance = (SYMMETRIC_BOUND + SAMPLING_MARGIN / math.sqrt(size)) * spread - median
    return -ordered[..., : size // 10].mean(axis=-1), np.maximum(LOSS_BOUND, chance)
