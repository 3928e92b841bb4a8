from __future__ import annotations

import math
import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.training.spike_detector import (
    BAD_STEPS,
    EASED,
    RETURNS,
    SUSTAINED,
    WARMUP,
    WINDOW,
    Decision,
    Statistics,
    Watch,
)

FIGURES = st.floats(allow_nan=True, allow_infinity=True)


def warm(steps: int = 60, seed: int = 1) -> Watch:
    """After steps of a quiet run: a loss about 2, norms about 1."""
    chance, watch = random.Random(seed), Watch()
    for _step in range(steps):
        assert watch.judge(2 + chance.gauss(0, 0.05), math.exp(chance.gauss(0, 0.2))) is Decision.TAKE
    return watch


def test_a_spike_of_the_loss_or_of_the_gradient_is_skipped_and_stays_out_of_the_statistics() -> None:
    watch = warm()
    before = list(watch.statistics.losses), list(watch.statistics.norms), watch.statistics.smooth
    assert watch.judge(5.5, 1.0) is Decision.SKIP
    assert watch.judge(2.0, 40.0) is Decision.SKIP
    assert (watch.statistics.losses, watch.statistics.norms, watch.statistics.smooth) == before
    assert watch.judge(2.0, 1.0) is Decision.TAKE


def test_a_hard_but_honest_batch_is_taken() -> None:
    assert warm().judge(2.6, 4.0) is Decision.TAKE


def test_nothing_is_a_spike_before_the_statistics_stand() -> None:
    assert warm(WARMUP - 1).judge(9.0, 50.0) is Decision.TAKE


def test_data_that_stays_hard_is_learnt_in_the_end() -> None:
    watch = warm()
    found = [watch.judge(5.5, 1.0) for _step in range(WINDOW + 1)]
    assert found == [Decision.SKIP] * WINDOW + [Decision.TAKE]


def test_windows_of_another_length_begin_new_statistics() -> None:
    assert warm().judge(5.5, 40.0, level=512) is Decision.TAKE


def test_some_steps_in_a_row_without_a_number_go_back_and_a_good_one_between_starts_the_count_anew() -> None:
    watch = Watch()
    found = [watch.judge(loss, 1.0) for loss in (math.nan, math.inf, 2.0, math.nan, math.nan, math.nan)]
    assert found == [Decision.DISCARD] * 2 + [Decision.TAKE] + [Decision.DISCARD] * 2 + [Decision.BACK]
    assert BAD_STEPS == 3


def test_a_loss_that_creeps_up_and_stays_there_goes_back() -> None:
    watch = warm()
    found = [watch.judge(2 + 0.01 * step, 1.0) for step in range(150)]
    assert Decision.SKIP not in found
    first = found.index(Decision.BACK)
    assert SUSTAINED <= first < 3 * SUSTAINED


def test_three_returns_in_a_row_stop_and_quiet_steps_end_the_row() -> None:
    watch, kept = warm(), Statistics()
    assert watch.returned(kept) is Decision.BACK
    assert watch.factor == 0.5
    for _step in range(EASED):
        watch.judge(2.0, 1.0)
    assert (watch.factor, watch.statistics.returns) == (1.0, 0)
    found = [watch.returned(kept) for _time in range(RETURNS)]
    assert found == [Decision.BACK] * (RETURNS - 1) + [Decision.STOP]


def test_quiet_runs_are_left_alone() -> None:
    """Falling losses with noise of a twentieth and heavy-tailed norms: at most one alarm in 10,000 steps."""
    alarms = 0
    for seed in range(5):
        chance, watch = random.Random(seed), Watch()
        for step in range(4000):
            loss = 1.2 + 3 * math.exp(-step / 300) + chance.gauss(0, 0.1)
            alarms += watch.judge(loss, math.exp(chance.gauss(0, 0.4))) is not Decision.TAKE
    assert alarms <= 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FIGURES, FIGURES), max_size=80), st.integers(0, 80))
def test_a_watch_that_was_stored_decides_like_one_that_was_not(
    steps: list[tuple[float, float]], cut: int
) -> None:
    whole, first = warm(25), warm(25)
    told = [whole.judge(*step) for step in steps]
    before = [first.judge(*step) for step in steps[:cut]]
    stored = msgspec.json.decode(msgspec.json.encode(first.statistics), type=Statistics)
    second = Watch(stored)
    assert before + [second.judge(*step) for step in steps[cut:]] == told


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FIGURES, FIGURES), max_size=80))
def test_what_is_not_a_number_is_never_taken_and_never_remembered(steps: list[tuple[float, float]]) -> None:
    watch = warm(25)
    for loss, norm in steps:
        decision = watch.judge(loss, norm)
        assert decision is not Decision.TAKE or (math.isfinite(loss) and math.isfinite(norm))
        seen = watch.statistics
        assert all(map(math.isfinite, [*seen.losses, *seen.norms]))
