"""Statistics of paired scores, as pure functions on numpy arrays; the unit of analysis is the cluster.

Follows Miller 2024 (arXiv:2411.00640: clustered, paired differences), Dror et al. 2018 (permutation tests) and
Hall 1992 (J. R. Statist. Soc. B 54, 221: removal of skewness by transformation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.validation.student_t import t_quantile, t_tail

Floats = NDArray[np.float64]

EXACT_LIMIT = 14
"""Up to this many differences all sign assignments are counted; above, they are sampled."""
MIN_SAMPLES = 20_000
MAX_SAMPLES = 2_000_000


def cluster_means(clusters: Sequence[str], values: Sequence[float], weights: Sequence[float]) -> Floats:
    """Weighted mean of `values` per cluster, in order of first appearance. Shape (clusters,)."""
    order = {name: row for row, name in enumerate(dict.fromkeys(clusters))}
    rows = np.array([order[name] for name in clusters], dtype=np.int64)
    weight = np.asarray(weights, dtype=np.float64)
    total = np.bincount(rows, weights=np.asarray(values, dtype=np.float64) * weight, minlength=len(order))
    return np.asarray(total / np.bincount(rows, weights=weight, minlength=len(order)), dtype=np.float64)


def sign_flip_p(differences: Floats, *, alpha: float = 0.05, seed: int = 0) -> float:
    """One-sided p value of the paired sign-flip permutation test; H0: the mean difference is not above 0.

    Exact for up to `EXACT_LIMIT` differences other than zero; above, sampled with a fixed seed and the +1
    correction (Phipson and Smyth 2010), with enough samples to resolve `alpha`. Raises ValueError for values
    that are not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a difference is not finite")
    # In one order, so that the sampled signs do not depend on the order of the clusters.
    values = np.sort(values[values != 0.0])
    if values.size == 0:
        return 1.0
    observed = values.sum()
    # Sums of the same numbers in another order differ in the last bits, and must count as equal.
    bound = observed - 1e-12 * np.abs(values).sum()
    if values.size <= EXACT_LIMIT:
        bits = (np.arange(2**values.size)[:, None] >> np.arange(values.size)) & 1
        return float(np.mean((1.0 - 2.0 * bits) @ values >= bound))
    samples = int(min(MAX_SAMPLES, max(MIN_SAMPLES, math.ceil(40 / alpha))))
    generator = np.random.default_rng(seed)
    reached, left = 0, samples
    while left > 0:
        rows = min(left, max(1, 4_000_000 // values.size))
        packed = generator.integers(0, 256, size=(rows, (values.size + 7) // 8), dtype=np.uint8)
        flips = np.unpackbits(packed, axis=1, count=values.size).astype(np.float64)
        reached += int(np.count_nonzero(observed - 2.0 * (flips @ values) >= bound))
        left -= rows
    return (reached + 1) / (samples + 1)


def paired_p(differences: Floats, *, alpha: float = 0.05, seed: int = 0) -> float:
    """The p value of the verdict, one-sided; H0: the mean difference is not above 0.

    The larger of `sign_flip_p`, which is exact for symmetric differences, and the tail of `skewness_corrected_t`,
    which holds where few clusters lose much. Differences of zero count in neither. Raises ValueError for values
    that are not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    exact = sign_flip_p(values, alpha=alpha, seed=seed)
    values = values[values != 0.0]
    if values.size < 3:
        return exact
    return max(exact, t_tail(float(skewness_corrected_t(values)), values.size - 1))


def skewness_corrected_t(values: Floats) -> Floats:
    """Hall's transformation of the t statistic of the mean over the last axis, which has 3 values or more.

    S + g S² / 3 + g² S³ / 27 + g / (6 n), times √n; S is the mean in standard deviations and g the unbiased sample
    skewness. Without any spread it is infinite with the sign of the mean.
    """
    # Sorted, as sums of the same numbers in another order differ in the last bits.
    values = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    size = values.shape[-1]
    mean = values.mean(axis=-1)
    residuals = values - mean[..., None]
    variance = np.square(residuals).mean(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness = (residuals**3).mean(axis=-1) / variance**1.5 * math.sqrt(size * (size - 1)) / (size - 2)
        ratio = mean / np.sqrt(variance * size / (size - 1))
        corrected = math.sqrt(size) * (
            ratio + skewness * ratio**2 / 3 + skewness**2 * ratio**3 / 27 + skewness / (6 * size)
        )
    flat = variance <= np.square(mean) * 1e-24
    return np.asarray(np.where(flat, np.copysign(np.inf, mean), corrected), dtype=np.float64)


def interval95(differences: Floats) -> tuple[float, float] | None:
    """Two-sided 95 % t interval of the mean; None for fewer than two values."""
    if differences.size < 2:
        return None
    half = (
        t_quantile(0.975, differences.size - 1) * float(differences.std(ddof=1)) / math.sqrt(differences.size)
    )
    middle = float(differences.mean())
    return middle - half, middle + half


def relative_increase(base: Floats, new: Floats) -> tuple[float, float, float]:
    """(increase, lower95, upper95): relative increase of the total from `base` to `new`, paired by block.

    The one-sided 95 % bounds follow from the delta method for a ratio; they are infinite for fewer than two blocks.
    """
    ratio = float(new.sum() / base.sum())
    if base.size < 2:
        return ratio - 1, -math.inf, math.inf
    residual = new - ratio * base
    error = float(residual.std(ddof=1)) / math.sqrt(base.size) / float(base.mean())
    half = t_quantile(0.95, base.size - 1) * error
    return ratio - 1, ratio - 1 - half, ratio - 1 + half


def mcnemar_p(wins: int, losses: int) -> float:
    """Exact one-sided McNemar (sign) test: P(at least `wins` of `wins + losses`) under a fair coin."""
    n = wins + losses
    if n == 0:
        return 1.0
    if n <= 1000:
        return sum(math.comb(n, k) for k in range(wins, n + 1)) / (1 << n)
    k = np.arange(wins, n + 1)
    logs = np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k])
    return float(min(1.0, np.exp(logs - n * math.log(2)).sum()))
