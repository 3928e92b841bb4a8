"""The probes never raise and say "unknown" for what they may not read."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from engine.machine.probe import read_or_none
from engine.machine.probes import MachineProbes
from engine.machine.process_memory import tree_memory


def test_a_sample_of_this_machine(tmp_path: Path) -> None:
    found = MachineProbes(tmp_path / "not" / "yet").sample(os.getpid())
    assert found.memory_total
    assert found.memory_used
    assert found.disk_free
    assert found.run_memory
    assert found.cpu_percent is None or all(0 <= share <= 100 for share in found.cpu_percent)


@pytest.mark.parametrize("name", ["virtual_memory", "swap_memory", "disk_usage", "cpu_times"])
def test_unreadable_values_are_unknown(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_named: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, name, refuse)
    probes = MachineProbes(tmp_path)
    found = probes.sample(1)
    field = {
        "virtual_memory": found.memory_used,
        "swap_memory": found.swap_used,
        "disk_usage": found.disk_free,
        "cpu_times": found.cpu_percent,
    }[name]
    assert field is None


def test_an_ended_process_has_no_memory(tmp_path: Path) -> None:
    assert MachineProbes(tmp_path).sample(2**22 - 1).run_memory is None


def test_a_filling_disk_has_an_estimated_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, free = [0.0], [10_000]
    probes = MachineProbes(tmp_path, clock=lambda: now[0])
    monkeypatch.setattr(probes, "_disk", lambda: (free[0], 20_000))
    assert probes.sample().disk_full_in_s is None
    now[0], free[0] = 100.0, 9_000
    assert probes.sample().disk_full_in_s == pytest.approx(900.0)
    now[0], free[0] = 200.0, 12_000
    assert probes.sample().disk_full_in_s is None


def test_the_disk_trend_ignores_old_readings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, free = [0.0], [10_000]
    probes = MachineProbes(tmp_path, clock=lambda: now[0])
    monkeypatch.setattr(probes, "_disk", lambda: (free[0], 20_000))
    probes.sample()
    free[0] = 5_000
    for minute in range(1, 60):
        now[0] = minute * 60.0
        found = probes.sample()
    assert found.disk_full_in_s is None


def test_the_memory_of_a_tree_includes_its_root() -> None:
    assert tree_memory(os.getpid()) >= psutil.Process().memory_info().rss * 0.5


def test_read_or_none_does_not_hide_programming_errors() -> None:
    with pytest.raises(TypeError):
        read_or_none(lambda: len(1))  # type: ignore[arg-type]
