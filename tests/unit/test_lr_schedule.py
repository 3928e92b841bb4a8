from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.training.lr_schedule import FLOOR, Schedule, lr_factor, momentum


def test_the_rate_rises_holds_and_falls_to_two_percent() -> None:
    factors = [lr_factor(Schedule.LINEAR, step, 1000, 10) for step in range(1000)]
    assert factors[0] == 0.1
    assert factors[9:200] == [1.0] * 191
    assert all(after < before for before, after in pairwise(factors[200:]))
    assert FLOOR < factors[-1] < FLOOR + 0.01


def test_the_cosine_halves_in_the_middle_and_ends_at_zero() -> None:
    assert lr_factor(Schedule.COSINE, 0, 100, 0) == 1.0
    assert abs(lr_factor(Schedule.COSINE, 50, 100, 0) - 0.5) < 1e-9
    assert lr_factor(Schedule.COSINE, 100, 100, 0) < 1e-9


@given(
    schedule=st.sampled_from(Schedule),
    step=st.integers(0, 10_000),
    max_steps=st.integers(1, 10_000),
    warmup=st.integers(0, 100),
)
def test_the_rate_never_leaves_its_bounds(schedule: Schedule, step: int, max_steps: int, warmup: int) -> None:
    assert 0.0 <= lr_factor(schedule, step, max_steps, warmup) <= 1.0


def test_momentum_rises_over_fifty_steps() -> None:
    assert momentum(0) == 0.85
    assert abs(momentum(25) - 0.9) < 1e-9
    assert momentum(50) == momentum(10_000) == 0.95
