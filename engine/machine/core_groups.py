"""Groups of processor cores that are worth a graph of their own: performance and efficiency cores, NUMA nodes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from engine.machine.probe import read_or_none

MAX_GROUPS = 4
"""More groups than this are shown as one."""
_PERFORMANCE_FROM = 0.6
"""Share of the largest capacity from which a core of an ARM processor is a performance core."""


class CoreGroup(msgspec.Struct, frozen=True):
    """Logical processors, by number; `id` is "all", "performance", "efficiency" or "node" with its number."""

    id: str
    cores: tuple[int, ...]


def find_core_groups(
    count: int, root: Path = Path("/"), platform: str = sys.platform
) -> tuple[CoreGroup, ...]:
    """The groups of a machine with `count` logical processors, the fastest first; never raises and never empty.

    `root` replaces `/` where files of the kernel are read.
    """
    found = _apple_groups(count) if platform == "darwin" else _linux_groups(root)
    groups = tuple(
        CoreGroup(group.id, cores)
        for group in found
        if (cores := tuple(core for core in group.cores if core < count))
    )
    return groups if 2 <= len(groups) <= MAX_GROUPS else (CoreGroup("all", tuple(range(count))),)


def parse_cores(text: str) -> tuple[int, ...]:
    """The numbers of a kernel list such as "0-3,8". Raises ValueError."""
    cores: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.partition("-")
        cores += range(int(first), int(last if dash else first) + 1)
    return tuple(cores)


def _linux_groups(root: Path) -> list[CoreGroup]:
    """Of an Intel processor by the kernel's names of its cores, of an ARM processor by capacity, else NUMA nodes."""
    devices = root / "sys/devices"
    fast, slow = _read_cores(devices / "cpu_core/cpus"), _read_cores(devices / "cpu_atom/cpus")
    if not slow:
        fast, slow = _by_capacity(devices / "system/cpu")
    if fast and slow:
        return [CoreGroup("performance", fast), CoreGroup("efficiency", slow)]
    nodes = sorted(
        (int(folder.name[4:]), _read_cores(folder / "cpulist"))
        for folder in (devices / "system/node").glob("node[0-9]*")
        if folder.name[4:].isdecimal()
    )
    return [CoreGroup(f"node{number}", cores) for number, cores in nodes]


def _read_cores(file: Path) -> tuple[int, ...]:
    return read_or_none(lambda: parse_cores(file.read_text(encoding="ascii"))) or ()


def _by_capacity(folder: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Performance and efficiency cores by `cpu_capacity`, which the kernel has on ARM."""
    capacity: dict[int, int] = {}
    for file in folder.glob("cpu[0-9]*/cpu_capacity"):
        value = read_or_none(lambda file=file: int(file.read_text(encoding="ascii")))  # type: ignore[misc]
        if value is not None:
            capacity[int(file.parent.name[3:])] = value
    bound = _PERFORMANCE_FROM * max(capacity.values(), default=0)
    fast = tuple(sorted(core for core, value in capacity.items() if value >= bound))
    return fast, tuple(sorted(capacity.keys() - set(fast)))


def apple_groups(names: dict[str, str], count: int) -> list[CoreGroup]:
    """The groups of an Apple processor from the values of `sysctl`, by name; empty for another processor.

    Apple numbers the efficiency cores of a die first. An Ultra has two dies.
    """
    try:
        fast, slow = int(names["hw.perflevel0.logicalcpu"]), int(names["hw.perflevel1.logicalcpu"])
    except (KeyError, ValueError):
        return []
    if fast + slow != count or not fast or not slow:
        return []
    dies = 2 if "Ultra" in names.get("machdep.cpu.brand_string", "") else 1
    size, first = count // dies, slow // dies
    efficiency = tuple(core for core in range(count) if core % size < first)
    performance = tuple(core for core in range(count) if core % size >= first)
    return [CoreGroup("performance", performance), CoreGroup("efficiency", efficiency)]


def _apple_groups(count: int) -> list[CoreGroup]:
    return apple_groups(read_or_none(_sysctl) or {}, count)


def _sysctl(command: str = "/usr/sbin/sysctl") -> dict[str, str]:
    """Values of the processor by name. Raises OSError."""
    names = ("hw.perflevel0.logicalcpu", "hw.perflevel1.logicalcpu", "machdep.cpu.brand_string")
    output = subprocess.run(
        [command, *names], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5.0
    ).stdout
    return dict(line.split(": ", 1) for line in output.splitlines() if ": " in line)
