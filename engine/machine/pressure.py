"""What the machine asks of a run from outside: other programs that wait for memory, the battery, the temperature."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from engine.machine.probes import cpu_temperature, read_or_none

STALLED_SHRINK, STALLED_PAUSE = 10.0, 40.0
"""Percent of the last ten seconds in which some program waited for memory, from which on caches are given back
and passes made smaller, and from which on training waits."""
WARNING, CRITICAL = 2, 4
"""Pressure levels of macOS; 1 is normal (`sys/event.h`, NOTE_MEMORYSTATUS_PRESSURE_WARN and _CRITICAL)."""
CHARGED_MORE, COOLED = 10, 10
"""Percent above and degrees below the bound at which training goes on."""


class Advice(StrEnum):
    GO = "go"
    SHRINK = "shrink"
    PAUSE = "pause"


@dataclass(frozen=True)
class PressureReading:
    """One look; None for what this machine does not tell."""

    stalled: float | None = None
    """Percent of the last 10 s in which some program waited for memory (Linux, `some avg10`)."""
    level: int | None = None
    """Pressure level of macOS."""
    battery: float | None = None
    """Percent left, only while it runs on the battery."""
    celsius: float | None = None


@dataclass(frozen=True)
class PressureFinding:
    """What to do, what asks for it ("pressure", "level", "battery", "temperature"), its figure and the bound it passed."""

    advice: Advice
    cause: str = ""
    value: float = 0.0
    bound: float = 0.0


def advise(reading: PressureReading, *, battery: int, celsius: int, paused: str = "") -> PressureFinding:
    """What `reading` asks for. While `paused` for a cause, the figure must be clearly better than what paused.

    `battery` percent and `celsius` degrees are the bounds of the settings; 0 switches each off.
    """
    stalled, level = reading.stalled or 0.0, reading.level or 0
    bound = STALLED_SHRINK if paused == "pressure" else STALLED_PAUSE
    if stalled >= bound:
        return PressureFinding(Advice.PAUSE, "pressure", stalled, bound)
    highest = WARNING if paused == "level" else CRITICAL
    if level >= highest:
        return PressureFinding(Advice.PAUSE, "level", level, highest)
    if battery and reading.battery is not None:
        bound = battery + (CHARGED_MORE if paused == "battery" else 0)
        if reading.battery < bound:
            return PressureFinding(Advice.PAUSE, "battery", reading.battery, bound)
    if celsius and reading.celsius is not None:
        bound = celsius - (COOLED if paused == "temperature" else 0)
        if reading.celsius >= bound:
            return PressureFinding(Advice.PAUSE, "temperature", reading.celsius, bound)
    if stalled >= STALLED_SHRINK:
        return PressureFinding(Advice.SHRINK, "pressure", stalled, STALLED_SHRINK)
    if level >= WARNING:
        return PressureFinding(Advice.SHRINK, "level", level, WARNING)
    return PressureFinding(Advice.GO)


class PressureMonitor:
    """Looks at the machine every `interval_s` seconds."""

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
        self._looked = -interval_s

    def look(self, paused: str = "") -> PressureFinding | None:
        """What is asked for; None until it is time for another look."""
        now = self._clock()
        if now - self._looked < self.interval_s:
            return None
        self._looked = now
        return advise(self._read(), battery=self._battery, celsius=self._celsius, paused=paused)


def read_pressure() -> PressureReading:
    """The machine as it is now; never raises."""
    mac = sys.platform == "darwin"
    return PressureReading(
        stalled=None if mac else read_or_none(pressure),
        level=read_or_none(macos_pressure_level) if mac else None,
        battery=read_or_none(battery_percent),
        celsius=read_or_none(cpu_temperature),
    )


def pressure(root: Path = Path("/")) -> float:
    """Share of the last 10 s in which at least one program of the machine waited for memory, in percent.

    Pressure stall information of Linux; its `full` is of no use here, because a run that computes is work that
    does not wait. Raises OSError, KeyError or ValueError where it is not told.
    """
    lines = (root / "proc/pressure/memory").read_text(encoding="ascii").splitlines()
    fields = dict(field.split("=") for line in lines if line.startswith("some") for field in line.split()[1:])
    return float(fields["avg10"])


def macos_pressure_level(command: str = "/usr/sbin/sysctl") -> int:
    """1 normal, 2 warning, 4 critical. Raises OSError or ValueError where it is not told."""
    told = subprocess.run(
        [command, "-n", "kern.memorystatus_vm_pressure_level"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return int(told.stdout)


def battery_percent() -> float | None:
    """Percent of the battery while the machine runs on it; None on the mains and without a battery."""
    battery = psutil.sensors_battery()
    if battery is None or battery.power_plugged or battery.percent is None:
        return None
    return float(battery.percent)
