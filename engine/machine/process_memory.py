"""Resident memory of this process and its children, now and at its highest."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

import psutil

MB = 1 << 20


class ProcessTreeMemory:
    """Samples of the process tree, in megabytes (2^20 bytes)."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.peak_mb = 0.0

    def sample(self) -> float:
        """What the tree holds now; raises `peak_mb` to what it held at its highest."""
        children = self.children_mb()
        used = self.own_mb() + children
        self.peak_mb = max(self.peak_mb, used, _highest_mb, peak_rss_mb() + children)
        return used

    def own_mb(self) -> float:
        """What this process holds now."""
        used: int = self._process.memory_info().rss
        return used / MB

    def children_mb(self) -> float:
        """What its children hold now."""
        used = 0
        with contextlib.suppress(psutil.Error):
            for child in self._process.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    used += child.memory_info().rss
        return used / MB


_highest_mb = 0.0
"""The peak of the tree before that of this process was begun anew."""


def reset_peak_rss(children_mb: float = 0.0) -> bool:
    """Begins the peak of `own_peak_mb` anew; `ResidentMemory.peak_mb` keeps it, with what children held then.

    False where the system cannot.
    """
    global _highest_mb
    _highest_mb = max(_highest_mb, peak_rss_mb() + children_mb)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_rss_mb() -> float:
    """The most that this process held, since the last `reset_peak_rss` where that is possible.

    Between two samples memory may rise and fall; the kernel remembers. `ru_maxrss` of Linux is of no use:
    it starts with that of the process that launched this one."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0.0
