"""The estimated and the measured size of a micro-batch."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.machine.budget import Budget
from engine.models.transformer import ModelConfig
from engine.training.microbatch import estimated_tokens, windows_that_fit
from tests.unit.training_run import tiny

MB = st.floats(1, 1e6)


@pytest.mark.parametrize("context", [64, 2048])
def test_the_estimate_fits_the_budget_but_is_at_least_one_window(context: int) -> None:
    recipe = tiny()
    recipe = msgspec.structs.replace(
        recipe, curriculum=(msgspec.structs.replace(recipe.curriculum[-1], context=context),)
    )
    small, large = (estimated_tokens(recipe, ModelConfig(), 3_000_000, Budget(mb, "")) for mb in (100, 4096))
    assert small == context
    assert 4 * context < large < 100_000


@given(MB, MB, st.floats(0.01, 1e4), st.integers(2, 8))
def test_the_chosen_windows_fit_and_twice_as_many_do_not(
    room: float, one: float, each: float, rows: int
) -> None:
    fits = windows_that_fit(room, one, one + each * (rows - 1), rows)
    assert fits >= 1 and math.log2(fits).is_integer()
    assert fits == 1 or one + (fits - 1) * each <= room + 1e-3 * room + 1
    assert one + (2 * fits - 1) * each >= min(room, one) - 1e-3 * room - 1
