"""The demo's workspace, next to the user's: found, emptied for the next demo. Imports nothing heavy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from engine.core import files
from engine.core.errors import BadInput
from engine.core.i18n import _, language
from engine.core.paths import Workspace, find_workspace
from engine.models.fetch import FETCHABLE
from engine.models.registry import GGUF_SUFFIX
from engine.runs.rundir import RunDir, list_runs

MARKER_FILE = "demo.json"
"""Marks a workspace that a demo created and the next one may empty."""


def outline() -> str:
    """How long the demo takes and what it brings, for whoever is asked to try it."""
    if language() == "en":
        return _("about ten minutes; pip fetches 93 MB once")
    return _("about four minutes, nothing to install")


def find_demo_workspace(data_dir: str | None) -> Workspace:
    """The workspace of the demo: `data_dir`, else `<workspace>-demo`. Touches no file."""
    workspace = find_workspace(data_dir or os.environ.get("H2Q_DATA_DIR"))
    return workspace if data_dir else demo_workspace_of(workspace)


def demo_workspace_of(ws: Workspace) -> Workspace:
    """The demo's workspace of a user whose own is `ws`; `ws` itself if that is a demo's."""
    return ws if _is_demo(ws) else Workspace(ws.root.with_name(ws.root.name + "-demo"))


def clear_demo_workspace(ws: Workspace) -> None:
    """Create `ws`, or delete what an earlier demo left in it, except for a model that it has fetched.

    Raises BadInput if the folder contains anything else.
    """
    if ws.root.is_dir() and any(ws.root.iterdir()):
        if not _is_demo(ws):
            raise BadInput(
                _("the demo needs an empty folder, and this one has files in it"),
                path=ws.root,
                hint=f"h2q-tui demo --data-dir {ws.root}-demo",
            )
        for item in _leftovers(ws):
            shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
    ws.root.mkdir(parents=True, exist_ok=True)
    files.write_json(ws.root / MARKER_FILE, {"made_by": "h2q-tui demo"})


def _leftovers(ws: Workspace) -> list[Path]:
    """What the next demo does not need. The marker stays, so that a demo that is killed here can be started again."""
    kept = {ws.root / MARKER_FILE, *(ws.models / f"{model.name}{GGUF_SUFFIX}" for model in FETCHABLE)}
    inside = list(ws.models.iterdir()) if not kept.isdisjoint(ws.models.glob("*")) else []
    return [
        item
        for item in [*ws.root.iterdir(), *inside]
        if item not in kept and (item != ws.models or not inside)
    ]


def running_demo(ws: Workspace) -> RunDir | None:
    """The run of the demo in progress in `ws`; None if there is none."""
    return next((run for run in list_runs(ws) if run.alive()), None) if _is_demo(ws) else None


def _is_demo(ws: Workspace) -> bool:
    return (ws.root / MARKER_FILE).is_file()
