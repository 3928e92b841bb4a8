"""The demo: the whole loop on the sample that ships, in a workspace of its own, with nothing else installed."""

from __future__ import annotations

import shutil

from engine.core.paths import shipped
from engine.memory.store import MemoryStore
from engine.pipeline.import_report import summary
from engine.pipeline.import_run import import_path
from engine.pipeline.train import train
from engine.runs.context import Outcome, RunContext
from engine.runs.spec import DemoParams, TrainMode, TrainParams

TRAINING_SECONDS = 140.0
"""Both trainings together: what four minutes on two cores leave beside import, corpus and verdict."""


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
