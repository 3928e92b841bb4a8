"""A memory limit of the kernel behind the governor, on Linux where this process may make a cgroup (v1 or v2)."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.i18n import _
from engine.machine.budget import Budget

if TYPE_CHECKING:
    from engine.runs.context import RunContext


@dataclass(frozen=True)
class MemoryCgroup:
    """Where this process stands, and where a limited group for it would be."""

    home: Path
    limited: Path
    limit_file: str


def group_name(pid: int | None = None) -> str:
    """Of the group that a run makes for itself."""
    return f"h2q-{pid or os.getpid()}"


def own_memory_cgroup(root: Path = Path("/"), pid: int | None = None) -> MemoryCgroup | None:
    """The memory cgroup of this process; None where there is none. `root` stands for `/`.

    In v2 a group with processes cannot have children that are limited, so the new one stands beside it.
    """
    name = group_name(pid)
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        _number, controllers, group = (*line.split(":", 2), "", "")[:3]
        if "memory" in controllers.split(","):
            home = root / "sys/fs/cgroup/memory" / group.lstrip("/")
            return MemoryCgroup(home, home / name, "memory.limit_in_bytes")
        if controllers == "":
            home = root / "sys/fs/cgroup" / group.lstrip("/")
            if group.strip("/") and (home / "memory.max").exists():
                return MemoryCgroup(home, home.parent / name, "memory.max")
    return None


@contextmanager
def limited(mb: float, root: Path = Path("/")) -> Iterator[str]:
    """This process under a limit of `mb` while this lasts; gives the reason why not, "" when it is.

    What the process holds already stays charged to its old group, so the limit is never tighter than `mb`.
    """
    group = own_memory_cgroup(root)
    if group is None:
        yield _("no memory cgroup can be made here")
        return
    # Groups of runs that were killed; those with processes cannot be removed.
    for old in group.limited.parent.glob("h2q-*"):
        with contextlib.suppress(OSError):
            old.rmdir()
    try:
        group.limited.mkdir()
        (group.limited / group.limit_file).write_text(str(int(mb * 2**20)), encoding="ascii")
        _enter(group.limited)
    except OSError as problem:
        _leave(group)
        yield problem.strerror or str(problem)
        return
    try:
        yield ""
    finally:
        _leave(group)


def resize(mb: float, root: Path = Path("/")) -> bool:
    """Another limit for the group that `limited` made; False where there is none, or more is held than it allows.

    In v2 the kernel would end a process that holds more: look at what is held first.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    for line in lines:
        _number, controllers, group = (*line.split(":", 2), "", "")[:3]
        if not group.endswith(f"/{group_name()}"):
            continue
        if "memory" in controllers.split(","):
            file = root / "sys/fs/cgroup/memory" / group.lstrip("/") / "memory.limit_in_bytes"
        elif controllers == "":
            file = root / "sys/fs/cgroup" / group.lstrip("/") / "memory.max"
        else:
            continue
        with contextlib.suppress(OSError):
            file.write_text(str(int(mb * 2**20)), encoding="ascii")
            return True
    return False


def _enter(folder: Path) -> None:
    (folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def _leave(group: MemoryCgroup) -> None:
    """Back to where the process was; children that it started go with it."""
    with contextlib.suppress(OSError):
        _enter(group.home)
        for pid in (group.limited / "cgroup.procs").read_text(encoding="ascii").split():
            (group.home / "cgroup.procs").write_text(pid, encoding="ascii")
    with contextlib.suppress(OSError):
        group.limited.rmdir()


@contextmanager
def backed(ctx: RunContext, budget: Budget) -> Iterator[None]:
    """The budget with a limit of the kernel behind it where one may be set; what became of it is said."""
    if sys.platform != "linux":
        yield
        return
    with limited(budget.mb) as reason:
        if reason:
            ctx.log(
                _("memory: no limit of the kernel stands behind the budget ({reason})").format(reason=reason)
            )
        else:
            ctx.log(
                _("memory: a cgroup limit of {mb} MB stands behind the budget").format(mb=round(budget.mb))
            )
        yield
