"""The memory budget of a run: decided here from flag, setting and machine, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from engine.machine.cgroup import memory_limit_bytes
from engine.machine.probe import read_or_none

AVAILABLE_SHARE = 0.7
"""Share of the available memory that a run may use."""


@dataclass(frozen=True)
class Budget:
    """Memory in MB (2^20 bytes) and the bound that set it: "max_memory_gb", "cgroup" or "available"."""

    mb: float
    reason: str


def requested_budget(setting_gb: float, flag_gb: float | None = None) -> Budget:
    """The budget that the user requested: `--max-memory-gb`, else the setting."""
    return Budget(1024 * (setting_gb if flag_gb is None else flag_gb), "max_memory_gb")


def resolve_budget(setting_gb: float, flag_gb: float | None = None, *, root: Path = Path("/")) -> Budget:
    """The effective budget: the smallest of the requested one, the cgroup limit and 70 % of the available memory.

    `root` replaces `/` where files of the kernel are read.
    """
    budget = limit_to_cgroup(requested_budget(setting_gb, flag_gb), root=root)
    memory = read_or_none(psutil.virtual_memory)
    if memory is None:
        return budget
    # Memory that this process already holds is no longer available, but belongs to its budget.
    own = read_or_none(lambda: psutil.Process().memory_info().rss) or 0
    available = Budget((memory.available * AVAILABLE_SHARE + own) / 2**20, "available")
    return min(budget, available, key=lambda bound: bound.mb)


def limit_to_cgroup(budget: Budget, *, exclude: str = "", root: Path = Path("/")) -> Budget:
    """`budget`, or the cgroup limit where that is lower; the cgroup named `exclude` does not count."""
    limit = memory_limit_bytes(root, exclude=exclude)
    if limit is None or limit / 2**20 >= budget.mb:
        return budget
    return Budget(limit / 2**20, "cgroup")
