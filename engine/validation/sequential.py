"""Sequential testing and power: alpha spending over interim looks, sample size, detectable gain. Imports nothing heavy."""

from __future__ import annotations

import math
from statistics import NormalDist

MIN_CLUSTERS = 20
"""Minimum size of a test set, in clusters."""
POWER = 0.8
PRIOR_DEVIATION = 0.05
"""Assumed standard deviation of the relative gain between clusters, where no report measured it."""


def alpha_for(look: int, total: float = 0.05) -> float:
    """Significance level of the `look`-th interim look, from 1: total / (k (k + 1)), which sums to `total`.

    Raises ValueError below 1.
    """
    if look < 1:
        raise ValueError(f"interim looks are counted from 1, not {look}")
    return total / (look * (look + 1))


def groups_needed(deviation: float, gain: float, alpha: float) -> int | None:
    """Clusters needed to detect a true mean gain with 80 % power: ((z_alpha + z_power) · deviation / gain)².

    At alpha 0.05 that is 6.18 (deviation / gain)². None without a gain.
    """
    if gain <= 0 or not math.isfinite(gain):
        return None
    normal = NormalDist()
    return math.ceil(((normal.inv_cdf(1 - alpha) + normal.inv_cdf(POWER)) * deviation / gain) ** 2)


def detectable_gain(deviation: float, groups: int, alpha: float) -> float:
    """The inverse of `groups_needed`: the smallest mean gain that `groups` clusters detect with 80 % power."""
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha) + normal.inv_cdf(POWER)) * deviation / math.sqrt(groups)
