"""A run and a tiny recipe for tests of the training modules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import torch

from engine.core.paths import Workspace
from engine.models.card import Lineage
from engine.runs.context import RunContext
from engine.runs.events import Event
from engine.runs.journal import JournalReader, JournalWriter
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.rundir import RunDir
from engine.runs.spec import encode_spec, make_spec
from engine.training.recipe import CurriculumStage, ModelSize, Phase, Recipe, recipe_for

E = TypeVar("E", bound=Event)

torch.set_num_threads(1)

SIZE = ModelSize(dim=32, layers=1, heads=2, head_dim=16, ffn=32, context=64)


@dataclass(frozen=True)
class DatasetFile:
    """A written dataset, as `train_native` and `train_lora` take it."""

    path: Path
    lineage: Lineage


def new_run(root: Path, params: TrainParams | None = None) -> RunContext:
    """A run folder in the workspace `root` with its context; no process, no socket."""
    spec = make_spec(root, params or TrainParams(mode=TrainMode.SCRATCH))
    spec.folder.mkdir(parents=True)
    (spec.folder / "spec.json").write_bytes(encode_spec(spec))
    run_dir = RunDir(spec.folder)
    Workspace(root).models.mkdir(exist_ok=True)
    return RunContext(run_dir, JournalWriter(run_dir.events_path))


def events(ctx: RunContext, type_: type[E]) -> list[E]:
    """All records of one kind that the run wrote."""
    records = JournalReader(ctx.run_dir.events_path).poll()
    return [record.event for record in records if isinstance(record.event, type_)]


def tiny(phase: Phase = Phase.SCRATCH, **changes: object) -> Recipe:
    """Six steps of 1 × 32: windows of 16 bytes, then of 64."""
    recipe = recipe_for(TrainParams(max_steps=6), phase)
    curriculum = (
        CurriculumStage(until=0.5, context=16, batch=4),
        CurriculumStage(until=1.0, context=64, batch=2),
    )
    return msgspec.structs.replace(
        recipe,
        size=SIZE,
        curriculum=curriculum if phase is Phase.SCRATCH else curriculum[1:],
        eval_bytes=256,
        **changes,
    )


def text_file(folder: Path, name: str = "a.txt", size: int = 4000) -> Path:
    """Readable text of `size` bytes."""
    path = folder / name
    line = b"The quick brown fox jumps over the lazy dog, again and again.\n"
    path.write_bytes((line * (size // len(line) + 1))[:size])
    return path
