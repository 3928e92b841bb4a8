"""The power that the machine draws, where it can be read without root: RAPL, sensors of boards, the battery."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from engine.machine.probe import read_or_none

MICRO = 1e-6


class PowerMeter:
    """Reads watts; keeps the last energy counters for their rate."""

    def __init__(self, root: Path = Path("/"), *, clock: Callable[[], float] = time.monotonic) -> None:
        """`root` replaces `/` where files of the kernel are read."""
        self._root, self._clock = root, clock
        # Packages only: cores and memory controllers are parts of them. Since 2020 most kernels show them to root alone.
        self._zones = [
            zone
            for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
            if zone.name.count(":") == 1 and _read_int(zone / "energy_uj") is not None
        ]
        self._before: tuple[float, list[int | None]] | None = None

    def read(self) -> float | None:
        """Watts of the processor packages, else of a sensor, else what is drawn from the battery; None without any."""
        if self._zones:
            return self._rapl()
        return self._sensor() or self._battery()

    def _rapl(self) -> float | None:
        now, counters = self._clock(), [_read_int(zone / "energy_uj") for zone in self._zones]
        before, self._before = self._before, (now, counters)
        if before is None or now <= before[0]:
            return None
        used = 0.0
        for zone, old, new in zip(self._zones, before[1], counters, strict=True):
            if old is None or new is None:
                return None
            # The counter starts again at 0 above its range.
            used += new - old if new >= old else new - old + (_read_int(zone / "max_energy_range_uj") or 0)
        return used * MICRO / (now - before[0])

    def _sensor(self) -> float | None:
        folder = self._root / "sys/class/hwmon"
        found = [
            value
            for name in ("power1_average", "power1_input")
            for file in sorted(folder.glob(f"hwmon*/{name}"))
            if (value := _read_int(file))
        ]
        return max(found) * MICRO if found else None

    def _battery(self) -> float | None:
        """Only while the machine runs on its battery: the current of a charging one is not what the machine draws."""
        for supply in sorted((self._root / "sys/class/power_supply").glob("BAT*")):
            status = read_or_none(lambda supply=supply: (supply / "status").read_text(encoding="ascii"))  # type: ignore[misc]
            if status is None or status.strip() != "Discharging":
                continue
            power = _read_int(supply / "power_now")
            if power is None:
                current, voltage = _read_int(supply / "current_now"), _read_int(supply / "voltage_now")
                power = None if current is None or voltage is None else round(current * voltage * MICRO)
            if power:
                return abs(power) * MICRO
        return None


def _read_int(file: Path) -> int | None:
    return read_or_none(lambda: int(file.read_text(encoding="ascii")))
