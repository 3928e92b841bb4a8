"""How many groups a verdict needs and how small a gain it sees: formulas light enough for the app to say it."""

from __future__ import annotations

import math
from statistics import NormalDist

MIN_CLUSTERS = 20
POWER = 0.8
PRIOR_DEVIATION = 0.05
"""Assumed standard deviation between clusters of the relative gain, until a report of one's own says it."""


def alpha_for(look: int, total: float = 0.05) -> float:
    """The p that the `look`-th candidate on one window needs, from 1: total / (k (k + 1)), which sums to `total`."""
    if look < 1:
        raise ValueError(f"looks are counted from 1, not {look}")
    return total / (look * (look + 1))


def groups_needed(deviation: float, gain: float, alpha: float) -> int | None:
    """Clusters at which a true mean gain `gain` with the deviation `deviation` is seen with 80 % power.

    ((z_alpha + z_power) · sd / gain)², at alpha 0.05 the 6.18 (sd / gain)² of the tables; None without a gain.
    """
    if gain <= 0 or not math.isfinite(gain):
        return None
    normal = NormalDist()
    return math.ceil(((normal.inv_cdf(1 - alpha) + normal.inv_cdf(POWER)) * deviation / gain) ** 2)


def gain_seen(deviation: float, groups: int, alpha: float) -> float:
    """The inverse of `groups_needed`: the smallest mean gain that `groups` clusters show with 80 % power."""
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha) + normal.inv_cdf(POWER)) * deviation / math.sqrt(groups)
