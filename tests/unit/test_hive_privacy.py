"""Epsilon of Gaussian rounds, against dp-accounting 0.6.0 (`tests/data/hive_epsilon.json`)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from engine.core.errors import UsageProblem
from engine.hive.privacy import NoiseOptions, gaussian_epsilon, privacy_report

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "hive_epsilon.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "row", RECORDED["rows"], ids=lambda row: f"{row['sigma']}-{row['rounds']}-{row['delta']}"
)
def test_epsilon_is_that_of_dp_accounting(row: dict[str, float]) -> None:
    ours = gaussian_epsilon([row["sigma"]] * int(row["rounds"]), row["delta"])
    assert ours == pytest.approx(row["dense"], rel=1e-5)
    # Its own orders are a short list: the best of all orders is at most as large, and never below the exact value.
    assert row["exact"] <= ours <= row["rdp"]


def test_ten_rounds_at_noise_one() -> None:
    assert round(gaussian_epsilon([1.0] * 10, 1e-5), 2) == 19.05


def test_rounds_of_unlike_noise_add_up() -> None:
    assert gaussian_epsilon([1.0, 1.0], 1e-5) == pytest.approx(gaussian_epsilon([math.sqrt(0.5)], 1e-5))
    assert gaussian_epsilon([], 1e-5) == 0
    assert gaussian_epsilon([1.0, 0.0], 1e-5) == math.inf


@pytest.mark.parametrize(("multipliers", "delta"), [([1.0], 0.0), ([1.0], 1.0), ([-1.0], 1e-5)])
def test_what_promises_nothing_is_refused(multipliers: list[float], delta: float) -> None:
    with pytest.raises(UsageProblem):
        gaussian_epsilon(multipliers, delta)


def test_the_sentence_says_epsilon_and_rounds() -> None:
    report = privacy_report(NoiseOptions(1.0, 2.0, rounds_before=(1.0,) * 9), entries=400, count=10)
    assert report.rounds == 10
    assert "19.05" in report.sentence and "10 rounds" in report.sentence
    assert report.noise_to_norm == pytest.approx(2.0)
