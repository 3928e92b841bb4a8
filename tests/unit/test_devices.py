"""Threads and number format are measured, unless the user or the checkpoint sets them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from engine.training.devices import choose_device, physical_cores

pytestmark = pytest.mark.measures_machine


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_omp_num_threads_sets_the_thread_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert choose_device(64, bf16=False).threads == 1 == torch.get_num_threads()


@pytest.mark.parametrize("asked", ["", "many"])
def test_otherwise_the_fastest_thread_count_is_used(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert 1 <= choose_device(64, bf16=False).threads == torch.get_num_threads() <= physical_cores()


def test_a_resumed_phase_computes_as_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    device = choose_device(64, threads=1, bf16=True)
    assert (device.threads, device.bf16) == (1, True)


def test_a_cpu_uses_the_faster_or_the_requested_number_format() -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("another device is chosen here")
    assert choose_device(64, bf16=False).bf16 is False
    assert "bf16" in choose_device(64).reason
