"""Starting over: removing what can be made again, or everything, of a workspace and nothing else beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from engine.core.errors import Busy
from engine.core.files import fsync_dir
from engine.core.i18n import _
from engine.core.paths import Workspace

REMAKEABLE = (
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
"""Runs with their checkpoints, datasets and reports, status files, the sample, counters."""

KEPT = (
    "memory",
    "training_data",
    "config",
    "models",
    "adapters",
    "exports",
    "backups",
    "hive",
    "last_training.json",
    "demo.json",
    "workspace.json",
)
"""What only `--all` removes: what a person brought, made or decided."""


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """What would go, or went."""

    names: list[str]
    """Names in the workspace's folder."""
    bytes: int


def plan_reset(workspace: Workspace, everything: bool) -> Removal:
    """What a reset would remove, largest matters first; names that are not there are left out."""
    wanted = (*KEPT, *REMAKEABLE) if everything else REMAKEABLE
    there = [
        name for name in wanted if (workspace.root / name).exists() or (workspace.root / name).is_symlink()
    ]
    there = [name for name in there if not _is_empty(workspace.root / name) or everything]
    return Removal(names=there, bytes=sum(_size(workspace.root / name) for name in there))


def reset(workspace: Workspace, everything: bool) -> Removal:
    """Removes it. Files of other names in the folder stay, and so does the folder while it holds any.

    Raises Busy when a run is alive or an import is going on; OSError.
    """
    refuse_while_alive(workspace)
    plan = plan_reset(workspace, everything)
    for name in plan.names:
        path = workspace.root / name
        if path.is_dir() and not path.is_symlink():
            # Out of sight in one rename: half a folder is never taken for a whole one.
            hidden = path.with_name(f".{name}.removed")
            shutil.rmtree(hidden, ignore_errors=True)
            path.rename(hidden)
            shutil.rmtree(hidden)
        else:
            path.unlink()
    if everything and workspace.root.is_dir() and not any(workspace.root.iterdir()):
        workspace.root.rmdir()
    elif workspace.root.is_dir():
        fsync_dir(workspace.root)
    return plan


def refuse_while_alive(workspace: Workspace) -> None:
    """Raises Busy, naming the run, when one is alive."""
    from engine.runs.rundir import list_runs

    for run in list_runs(workspace):
        if run.alive():
            raise Busy(
                _("Run {run} is going on").format(run=run.run_id), hint=f"h2q-tui runs stop {run.run_id}"
            )


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _size(path: Path) -> int:
    if path.is_symlink() or path.is_file():
        return path.lstat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*"))
