from __future__ import annotations

import pytest

from bench import recovery


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.long
def test_each_kind_of_fault_gives_its_delay_and_its_cost() -> None:
    rows = recovery.faults(False, steps=40, kinds=("nan_input", "infinite_gradient"))
    assert [row.name for row in rows] == [
        "recovery.nan_input.delay",
        "recovery.nan_input.loss",
        "recovery.infinite_gradient.delay",
        "recovery.infinite_gradient.loss",
    ]
    assert rows[0].ours == rows[2].ours == 1
    assert all(0.9 < row.ours < 1.1 for row in rows[1::2])


def test_a_fault_that_nothing_notices_misses_its_target() -> None:
    assert recovery.FaultyRun("lr_x1000", at=5, recoveries=[3]).delay == recovery.NEVER


def test_clean_steps_are_counted() -> None:
    (row,) = recovery.false_alarms(False, steps=30)
    assert (row.ours, row.met) == (1.0, True)
