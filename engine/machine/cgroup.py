"""Memory cgroups (v1 and v2): the limit that applies to this process, and one of its own for a run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.core.i18n import _

_UNLIMITED = 1 << 60
"""Limits from here on mean that there is none (v1)."""


@dataclass(frozen=True)
class MemoryCgroup:
    """The memory cgroup of this process in one hierarchy.

    Attributes:
        mount: root of the hierarchy.
        folder: folder of the cgroup.
        limit_file: name of the file with the limit: "memory.max" (v2) or "memory.limit_in_bytes" (v1).
    """

    mount: Path
    folder: Path
    limit_file: str

    @property
    def is_v2(self) -> bool:
        return self.limit_file == "memory.max"

    def run_cgroup(self, pid: int | None = None) -> Path:
        """Folder of the cgroup that a run makes for itself.

        In v2 a cgroup with processes cannot have limited children, so the new one is a sibling.
        """
        return (self.folder.parent if self.is_v2 else self.folder) / run_cgroup_name(pid)


def run_cgroup_name(pid: int | None = None) -> str:
    """Name of the cgroup that a run makes for itself."""
    return f"h2q-{pid or os.getpid()}"


def memory_cgroups(root: Path = Path("/")) -> list[MemoryCgroup]:
    """The memory cgroups of this process, from `/proc/self/cgroup`; empty where there are none.

    `root` replaces `/` where files of the kernel are read.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    cgroups = []
    for line in lines:
        _number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            mount, limit_file = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, limit_file = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        cgroups.append(MemoryCgroup(mount, mount / path.lstrip("/"), limit_file))
    return cgroups


def memory_limit_bytes(root: Path = Path("/"), *, exclude: str = "") -> int | None:
    """The lowest memory limit from this process's cgroup up to the root, v1 and v2; None without a limit.

    A cgroup named `exclude` does not count: the one that the run made for itself.
    """
    limits: list[int] = []
    for cgroup in memory_cgroups(root):
        # In a container the path may be the host's and not exist; the container's limit is at the mount point.
        for folder in (cgroup.folder, *cgroup.folder.parents):
            if not folder.is_relative_to(cgroup.mount):
                break
            if folder.name != exclude:
                limits += _read_limit(folder / cgroup.limit_file)
    return min(limits, default=None)


def _read_limit(file: Path) -> list[int]:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return []
    return [int(text)] if text.isdigit() and int(text) < _UNLIMITED else []


def limitable_cgroup(root: Path = Path("/")) -> MemoryCgroup | None:
    """The cgroup next to which a limited one may be made; None where there is none."""
    for cgroup in memory_cgroups(root):
        if not cgroup.is_v2:
            return cgroup
        if cgroup.folder != cgroup.mount and (cgroup.folder / cgroup.limit_file).exists():
            return cgroup
    return None


@contextmanager
def limited_memory(mb: float, root: Path = Path("/")) -> Iterator[str]:
    """Runs the block in a cgroup limited to `mb`. Yields the reason why there is none, "" on success.

    Memory allocated before stays charged to the old cgroup, so the limit is never tighter than `mb`.
    """
    own = limitable_cgroup(root)
    if own is None:
        yield _("no memory cgroup can be created here")
        return
    folder = own.run_cgroup()
    # Left over from runs that were killed; one with processes cannot be removed.
    for old in folder.parent.glob("h2q-*"):
        with contextlib.suppress(OSError):
            old.rmdir()
    try:
        folder.mkdir()
        (folder / own.limit_file).write_text(str(int(mb * 2**20)), encoding="ascii")
        _enter(folder)
    except OSError as problem:
        _leave(folder, own.folder)
        yield problem.strerror or str(problem)
        return
    try:
        yield ""
    finally:
        _leave(folder, own.folder)


def resize_limit(mb: float, root: Path = Path("/")) -> bool:
    """Changes the limit of the cgroup that `limited_memory` made; False without one, or when the kernel refuses.

    v2 kills a process that holds more than the new limit: check the memory in use first.
    """
    for cgroup in memory_cgroups(root):
        if cgroup.folder.name == run_cgroup_name():
            with contextlib.suppress(OSError):
                (cgroup.folder / cgroup.limit_file).write_text(str(int(mb * 2**20)), encoding="ascii")
                return True
    return False


def _enter(folder: Path) -> None:
    (folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def _leave(folder: Path, home: Path) -> None:
    """Moves this process and its children back to `home` and removes `folder`."""
    with contextlib.suppress(OSError):
        _enter(home)
        for pid in (folder / "cgroup.procs").read_text(encoding="ascii").split():
            (home / "cgroup.procs").write_text(pid, encoding="ascii")
    with contextlib.suppress(OSError):
        folder.rmdir()


@contextmanager
def cgroup_memory_limit(mb: float, log: Callable[[str, str], object]) -> Iterator[None]:
    """Backs a budget of `mb` with a cgroup limit where possible, and logs whether it is."""
    if sys.platform != "linux":
        yield
        return
    with limited_memory(mb) as reason:
        if reason:
            log(_("memory: no cgroup limit backs the budget ({reason})").format(reason=reason), "detail")
        else:
            log(_("memory: a cgroup limit of {mb} MB backs the budget").format(mb=round(mb)), "detail")
        yield
