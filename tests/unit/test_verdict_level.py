"""The benchmark of the verdict's level: it applies the product's own test, and the short form meets the limits."""

from __future__ import annotations

import numpy as np
import pytest

from bench.verdict import DIFFERENCES, paired_p_of_rows
from engine.validation.sequential import alpha_for
from engine.validation.statistics import paired_p


@pytest.mark.parametrize("name", list(DIFFERENCES))
def test_the_rows_get_the_p_of_the_product(name: str) -> None:
    rows = DIFFERENCES[name][0](np.random.default_rng(5), 12, 25) + 0.4
    ours = paired_p_of_rows(rows, samples=20_000, largest=0.3)
    for row, p in zip(rows, ours, strict=True):
        expected = paired_p(row)
        # Both sample the signs: three standard errors of the difference at most.
        assert p == pytest.approx(expected, abs=0.012) or (p == 1.0 and expected > 0.29)


@pytest.mark.parametrize("name", list(DIFFERENCES))
def test_a_candidate_without_merit_is_rarely_promoted_in_ten_looks(name: str) -> None:
    draw, limit = DIFFERENCES[name]
    rows = 4_000
    p = paired_p_of_rows(draw(np.random.default_rng(3), rows, 20), samples=20_000, largest=alpha_for(1))
    wrong = np.sum([p < alpha_for(look) for look in range(1, 11)], axis=0)
    assert wrong.mean() <= limit + 2 * wrong.std() / rows**0.5


def test_differences_have_mean_zero_and_unit_spread() -> None:
    for draw, _limit in DIFFERENCES.values():
        values = draw(np.random.default_rng(1), 20_000, 20)
        assert values.mean() == pytest.approx(0.0, abs=0.01)
        assert values.std() == pytest.approx(1.0, abs=0.06)
