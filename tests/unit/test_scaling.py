"""The model of what several processes gain."""

from __future__ import annotations

import pytest

from engine.training.distributed.scaling import GIGABIT, LOOPBACK, Link, StepWork, estimate

WORK = StepWork(weights_bytes=4_000_000, windows_bytes=100_000, gradient_s=1.0, rest_s=0.02)
FREE = Link(1e18)


def test_one_process_is_the_measure() -> None:
    alone = estimate(WORK, LOOPBACK, 1)
    assert (alone.step_s, alone.speedup, alone.efficiency, alone.rank_bytes) == (1.02, 1.0, 1.0, 0.0)


@pytest.mark.parametrize("processes", [2, 3, 4, 8, 16])
def test_with_a_free_link_only_the_optimizer_is_not_divided(processes: int) -> None:
    """Amdahl's law."""
    assert estimate(WORK, FREE, processes).speedup == pytest.approx(1.02 / (1 / processes + 0.02))


def test_two_processes_send_the_weights_there_and_the_gradients_back() -> None:
    two = estimate(WORK, Link(1e6), 2)
    assert two.rank_bytes == 2 * 4_000_000 + 50_000
    assert two.step_s == pytest.approx(0.5 + 0.02 + 8.05)


def test_more_processes_and_slower_links_are_less_efficient() -> None:
    shares = [estimate(WORK, LOOPBACK, processes).efficiency for processes in range(1, 17)]
    assert shares == sorted(shares, reverse=True)
    assert estimate(WORK, GIGABIT, 4).efficiency < estimate(WORK, LOOPBACK, 4).efficiency
