"""The demo: the whole loop on the shipped sample, in a workspace of its own next to the user's.

The app's process imports this module to find that workspace; what trains is imported by `run` alone.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from engine.core import files
from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.core.paths import Workspace, find_workspace, shipped
from engine.runs.kinds import DemoParams, TrainMode, TrainParams
from engine.runs.rundir import RunDir, list_runs

if TYPE_CHECKING:
    from engine.runs.context import RunContext, RunResult

MARKER_FILE = "demo.json"
"""Marks a workspace that a demo created and the next one may empty."""
TRAINING_SECONDS = 140.0
"""Budget of both trainings together: with import, corpus and validation about four minutes on two cores."""


def run(ctx: RunContext) -> RunResult:
    """Entry point of the run kind `demo`: import, corpus, a base from plain text, a model, verdict, promotion."""
    from engine.memory.store import MemoryStore
    from engine.pipeline.import_run import import_paths, summary_text
    from engine.pipeline.stages import StagePlan
    from engine.pipeline.train import train

    params = ctx.params(DemoParams)
    plan = StagePlan(("import",), after=5)
    with ctx.train_lock(wait=False):
        with plan.open(ctx, "import") as stage, MemoryStore(ctx.workspace.memory_db) as store:
            for text in sorted((shipped("data") / "sample" / "text").glob("*.txt")):
                shutil.copyfile(text, ctx.workspace.training_data / text.name)
            samples = shipped("data") / "sample" / "memory"
            stage.detail = summary_text(
                import_paths(store, [samples / "crosswoz.jsonl", samples / "chatgpt_export.json"])
            )
        budget = None if params.steps else TRAINING_SECONDS
        request = TrainParams(mode=TrainMode.NATIVE, max_steps=params.steps, time_budget_s=budget)
        return train(ctx, request, stages_before=1)


def find_demo_workspace(data_dir: str | None) -> Workspace:
    """The workspace of the demo: `data_dir`, else `<workspace>-demo`. Touches no file."""
    workspace = find_workspace(data_dir or os.environ.get("H2Q_DATA_DIR"))
    return workspace if data_dir else demo_workspace_of(workspace)


def demo_workspace_of(ws: Workspace) -> Workspace:
    """The demo's workspace of a user whose own is `ws`; `ws` itself if that is a demo's."""
    return ws if _is_demo(ws) else Workspace(ws.root.with_name(ws.root.name + "-demo"))


def clear_demo_workspace(ws: Workspace) -> None:
    """Create `ws`, or delete what an earlier demo left in it. Raises BadInput if it contains anything else."""
    if ws.root.is_dir() and any(ws.root.iterdir()):
        if not _is_demo(ws):
            raise BadInput(
                _("the demo needs an empty folder, and this one has files in it"),
                path=ws.root,
                hint=f"h2q-tui demo --data-dir {ws.root}-demo",
            )
        for item in ws.root.iterdir():
            shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
    ws.root.mkdir(parents=True, exist_ok=True)
    files.write_json(ws.root / MARKER_FILE, {"made_by": "h2q-tui demo"})


def running_demo(ws: Workspace) -> RunDir | None:
    """The run of the demo in progress in `ws`; None if there is none."""
    return next((run for run in list_runs(ws) if run.alive()), None) if _is_demo(ws) else None


def _is_demo(ws: Workspace) -> bool:
    return (ws.root / MARKER_FILE).is_file()
