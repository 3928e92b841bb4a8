"""Processors: which ones a run may use (`cpu_affinity`), how much of them (`max_cpu_percent`), and their load."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from engine.core.errors import UsageProblem
from engine.core.i18n import _
from engine.machine.probe import read_or_none

WINDOW_S = 10.0
"""Period over which processor time is compared with wall time."""
PAUSE_SLICE_S = 0.25
"""A pause is sliced so that commands are handled without delay."""


def allowed_cores() -> tuple[int, ...]:
    """Logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """Number of logical processors that this process may use."""
    return len(read_or_none(allowed_cores) or ()) or os.cpu_count() or 1


def bind_threads(cores: Iterable[int]) -> None:
    """Binds every thread of this process to `cores`, where supported."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = set(cores)
    tasks = Path("/proc/self/task")
    # Libraries have started threads already; new threads inherit the binding of their parent.
    for task in tasks.iterdir() if tasks.is_dir() else ():
        with contextlib.suppress(OSError):  # the thread has just ended, or the core is gone
            os.sched_setaffinity(int(task.name), cores)


def parse_cpu_list(text: str, allowed: set[int], root: Path = Path("/")) -> set[int]:
    """Processors in a list such as "0-3,6"; "auto" is one of each physical core, "" all of `allowed`.

    `root` replaces `/`. Raises UsageProblem for an invalid list and for processors outside `allowed`.
    """
    text = text.strip().lower()
    if text == "":
        return allowed
    if text == "auto":
        return set(one_per_core(allowed, root))
    chosen: set[int] = set()
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            chosen |= set(range(int(first), int(last if dash else first) + 1))
    except ValueError:
        chosen = set()
    if not chosen or not chosen <= allowed:
        raise UsageProblem(
            _(
                "cpu_affinity must be auto or a list such as 0-3,6 of the processors {allowed}, not {value}"
            ).format(allowed=",".join(map(str, sorted(allowed))), value=text),
            hint="h2q-tui train --set cpu_affinity=auto",
        )
    return chosen


def one_per_core(processors: Iterable[int], root: Path = Path("/")) -> tuple[int, ...]:
    """The first of the `processors` of each physical core; all without topology information.

    `root` replaces `/`.
    """
    first: dict[str, int] = {}
    for number in sorted(processors):
        folder = root / f"sys/devices/system/cpu/cpu{number}/topology"
        try:
            siblings = (folder / "thread_siblings_list").read_text(encoding="ascii").strip()
        except OSError:
            siblings = str(number)
        first.setdefault(siblings, number)
    return tuple(sorted(first.values()))


def check_cpu_affinity(text: str) -> None:
    """Raises UsageProblem as `parse_cpu_list` does, on systems that support affinity."""
    if hasattr(os, "sched_setaffinity"):
        parse_cpu_list(text, os.sched_getaffinity(0))


def set_cpu_affinity(text: str) -> str:
    """Binds all threads of this process to the processors in `text`; returns a sentence for the log.

    Raises UsageProblem as `parse_cpu_list` does.
    """
    if not text.strip():
        return ""
    if not hasattr(os, "sched_setaffinity"):
        return _("this system does not support cpu_affinity; all processors are used")
    chosen = parse_cpu_list(text, os.sched_getaffinity(0))
    os.sched_setaffinity(0, chosen)
    bind_threads(chosen)
    return _("running on processors {numbers}").format(numbers=",".join(map(str, sorted(chosen))))


def throttle_pause(cpu_s: float, wall_s: float, processors: int, percent: float) -> float:
    """Seconds to pause so that `cpu_s` of processor time is `percent` of all `processors` over the wall time."""
    return max(0.0, cpu_s / (processors * percent / 100) - wall_s)


class Throttle:
    """Limits training to `percent` of all processors by pauses between steps."""

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

    def pause(self, stopped: Callable[[], bool]) -> float:
        """Called after a step: pauses as long as needed, or until `stopped`; returns the planned seconds."""
        if self.percent >= 100:
            return 0.0
        begin, before = self._since
        now = self._clock()
        wait = throttle_pause(self._cpu() - before, now - begin, os.cpu_count() or 1, self.percent)
        end = now + wait
        while (left := end - self._clock()) > 0 and not stopped():
            self._sleep(min(left, PAUSE_SLICE_S))
        if self._clock() - begin > WINDOW_S:
            self._since = (self._clock(), self._cpu())
        return wait


class ProcessTreeCpu:
    """Samples the processor time of this process and its children."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._process = psutil.Process()
        self._clock = clock
        self._before = self._seconds()
        self._at = clock()

    def sample(self) -> float:
        """Share of all cores since the last sample, 0 to 100 percent. A new child counts from the next sample on."""
        now, after = self._clock(), self._seconds()
        spent = sum(after[pid] - self._before[pid] for pid in after if pid in self._before)
        share = spent / (now - self._at) / (psutil.cpu_count() or 1) if now > self._at else 0.0
        self._before, self._at = after, now
        return round(100 * max(0.0, min(1.0, share)), 1)

    def _seconds(self) -> dict[int, float]:
        seconds = {}
        with contextlib.suppress(psutil.Error):
            for process in (self._process, *self._process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    seconds[process.pid] = times.user + times.system
        return seconds
