"""Faults injected into small real runs: how soon they are detected, what they cost, and the false alarms of
clean runs.

Each run trains a model of 2 layers of width 64 on Tiny Shakespeare with one fault, through the product's own
loop.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import msgspec
import torch
from torch import Tensor

from bench.result import Benchmark, BenchResult, compare
from engine.core.errors import RunFailed
from engine.core.paths import Workspace, shipped
from engine.runs import events
from engine.runs.context import RunContext
from engine.runs.events import JournalRecord
from engine.runs.journal import JournalWriter
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.rundir import RunDir
from engine.runs.spec import encode_spec, make_spec
from engine.training.batches import Batch, ScratchBatches
from engine.training.checkpoint_saver import CheckpointSaver
from engine.training.optim import Optimizer
from engine.training.recipe import CurriculumStage, ModelSize, Phase, Recipe, recipe_for
from engine.training.scratch import train_scratch
from engine.training.trainer import TrainingJob

TEXT = shipped("data") / "sample" / "text" / "tinyshakespeare.txt"
FAULTS = ("nan_input", "infinite_gradient", "lr_x1000", "garbage_shard", "optimizer_state")
STEPS, GARBAGE, CHECKPOINT_EVERY = 300, 50, 30
NEVER = 1e6
"""Delay of an undetected fault."""


@dataclass
class FaultyRun:
    """One training run and what happened in it."""

    fault: str = ""
    at: int = 0
    """Step at which the fault strikes."""
    recoveries: list[int] = field(default_factory=list)
    """Batches drawn at each recovery."""
    loss: float = NEVER
    job: TrainingJob | None = None

    @property
    def delay(self) -> float:
        return min((draw - self.at + 1 for draw in self.recoveries if draw >= self.at), default=NEVER)


def recipe(steps: int, seed: int) -> Recipe:
    base = recipe_for(TrainParams(max_steps=steps, seed=seed), Phase.SCRATCH)
    return msgspec.structs.replace(
        base,
        size=ModelSize(dim=64, layers=2, heads=2, head_dim=32, ffn=160, context=64),
        curriculum=(CurriculumStage(until=1.0, context=64, batch=8),),
        eval_every=1.0,
    )


def _is_due(saver: CheckpointSaver) -> bool:
    """By steps instead of seconds: independent of the machine's load."""
    return saver._writing is None and saver.job.state.step % CHECKPOINT_EVERY == 0


def train(run: FaultyRun, steps: int, seed: int) -> FaultyRun:
    """Trains with the fault of `run` and records what happened."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, _faults(run):
        ws = Workspace(Path(folder))
        spec = make_spec(ws.root, TrainParams(mode=TrainMode.SCRATCH))
        spec.folder.mkdir(parents=True)
        (spec.folder / "spec.json").write_bytes(encode_spec(spec))
        ws.models.mkdir()
        run_dir = RunDir(spec.folder)

        def seen(record: JournalRecord) -> None:
            if isinstance(record.event, events.RecoveryAction) and run.job is not None:
                run.recoveries.append(run.job.state.batches_drawn)

        ctx = RunContext(run_dir, JournalWriter(run_dir.events_path), seen)
        try:
            train_scratch(ctx, recipe(steps, seed), [TEXT], name="m", out=ws.models / "m")
            assert run.job is not None
            run.loss = run.job.state.last_eval or NEVER
        except RunFailed:
            run.loss = NEVER
    return run


@contextmanager
def _faults(run: FaultyRun) -> Iterator[None]:
    """The product's own methods with the fault injected at its step; `state.batches_drawn` is 0 during
    measurements."""
    accumulate, draw, step = TrainingJob.accumulate, ScratchBatches.batch_at, Optimizer.step

    def now(*kinds: str) -> bool:
        return run.fault in kinds and run.job is not None and run.job.state.batches_drawn == run.at

    def with_gradients(job: TrainingJob, batch: Batch) -> float:
        run.job = job
        if now("nan_input"):
            handle = job.model.get_submodule("model.embed_tokens").register_forward_hook(
                lambda _m, _i, out: out * float("nan")
            )
            loss = accumulate(job, batch)
            handle.remove()
            return loss
        loss = accumulate(job, batch)
        head = job.model.get_parameter("lm_head.weight").grad
        if now("infinite_gradient") and head is not None:
            head[0, 0] = float("inf")
        return loss

    def with_garbage(
        batches: ScratchBatches, number: int, max_steps: int, stage: CurriculumStage | None = None
    ) -> Batch:
        batch = draw(batches, number, max_steps, stage)
        if run.fault == "garbage_shard" and run.at <= number + 1 < run.at + GARBAGE and run.job is not None:
            for part in batch.micro_batches:
                noise = torch.randint(0, 256, part.ids.shape, generator=torch.Generator().manual_seed(number))
                part.ids.copy_(noise)
                part.targets.copy_(noise.roll(7, 0))
        return batch

    def with_leap(optimizer: Optimizer, factor: float, momentum: float) -> float:
        if now("lr_x1000"):
            return step(optimizer, 1000 * factor, momentum)
        if now("optimizer_state"):
            _corrupt(optimizer)
        return step(optimizer, factor, momentum)

    with (
        patch.object(TrainingJob, "accumulate", with_gradients),
        patch.object(ScratchBatches, "batch_at", with_garbage),
        patch.object(Optimizer, "step", with_leap),
        patch.object(CheckpointSaver, "due", property(_is_due)),
    ):
        yield


def _corrupt(optimizer: Optimizer) -> None:
    """Overwrites every stored tensor with noise of a large scale."""

    def noise(tensor: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(tensor.numel())
        return torch.randn(tensor.shape, generator=generator).abs() * 100 if tensor.ndim else tensor

    optimizer.restore({name: noise(tensor) for name, tensor in optimizer.state().items()})


def faults(full: bool, *, steps: int = STEPS, kinds: tuple[str, ...] = FAULTS) -> list[BenchResult]:
    """Runs with one fault each, equally many of every kind, compared with clean runs of the same seeds."""
    chance = random.Random(3)
    seeds = range(10 if full else 1)
    clean = {seed: train(FaultyRun(), steps, seed) for seed in seeds}
    broken = {
        kind: [
            (seed, train(FaultyRun(kind, chance.randrange(steps // 4, 3 * steps // 4)), steps, seed))
            for seed in seeds
        ]
        for kind in kinds
    }
    results = []
    for kind, runs in broken.items():
        delay = max(run.delay for _seed, run in runs)
        cost = max(run.loss / clean[seed].loss for seed, run in runs)
        steps_told = ", ".join(str(run.at) for _seed, run in runs)
        limit = 1.0 if kind in ("nan_input", "infinite_gradient") else 20.0
        results.append(
            compare(
                f"recovery.{kind}.delay",
                ours=delay,
                baseline=limit,
                target=1.0,
                unit="steps",
                lower_is_better=True,
                notes=f"longest of {len(runs)} runs of {steps} steps, fault at step {steps_told}; limit {limit:.0f}",
            )
        )
        results.append(
            compare(
                f"recovery.{kind}.loss",
                ours=cost,
                baseline=1.02,
                target=1.0,
                unit="of the clean run's loss",
                lower_is_better=True,
                notes=f"general loss at the end, worst of {len(runs)}; the clean run's is {clean[0].loss:.3f}",
            )
        )
    return results


def false_alarms(full: bool, *, steps: int | None = None) -> list[BenchResult]:
    """Clean runs: share of steps applied without intervention."""
    length = steps or (5_000 if full else 1_500)
    runs = [train(FaultyRun(), length, seed) for seed in range(4 if full else 1)]
    count, alarms = length * len(runs), sum(len(run.recoveries) for run in runs)
    return [
        compare(
            "recovery.clean_steps",
            ours=1 - alarms / count,
            baseline=1 - 1e-4,
            target=1.0,
            unit="share of steps taken",
            lower_is_better=False,
            notes=f"{alarms} false alarms in {count:,} clean steps; limit 1 in 10,000",
        )
    ]


BENCHMARKS = (
    Benchmark("recovery.faults", "five kinds of faults in small runs", faults, 40),
    Benchmark(
        "recovery.false_alarms", "clean runs that should not be disturbed", false_alarms, 30, long=True
    ),
)
