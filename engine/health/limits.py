"""The limits of a run on this machine: memory budget, cores, open files, and the mechanism that keeps it alive."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from pathlib import Path

import msgspec

from engine.machine.budget import resolve_budget
from engine.machine.cpu import usable_cores
from engine.machine.probe import read_or_none


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The current limits; the budget of a run is fixed when it starts."""

    budget_mb: float
    budget_reason: str
    """"max_memory_gb", "cgroup" or "available": the smallest bound."""
    cores: int
    """Usable by this process."""
    open_files: int | None
    keeper: str
    """Keeps a run alive after logout: "systemd scope", "caffeinate" or "" (a new session, which logind may kill)."""


def find_limits(max_memory_gb: float, *, root: Path = Path("/")) -> Limits:
    """The limits of a run that starts now; never raises. `root` replaces `/` for kernel files."""
    budget = resolve_budget(max_memory_gb, root=root)
    files = read_or_none(lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return Limits(
        budget_mb=budget.mb,
        budget_reason=budget.reason,
        cores=usable_cores(),
        open_files=files,
        keeper=_keeper(),
    )


def _keeper() -> str:
    if sys.platform == "darwin":
        return "caffeinate" if shutil.which("caffeinate") else ""
    session = os.environ.get("DBUS_SESSION_BUS_ADDRESS") or os.path.exists(f"/run/user/{os.getuid()}/bus")  # noqa: PTH110
    return "systemd scope" if session and shutil.which("systemd-run") else ""
