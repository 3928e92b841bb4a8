"""Resident memory (RSS) of processes and their children, in MB (2^20 bytes): now and at its peak."""

from __future__ import annotations

import contextlib
import resource
import sys
import threading
from pathlib import Path

import psutil

MB = 1 << 20
SAMPLE_S = 0.01
"""Interval of `RssSampler`: the largest tensors of a step live longer."""


def tree_memory(pid: int | None = None) -> int:
    """Resident bytes of a process (None: this one) and its descendants.

    Raises psutil.Error when the process is gone or belongs to another user.
    """
    process = psutil.Process(pid)
    return int(process.memory_info().rss) + _children_memory(process)


def _children_memory(process: psutil.Process) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += child.memory_info().rss
    return total


class ProcessTreeMemory:
    """Samples the memory of this process and its children, and keeps the peak."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.peak_mb = 0.0

    def sample(self) -> float:
        """Current memory of the tree; updates `peak_mb`."""
        children = self.children_mb()
        used = self.own_mb() + children
        self.peak_mb = max(self.peak_mb, used, _earlier_peak_mb, peak_rss_mb() + children)
        return used

    def own_mb(self) -> float:
        """Current memory of this process."""
        used: int = self._process.memory_info().rss
        return used / MB

    def children_mb(self) -> float:
        """Current memory of the children."""
        return _children_memory(self._process) / MB


_earlier_peak_mb = 0.0
"""Peak of the tree before the last `reset_peak_rss`."""


def reset_peak_rss(children_mb: float = 0.0) -> bool:
    """Resets the peak that `peak_rss_mb` returns; False where the system cannot.

    `ProcessTreeMemory.peak_mb` keeps the old peak, with `children_mb` added.
    """
    global _earlier_peak_mb
    _earlier_peak_mb = max(_earlier_peak_mb, peak_rss_mb() + children_mb)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_rss_mb() -> float:
    """Peak memory of this process, since the last `reset_peak_rss` where that is possible.

    The kernel records peaks between two samples. `ru_maxrss` is useless on Linux: it starts with the peak of the
    process that launched this one.
    """
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0.0


class RssSampler(threading.Thread):
    """Samples the memory of this process for its peak, where the kernel cannot reset its own record (macOS)."""

    def __init__(self) -> None:
        super().__init__(name="memory sampler", daemon=True)
        self._memory = ProcessTreeMemory()
        self._peak = 0.0
        self._lock = threading.Lock()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        used = self._memory.own_mb()
        with self._lock:
            self._peak = max(self._peak, used)

    def pop_peak(self) -> float:
        """The peak since the last call, in MB."""
        self._sample()
        with self._lock:
            peak, self._peak = self._peak, 0.0
        return peak
