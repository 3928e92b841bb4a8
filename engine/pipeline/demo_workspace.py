"""The workspace of the demo: one of its own, beside the person's, made anew by each demo."""

from __future__ import annotations

import os
import shutil

from engine.core import files
from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.core.paths import Workspace, find_workspace
from engine.runs.rundir import RunDir, list_runs

MARK = "demo.json"
"""Stands in a workspace that the demo made and may make anew."""


def demo_workspace(chosen: str | None) -> Workspace:
    """Where the demo works: `chosen`, else `<workspace>-demo`. Touches no file."""
    own = find_workspace(chosen or os.environ.get("H2Q_DATA_DIR"))
    return own if chosen else beside(own)


def beside(ws: Workspace) -> Workspace:
    """The demo's workspace of a person whose own is `ws`; `ws` itself when that is the demo's."""
    return ws if (ws.root / MARK).is_file() else Workspace(ws.root.with_name(ws.root.name + "-demo"))


def clear(ws: Workspace) -> None:
    """Empties the demo's workspace of what an earlier demo left. Raises BadInput when anything else is there."""
    if ws.root.is_dir() and any(ws.root.iterdir()):
        if not (ws.root / MARK).is_file():
            raise BadInput(
                _("the demo needs a folder of its own, this one has files in it"),
                path=ws.root,
                hint=f"h2q-tui demo --data-dir {ws.root}-demo",
            )
        for item in ws.root.iterdir():
            shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
    ws.root.mkdir(parents=True, exist_ok=True)
    files.write_json(ws.root / MARK, {"made_by": "h2q-tui demo"})


def running(ws: Workspace) -> RunDir | None:
    """The demo that is going on in `ws`; None when there is none."""
    if not (ws.root / MARK).is_file():
        return None
    return next((run for run in list_runs(ws) if run.alive()), None)
