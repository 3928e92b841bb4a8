"""One training of the proof by kills, in a separate process: small, on one thread, with a ledger of its
batches."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.core.paths import Workspace
from engine.models.card import Lineage
from engine.training.recipe import Phase

LEDGER = "ledger.jsonl"


@dataclass(frozen=True)
class Dataset:
    """The dataset argument of `train_native`."""

    path: Path
    lineage: Lineage


def prepare(root: Path) -> None:
    """Text and conversations to train on, and the base of the `native` phase."""
    words = [
        "fox",
        "jumps",
        "over",
        "lazy",
        "dog",
        "river",
        "runs",
        "to",
        "some",
        "quiet",
        "sea",
        "birds",
        "sing",
    ]
    chance = random.Random(7)
    text = "\n".join(" ".join(chance.choices(words, k=9)) for _line in range(400))
    (root / "text.txt").write_text(text, encoding="utf-8")
    rows = [
        {
            "id": f"c{number}",
            "cluster": f"c{number}",
            "messages": [
                {"role": "user", "content": " ".join(chance.choices(words, k=2))},
                {"role": "assistant", "content": " ".join(chance.choices(words, k=4)) + f" {number}"},
            ],
        }
        for number in range(40)
    ]
    (root / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def train(root: str, place: str, phase: str, steps: int) -> None:
    """Runs in a separate process: starts the phase in `place`, or resumes it there."""
    import numpy as np
    import torch

    import engine.training.metrics
    import engine.training.setup
    from engine.runs.context import RunContext
    from engine.runs.journal import JournalWriter
    from engine.runs.kinds import TrainMode, TrainParams
    from engine.runs.rundir import RunDir
    from engine.runs.spec import encode_spec, make_spec
    from engine.training.batches import Batch
    from engine.training.devices import Device
    from engine.training.native import train_native
    from engine.training.recipe import CurriculumStage, ModelSize, recipe_for
    from engine.training.scratch import train_scratch
    from engine.training.trainer import TrainingJob

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    engine.training.metrics.MIN_EVENT_GAP_S = 0.0
    # Two new runs may choose differently by measurement; each keeps its own choice.
    engine.training.setup.choose_device = lambda *_width, **_kept: Device("cpu", 1, False)  # type: ignore[attr-defined]
    data, folder = Path(root), Path(place)
    accumulate = TrainingJob.accumulate

    def noted(job: TrainingJob, batch: Batch) -> float:
        """Steps use torch's random numbers as dropout does, and those of Python and NumPy, which no step of
        ours uses yet."""
        loss = accumulate(job, batch)
        if job.state.batches_drawn > 0:
            number = job.state.batches_drawn - 1
            row = {"number": number, "samples": job.batches.sample_names(number, job.state.max_steps)}
            with (folder / LEDGER).open("a", encoding="utf-8") as ledger:
                ledger.write(json.dumps(row) + "\n")
            noise = 1e-2 * (random.random() + float(np.random.rand()) + float(torch.rand(())))
            for parameter in job.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(1 + noise)
        return loss

    TrainingJob.accumulate = noted  # type: ignore[method-assign, assignment]
    spec = msgspec.structs.replace(make_spec(folder, TrainParams(mode=TrainMode.SCRATCH)), run_id="run")
    run_dir = RunDir(folder / "runs" / "run")
    run_dir.path.mkdir(parents=True, exist_ok=True)
    (run_dir.path / "spec.json").write_bytes(encode_spec(spec))
    Workspace(folder).models.mkdir(exist_ok=True)
    ctx = RunContext(run_dir, JournalWriter(run_dir.events_path))
    recipe = msgspec.structs.replace(
        recipe_for(TrainParams(max_steps=steps, epochs=50), Phase(phase)),
        size=ModelSize(dim=32, layers=1, heads=2, head_dim=16, ffn=32, context=64),
        curriculum=(
            CurriculumStage(until=0.5, context=16, batch=4),
            CurriculumStage(until=1.0, context=64, batch=2),
        ),
        accumulation=2,
        eval_bytes=256,
        checkpoint_every_s=0.02,
    )
    if Phase(phase) is Phase.SCRATCH:
        train_scratch(ctx, recipe, [data / "text.txt"], name="m", out=folder / "m")
    else:
        dataset = Dataset(data / "data.jsonl", Lineage())
        train_native(ctx, recipe, data / "base", dataset, [data / "text.txt"], name="m", out=folder / "m")
