"""The statistics of paired scores: level, power, symmetry, and agreement with the exact count."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.validation.sequential import alpha_for, detectable_gain, groups_needed
from engine.validation.statistics import (
    cluster_means,
    interval95,
    mcnemar_p,
    paired_p,
    relative_increase,
    sign_flip_p,
    skewness_corrected_t,
)
from engine.validation.student_t import t_quantile, t_tail

differences = st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=1, max_size=9)


def brute_force(values: list[float]) -> float:
    observed = math.fsum(values)
    sums = [
        math.fsum(s * v for s, v in zip(signs, values, strict=True))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    return sum(total >= observed - 1e-9 for total in sums) / len(sums)


@given(differences)
def test_the_exact_p_counts_every_assignment(values: list[float]) -> None:
    assert sign_flip_p(np.array(values)) == pytest.approx(brute_force(values))


@given(differences)
def test_p_values_of_both_directions_sum_to_at_least_one(values: list[float]) -> None:
    array = np.array(values)
    # Assignments that equal the observed sum count on both sides.
    assert sign_flip_p(array) + sign_flip_p(-array) >= 1.0 - 1e-12


@given(differences, st.floats(0.001, 5))
def test_a_larger_gain_everywhere_never_raises_p(values: list[float], more: float) -> None:
    low, high = np.abs(np.array(values)), np.abs(np.array(values)) + more
    assert sign_flip_p(high) <= sign_flip_p(low) + 1e-12


@pytest.mark.parametrize("p_of", [sign_flip_p, paired_p])
@given(values=differences)
def test_clusters_without_a_difference_change_nothing(
    p_of: Callable[..., float], values: list[float]
) -> None:
    assert p_of(np.array([*values, 0.0, 0.0])) == p_of(np.array(values))


@pytest.mark.parametrize("p_of", [sign_flip_p, paired_p])
@given(values=st.lists(st.integers(-100, 100), min_size=1, max_size=18), scale=st.floats(0.01, 100))
@settings(max_examples=40)
def test_the_unit_of_the_scores_does_not_matter(
    p_of: Callable[..., float], values: list[int], scale: float
) -> None:
    array = np.array(values, dtype=np.float64)
    assert p_of(array * scale) == pytest.approx(p_of(array), rel=1e-9)


@pytest.mark.parametrize("size", [10, 30])
def test_the_order_of_the_clusters_does_not_matter(size: int) -> None:
    generator = np.random.default_rng(size)
    values = generator.normal(0.4, 1.0, size)
    assert {paired_p(generator.permutation(values)) for _ in range(5)} == {paired_p(values)}


@given(st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=3, max_size=9), st.floats(0.001, 5))
def test_a_common_gain_more_never_raises_p(values: list[float], more: float) -> None:
    # Zeros are left out, so that a shift may change how many differences there are.
    low = np.array([value for value in values if value and value + more])
    assert paired_p(low + more) <= paired_p(low) + 1e-9


def test_the_corrected_t_matches_the_formula() -> None:
    # (0, 2, 2, 4) has mean 2, sample variance 8 / 3 and no skewness.
    assert skewness_corrected_t(np.array([0.0, 2.0, 2.0, 4.0])) == pytest.approx(2 / math.sqrt(8 / 3) * 2)
    values = np.array([3.0, 1.0, 2.0, -4.0, 2.5])
    mean, residuals = values.mean(), values - values.mean()
    s = math.sqrt((residuals**2).sum() / 4)
    g = (residuals**3).mean() / (residuals**2).mean() ** 1.5 * math.sqrt(5 * 4) / 3
    ratio = mean / s
    expected = math.sqrt(5) * (ratio + g * ratio**2 / 3 + g**2 * ratio**3 / 27 + g / 30)
    assert skewness_corrected_t(values) == pytest.approx(expected)
    assert skewness_corrected_t(np.stack([values, -values]))[1] == pytest.approx(
        skewness_corrected_t(-values)
    )


def test_equal_gains_leave_the_p_to_the_signs() -> None:
    assert paired_p(np.full(10, 0.1)) == 2**-10
    assert paired_p(np.full(10, -0.1)) == 1.0


def test_a_cluster_that_loses_much_raises_p() -> None:
    gains = np.array([0.1, 0.12, 0.09, 0.11, 0.1] * 4)
    assert paired_p(gains) < 1e-4
    gains[0] = -0.3
    # The signs alone would promote it even at the fifth look.
    assert paired_p(gains) > 0.1 and sign_flip_p(gains) < 0.001


def test_sampled_agrees_with_exact() -> None:
    generator = np.random.default_rng(3)
    for shift in (0.0, 0.3, 0.8):
        values = generator.normal(shift, 1.0, 14)
        exact = sign_flip_p(values)
        # Two clusters that cancel bring it over the limit of exact counting and hardly change the chance.
        sampled = sign_flip_p(np.concatenate([values, [1e-9, 1e-9]]))
        assert sampled == pytest.approx(exact, abs=0.012)


def test_the_sampled_p_is_positive_and_deterministic() -> None:
    values = np.full(60, 0.1)
    assert 0 < sign_flip_p(values) < 1e-4
    assert sign_flip_p(values) == sign_flip_p(values)


@pytest.mark.parametrize("size", [12, 25])
def test_the_test_keeps_its_level_under_the_null(size: int) -> None:
    generator = np.random.default_rng(size)
    alpha, trials = 0.05, 400
    wrong = sum(sign_flip_p(generator.standard_t(3, size)) < alpha for _ in range(trials))
    # Three standard deviations above the level.
    assert wrong / trials <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / trials)


def test_fifty_clusters_detect_half_a_standard_deviation() -> None:
    generator = np.random.default_rng(5)
    seen = sum(sign_flip_p(generator.normal(0.5, 1.0, 50)) < 0.05 for _ in range(60))
    assert seen >= 50


def test_values_that_are_not_finite_raise() -> None:
    with pytest.raises(ValueError, match="finite"):
        sign_flip_p(np.array([0.1, math.nan]))


def test_the_levels_of_all_looks_sum_to_five_percent() -> None:
    assert [alpha_for(k) for k in (1, 2, 3, 6)] == pytest.approx([0.0425, 0.00375, 0.00125, 0.00025])
    assert sum(alpha_for(k) for k in range(1, 10_000)) == pytest.approx(0.05, abs=1e-5)


def test_a_window_that_was_opened_under_the_earlier_levels_keeps_five_percent() -> None:
    # There the k-th look took 0.05 / (k (k + 1)).
    for before in range(10):
        earlier = sum(0.05 / (k * (k + 1)) for k in range(1, before + 1))
        assert earlier + sum(alpha_for(k) for k in range(before + 1, 5_000)) <= 0.05 + 1e-9


def test_looks_are_counted_from_one() -> None:
    with pytest.raises(ValueError):
        alpha_for(0)


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 12.706), (2, 4.303), (5, 2.571), (10, 2.228), (19, 2.093), (60, 2.000), (1000, 1.962)],
)
def test_t_quantiles_match_the_tables(freedom: int, expected: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(expected, rel=1e-3)
    assert t_quantile(0.025, freedom) == pytest.approx(-expected, rel=1e-3)


def test_the_interval_has_95_percent_coverage() -> None:
    generator = np.random.default_rng(11)
    bounds = [interval95(generator.normal(0.2, 1.0, 20)) for _ in range(800)]
    covered = sum(b is not None and b[0] <= 0.2 <= b[1] for b in bounds) / 800
    assert 0.93 <= covered <= 0.97


def test_the_upper_bound_of_the_ratio_has_95_percent_coverage() -> None:
    generator = np.random.default_rng(12)
    misses = 0
    for _ in range(600):
        base = generator.uniform(1, 3, 60)
        _increase, _low, upper = relative_increase(base, base * 1.02 + generator.normal(0, 0.1, 60))
        misses += upper < 0.02
    assert 0.02 <= misses / 600 <= 0.085


@given(st.lists(st.floats(0.5, 5), min_size=2, max_size=30), st.floats(0.5, 2))
def test_a_proportional_change_has_no_uncertainty(base: list[float], factor: float) -> None:
    array = np.array(base)
    increase, low, upper = relative_increase(array, array * factor)
    assert increase == pytest.approx(factor - 1, abs=1e-9)
    assert low == pytest.approx(upper, abs=1e-6)


@pytest.mark.parametrize(
    ("wins", "losses", "expected"),
    [(5, 0, 0.03125), (8, 1, 0.01953125), (10, 2, 0.019287109375), (0, 0, 1.0)],
)
def test_mcnemar_is_exact(wins: int, losses: int, expected: float) -> None:
    assert mcnemar_p(wins, losses) == expected


def test_mcnemar_of_many_cases_agrees_with_the_exact_test() -> None:
    assert mcnemar_p(530, 471) == pytest.approx(mcnemar_p(529, 471), rel=0.1)
    assert mcnemar_p(3000, 3000) == pytest.approx(0.5, abs=0.02)


@settings(max_examples=30)
@given(st.floats(0.01, 2), st.floats(0.005, 1), st.sampled_from([0.05, 0.025, 0.0083]))
def test_needed_groups_and_detectable_gain_are_inverse(deviation: float, gain: float, alpha: float) -> None:
    needed = groups_needed(deviation, gain, alpha)
    assert needed is not None
    assert detectable_gain(deviation, needed, alpha) <= gain * (1 + 1e-9)
    if needed > 1:
        assert detectable_gain(deviation, needed - 1, alpha) > gain * (1 - 1e-9)


def test_sample_sizes_match_the_table_of_the_t_test() -> None:
    # One-sided, alpha 0.05, power 0.8 (Cohen 1988): 156, 57, 27; the estimate of the skewness adds up to one.
    assert [groups_needed(1.0, d, 0.05) for d in (0.2, 1 / 3, 0.5)] == [156, 58, 27]
    assert groups_needed(1.0, 0.0, 0.05) is None


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 19, 60, 1000])
def test_the_tail_is_the_inverse_of_the_quantile(freedom: int) -> None:
    for probability in (0.5, 0.9, 0.975, 0.999):
        # The expansion of the quantile is off by a few percent of the tail at 3 degrees of freedom.
        error = {1: 1e-9, 2: 1e-9, 3: 0.1}.get(freedom, 0.02)
        tail = t_tail(t_quantile(probability, freedom), freedom)
        assert tail == pytest.approx(1 - probability, rel=error)
    assert t_tail(2.093024, 19) == pytest.approx(0.025, rel=1e-5)
    assert t_tail(-1.3, freedom) == pytest.approx(1 - t_tail(1.3, freedom))
    assert (t_tail(math.inf, freedom), t_tail(-math.inf, freedom)) == (0.0, 1.0)


@given(st.permutations([("a", 1.0, 1.0), ("a", 3.0, 3.0), ("b", 5.0, 2.0)]))
def test_cluster_means_are_weighted(rows: list[tuple[str, float, float]]) -> None:
    clusters, values, weights = zip(*rows, strict=True)
    means = dict(zip(dict.fromkeys(clusters), cluster_means(clusters, values, weights), strict=True))
    assert means == {"a": pytest.approx(2.5), "b": pytest.approx(5.0)}
