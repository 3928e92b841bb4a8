"""The demo: the whole loop on the shipped sample, in a workspace of its own next to the user's.

The app's process imports this module to find that workspace; what trains is imported by `run` alone.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core import files
from engine.core.errors import BadInput
from engine.core.i18n import _, language
from engine.core.paths import Workspace, find_workspace, shipped
from engine.runs.kinds import DemoParams, TrainMode, TrainParams
from engine.runs.rundir import RunDir, list_runs

if TYPE_CHECKING:
    from engine.runs.context import RunContext, RunResult

MARKER_FILE = "demo.json"
"""Marks a workspace that a demo created and the next one may empty."""
NATIVE_SECONDS = 140.0
"""Budget of both trainings of the built-in model: with import, corpus and validation about four minutes on two cores."""
LORA_SECONDS = 300.0
"""Most that the training of an adapter may take; the epochs below take less on two cores that have nothing else to do."""
EXPECTED = {"base": 30.0, "import": 5.0, "corpus": 10.0, "lora": 300.0, "validate": 120.0, "promote": 1.0}
"""Seconds of the stages, roughly, until the training has seen its data."""
LORA_EPOCHS = 2
LORA_LR = 5e-4
"""Higher than the default of `lora`: the sample is small, and its manner should be heard after two epochs."""


def run(ctx: RunContext) -> RunResult:
    """Entry point of the run kind `demo`: a base, import, corpus, a model, verdict, promotion."""
    from engine.memory.store import MemoryStore
    from engine.pipeline.demo_base import bring_base
    from engine.pipeline.import_run import import_paths, summary_text
    from engine.pipeline.stages import StagePlan
    from engine.pipeline.train import train
    from engine.runs.events import WorkPlan

    params = ctx.params(DemoParams)
    plan = StagePlan(("base", "import"), after=4)
    with ctx.train_lock(wait=False):
        ctx.emit(WorkPlan(seconds=EXPECTED))
        base = bring_base(ctx, plan, params)
        if base is None:
            plan = replace(plan, after=5)
            for text in _texts():
                shutil.copyfile(text, ctx.workspace.training_data / text.name)
        with plan.open(ctx, "import") as stage, MemoryStore(ctx.workspace.memory_db) as store:
            stage.detail = summary_text(import_paths(store, _conversations()))
        return train(ctx, training_of(base, params.steps), stages_before=2)


def training_of(base: str | None, steps: int | None) -> TrainParams:
    """The training of the demo: an adapter on `base`, else the built-in model. `steps` replaces epochs and time."""
    if base is None:
        budget = None if steps else NATIVE_SECONDS
        return TrainParams(mode=TrainMode.NATIVE, max_steps=steps, time_budget_s=budget)
    return TrainParams(
        mode=TrainMode.LORA,
        model=base,
        epochs=LORA_EPOCHS,
        lr=LORA_LR,
        max_steps=steps,
        time_budget_s=None if steps else LORA_SECONDS,
    )


def _conversations() -> list[Path]:
    """The shipped conversations in the person's language."""
    sample = shipped("data") / "sample"
    if language() == "zh":
        return [sample / "memory" / "crosswoz.jsonl", sample / "memory" / "chatgpt_export.json"]
    return sorted((sample / "year").glob("*.jsonl"))


def _texts() -> list[Path]:
    """The shipped texts in the person's language, for a base from scratch."""
    name = "crosswoz.txt" if language() == "zh" else "tinyshakespeare.txt"
    return [shipped("data") / "sample" / "text" / name]


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
    from engine.models.fetch import FETCHABLE

    kept = {ws.root / MARKER_FILE, *(ws.models / f"{model.name}.gguf" for model in FETCHABLE)}
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
