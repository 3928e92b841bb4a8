"""The demo: the whole loop on the shipped sample, in a workspace of its own (`engine.workspace.demo`)."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from engine.core.i18n import language
from engine.core.paths import shipped
from engine.memory.store import MemoryStore
from engine.pipeline.demo_base import bring_base
from engine.pipeline.import_run import import_paths, summary_text
from engine.pipeline.stages import StagePlan
from engine.pipeline.train import train
from engine.runs.context import RunContext, RunResult
from engine.runs.events import WorkPlan
from engine.runs.kinds import DemoParams, TrainMode, TrainParams

NATIVE_SECONDS = 140.0
"""Budget of both trainings of the built-in model: with import, corpus and validation about four minutes on two cores."""
LORA_SECONDS = 300.0
"""Most that the training of an adapter may take; the epochs below take less on two cores that have nothing else to do."""
EXPECTED = {"base": 30.0, "import": 5.0, "corpus": 10.0, "lora": 120.0, "validate": 120.0, "promote": 1.0}
"""Seconds of the stages, roughly, until the training has seen its data."""
LORA_EPOCHS, LORA_BATCH, LORA_LR = 1, 2, 1e-3
"""Many small steps at five times the default rate, so that the manner of the sample is heard in a few minutes. Held to its
base the adapter keeps general English all the same (docs/adr/0008)."""


def run(ctx: RunContext) -> RunResult:
    """Entry point of the run kind `demo`: a base, import, corpus, a model, verdict, promotion."""
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
        batch_size=LORA_BATCH,
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
