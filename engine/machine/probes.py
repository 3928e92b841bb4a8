"""Samples of the machine: processor, memory, disk, temperature, and the memory of a run.

Needs no root and never raises: a value that cannot be read is None and shown as unknown.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil

from engine.machine.process_memory import tree_memory

T = TypeVar("T")

DISK_WINDOW_S = 15 * 60.0
"""Window of the trend of the free disk space."""
MIN_DISK_SPAN_S = 60.0
"""Shortest span of readings that gives a trend."""
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "acpitz", "soc_thermal")


class MachineSample(msgspec.Struct, frozen=True, kw_only=True):
    """One sample. Sizes in bytes, shares in percent; None for a value that cannot be read."""

    time: float
    cpu_percent: list[float] | None
    """Busy share of each core since the last sample."""
    load: tuple[float, float, float] | None
    memory_total: int | None
    memory_used: int | None
    """Total minus available: cannot be allocated without swapping."""
    swap_total: int | None
    swap_used: int | None
    disk_free: int | None
    disk_total: int | None
    disk_full_in_s: float | None
    """Seconds until the disk is full at the current rate; None when the free space does not shrink."""
    temperature_c: float | None
    run_memory: int | None = None
    """Resident bytes of the process tree of the run."""


def read_or_none(probe: Callable[[], T]) -> T | None:
    """Result of `probe`; None when the system does not provide it (no permission, no such file, another kernel)."""
    try:
        return probe()
    except (OSError, psutil.Error, AttributeError, NotImplementedError, RuntimeError, ValueError, KeyError):
        return None


class MachineProbes:
    """Samples the machine; keeps earlier readings for rates."""

    def __init__(
        self, folder: Path, *, clock: Callable[[], float] = time.time, temperature: bool = True
    ) -> None:
        """`folder` is on the disk to watch; it need not exist yet. Without `temperature`, its sensors are not read."""
        self._reads_temperature = temperature
        self._folder = folder
        self._clock = clock
        self._times: list[tuple[float, float]] | None = read_or_none(_cpu_times)
        self._free: deque[tuple[float, int]] = deque()

    def sample(self, pid: int | None = None) -> MachineSample:
        """Samples everything; with `pid`, also that process and its children. Takes about 2 ms."""
        now = self._clock()
        memory = read_or_none(psutil.virtual_memory)
        swap = read_or_none(psutil.swap_memory)
        disk = read_or_none(self._disk)
        free = None if disk is None else disk[0]
        return MachineSample(
            time=now,
            cpu_percent=self._cpu(),
            load=read_or_none(os.getloadavg),
            memory_total=None if memory is None else memory.total,
            memory_used=None if memory is None else memory.total - memory.available,
            swap_total=None if swap is None else swap.total,
            swap_used=None if swap is None else swap.used,
            disk_free=free,
            disk_total=None if disk is None else disk[1],
            disk_full_in_s=None if free is None else self._full_in(now, free),
            temperature_c=read_or_none(cpu_temperature) if self._reads_temperature else None,
            run_memory=None if pid is None else read_or_none(lambda: tree_memory(pid)),
        )

    def _cpu(self) -> list[float] | None:
        before, after = self._times, read_or_none(_cpu_times)
        self._times = after
        if before is None or after is None or len(before) != len(after):
            return None
        shares = []
        for (busy0, total0), (busy1, total1) in zip(before, after, strict=True):
            span = total1 - total0
            shares.append(round(100 * max(0.0, min(1.0, (busy1 - busy0) / span)), 1) if span > 0 else 0.0)
        return shares

    def _disk(self) -> tuple[int, int]:
        folder = next(path for path in (self._folder, *self._folder.parents) if path.exists())
        usage = psutil.disk_usage(str(folder))
        return usage.free, usage.total

    def _full_in(self, now: float, free: int) -> float | None:
        self._free.append((now, free))
        while self._free and now - self._free[0][0] > DISK_WINDOW_S:
            self._free.popleft()
        since, before = self._free[0]
        if now - since < MIN_DISK_SPAN_S or free >= before:
            return None
        return free / ((before - free) / (now - since))


def _cpu_times() -> list[tuple[float, float]]:
    """(busy, total) seconds of each core."""
    times = []
    for core in psutil.cpu_times(percpu=True):
        total = sum(core) - getattr(core, "guest", 0.0) - getattr(core, "guest_nice", 0.0)
        idle = core.idle + getattr(core, "iowait", 0.0)
        times.append((total - idle, total))
    if not times:
        raise RuntimeError("no core")
    return times


def cpu_temperature() -> float | None:
    """Processor temperature in degrees Celsius; None without a readable sensor (macOS without root, most VMs)."""
    sensors = psutil.sensors_temperatures()
    for name in (*_CPU_SENSORS, *sensors):
        readings = [entry.current for entry in sensors.get(name, ()) if entry.current]
        if readings:
            return float(max(readings))
    return None
