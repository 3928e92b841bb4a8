"""The memory budget of a run, and the limit that determines it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

AVAILABLE_SHARE = 0.7
_UNLIMITED = 1 << 60


@dataclass(frozen=True)
class Budget:
    """The effective budget in MB, and which bound it is: "max_memory_gb", "cgroup" or "available"."""

    mb: float
    reason: str


def effective_budget(max_memory_gb: float = 4.0, *, root: Path = Path("/")) -> Budget:
    """The smallest of the setting, the cgroup's limit and 70 % of what is available now (DESIGN 9).

    `root` stands for `/` when the files of the kernel are read.
    """
    bounds = [Budget(max_memory_gb * 1024, "max_memory_gb")]
    cgroup = cgroup_limit_bytes(root)
    if cgroup is not None:
        bounds.append(Budget(cgroup / 2**20, "cgroup"))
    # What the program holds already is no longer among the available, and belongs to its budget.
    own = psutil.Process().memory_info().rss
    bounds.append(Budget((psutil.virtual_memory().available * AVAILABLE_SHARE + own) / 2**20, "available"))
    return min(bounds, key=lambda bound: bound.mb)


def cgroup_limit_bytes(root: Path = Path("/"), *, beside: str = "") -> int | None:
    """The lowest memory limit on the way from this process's cgroup to the top, v2 or v1; None: there is none.

    A group of the name `beside` does not count: the one that this program made itself.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _number, controllers, group = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        folder = top / group.lstrip("/")
        # Inside a container the path is the host's and may not exist; the container's own limit is at the top.
        for place in (folder, *folder.parents):
            if not place.is_relative_to(top):
                break
            if place.name != beside:
                limits += _read_limit(place / name)
    return min(limits, default=None)


def _read_limit(file: Path) -> list[int]:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError:
        return []
    return [int(text)] if text.isdigit() and int(text) < _UNLIMITED else []
