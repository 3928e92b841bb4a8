"""Threads and number format are measured, unless the person or the checkpoint says otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from engine.training.devices import choose_device, usable_cores

pytestmark = pytest.mark.measures_machine


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_environment_may_say_how_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert choose_device(64, bf16=False).threads == 1 == torch.get_num_threads()


@pytest.mark.parametrize("asked", ["", "many"])
def test_otherwise_as_many_as_were_fastest_are_taken(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert 1 <= choose_device(64, bf16=False).threads == torch.get_num_threads() <= usable_cores()


def test_a_resumed_phase_computes_as_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    device = choose_device(64, threads=1, bf16=True)
    assert (device.threads, device.bf16) == (1, True)


def test_a_cpu_computes_in_the_format_that_was_faster_or_was_asked_for() -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("another device is chosen here")
    assert choose_device(64, bf16=False).bf16 is False
    assert "bf16" in choose_device(64).reason
