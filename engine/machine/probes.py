"""What the machine says of itself: processor, memory, disk, temperature, and the memory of a run.

psutil only, never root, never an exception: what cannot be read is None and shown as unknown.
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

T = TypeVar("T")

DISK_WINDOW_S = 15 * 60.0
"""How far back the trend of the free space looks."""
DISK_SPAN_S = 60.0
"""What it needs to have seen before it says anything."""
_CORES = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "acpitz", "soc_thermal")


class MachineSample(msgspec.Struct, frozen=True, kw_only=True):
    """One look. Sizes in bytes, shares in percent, None for what cannot be read."""

    time: float
    cpu_percent: list[float] | None
    """Busy share of each core since the look before."""
    load: tuple[float, float, float] | None
    memory_total: int | None
    memory_used: int | None
    """Total minus available: what cannot be had without swapping."""
    swap_total: int | None
    swap_used: int | None
    disk_free: int | None
    disk_total: int | None
    disk_full_in_s: float | None
    """Seconds until the disk is full at the present pace; None when the free space does not fall."""
    temperature_c: float | None
    run_memory: int | None = None
    """Resident bytes of the process tree that was asked for."""


def read_or_none(probe: Callable[[], T]) -> T | None:
    """What `probe` gives, or None: reading the machine never ends the program (no permission, no such file,
    a kernel that has it elsewhere)."""
    try:
        return probe()
    except (OSError, psutil.Error, AttributeError, NotImplementedError, RuntimeError, ValueError, KeyError):
        return None


class MachineProbes:
    """Takes snapshots; remembers what is needed to tell a pace."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        """`folder` lies on the disk that is watched; it need not exist yet."""
        self._folder = folder
        self._clock = clock
        self._times: list[tuple[float, float]] | None = read_or_none(_cpu_times)
        self._free: deque[tuple[float, int]] = deque()

    def sample(self, pid: int | None = None) -> MachineSample:
        """A look at everything; with `pid`, also at that process and its children. About 2 ms."""
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
            temperature_c=read_or_none(cpu_temperature),
            run_memory=None if pid is None else read_or_none(lambda: tree_memory(pid)),
        )

    def _cpu(self) -> list[float] | None:
        before, after = self._times, read_or_none(_cpu_times)
        self._times = after
        if before is None or after is None or len(before) != len(after):
            return None
        shares = []
        for (busy0, all0), (busy1, all1) in zip(before, after, strict=True):
            span = all1 - all0
            shares.append(round(100 * max(0.0, min(1.0, (busy1 - busy0) / span)), 1) if span > 0 else 0.0)
        return shares

    def _disk(self) -> tuple[int, int]:
        folder = next(place for place in (self._folder, *self._folder.parents) if place.exists())
        usage = psutil.disk_usage(str(folder))
        return usage.free, usage.total

    def _full_in(self, now: float, free: int) -> float | None:
        self._free.append((now, free))
        while self._free and now - self._free[0][0] > DISK_WINDOW_S:
            self._free.popleft()
        since, before = self._free[0]
        if now - since < DISK_SPAN_S or free >= before:
            return None
        return free / ((before - free) / (now - since))


def tree_memory(pid: int) -> int:
    """Resident bytes of a process and its descendants. Raises psutil.Error when it is gone or not ours."""
    root = psutil.Process(pid)
    total = int(root.memory_info().rss)
    for child in root.children(recursive=True):
        total += read_or_none(lambda child=child: int(child.memory_info().rss)) or 0  # type: ignore[misc]
    return total


def _cpu_times() -> list[tuple[float, float]]:
    """(busy, all) seconds of each core."""
    found = []
    for core in psutil.cpu_times(percpu=True):
        everything = sum(core) - getattr(core, "guest", 0.0) - getattr(core, "guest_nice", 0.0)
        idle = core.idle + getattr(core, "iowait", 0.0)
        found.append((everything - idle, everything))
    if not found:
        raise RuntimeError("no core")
    return found


def cpu_temperature() -> float | None:
    """Of the processor, degrees Celsius; None on machines that tell nobody (macOS without root, most VMs)."""
    sensors = psutil.sensors_temperatures()
    for name in (*_CORES, *sensors):
        readings = [entry.current for entry in sensors.get(name, ()) if entry.current]
        if readings:
            return float(max(readings))
    return None
