"""The demo: the whole loop on the sample that ships, in a workspace of its own, with nothing else installed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from engine import atomic
from engine.errors import BadInput
from engine.i18n import _
from engine.memory.importing import import_path, summary
from engine.memory.store import MemoryStore
from engine.paths import Workspace, find_workspace, shipped
from engine.pipeline import train
from engine.runs.context import Outcome, RunContext
from engine.runs.spec import DemoParams, TrainMode, TrainParams

TRAINING_SECONDS = 140.0
"""Both trainings together: what four minutes on two cores leave beside import, corpus and verdict."""
MARK = "demo.json"
"""Stands in a workspace that the demo made and may make anew."""


def run(ctx: RunContext) -> Outcome:
    """Import, corpus, a base from plain text, the model on the conversations, verdict, promotion."""
    params = ctx.params(DemoParams)
    with ctx.train_lock(wait=False):
        with ctx.stage("import", 1, 6) as stage, MemoryStore(ctx.workspace.memory_db) as store:
            texts = sorted((shipped("data") / "sample" / "text").glob("*.txt"))
            for text in texts:
                shutil.copyfile(text, ctx.workspace.training_data / text.name)
            memory = shipped("data") / "sample" / "memory"
            stage.detail = summary(
                import_path(store, [memory / "crosswoz.jsonl", memory / "chatgpt_export.json"])
            )
        budget = None if params.steps else TRAINING_SECONDS
        asked = TrainParams(mode=TrainMode.NATIVE, max_steps=params.steps, time_budget_s=budget)
        return train(ctx, asked, stages_before=1)


def demo_workspace(chosen: str | None) -> Workspace:
    """An empty workspace for the demo: `chosen`, else one beside the person's own.

    What an earlier demo left there goes. Raises BadInput when the folder holds anything else.
    """
    own = find_workspace(chosen or os.environ.get("H2Q_DATA_DIR"))
    ws = own if chosen else Workspace(own.root.with_name(own.root.name + "-demo"))
    if ws.root.is_dir() and any(ws.root.iterdir()):
        if not (ws.root / MARK).is_file():
            raise BadInput(
                _("the demo needs a folder of its own, this one has files in it"),
                path=ws.root,
                mend=f"h2q-tui demo --data-dir {ws.root}-demo",
            )
        for item in ws.root.iterdir():
            shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
    ws.root.mkdir(parents=True, exist_ok=True)
    atomic.write_json(ws.root / MARK, {"made_by": "h2q-tui demo"})
    return ws


def running_demo(chosen: str | None) -> Path | None:
    """Folder of the demo run that is going on in the demo's workspace; None when there is none."""
    from engine.runs.rundir import list_runs

    own = find_workspace(chosen or os.environ.get("H2Q_DATA_DIR"))
    ws = own if chosen else Workspace(own.root.with_name(own.root.name + "-demo"))
    if not (ws.root / MARK).is_file():
        return None
    return next((run.path for run in list_runs(ws) if run.alive()), None)
