"""Deleting a model for good. Imports nothing heavy."""

from __future__ import annotations

import shutil
from pathlib import Path

from engine.atomic import fsync_dir
from engine.errors import BadInput, UsageProblem
from engine.i18n import _
from engine.models.registry import NAME, in_use
from engine.paths import Workspace


def _folder(ws: Workspace, name: str) -> Path | None:
    return next((root / name for root in (ws.models, ws.adapters) if (root / name).is_dir()), None)


def check_removable(ws: Workspace, name: str) -> None:
    """Raises BadInput when there is no model `name` in the workspace, UsageProblem when it is in use."""
    if not NAME.fullmatch(name) or _folder(ws, name) is None:
        raise BadInput(_("there is no model named {name}").format(name=name), mend="h2q-tui models list")
    if in_use(ws) == name:
        raise UsageProblem(
            _("{name} is in use; another one must take its place first").format(name=name),
            mend="h2q-tui rollback --list",
        )


def remove_model(ws: Workspace, name: str) -> None:
    """Deletes the folder of a model: first out of sight in one rename, then file by file.

    Raises as `check_removable`, and OSError.
    """
    check_removable(ws, name)
    folder = _folder(ws, name) or ws.models / name
    hidden = folder.with_name(f".{name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    fsync_dir(folder.parent)
    shutil.rmtree(hidden)
