"""Checks of the machine: Python, system, processor, memory and its compression."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import NamedTuple

import psutil

from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.health.grades import GB, Judgement, NotKnown, as_root, fails, passes, warns
from engine.health.reading import read_text, run_program
from engine.machine.cgroup import memory_limit_bytes
from engine.machine.cpu import usable_cores

_LEAST_PYTHON = (3, 11)
_ZRAM = "sh -c 'modprobe zram && d=$(zramctl -f -s 2G) && mkswap $d && swapon -p 100 $d'"


class PythonReading(NamedTuple):
    version: tuple[int, int, int]
    path: str


def read_python(_ws: Workspace) -> PythonReading:
    return PythonReading(sys.version_info[:3], sys.executable)


def judge_python(reading: PythonReading) -> Judgement:
    version = ".".join(map(str, reading.version))
    text = _("{version} at {path}").format(version=version, path=reading.path)
    if reading.version < _LEAST_PYTHON:
        return fails(_("{detail}; {least} is needed").format(detail=text, least="3.11"))
    return passes(text)


class SystemReading(NamedTuple):
    name: str
    """As `platform.system()` names it: "Linux", "Darwin"."""
    release: str
    machine: str


def read_system(_ws: Workspace) -> SystemReading:
    return SystemReading(platform.system(), platform.release(), platform.machine())


def judge_system(reading: SystemReading) -> Judgement:
    text = f"{reading.name} {reading.release} ({reading.machine})"
    if reading.name not in ("Linux", "Darwin"):
        return fails(_("{system}: Linux or macOS is needed; on Windows use WSL2").format(system=text))
    return passes(text)


class CoresReading(NamedTuple):
    usable: int
    load: float
    """Average of the last minute."""


def read_cores(_ws: Workspace) -> CoresReading:
    return CoresReading(usable_cores(), os.getloadavg()[0])


def judge_cores(reading: CoresReading) -> Judgement:
    text = _("{cores} usable, load {load:.1f}").format(cores=reading.usable, load=reading.load)
    if reading.usable < 2:
        return warns(_("{detail}; training on one core is slow").format(detail=text))
    if reading.load > 2 * reading.usable:
        return warns(_("{detail}: the machine is busy with other work").format(detail=text))
    return passes(text)


class MemoryReading(NamedTuple):
    """Bytes."""

    total: int
    available: int
    limit: int | None = None
    """Of the cgroup."""


def read_memory(_ws: Workspace) -> MemoryReading:
    memory = psutil.virtual_memory()
    return MemoryReading(memory.total, memory.available, memory_limit_bytes())


def judge_memory(reading: MemoryReading) -> Judgement:
    total = min(reading.total, reading.limit or reading.total)
    free = min(reading.available, total)
    text = _("{free:.1f} of {total:.1f} GB available").format(free=free / GB, total=total / GB)
    if total < 2 * GB:
        return fails(_("{detail}; 2 GB are needed").format(detail=text))
    if free < 1.5 * GB:
        return warns(_("{detail}; close other programs before training").format(detail=text))
    return passes(text)


class CompressionReading(NamedTuple):
    """What the system does before it kills a process for want of memory."""

    system: str
    memory: int
    """Bytes of memory."""
    swaps: tuple[tuple[str, int], ...] = ()
    """Device and bytes of each line of `/proc/swaps`."""
    zswap: bool | None = None
    """None where the kernel has none."""
    compressor_mode: int | None = None
    """`vm.compressor_mode` of macOS: 1 neither, 2 compression, 4 compression and swap (xnu, `vm_pageout.h`)."""


def read_compression(_ws: Workspace, root: Path = Path("/")) -> CompressionReading:
    system, memory = platform.system(), psutil.virtual_memory().total
    if system == "Darwin":
        return CompressionReading(
            system, memory, compressor_mode=parse_sysctl(run_program("sysctl", "vm.compressor_mode"))
        )
    swaps = read_text(root / "proc/swaps")
    if swaps is None:
        raise NotKnown(_("{path} cannot be read").format(path="/proc/swaps"))
    zswap = read_text(root / "sys/module/zswap/parameters/enabled")
    enabled = None if zswap is None else zswap.strip() in ("Y", "1")
    return CompressionReading(system, memory, parse_swaps(swaps), enabled)


def parse_swaps(text: str) -> tuple[tuple[str, int], ...]:
    """Device and bytes of each line of `/proc/swaps` (sizes in KiB, proc(5))."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return tuple((row[0], int(row[2]) << 10) for row in rows if len(row) >= 3 and row[2].isdigit())


def parse_sysctl(text: str) -> int:
    """The number in the output of `sysctl NAME`, with the name before it or without. Raises NotKnown."""
    value = text.strip().rpartition(":")[2].strip()
    if not value.isdigit():
        raise NotKnown(_("sysctl prints something else: {text}").format(text=text.strip()[:80]))
    return int(value)


def judge_compression(reading: CompressionReading) -> Judgement:
    if reading.system == "Darwin":
        mode = f"vm.compressor_mode {reading.compressor_mode}"
        if not (reading.compressor_mode or 0) & ~1:
            text = _("{detail}: memory is not compressed; a run that needs more ends sooner")
            return warns(text.format(detail=mode), "nvram boot-args")
        return passes(_("{detail}: memory is compressed").format(detail=mode))
    total = sum(size for _device, size in reading.swaps) / GB
    zram = sum(size for device, size in reading.swaps if "zram" in device) / GB
    if zram:
        return passes(_("zram, {size:.1f} GB").format(size=zram))
    if reading.zswap and reading.swaps:
        return passes(_("zswap, before {size:.1f} GB of swap").format(size=total))
    if reading.swaps:
        return passes(_("{size:.1f} GB of swap, not compressed").format(size=total))
    text = _("neither swap nor compressed memory: the system kills a process when memory runs out")
    return warns(text, as_root(_ZRAM)) if reading.memory < 16 * GB else passes(text)
