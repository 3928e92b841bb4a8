"""Which processors a run may use and how much of them: `cpu_affinity` and `max_cpu_percent`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from engine.core.errors import UsageProblem
from engine.core.i18n import _
from engine.machine.probes import read_or_none

WINDOW_S = 10.0
"""Processor time and wall time are held against each other over this long."""
NAP_S = 0.25
"""A pause is made of naps, so that a command need not wait for its end."""


def usable_cores() -> int:
    """Logical processors that this process may use."""
    usable = read_or_none(lambda: len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else None
    return usable or os.cpu_count() or 1


def parse_cpu_list(text: str, allowed: set[int], root: Path = Path("/")) -> set[int]:
    """The processors that "0-3,6" or "auto" (one of each physical core) mean; `allowed` where it is empty.

    `root` stands for `/`. Raises UsageProblem for what is not a list or names none that may be used.
    """
    text = text.strip().lower()
    if text == "":
        return allowed
    if text == "auto":
        return _one_of_each_core(allowed, root)
    chosen: set[int] = set()
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            chosen |= set(range(int(first), int(last if dash else first) + 1))
    except ValueError:
        chosen = set()
    if not chosen or not chosen <= allowed:
        raise UsageProblem(
            _("cpu_affinity takes processors such as 0-3,6 out of {allowed}, or auto, not {value}").format(
                allowed=",".join(map(str, sorted(allowed))), value=text
            ),
            hint="h2q-tui train --set cpu_affinity=auto",
        )
    return chosen


def _one_of_each_core(allowed: set[int], root: Path) -> set[int]:
    """The first allowed processor of each set of hyperthreads; all where the system does not tell."""
    cores: dict[str, int] = {}
    for number in sorted(allowed):
        folder = root / f"sys/devices/system/cpu/cpu{number}/topology"
        try:
            core = (folder / "thread_siblings_list").read_text(encoding="ascii").strip()
        except OSError:
            core = str(number)
        cores.setdefault(core, number)
    return set(cores.values())


def check_cpu_affinity(text: str) -> None:
    """Raises UsageProblem as `chosen_processors` does, on a system that can bind a process."""
    if hasattr(os, "sched_setaffinity"):
        parse_cpu_list(text, os.sched_getaffinity(0))


def set_cpu_affinity(text: str) -> str:
    """Binds this process with all its threads to the processors that `text` means; what came of it in words.

    Raises UsageProblem as `chosen_processors` does.
    """
    if not text.strip():
        return ""
    if not hasattr(os, "sched_setaffinity"):
        return _("cpu_affinity is not possible on this system; all processors are used")
    chosen = parse_cpu_list(text, os.sched_getaffinity(0))
    os.sched_setaffinity(0, chosen)
    # The line above is about this thread and those it begins; libraries have begun some already.
    for thread in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), chosen)
    return _("uses the processors {numbers}").format(numbers=",".join(map(str, sorted(chosen))))


def throttle_pause(cpu_s: float, wall_s: float, processors: int, percent: float) -> float:
    """Seconds of rest after which `cpu_s` within the wall time are `percent` of `processors` together."""
    return max(0.0, cpu_s / (processors * percent / 100) - wall_s)


class Throttle:
    """Keeps training within `percent` of all processors, by rests between its steps."""

    def __init__(
        self,
        percent: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.percent = percent
        self._clock, self._cpu, self._sleep = clock, cpu, sleep
        self._since = (clock(), cpu())

    def rest(self, stopped: Callable[[], bool]) -> float:
        """After a step: rests as long as it takes, or until `stopped`; gives the seconds rested."""
        if self.percent >= 100:
            return 0.0
        begin, before = self._since
        now = self._clock()
        wait = throttle_pause(self._cpu() - before, now - begin, os.cpu_count() or 1, self.percent)
        end = now + wait
        while (left := end - self._clock()) > 0 and not stopped():
            self._sleep(min(left, NAP_S))
        if self._clock() - begin > WINDOW_S:
            self._since = (self._clock(), self._cpu())
        return wait


class ProcessTreeCpu:
    """Samples of the process tree: the share of all cores that it used since the sample before."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._process = psutil.Process()
        self._clock = clock
        self._before = self._seconds()
        self._at = clock()

    def sample(self) -> float:
        """Percent of the whole machine, 0 to 100. What a child did before the first look at it is not counted."""
        now, after = self._clock(), self._seconds()
        spent = sum(after[pid] - self._before[pid] for pid in after if pid in self._before)
        share = spent / (now - self._at) / (psutil.cpu_count() or 1) if now > self._at else 0.0
        self._before, self._at = after, now
        return round(100 * max(0.0, min(1.0, share)), 1)

    def _seconds(self) -> dict[int, float]:
        found = {}
        with contextlib.suppress(psutil.Error):
            for process in (self._process, *self._process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    found[process.pid] = times.user + times.system
        return found
