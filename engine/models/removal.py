"""Deleting a model for good. Imports nothing heavy."""

from __future__ import annotations

import shutil
from pathlib import Path

from engine.core.errors import BadInput, UsageProblem
from engine.core.files import fsync_dir
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.models.registry import NAME, in_use, list_models


def _folder(ws: Workspace, name: str) -> Path | None:
    return next((root / name for root in (ws.models, ws.adapters) if (root / name).is_dir()), None)


def check_removable(ws: Workspace, name: str) -> None:
    """Raises BadInput when there is no model `name` in the workspace, UsageProblem when it is in use."""
    if not NAME.fullmatch(name) or _folder(ws, name) is None:
        raise BadInput(_("there is no model named {name}").format(name=name), hint="h2q-tui models list")
    if in_use(ws) == name:
        raise UsageProblem(
            _("{name} is in use; another one must take its place first").format(name=name),
            hint=_successor(ws, name),
        )


def _successor(ws: Workspace, name: str) -> str:
    """The command after which another model, or none, is in use: it works for a damaged one too."""
    from engine.models.promotion import backups

    for backup in backups(ws):
        if backup.readable and backup.model != name and (not backup.model or _folder(ws, backup.model)):
            return f"h2q-tui rollback --to {backup.stamp}"
    other = next((card.name for card in list_models(ws) if card.name != name), None)
    return f"h2q-tui promote {other}" if other else "h2q-tui train"


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
