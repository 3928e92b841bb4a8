"""System pressure from outputs recorded on real machines, and a run that pauses and resumes by itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.machine import pressure
from engine.machine.pressure import (
    Advice,
    PressureFinding,
    PressureMonitor,
    PressureReading,
    advise,
    battery_percent,
)
from engine.machine.stalls import macos_pressure_level, stalled_percent
from engine.runs.events import CheckpointWritten, GovernorAction, StatusChanged, Step
from engine.training import governor
from engine.training.scratch import train_scratch
from tests.unit.training_run import events, new_run, text_file, tiny

RECORDED = Path(__file__).parents[1] / "data" / "machine"


def linux(root: Path, name: str) -> Path:
    (root / "proc/pressure").mkdir(parents=True, exist_ok=True)
    (root / "proc/pressure/memory").write_bytes((RECORDED / name).read_bytes())
    return root


def test_the_stalled_share_is_parsed_from_psi(tmp_path: Path) -> None:
    assert stalled_percent(root=linux(tmp_path, "psi_idle.txt")) == 0.0
    assert stalled_percent(root=linux(tmp_path, "psi_thrashing.txt")) == 21.55
    with pytest.raises(OSError):
        stalled_percent(root=tmp_path / "none")


@pytest.mark.measures_machine
def test_without_readings_there_is_no_pressure(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_words: object) -> None:
        raise FileNotFoundError

    for name in ("stalled_percent", "macos_pressure_level", "battery_percent", "cpu_temperature"):
        monkeypatch.setattr(pressure, name, missing)
    for system in ("linux", "darwin"):
        monkeypatch.setattr("sys.platform", system)
        assert pressure.read_pressure() == PressureReading()
    assert advise(PressureReading(), battery=20, celsius=95).advice is Advice.GO


@pytest.mark.parametrize("level", [1, 2, 4])
def test_the_macos_pressure_level_is_read_from_sysctl(tmp_path: Path, level: int) -> None:
    sysctl = tmp_path / "sysctl"
    sysctl.write_text(f'#!/bin/sh\n[ "$*" = "-n kern.memorystatus_vm_pressure_level" ] && echo {level}\n')
    sysctl.chmod(0o755)
    assert macos_pressure_level(str(sysctl)) == level
    sysctl.write_text("#!/bin/sh\necho 'sysctl: unknown oid' >&2; exit 1\n")
    with pytest.raises(ValueError):
        macos_pressure_level(str(sysctl))


def test_the_battery_counts_only_while_discharging(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, left in (
        (None, None),
        (SimpleNamespace(percent=12, secsleft=3600, power_plugged=True), None),
        (SimpleNamespace(percent=12, secsleft=3600, power_plugged=False), 12.0),
    ):
        monkeypatch.setattr(psutil, "sensors_battery", lambda found=found: found)
        assert battery_percent() == left


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        (PressureReading(stalled=9.9), (Advice.GO, "")),
        (PressureReading(stalled=10.0), (Advice.SHRINK, "pressure")),
        (PressureReading(stalled=40.0), (Advice.PAUSE, "pressure")),
        (PressureReading(level=1), (Advice.GO, "")),
        (PressureReading(level=2), (Advice.SHRINK, "level")),
        (PressureReading(level=4), (Advice.PAUSE, "level")),
        (PressureReading(battery=20.0), (Advice.GO, "")),
        (PressureReading(battery=19.0), (Advice.PAUSE, "battery")),
        (PressureReading(celsius=94.0), (Advice.GO, "")),
        (PressureReading(celsius=95.0), (Advice.PAUSE, "temperature")),
    ],
)
def test_the_settings_define_the_bounds(reading: PressureReading, expected: tuple[Advice, str]) -> None:
    found = advise(reading, battery=20, celsius=95)
    assert (found.advice, found.cause) == expected
    assert advise(PressureReading(battery=1.0, celsius=120.0), battery=0, celsius=0).advice is Advice.GO


FIGURES = st.none() | st.floats(0, 120)
READINGS = st.builds(
    PressureReading, stalled=FIGURES, level=st.sampled_from([None, 1, 2, 4]), battery=FIGURES, celsius=FIGURES
)


@given(READINGS)
def test_resuming_needs_a_better_reading_than_pausing(reading: PressureReading) -> None:
    found = advise(reading, battery=20, celsius=95)
    if found.advice is Advice.PAUSE:
        assert advise(reading, battery=20, celsius=95, paused=found.cause).advice is Advice.PAUSE
        assert found.value >= found.bound or found.cause == "battery"


def test_pressure_is_read_at_the_configured_interval() -> None:
    now, looks = [0.0], []

    def read() -> PressureReading:
        looks.append(now[0])
        return PressureReading()

    monitor = PressureMonitor(interval_s=5.0, battery=20, celsius=95, read=read, clock=lambda: now[0])
    for tick in range(21):
        now[0] = float(tick)
        monitor.check()
    assert looks == [0.0, 5.0, 10.0, 15.0, 20.0]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[PressureReading]:
    """Scripted readings in this order; the last one repeats."""
    readings: list[PressureReading] = []
    monkeypatch.setattr(
        pressure, "read_pressure", lambda: readings.pop(0) if len(readings) > 1 else readings[0]
    )
    monkeypatch.setattr(governor, "POLL_S", 0.01)
    monkeypatch.setattr(governor, "MITIGATION_INTERVAL_S", 0.0)
    monkeypatch.setattr("engine.training.metrics.MIN_EVENT_GAP_S", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    class Often(PressureMonitor):
        def __init__(self, **settings: object) -> None:
            super().__init__(**{**settings, "interval_s": 0.0})  # type: ignore[arg-type]

    monkeypatch.setattr(governor, "PressureMonitor", Often)
    return readings


def test_a_run_on_battery_saves_a_checkpoint_pauses_and_resumes_by_itself(
    tmp_path: Path, scripted: list[PressureReading]
) -> None:
    plain = new_run(tmp_path / "plain")
    scripted += [PressureReading()]
    train_scratch(plain, tiny(), [text_file(tmp_path)], name="m", out=tmp_path / "plain" / "m")
    scripted[:] = [
        PressureReading(),
        PressureReading(),
        PressureReading(battery=15.0),
        PressureReading(battery=12.0),
        PressureReading(battery=25.0),
        PressureReading(),
    ]
    ctx = new_run(tmp_path / "waits")
    train_scratch(ctx, tiny(), [tmp_path / "a.txt"], name="m", out=tmp_path / "waits" / "m")
    emitted = events(ctx, GovernorAction)
    assert [(event.cause, event.action, event.value, event.bound) for event in emitted] == [
        ("battery", "pause", 15.0, 20),
        ("battery", "resume", 15.0, 20),
    ]
    statuses = [(event.status.value, event.reason) for event in events(ctx, StatusChanged)]
    assert [status for status, _reason in statuses] == ["paused", "running"]
    assert "15" in statuses[0][1]
    assert events(ctx, CheckpointWritten)[1].step == emitted[0].step
    assert scripted == [PressureReading()]
    same = [[(event.step, event.loss) for event in events(run, Step)] for run in (plain, ctx)]
    assert same[0] == same[1]


def test_a_run_paused_by_pressure_handles_commands(tmp_path: Path, scripted: list[PressureReading]) -> None:
    from engine.core.errors import Interrupted

    scripted += [PressureReading(), PressureReading(celsius=99.0)]
    ctx = new_run(tmp_path)
    real = pressure.read_pressure

    def read() -> PressureReading:
        found = real()
        if found.celsius:
            ctx.commands.stop_requested = True
        return found

    pressure.read_pressure = read
    with pytest.raises(Interrupted):
        train_scratch(ctx, tiny(epochs=99), [text_file(tmp_path)], name="m", out=tmp_path / "m")
    assert [event.action for event in events(ctx, GovernorAction)] == ["pause", "resume"]


def test_pressure_of_other_programs_applies_one_mitigation_after_the_other(
    tmp_path: Path, scripted: list[PressureReading]
) -> None:
    scripted += [PressureReading(stalled=15.0)]
    ctx = new_run(tmp_path)
    train_scratch(ctx, tiny(), [text_file(tmp_path)], name="m", out=tmp_path / "m")
    emitted = events(ctx, GovernorAction)
    assert [event.action for event in emitted[:3]] == ["caches", "smaller", "smaller"]
    assert {event.cause for event in emitted} == {"pressure"} and emitted[0].value == 15.0
    assert emitted[-1].action == "recompute" and emitted[2].pass_tokens < emitted[0].pass_tokens
    assert ctx.view.annotations


def test_a_go_finding_has_no_cause() -> None:
    assert PressureFinding(Advice.GO) == advise(PressureReading(stalled=0.0), battery=0, celsius=0)
