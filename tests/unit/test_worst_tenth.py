"""No minority pays: the worst tenth of the clusters has a bound, and chance alone rarely reaches it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from bench.verdict import DIFFERENCES, found_by_t, refused_for_minority
from engine.validation.external_scores import ExternalScore
from engine.validation.general import GeneralScores, ModelOnBlocks
from engine.validation.report import CaseScore, Verdict
from engine.validation.statistics import Floats
from engine.validation.verdict import external_verdict, nll_verdict
from engine.validation.worst_tenth import LOSS_BOUND, worst_tenth

SAME = GeneralScores(base=ModelOnBlocks(np.full(30, 2.0)), new=ModelOnBlocks(np.full(30, 2.0)))


def judge(gains: Floats, *, level: float = 2.0, look: int = 1) -> Verdict:
    """The verdict on relative gains, at `level` nats per byte."""
    cases = [
        CaseScore(conversation=f"c{i}", cluster=f"k{i}", bytes=100, base=level, new=level * (1 - float(gain)))
        for i, gain in enumerate(gains)
    ]
    return nll_verdict(cases, base_name="old", new_name="fresh", look=look, general=SAME)


def majority_and_minority(count: int, losers: int, gain: float, loss: float, spread: float) -> Floats:
    noise = np.random.default_rng(count).normal(0, spread, count)
    return np.where(np.arange(count) < losers, -loss, gain) + noise


@pytest.mark.parametrize(
    ("count", "losers", "gain", "loss"),
    [(20, 2, 0.05, 0.1), (30, 3, 0.1, 0.3), (45, 4, 0.05, 0.15), (60, 6, 0.1, 0.3), (200, 20, 0.05, 0.2)],
)
@pytest.mark.parametrize("level", [0.3, 2.0])
def test_better_on_nine_tenths_and_much_worse_on_one_is_refused_and_said(
    count: int, losers: int, gain: float, loss: float, level: float
) -> None:
    verdict = judge(majority_and_minority(count, losers, gain, loss, 0.01), level=level)
    assert verdict.delta is not None and verdict.delta > 0
    assert verdict.decision == "keep"
    assert verdict.worst_tenth is not None and not verdict.worst_tenth.passed
    assert verdict.worst_tenth.groups == count // 10
    assert f"the worst tenth, {count // 10} groups of conversations, is " in verdict.sentence
    assert "the limit is 5 %" in verdict.sentence
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


@pytest.mark.parametrize("count", [20, 26, 45, 60, 200])
def test_better_everywhere_is_promoted_however_unequal(count: int) -> None:
    gains = np.random.default_rng(count).gamma(0.5, 0.1, count) + 0.005
    verdict = judge(gains)
    assert verdict.decision == "promote"
    assert verdict.worst_tenth is not None and verdict.worst_tenth.loss < 0


@pytest.mark.parametrize("name", ["normal", "laplace", "t3"])
@pytest.mark.parametrize("clusters", [20, 45, 100])
def test_a_symmetric_spread_alone_is_rarely_refused(name: str, clusters: int) -> None:
    draw = DIFFERENCES[name][0]
    generator = np.random.default_rng(clusters)
    for spread, gain in ((0.05, 0.05), (0.15, 0.05)):
        rows = draw(generator, 2_000, clusters) * spread + gain
        assert refused_for_minority(rows[found_by_t(rows)]).mean() < 0.06


def test_a_loss_within_the_bound_is_allowed_where_nothing_scatters() -> None:
    gains = np.where(np.arange(40) < 4, -LOSS_BOUND + 1e-6, 0.1)
    assert judge(gains).decision == "promote"
    gains[:4] = -LOSS_BOUND - 1e-6
    assert judge(gains).decision == "keep"


def test_a_minority_does_not_widen_its_own_limit() -> None:
    small, large = (worst_tenth(majority_and_minority(50, 10, 0.1, loss, 0.02), 1.0) for loss in (0.2, 2.0))
    assert small is not None and large is not None
    assert large.limit == pytest.approx(small.limit) and large.loss > 9 * small.loss


def test_the_report_names_the_minority_only_where_it_pays() -> None:
    assert all("worst tenth" not in reason for reason in judge(np.full(40, 0.1)).reasons)
    noise = np.random.default_rng(1).normal(0, 0.01, 40)
    losing = judge(np.where(np.arange(40) < 4, -0.3, 0.04) + noise)
    assert losing.decision == "keep" and losing.needed_cases is None
    assert "About" not in losing.sentence, "more conversations would not help"


def test_external_scores_have_the_bound_too() -> None:
    rows = [ExternalScore(group=i, base=0.5, new=0.25 if i < 4 else 0.6) for i in range(40)]
    verdict = external_verdict(rows)
    assert verdict.decision == "keep" and "the worst tenth" in verdict.sentence
    assert (
        external_verdict([ExternalScore(group=i, base=0.0, new=0.1) for i in range(40)]).decision == "promote"
    )


def test_few_clusters_have_no_tenth() -> None:
    assert worst_tenth(np.full(9, -1.0), 1.0) is None
    assert worst_tenth(np.full(40, 0.1), 0.0) is None
