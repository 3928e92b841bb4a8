"""Samples of the machine: processor, memory, pressure, disk, heat, power, graphics, and the memory of a run.

Needs no root and never raises: a value that cannot be read is None and shown as unknown.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from engine.machine.accelerators import GpuSample, NvidiaGpus
from engine.machine.cgroup import memory_limit_bytes
from engine.machine.core_groups import CoreGroup, find_core_groups
from engine.machine.disk import DiskTraffic, FreeSpaceTrend, time_until_full
from engine.machine.macmon import find_macmon, run_macmon
from engine.machine.power import PowerMeter
from engine.machine.probe import read_or_none
from engine.machine.process_memory import tree_memory
from engine.machine.stalls import macos_pressure_level, stalled_percent

SLOWLY_S = 10.0
"""Between two readings of what changes slowly and costs most: temperature, power, macmon, the limit of the cgroup."""
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
    core_groups: tuple[CoreGroup, ...] = ()
    """The cores of `cpu_percent` in groups, the fastest first."""
    memory_cached: int | None = None
    """Files in memory that are given up when a program needs it."""
    memory_limit: int | None = None
    """Limit of the memory cgroup that the program runs in."""
    cpu_stalled_percent: float | None = None
    memory_stalled_percent: float | None = None
    io_stalled_percent: float | None = None
    """Share of the last 10 s in which some program waited for it (Linux, PSI `some avg10`)."""
    pressure_level: int | None = None
    """Memory pressure of macOS: 1 normal, 2 warning, 4 critical."""
    disk_fill_rate: float | None = None
    """Bytes per second by which the free space shrinks; negative while space is freed."""
    disk_read_rate: float | None = None
    disk_write_rate: float | None = None
    """Bytes per second, all disks."""
    power_w: float | None = None
    gpus: tuple[GpuSample, ...] = ()


class MachineProbes:
    """Samples the machine; keeps earlier readings for rates."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
        temperature: bool = True,
        devices: bool = False,
    ) -> None:
        """`folder` is on the disk to watch; it need not exist yet. Without `temperature`, its sensors are not read;
        with `devices`, power and graphics processors are."""
        self._reads_temperature = temperature
        self._folder = folder
        self._clock = clock
        self._times: list[tuple[float, float]] | None = read_or_none(_cpu_times)
        self._trend, self._traffic = FreeSpaceTrend(), DiskTraffic()
        self._groups: tuple[CoreGroup, ...] = ()
        self._slow_at = -SLOWLY_S
        self._temperature = self._power = None
        self._limit: int | None = None
        self._level: int | None = None
        self._apple: GpuSample | None = None
        self._meter = PowerMeter() if devices else None
        self._nvidia = NvidiaGpus() if devices else None
        self._macmon = find_macmon() if devices and sys.platform == "darwin" else None

    _temperature: float | None
    _power: float | None

    def sample(self, pid: int | None = None) -> MachineSample:
        """Samples everything; with `pid`, also that process and its children. Takes about 2 ms."""
        now = self._clock()
        if not 0 <= now - self._slow_at < SLOWLY_S:
            self._slow_at = now
            self._read_slowly()
        memory = read_or_none(psutil.virtual_memory)
        swap = read_or_none(psutil.swap_memory)
        disk = read_or_none(self._disk)
        free = None if disk is None else disk[0]
        filling = None if free is None else self._trend.add(now, free)
        traffic = self._traffic.read(now)
        cores = self._cpu()
        if cores is not None and not self._groups:
            self._groups = find_core_groups(len(cores))
        return MachineSample(
            time=now,
            cpu_percent=cores,
            load=read_or_none(os.getloadavg),
            memory_total=None if memory is None else memory.total,
            memory_used=None if memory is None else memory.total - memory.available,
            swap_total=None if swap is None else swap.total,
            swap_used=None if swap is None else swap.used,
            disk_free=free,
            disk_total=None if disk is None else disk[1],
            disk_full_in_s=None if free is None else time_until_full(free, filling),
            temperature_c=self._temperature,
            run_memory=None if pid is None else read_or_none(lambda: tree_memory(pid)),
            core_groups=self._groups,
            memory_cached=None if memory is None else max(0, memory.available - memory.free),
            memory_limit=self._limit,
            cpu_stalled_percent=read_or_none(lambda: stalled_percent("cpu")),
            memory_stalled_percent=read_or_none(lambda: stalled_percent("memory")),
            io_stalled_percent=read_or_none(lambda: stalled_percent("io")),
            pressure_level=self._level,
            disk_fill_rate=filling,
            disk_read_rate=None if traffic is None else traffic[0],
            disk_write_rate=None if traffic is None else traffic[1],
            power_w=self._power,
            gpus=self._gpus(),
        )

    def _read_slowly(self) -> None:
        self._limit = read_or_none(memory_limit_bytes)
        if self._reads_temperature:
            self._temperature = read_or_none(cpu_temperature)
        if self._meter is not None:
            self._power = self._meter.read()
        if sys.platform == "darwin":
            self._level = read_or_none(macos_pressure_level)
        if self._macmon is not None and (found := read_or_none(lambda: run_macmon(str(self._macmon)))):
            self._apple, self._power = found.gpu, found.power_w
            self._temperature = found.temperature_c if self._reads_temperature else None

    def _gpus(self) -> tuple[GpuSample, ...]:
        found = self._nvidia.read() if self._nvidia is not None else []
        return (*found, self._apple) if self._apple is not None else tuple(found)

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
