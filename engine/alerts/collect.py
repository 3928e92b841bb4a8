"""Readings of this machine, cheap enough for a process that reads every few seconds for days.

What costs more is read less often, and who keeps the processor busy only while it is busy.
"""

from __future__ import annotations

import http.client
import time
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from engine.alerts.diagnosis import OTHERS_FROM
from engine.alerts.machine_rules import CPU_BELOW
from engine.alerts.readings import MachineReading
from engine.core.errors import H2QError
from engine.machine.pressure import battery_percent
from engine.machine.probe import read_or_none
from engine.machine.probes import MachineProbes, MachineSample, cpu_temperature
from engine.models.ollama.client import local_host
from engine.models.ollama.running import running_models

WINDOW_S = 600.0
"""Of the growth of the swap and of the kernel's kills."""
SLOWLY_S = 30.0
"""Between two readings of battery, temperature and Ollama."""
OLLAMA_TIMEOUT_S = 1.0
PROCESSES_EVERY_S = 15.0
"""Between two looks at the list of processes, which is the dearest reading."""
_BUSY_ENOUGH = CPU_BELOW / 2


def oom_kills(root: Path = Path("/")) -> int:
    """Processes that the kernel has killed for want of memory since the machine started. Raises OSError, KeyError.

    `oom_kill` of /proc/vmstat counts those of memory cgroups too (Linux 4.13).
    """
    lines = (root / "proc/vmstat").read_text(encoding="ascii").splitlines()
    return int(dict(line.split() for line in lines)["oom_kill"])


def ollama_answers() -> bool:
    """Whether an Ollama on this machine answers."""
    try:
        address = urlsplit(local_host())
        connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=OLLAMA_TIMEOUT_S
        )
        try:
            connection.request("GET", "/api/version")
            return connection.getresponse().status == 200
        finally:
            connection.close()
    except (H2QError, OSError, ValueError, http.client.HTTPException):
        return False


class _TenMinutes:
    """A counter or level over the last ten minutes."""

    def __init__(self) -> None:
        self._values: deque[tuple[float, int]] = deque()

    def growth(self, now: float, value: int | None) -> int | None:
        """How much higher `value` is than the lowest of the window."""
        if value is None:
            return None
        self._values.append((now, value))
        while now - self._values[0][0] > WINDOW_S:
            self._values.popleft()
        return value - min(seen for _t, seen in self._values)


class MachineCollector:
    """Reads the machine; keeps earlier readings for rates."""

    def __init__(
        self,
        folder: Path,
        *,
        temperature_limit_c: float = 95.0,
        oom_before: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`folder` is on the disk to watch; `oom_before` is the counter that an earlier watcher saw last."""
        self._probes = MachineProbes(folder, clock=clock, temperature=False)
        self._clock, self._limit = clock, temperature_limit_c
        self.sample: MachineSample | None = None
        """What the last reading was made of."""
        self._swap, self._oom = _TenMinutes(), _TenMinutes()
        self.oom_count = oom_before
        if oom_before is not None:
            self._oom.growth(clock(), oom_before)
        self._slow_at = -SLOWLY_S
        self._temperature: float | None = None
        self._battery: float | None = None
        self._ollama: bool | None = None
        self._models: tuple[str, ...] = ()
        self._own: tuple[float, float] | None = None
        self._others: float | None = None
        self._seen: dict[int, float] = {}
        self._busiest = ""

    def read(self, pids: Collection[int] = ()) -> MachineReading:
        """One reading; `pids` are the processes of the runs, whose part of the processor is not that of others."""
        sample = self.sample = self._probes.sample()
        now = sample.time
        if abs(now - self._slow_at) >= SLOWLY_S:
            self._slow_at = now
            self._read_slowly()
        cpu = sum(sample.cpu_percent) / len(sample.cpu_percent) if sample.cpu_percent else None
        others = self._others_percent(cpu, pids)
        kills = read_or_none(oom_kills)
        if kills is not None:
            self.oom_count = kills
        return MachineReading(
            t=now,
            cpu_percent=cpu,
            cpu_others_percent=others,
            memory_percent=_memory_percent(sample),
            memory_available=_available(sample),
            swap_grown=self._swap.growth(now, sample.swap_used),
            oom_kills=self._oom.growth(now, kills),
            disk_free=sample.disk_free,
            disk_full_in_s=sample.disk_full_in_s,
            temperature_c=self._temperature,
            temperature_limit_c=self._limit,
            battery_percent=self._battery,
            ollama=self._ollama,
            ollama_models=self._models,
            busiest=self._busiest,
        )

    def _read_slowly(self) -> None:
        self._temperature = read_or_none(cpu_temperature)
        self._battery = read_or_none(battery_percent)
        answers = ollama_answers()
        if answers or self._ollama is not None:
            self._ollama = answers
        self._models = tuple(model.name for model in running_models()) if answers else ()

    def _others_percent(self, cpu: float | None, pids: Collection[int]) -> float | None:
        """The part of the processor that others use; None while it is not known, as with a training on a calm machine."""
        if cpu is None or cpu < _BUSY_ENOUGH:
            self._own, self._seen, self._busiest, self._others = None, {}, "", None
            return None if pids else cpu
        now = time.monotonic()
        if self._own is not None and now - self._own[0] < PROCESSES_EVERY_S:
            return self._others
        before = self._own
        own = {pid for root in pids for pid in _tree(root)}
        seconds = sum(_cpu_seconds(pid) for pid in own)
        self._own = (now, seconds)
        if before is not None:
            share = 100 * max(0.0, seconds - before[1]) / (now - before[0]) / (psutil.cpu_count() or 1)
            self._others = max(0.0, cpu - share)
        if self._others is not None and self._others >= OTHERS_FROM:
            self._find_busiest(own)
        else:
            self._seen, self._busiest = {}, ""
        return self._others

    def _find_busiest(self, own: Collection[int]) -> None:
        seen = {pid: _cpu_seconds(pid) for pid in psutil.pids() if pid not in own}
        grown = {pid: value - self._seen[pid] for pid, value in seen.items() if pid in self._seen}
        self._seen = seen
        pid = max(grown, key=lambda one: grown[one], default=None)
        if pid is None or grown[pid] < 0.1:
            self._busiest = ""
            return
        name = read_or_none(lambda: psutil.Process(pid).name())
        self._busiest = f"{name} ({pid})" if name else ""


def _memory_percent(sample: MachineSample) -> float | None:
    if sample.memory_used is None or not sample.memory_total:
        return None
    return 100 * sample.memory_used / sample.memory_total


def _available(sample: MachineSample) -> int | None:
    if sample.memory_used is None or sample.memory_total is None:
        return None
    return sample.memory_total - sample.memory_used


def _tree(pid: int) -> list[int]:
    children = read_or_none(lambda: psutil.Process(pid).children(recursive=True))
    return [pid, *(child.pid for child in children or [])]


def _cpu_seconds(pid: int) -> float:
    times = read_or_none(lambda: psutil.Process(pid).cpu_times())
    return float(times.user + times.system) if times is not None else 0.0
