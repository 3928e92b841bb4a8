from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.training.spike_detector import (
    DIVERGENCE_STEPS,
    LR_COOLDOWN_STEPS,
    SERIES_FREE,
    WARMUP,
    WINDOW,
    SpikeStatistics,
)

FIGURES = st.floats(allow_nan=False, allow_infinity=False, min_value=0, max_value=1e9)


def step(seen: SpikeStatistics, loss: float, norm: float = 1.0) -> SpikeStatistics:
    """The statistics after a step that was applied."""
    return seen.after_step(loss, norm, 0, spike=seen.is_spike(loss, norm))


def warm(steps: int = 60, seed: int = 1) -> SpikeStatistics:
    """After the steps of a calm run: losses about 2, norms about 1."""
    chance, seen = random.Random(seed), SpikeStatistics()
    for _step in range(steps):
        loss, norm = 2 + chance.gauss(0, 0.05), math.exp(chance.gauss(0, 0.2))
        assert not seen.is_spike(loss, norm)
        seen = step(seen, loss, norm)
    return seen


@pytest.mark.parametrize(
    ("steps", "loss", "norm", "spike"),
    [
        pytest.param(60, 5.5, 1.0, True, id="a high loss"),
        pytest.param(60, 2.0, 40.0, True, id="a high gradient norm"),
        pytest.param(60, 2.6, 4.0, False, id="a hard but usual batch"),
        pytest.param(WARMUP - 1, 9.0, 50.0, False, id="during the warm-up"),
        pytest.param(60, math.nan, 1.0, True, id="not finite"),
    ],
)
def test_a_spike_is_far_above_the_recent_steps(steps: int, loss: float, norm: float, spike: bool) -> None:
    assert warm(steps).is_spike(loss, norm) is spike


def test_a_learnt_spike_enters_the_statistics_but_not_the_average() -> None:
    before = warm()
    after = step(before, 5.5)
    assert (after.losses[-1], after.loss_ema, after.steps_above) == (5.5, before.loss_ema, 0)
    assert (after.consecutive_spikes, after.hardest_spike) == (1, 5.5)
    assert step(after, 2.0).consecutive_spikes == 0


def test_a_skipped_step_leaves_the_statistics() -> None:
    before = warm()
    assert before.after_skip() == msgspec.structs.replace(before, consecutive_spikes=1)


@pytest.mark.parametrize("every", [3, 7, 25])
def test_a_hard_minority_is_news_once_and_no_divergence(every: int) -> None:
    """Easy batches with some hard ones, as of another language: they are learnt at the full rate."""
    seen, news = SpikeStatistics(), 0
    for number in range(40 * every):
        hard = number % every == 0
        loss, norm = (4.0, 3.0) if hard else (0.1 + 0.001 * (number % 7), 1.0)
        news += seen.is_spike(loss, norm) and seen.is_news(loss)
        seen = step(seen, loss, norm)
        assert seen.series_share == 1.0 and seen.steps_above < DIVERGENCE_STEPS
        assert not hard or not seen.has_risen(4.0)
    assert news == 1


def test_a_series_of_spikes_is_learnt_more_and_more_slowly_until_it_is_usual() -> None:
    seen = warm(2 * WINDOW)
    shares: list[float] = []
    while seen.is_spike(5.5, 1.0) and len(shares) < 2 * WINDOW:
        seen = step(seen, 5.5)
        shares.append(seen.series_share)
    assert shares[:SERIES_FREE] == [1.0] * SERIES_FREE
    assert shares == sorted(shares, reverse=True) and shares[-1] < 0.05
    assert len(shares) <= WINDOW


def test_statistics_of_other_windows_or_of_a_long_series_start_anew() -> None:
    seen = warm()
    assert seen.for_windows_of(0) is seen
    for other in (
        seen.for_windows_of(512),
        msgspec.structs.replace(seen, consecutive_spikes=WINDOW).for_windows_of(0),
    ):
        assert (other.losses, other.log_norms, other.loss_ema, other.consecutive_spikes) == ([], [], None, 0)


@pytest.mark.parametrize(
    ("learnt_at", "now", "risen"),
    [
        pytest.param(2.0, 2.1, False, id="as before"),
        pytest.param(2.0, 6.0, True, id="lost"),
        pytest.param(6.0, 5.8, False, id="it was hard when it was learnt"),
        pytest.param(6.0, 9.0, True, id="it was hard and is lost"),
        pytest.param(2.0, math.inf, True, id="not finite"),
        pytest.param(None, 6.0, True, id="a checkpoint without the loss of the last step"),
    ],
)
def test_weights_are_judged_by_what_the_last_batch_had(
    learnt_at: float | None, now: float, risen: bool
) -> None:
    assert msgspec.structs.replace(warm(), last_loss=learnt_at).has_risen(now) is risen


def test_a_slowly_rising_loss_is_divergence() -> None:
    seen, first = warm(), None
    for number in range(150):
        loss = 2 + 0.01 * number
        assert not seen.is_spike(loss, 1.0)
        seen = step(seen, loss)
        if first is None and seen.steps_above >= DIVERGENCE_STEPS:
            first = number
    assert first is not None and DIVERGENCE_STEPS <= first < 3 * DIVERGENCE_STEPS


def test_a_rollback_halves_the_rate_until_calm_steps_end_it() -> None:
    seen = warm().after_nonfinite().after_rollback(SpikeStatistics())
    assert (seen.lr_multiplier, seen.rollbacks, seen.consecutive_nonfinite) == (0.5, 1, 0)
    again = seen.after_rollback(SpikeStatistics())
    assert again.rollbacks == 2
    for _step in range(LR_COOLDOWN_STEPS):
        assert again.lr_multiplier == 0.5
        again = step(again, 2.0)
    assert (again.lr_multiplier, again.rollbacks) == (1.0, 0)


def test_calm_runs_have_no_false_alarms() -> None:
    """Falling losses with noise of a twentieth and heavy-tailed norms: at most one false alarm in 10,000
    steps."""
    alarms = 0
    for seed in range(5):
        chance, seen = random.Random(seed), SpikeStatistics()
        for number in range(4000):
            loss = 1.2 + 3 * math.exp(-number / 300) + chance.gauss(0, 0.1)
            norm = math.exp(chance.gauss(0, 0.4))
            alarms += seen.is_spike(loss, norm) or seen.steps_above >= DIVERGENCE_STEPS
            seen = step(seen, loss, norm)
    assert alarms <= 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FIGURES, FIGURES), max_size=80), st.integers(0, 80))
def test_stored_statistics_continue_identically(steps: list[tuple[float, float]], cut: int) -> None:
    whole = first = warm(25)
    for loss, norm in steps:
        whole = step(whole, loss, norm)
    for loss, norm in steps[:cut]:
        first = step(first, loss, norm)
    second = msgspec.json.decode(msgspec.json.encode(first), type=SpikeStatistics)
    for loss, norm in steps[cut:]:
        second = step(second, loss, norm)
    assert second == whole


def test_statistics_of_older_checkpoints_open() -> None:
    stored = b'{"losses":[2.0],"norms":[0.1],"level":128,"smooth":2.0,"best":2.0,"above":0,"skipped":3,'
    stored += b'"bad":0,"returns":1,"eased":7,"taken":40}'
    seen = msgspec.json.decode(stored, type=SpikeStatistics)
    assert (seen.last_batch, seen.last_loss, seen.rollbacks, seen.lr_multiplier) == (40, None, 1, 0.5)
