"""Resets a workspace: deletes what can be recreated, or everything, and no other files in its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from engine.core.errors import Busy
from engine.core.files import fsync_dir, is_in_use
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.workspace.leftovers import (
    backup_lock,
    delete_lock_file,
    stale_root_entries,
    sweep_leftovers,
)

RECREATABLE = (
    "runs",
    "training",
    "status",
    "sample",
    "training_checkpoints",
    "training_log.json",
    "evolution_stats.json",
    "alerts",
    "app.log",
)
"""Deleted by `reset`: runs with their checkpoints, datasets and reports, status files, the sample, counters."""

USER_DATA = (
    "memory",
    "training_data",
    "config",
    "models",
    "adapters",
    "exports",
    "ollama",
    "backups",
    "hive",
    "chats",
    "last_training.json",
    "demo.json",
    "workspace.json",
)
"""Deleted by `reset --all` only: what the user imported, trained or decided."""


HIVE_LOCK = "hive/.serving"
"""Locked by the server of a hive."""


class ResetPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a reset deletes."""

    names: list[str]
    """Entries of the workspace's folder."""
    bytes: int


def plan_reset(workspace: Workspace, everything: bool) -> ResetPlan:
    """The existing entries that a reset deletes, user data first."""
    wanted = (*USER_DATA, *RECREATABLE) if everything else RECREATABLE
    existing = [
        name for name in wanted if (workspace.root / name).exists() or (workspace.root / name).is_symlink()
    ]
    existing = [name for name in existing if not _is_empty(workspace.root / name) or everything]
    existing += stale_root_entries(workspace)
    return ResetPlan(names=existing, bytes=sum(_size(workspace.root / name) for name in existing))


def reset(workspace: Workspace, everything: bool) -> ResetPlan:
    """Deletes the entries of `plan_reset`, and the leftovers of killed processes. Other files stay, and so does
    the folder while it has any.

    Raises Busy when a run is alive, a backup is made or restored, or what is deleted is being served; OSError.
    """
    require_no_run(workspace)
    if everything and is_in_use(workspace.root / HIVE_LOCK):
        raise Busy(
            _("the hive of this workspace is being served; end its server first"), hint="h2q-tui hive status"
        )
    if not workspace.root.is_dir():
        return ResetPlan(names=[], bytes=0)
    with backup_lock(workspace):
        plan = plan_reset(workspace, everything)
        _delete(workspace, plan.names)
        sweep_leftovers(workspace, everywhere=True)
        delete_lock_file(workspace)
    if everything and workspace.root.is_dir() and not any(workspace.root.iterdir()):
        workspace.root.rmdir()
    elif workspace.root.is_dir():
        fsync_dir(workspace.root)
    return plan


def _delete(workspace: Workspace, names: list[str]) -> None:
    for name in names:
        path = workspace.root / name
        if path.is_dir() and not path.is_symlink():
            # Renamed first: an interrupted deletion never leaves half a folder under its name.
            renamed = path.with_name(f".{name}.removed")
            shutil.rmtree(renamed, ignore_errors=True)
            path.rename(renamed)
            shutil.rmtree(renamed)
        else:
            path.unlink()


def require_no_run(workspace: Workspace) -> None:
    """Raises Busy, with the run's id, when a run is alive."""
    from engine.runs.rundir import list_runs

    for run in list_runs(workspace):
        if run.alive():
            raise Busy(
                _("Run {run} is still running").format(run=run.run_id), hint=f"h2q-tui runs stop {run.run_id}"
            )


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _size(path: Path) -> int:
    if path.is_symlink() or path.is_file():
        return path.lstat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*"))
