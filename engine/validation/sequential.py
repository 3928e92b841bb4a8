"""Sequential testing and power: alpha spending over interim looks, sample size, detectable gain. Imports nothing heavy.

docs/adr/0006 says why alpha is spent like this, and what it assumes.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from engine.corpus.clusters import MIN_CLUSTERS as MIN_CLUSTERS
from engine.validation.student_t import t_quantile

FIRST_ALPHA = 0.0425
"""Significance level of the first interim look at a test window."""
LATER_ALPHA = 0.0075
"""Significance level of all later looks together."""
POWER = 0.8
PRIOR_DEVIATION = 0.05
"""Assumed standard deviation of the relative gain between clusters, where no report measured it."""


def alpha_for(look: int) -> float:
    """Significance level of the `look`-th interim look, from 1.

    `FIRST_ALPHA`, then `LATER_ALPHA` / (k (k - 1)); all looks together sum to 0.05. Raises ValueError below 1.
    """
    if look < 1:
        raise ValueError(f"interim looks are counted from 1, not {look}")
    return FIRST_ALPHA if look == 1 else LATER_ALPHA / (look * (look - 1))


def groups_needed(deviation: float, gain: float, alpha: float) -> int | None:
    """The fewest clusters that detect a true mean gain with 80 % power; the inverse of `detectable_gain`.

    None without a gain.
    """
    if gain <= 0 or not math.isfinite(gain):
        return None
    normal = NormalDist()
    # Student's quantiles are wider than normal ones, so the search starts below the answer.
    groups = max(2, math.ceil(((normal.inv_cdf(1 - alpha) + normal.inv_cdf(POWER)) * deviation / gain) ** 2))
    while detectable_gain(deviation, groups, alpha) > gain:
        groups += 1
    return groups


def detectable_gain(deviation: float, groups: int, alpha: float) -> float:
    """The smallest true mean gain that `groups` clusters (2 or more) detect with 80 % power.

    From the noncentral t distribution by its normal approximation (Abramowitz and Stegun 26.7.10). The estimate of
    the skewness, of variance 6 / n, adds its part to the variance of the statistic.
    """
    freedom = groups - 1
    t = t_quantile(1 - alpha, freedom)
    if math.isinf(t):
        return math.inf
    variance = 1 + t * t / (2 * freedom) + 2 / 3 * (t * t / groups) ** 2
    centre = t * (1 - 1 / (4 * freedom)) + NormalDist().inv_cdf(POWER) * math.sqrt(variance)
    return centre * deviation / math.sqrt(groups)
