"""What bounds a run on this machine: the memory budget with its reason, cores, open files, and how the engine
is kept alive when the terminal goes."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from pathlib import Path

import msgspec
import psutil

from engine.machine.probes import read_or_none

AVAILABLE_SHARE = 0.7


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """As found now; the budget of a run is fixed when it starts."""

    budget_mb: float
    budget_reason: str
    """"max_memory_gb", "cgroup" or "available": which of the bounds is the smallest."""
    cores: int
    """That this process may use."""
    open_files: int | None
    keeper: str
    """"systemd scope", "caffeinate" or "" (a session of its own, which logind may end at logout)."""


def cgroup_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory limit of the control group in bytes (cgroup v2, then v1); None without a limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None


def find_limits(max_memory_gb: float) -> Limits:
    """Reads the system; never raises."""
    bounds = {"max_memory_gb": max_memory_gb * 1024}
    group = read_or_none(cgroup_limit)
    if group is not None:
        bounds["cgroup"] = group / 2**20
    memory = read_or_none(psutil.virtual_memory)
    if memory is not None:
        bounds["available"] = memory.available * AVAILABLE_SHARE / 2**20
    reason = min(bounds, key=lambda name: bounds[name])
    files = read_or_none(lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return Limits(
        budget_mb=bounds[reason],
        budget_reason=reason,
        cores=_cores(),
        open_files=files,
        keeper=_keeper(),
    )


def _cores() -> int:
    usable = read_or_none(lambda: len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else None
    return usable or os.cpu_count() or 1


def _keeper() -> str:
    if sys.platform == "darwin":
        return "caffeinate" if shutil.which("caffeinate") else ""
    session = os.environ.get("DBUS_SESSION_BUS_ADDRESS") or os.path.exists(f"/run/user/{os.getuid()}/bus")  # noqa: PTH110
    return "systemd scope" if session and shutil.which("systemd-run") else ""
