from __future__ import annotations

import math
import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.training.spike_detector import (
    DIVERGENCE_STEPS,
    LR_COOLDOWN_STEPS,
    MAX_NONFINITE_STEPS,
    MAX_ROLLBACKS,
    WARMUP,
    WINDOW,
    SpikeDetector,
    SpikeStatistics,
    StepDecision,
)

FIGURES = st.floats(allow_nan=True, allow_infinity=True)


def warm(steps: int = 60, seed: int = 1) -> SpikeDetector:
    """A detector after the steps of a calm run: losses about 2, norms about 1."""
    chance, detector = random.Random(seed), SpikeDetector()
    for _step in range(steps):
        assert detector.decide(2 + chance.gauss(0, 0.05), math.exp(chance.gauss(0, 0.2))) is StepDecision.TAKE
    return detector


def test_a_spike_of_loss_or_gradient_is_skipped_and_excluded_from_the_statistics() -> None:
    detector = warm()
    before = (
        list(detector.statistics.losses),
        list(detector.statistics.log_norms),
        detector.statistics.loss_ema,
    )
    assert detector.decide(5.5, 1.0) is StepDecision.SKIP
    assert detector.decide(2.0, 40.0) is StepDecision.SKIP
    assert (detector.statistics.losses, detector.statistics.log_norms, detector.statistics.loss_ema) == before
    assert detector.decide(2.0, 1.0) is StepDecision.TAKE


def test_a_hard_but_valid_batch_is_applied() -> None:
    assert warm().decide(2.6, 4.0) is StepDecision.TAKE


def test_no_spikes_are_detected_during_warm_up() -> None:
    assert warm(WARMUP - 1).decide(9.0, 50.0) is StepDecision.TAKE


def test_permanently_harder_data_is_accepted_in_the_end() -> None:
    detector = warm()
    found = [detector.decide(5.5, 1.0) for _step in range(WINDOW + 1)]
    assert found == [StepDecision.SKIP] * WINDOW + [StepDecision.TAKE]


def test_another_window_length_resets_the_statistics() -> None:
    assert warm().decide(5.5, 40.0, level=512) is StepDecision.TAKE


def test_consecutive_non_finite_steps_roll_back_and_a_finite_step_resets_the_count() -> None:
    detector = SpikeDetector()
    found = [detector.decide(loss, 1.0) for loss in (math.nan, math.inf, 2.0, math.nan, math.nan, math.nan)]
    assert found == [StepDecision.DISCARD] * 2 + [StepDecision.TAKE] + [StepDecision.DISCARD] * 2 + [
        StepDecision.ROLLBACK
    ]
    assert MAX_NONFINITE_STEPS == 3


def test_a_slowly_rising_loss_rolls_back() -> None:
    detector = warm()
    found = [detector.decide(2 + 0.01 * step, 1.0) for step in range(150)]
    assert StepDecision.SKIP not in found
    first = found.index(StepDecision.ROLLBACK)
    assert DIVERGENCE_STEPS <= first < 3 * DIVERGENCE_STEPS


def test_three_rollbacks_in_a_row_stop_and_calm_steps_reset_them() -> None:
    detector, kept = warm(), SpikeStatistics()
    assert detector.rolled_back(kept) is StepDecision.ROLLBACK
    assert detector.lr_multiplier == 0.5
    for _step in range(LR_COOLDOWN_STEPS):
        detector.decide(2.0, 1.0)
    assert (detector.lr_multiplier, detector.statistics.rollbacks) == (1.0, 0)
    found = [detector.rolled_back(kept) for _time in range(MAX_ROLLBACKS)]
    assert found == [StepDecision.ROLLBACK] * (MAX_ROLLBACKS - 1) + [StepDecision.STOP]


def test_calm_runs_have_no_false_alarms() -> None:
    """Falling losses with noise of a twentieth and heavy-tailed norms: at most one false alarm in 10,000
    steps."""
    alarms = 0
    for seed in range(5):
        chance, detector = random.Random(seed), SpikeDetector()
        for step in range(4000):
            loss = 1.2 + 3 * math.exp(-step / 300) + chance.gauss(0, 0.1)
            alarms += detector.decide(loss, math.exp(chance.gauss(0, 0.4))) is not StepDecision.TAKE
    assert alarms <= 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FIGURES, FIGURES), max_size=80), st.integers(0, 80))
def test_a_restored_detector_decides_identically(steps: list[tuple[float, float]], cut: int) -> None:
    whole, first = warm(25), warm(25)
    recorded = [whole.decide(*step) for step in steps]
    before = [first.decide(*step) for step in steps[:cut]]
    stored = msgspec.json.decode(msgspec.json.encode(first.statistics), type=SpikeStatistics)
    second = SpikeDetector(stored)
    assert before + [second.decide(*step) for step in steps[cut:]] == recorded


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FIGURES, FIGURES), max_size=80))
def test_non_finite_steps_are_never_applied_or_recorded(steps: list[tuple[float, float]]) -> None:
    detector = warm(25)
    for loss, norm in steps:
        decision = detector.decide(loss, norm)
        assert decision is not StepDecision.TAKE or (math.isfinite(loss) and math.isfinite(norm))
        seen = detector.statistics
        assert all(map(math.isfinite, [*seen.losses, *seen.log_norms]))
