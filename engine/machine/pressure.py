"""System pressure on a run: memory pressure of other programs, battery and temperature."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import psutil

from engine.machine.probe import read_or_none
from engine.machine.probes import cpu_temperature
from engine.machine.stalls import macos_pressure_level, stalled_percent

SHRINK_ABOVE_PERCENT, PAUSE_ABOVE_PERCENT = 10.0, 40.0
"""Percent of the last ten seconds in which some program waited for memory: above the first, training frees caches
and shrinks its micro-batches; above the second, it pauses."""
WARNING, CRITICAL = 2, 4
"""Pressure levels of macOS; 1 is normal (`sys/event.h`, NOTE_MEMORYSTATUS_PRESSURE_WARN and _CRITICAL)."""
BATTERY_HYSTERESIS, TEMPERATURE_HYSTERESIS = 10, 10
"""Percent above and degrees below the bound at which paused training resumes."""


class Advice(StrEnum):
    """What training should do about the pressure."""

    GO = "go"
    SHRINK = "shrink"
    PAUSE = "pause"


@dataclass(frozen=True)
class PressureReading:
    """One reading; None for a value that this machine does not provide."""

    stalled: float | None = None
    """Percent of the last 10 s in which some program waited for memory (Linux, `some avg10`)."""
    level: int | None = None
    """Pressure level of macOS."""
    battery: float | None = None
    """Percent left, only while the machine runs on battery."""
    celsius: float | None = None


@dataclass(frozen=True)
class PressureFinding:
    """What to do, the cause ("pressure", "level", "battery" or "temperature"), its value and the bound it crossed."""

    advice: Advice
    cause: str = ""
    value: float = 0.0
    bound: float = 0.0


def advise(reading: PressureReading, *, battery: int, celsius: int, paused: str = "") -> PressureFinding:
    """What to do about `reading`. While `paused` for a cause, its value must improve clearly before training resumes.

    `battery` in percent and `celsius` in degrees are the bounds of the settings; 0 disables each.
    """
    stalled, level = reading.stalled or 0.0, reading.level or 0
    bound = SHRINK_ABOVE_PERCENT if paused == "pressure" else PAUSE_ABOVE_PERCENT
    if stalled >= bound:
        return PressureFinding(Advice.PAUSE, "pressure", stalled, bound)
    highest = WARNING if paused == "level" else CRITICAL
    if level >= highest:
        return PressureFinding(Advice.PAUSE, "level", level, highest)
    if battery and reading.battery is not None:
        bound = battery + (BATTERY_HYSTERESIS if paused == "battery" else 0)
        if reading.battery < bound:
            return PressureFinding(Advice.PAUSE, "battery", reading.battery, bound)
    if celsius and reading.celsius is not None:
        bound = celsius - (TEMPERATURE_HYSTERESIS if paused == "temperature" else 0)
        if reading.celsius >= bound:
            return PressureFinding(Advice.PAUSE, "temperature", reading.celsius, bound)
    if stalled >= SHRINK_ABOVE_PERCENT:
        return PressureFinding(Advice.SHRINK, "pressure", stalled, SHRINK_ABOVE_PERCENT)
    if level >= WARNING:
        return PressureFinding(Advice.SHRINK, "level", level, WARNING)
    return PressureFinding(Advice.GO)


class PressureMonitor:
    """Reads the pressure every `interval_s` seconds."""

    def __init__(
        self,
        *,
        interval_s: float,
        battery: int,
        celsius: int,
        read: Callable[[], PressureReading] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval_s, self._battery, self._celsius = interval_s, battery, celsius
        self._read = read or read_pressure
        self._clock = clock
        self._checked_at = -interval_s

    def check(self, paused: str = "") -> PressureFinding | None:
        """What to do now; None until the next reading is due."""
        now = self._clock()
        if now - self._checked_at < self.interval_s:
            return None
        self._checked_at = now
        return advise(self._read(), battery=self._battery, celsius=self._celsius, paused=paused)


def read_pressure() -> PressureReading:
    """Current pressure; never raises."""
    macos = sys.platform == "darwin"
    return PressureReading(
        stalled=None if macos else read_or_none(stalled_percent),
        level=read_or_none(macos_pressure_level) if macos else None,
        battery=read_or_none(battery_percent),
        celsius=read_or_none(cpu_temperature),
    )


def battery_percent() -> float | None:
    """Battery percentage while the machine runs on battery; None on mains power or without a battery."""
    battery = psutil.sensors_battery()
    if battery is None or battery.power_plugged or battery.percent is None:
        return None
    return float(battery.percent)
