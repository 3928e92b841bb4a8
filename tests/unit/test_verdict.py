"""The verdict: promote, keep or inconclusive, with its reasons and sentence."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.core.errors import BadInput
from engine.validation.external_scores import ExternalScore, read_external_scores
from engine.validation.gain_spread import gain_deviation
from engine.validation.general import GeneralScores, ModelOnBlocks
from engine.validation.report import CaseScore, Verdict
from engine.validation.verdict import estimate_power, external_verdict, nll_verdict
from engine.validation.verdict_text import percent, relative_size

SAME = GeneralScores(base=ModelOnBlocks(np.full(30, 2.0)), new=ModelOnBlocks(np.full(30, 2.0)))


def cases(gain: float, spread: float, count: int = 40, *, seed: int = 0) -> list[CaseScore]:
    """Held-out cases at 2 nats per byte; the new model is `gain` lower, give or take `spread`."""
    noise = np.random.default_rng(seed).normal(0, 1, (count, 2))
    return [
        CaseScore(
            conversation=f"c{i}",
            cluster=f"k{i}",
            bytes=100,
            base=2.0 + 0.1 * float(a),
            new=2.0 + 0.1 * float(a) - gain + spread * float(b),
        )
        for i, (a, b) in enumerate(noise)
    ]


def decide(
    given: list[CaseScore], *, look: int = 1, general: GeneralScores | None = SAME, failed_new: int = 0
) -> Verdict:
    return nll_verdict(
        given, base_name="old", new_name="fresh", look=look, general=general, failed_new=failed_new
    )


def test_a_clear_gain_is_promoted() -> None:
    verdict = decide(cases(0.06, 0.03))
    assert verdict.decision == "promote"
    assert verdict.sentence.startswith("PROMOTE — ")
    assert verdict.delta is not None and verdict.delta == pytest.approx(0.06, abs=0.01)
    assert verdict.base.nll_per_byte is not None and verdict.new.nll_per_byte is not None
    assert verdict.delta == pytest.approx(verdict.base.nll_per_byte - verdict.new.nll_per_byte)
    assert verdict.needed_cases is None and verdict.n_groups == 40


def test_a_small_gain_keeps_the_base_and_states_the_needed_sample() -> None:
    verdict = decide(cases(0.008, 0.06, seed=2))
    assert verdict.decision == "keep"
    assert verdict.p_value is not None and verdict.p_value >= verdict.alpha
    assert verdict.needed_cases is not None and verdict.needed_cases > 0
    assert f"About {verdict.needed_cases} more conversations would decide it." in verdict.sentence
    assert verdict.sentence.startswith("KEEP BASE — ") and " better, p = " in verdict.sentence


def test_a_loss_keeps_the_base() -> None:
    verdict = decide(cases(-0.05, 0.02))
    assert verdict.decision == "keep"
    assert verdict.needed_cases is None
    assert verdict.sentence == "KEEP BASE — 2.7 % worse."


def test_fewer_than_twenty_clusters_are_inconclusive() -> None:
    verdict = decide(cases(0.5, 0.01, 19))
    assert verdict.decision == "inconclusive"
    assert verdict.needed_cases == 2, "a window holds at most half of the corpus"
    assert "20 are needed" in verdict.sentence


def test_conversations_of_one_cluster_count_as_one() -> None:
    copies = [msgspec.structs.replace(case, cluster=f"k{i % 5}") for i, case in enumerate(cases(0.5, 0.01))]
    verdict = decide(copies)
    assert (verdict.n_cases, verdict.n_groups, verdict.decision) == (40, 5, "inconclusive")


def test_one_failed_case_of_the_new_model_rules_out_its_promotion() -> None:
    verdict = decide(cases(0.5, 0.01), failed_new=1)
    assert verdict.decision == "keep"
    assert verdict.new.failed == 1
    assert "fresh has no score for 1 case" in verdict.sentence


def test_a_general_set_that_may_be_three_percent_worse_keeps_the_base() -> None:
    worse = GeneralScores(
        base=ModelOnBlocks(np.full(30, 2.0)), new=ModelOnBlocks(2.0 + np.linspace(0.05, 0.08, 30))
    )
    verdict = decide(cases(0.5, 0.01), general=worse)
    assert verdict.decision == "keep"
    assert verdict.noninferiority["passed"] is False
    assert "on general text it may be up to 3.4 % worse, the limit is 3 %" in verdict.sentence


def test_a_slightly_worse_general_set_does_not() -> None:
    verdict = decide(
        cases(0.5, 0.01),
        general=GeneralScores(base=ModelOnBlocks(np.full(30, 2.0)), new=ModelOnBlocks(np.full(30, 2.04))),
    )
    assert verdict.decision == "promote"
    assert verdict.noninferiority["upper95"] == pytest.approx(0.02)


def test_without_a_general_set_nothing_is_promoted() -> None:
    assert decide(cases(0.5, 0.01), general=None).decision == "inconclusive"


def test_a_general_score_that_is_not_finite_counts_as_failed() -> None:
    broken = GeneralScores(base=ModelOnBlocks(np.full(30, 2.0)), new=ModelOnBlocks(np.array([math.nan] * 30)))
    verdict = decide(cases(0.5, 0.01), general=broken)
    assert verdict.decision == "keep" and verdict.new.failed == 1
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


def test_each_further_look_requires_a_smaller_p() -> None:
    given = cases(0.02, 0.06, seed=1)
    first, tenth = decide(given, look=1), decide(given, look=10)
    assert (first.decision, tenth.decision) == ("promote", "keep")
    assert tenth.alpha == pytest.approx(0.0075 / 90)


def test_a_copy_of_the_base_is_not_promoted() -> None:
    same = [msgspec.structs.replace(case, new=case.base) for case in cases(0.0, 0.0)]
    verdict = decide(same)
    assert (verdict.decision, verdict.p_value, verdict.mcnemar_p) == ("keep", 1.0, 1.0)


def test_under_the_null_forty_candidates_are_promoted_at_the_nominal_rate() -> None:
    wrong = sum(decide(cases(0.0, 0.05, 24, seed=seed)).decision == "promote" for seed in range(120))
    # At 0.0425 five are expected; fourteen would be four standard deviations away.
    assert wrong < 14


def test_external_scores_are_better_when_higher() -> None:
    generator = np.random.default_rng(0)
    rows = [
        ExternalScore(group=f"g{i // 2}", base=0.5, new=0.5 + float(generator.normal(0.05, 0.05)))
        for i in range(60)
    ]
    verdict = external_verdict(rows)
    assert (verdict.decision, verdict.n_cases, verdict.n_groups) == ("promote", 60, 30)
    assert verdict.delta is not None and verdict.delta > 0
    flipped = [ExternalScore(group=row.group, base=row.new, new=row.base) for row in rows]
    assert external_verdict(flipped).decision == "keep"


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_failed_external_score_is_not_zero(value: float | None) -> None:
    rows = [ExternalScore(group=i, base=0.1, new=0.9) for i in range(30)]
    verdict = external_verdict([*rows, ExternalScore(group="x", base=0.1, new=value)])
    assert verdict.decision == "keep"
    assert verdict.n_cases == 30 and verdict.new.failed == 1


def test_no_external_scores_are_inconclusive() -> None:
    verdict = external_verdict([])
    assert verdict.decision == "inconclusive" and verdict.delta is None and verdict.p_value is None


def test_other_fields_are_ignored_and_invalid_rows_are_located(tmp_path: Path) -> None:
    file = tmp_path / "scores.jsonl"
    file.write_text(
        '{"group": 1, "base": 0.5, "new": NaN, "note": "x"}\n\n{"group": "b", "base": 1, "new": 2}\n'
    )
    rows = read_external_scores(file)
    assert [(row.cluster, row.base_value, row.new_value) for row in rows] == [
        ("1", 0.5, None),
        ("b", 1.0, 2.0),
    ]
    file.write_text('{"group": 1, "base": 0.5, "new": 1}\n{"group": 1, "base": "good", "new": 1}\n')
    with pytest.raises(BadInput) as problem:
        read_external_scores(file)
    assert (problem.value.path, problem.value.line) == (file, 2)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"[1, 2]\n", b"\xff\xfe", b"[" * 100_000])
def test_a_file_without_rows_is_rejected(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "scores.jsonl"
    file.write_bytes(content)
    with pytest.raises(BadInput):
        read_external_scores(file)


def test_the_detectable_gain_is_estimated_from_the_test_set() -> None:
    few = estimate_power(8)
    assert (few.possible, few.missing, few.relative) == (False, 12, None)
    assert "12 more" in few.sentence
    many, more = estimate_power(46), estimate_power(308)
    assert many.possible and many.relative is not None and more.relative is not None
    assert more.relative < many.relative < 0.03
    # The promise holds: a true gain of that size is promoted about four times in five.
    promoted = [decide(_relative_cases(many.relative, seed)).decision == "promote" for seed in range(60)]
    assert 36 <= sum(promoted) <= 58


def _relative_cases(gain: float, seed: int) -> list[CaseScore]:
    noise = np.random.default_rng(seed).normal(gain, 0.05, 46)
    return [
        CaseScore(conversation=str(i), cluster=str(i), bytes=10, base=2.0, new=2.0 * (1 - float(x)))
        for i, x in enumerate(noise)
    ]


def test_the_deviation_of_the_last_report_replaces_the_prior() -> None:
    from engine.validation.report import ValidationReport

    given = cases(0.02, 0.2)
    report = ValidationReport(
        run_id="r", created_at=0.0, window_id=1, verdict=decide(given), measures=[], cases=given
    )
    deviation = gain_deviation(report)
    assert deviation == pytest.approx(0.1, rel=0.3)
    assert estimate_power(46, deviation=deviation).relative == pytest.approx(
        (estimate_power(46).relative or 0) * (deviation or 0) / 0.05
    )


def test_a_small_difference_is_not_rounded_to_zero() -> None:
    assert relative_size(0.0000658, 1.0) == "< 0.1 % better"
    assert relative_size(-0.0004, 1.0) == "< 0.1 % worse"
    assert [percent(value) for value in (0.0005, 0.004, 0.02, 0.12)] == ["0.1 %", "0.4 %", "2 %", "12 %"]
