"""Measurements at the start of a run choose the CPU tuning; a resumed phase is not measured again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from engine.machine.cpu import allowed_cores, bind_threads
from engine.training import autotune
from engine.training.autotune import CpuTuning, tune_cpu


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    threads, cores = torch.get_num_threads(), allowed_cores()
    autotune._measure.cache_clear()
    yield
    torch.set_num_threads(threads)
    bind_threads(cores)
    autotune._measure.cache_clear()


def timed(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> None:
    """Gives each tuning a time: 1 s times the factors named for its fields."""

    def of(_probe: object, chosen: CpuTuning, _clock: object, *, warm: bool) -> float:
        taken = 1.0
        for name in ("bf16", "fused"):
            taken *= seconds.get(name, 1.0) if getattr(chosen, name) else 1.0
        return taken * seconds.get(f"threads {chosen.threads}", 1.0)

    monkeypatch.setattr(autotune.LayerProbe, "seconds", of)
    monkeypatch.setattr(autotune, "load_kernels", lambda: object())


def test_faster_candidates_are_chosen_and_slower_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, {"bf16": 0.5, "fused": 1.2, "threads 2": 0.7})
    chosen = tune_cpu(64, 4)
    assert (chosen.bf16, chosen.fused, chosen.threads) == (True, False, 2)
    assert "bf16 2.00x" in chosen.reason


def test_a_small_speedup_keeps_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, {"bf16": 0.98, "fused": 1.03, "threads 1": 0.9})
    chosen = tune_cpu(64, 2)
    assert (chosen.bf16, chosen.fused, chosen.threads) == (False, True, 2)


def test_no_timing_makes_a_run_return_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(autotune, "keep_freed_memory", lambda keep: kept.append(keep))
    monkeypatch.setattr(autotune.LayerProbe, "seconds", lambda *_all, **_more: 1.0)
    tune_cpu(64, 2)
    assert kept == [True]


def test_requested_threads_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, {"threads 1": 0.1})
    assert tune_cpu(64, 2, measured_threads=False).threads == 2 == torch.get_num_threads()


def test_a_resumed_phase_keeps_its_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, {"bf16": 0.1, "fused": 0.1})
    fixed = CpuTuning(threads=1, bf16=False, fused=False)
    assert tune_cpu(64, 2, fixed=fixed) is fixed
    assert torch.get_num_threads() == 1


def test_a_real_measurement_reports_its_candidates() -> None:
    chosen = tune_cpu(32, 1)
    assert "bf16" in chosen.reason
    assert chosen.threads == 1


def test_a_change_of_the_machine_s_speed_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine becomes twice as fast once, between two measurements: later ones only look faster."""
    for change in range(1, 40):
        autotune._measure.cache_clear()
        measured = 0

        def of(
            _probe: object, _chosen: CpuTuning, _clock: object, *, warm: bool, change: int = change
        ) -> float:
            nonlocal measured
            measured += 1
            return 1.0 if measured <= change else 0.5

        monkeypatch.setattr(autotune.LayerProbe, "seconds", of)
        monkeypatch.setattr(autotune, "load_kernels", lambda: object())
        chosen = tune_cpu(64, 2)
        assert (chosen.bf16, chosen.fused, chosen.threads) == (False, True, 2)
