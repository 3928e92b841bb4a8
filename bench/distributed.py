"""Two processes against one: the same losses, and the speed that the scaling model expects.

Both compute on one thread each, in turns within one run, so that other load meets both. The expectation takes the time
of one process, and that of an exchange without windows, which moves the weights alone.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

import msgspec

from bench.result import Benchmark, BenchResult, compare
from bench.training import TEXT
from engine.core.paths import Workspace
from engine.runs.context import RunContext
from engine.runs.events import Step
from engine.runs.journal import JournalReader, JournalWriter
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.rundir import RunDir
from engine.runs.spec import encode_spec, make_spec
from engine.training.checkpoint import LoopState
from engine.training.devices import Device, choose_device
from engine.training.distributed.divide import divide
from engine.training.distributed.scaling import Link, StepWork, estimate
from engine.training.recipe import Phase, Recipe, recipe_for
from engine.training.scratch import train_scratch
from engine.training.trainer import TrainingJob

CLOSE = 1e-4
"""Largest difference of two losses that the order of sums explains, in nats per byte."""
AGREEMENT = 0.8
"""Lowest acceptable measured speed-up, as a share of the expected one."""
TOKEN_BYTES = 24
"""Of a token as it is sent: two int64 ids and two float32 weights."""


def _float32(*arguments: object, **named: object) -> Device:
    return replace(choose_device(*arguments, **named), bf16=False)  # type: ignore[arg-type]


def _training(recipe: Recipe) -> list[float]:
    """The losses of a real training by `recipe`, in float32."""
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder))
        spec = make_spec(ws.root, TrainParams(mode=TrainMode.SCRATCH))
        spec.folder.mkdir(parents=True)
        (spec.folder / "spec.json").write_bytes(encode_spec(spec))
        ws.models.mkdir()
        run = RunDir(spec.folder)
        with (
            patch("engine.training.setup.choose_device", _float32),
            patch("engine.training.metrics.MIN_EVENT_GAP_S", 0.0),
            patch.dict("os.environ", OMP_NUM_THREADS="1"),
        ):
            train_scratch(
                RunContext(run, JournalWriter(run.events_path)), recipe, [TEXT], name="m", out=ws.models / "m"
            )
        records = JournalReader(run.events_path).poll()
    return [record.event.loss or 0.0 for record in records if isinstance(record.event, Step)]


@dataclass
class _Timings:
    """Seconds of the parts of a step, in rounds."""

    alone: list[float] = field(default_factory=list)
    together: list[float] = field(default_factory=list)
    empty: list[float] = field(default_factory=list)
    """An exchange without windows: weights and figures, no gradients."""
    rest: list[float] = field(default_factory=list)
    weights_bytes: int = 0
    tokens: int = 0

    def take(self, job: TrainingJob, rounds: int) -> None:
        batch = job.batches.batch_at(0, job.state.max_steps)
        self.tokens = batch.tokens
        self.weights_bytes = sum(4 * parameter.numel() for parameter in job.optimizer.parameters)
        cut = [part for share in divide(batch.micro_batches, 2) for part in share]
        for number in range(rounds + 1):
            steps: list[tuple[list[float], Callable[[], object]]] = [
                (self.alone, lambda: job.accumulate_here(cut)),
                (self.empty, lambda: job.replicas.accumulate(job, [])),
                (self.together, lambda: job.accumulate(batch)),
                (self.rest, lambda: job.optimizer.step(1e-6, 0.9)),
            ]
            for times, step in steps:
                begin = time.perf_counter()
                step()
                if number > 0:  # the first round fills caches
                    times.append(time.perf_counter() - begin)
                if times is not self.together:
                    job.optimizer.zero_grad()


def distributed(full: bool, *, steps: int | None = None, rounds: int | None = None) -> list[BenchResult]:
    """The losses of two processes against those of one, and the speed-up against the scaling model."""
    steps = steps or (200 if full else 8)
    recipe = recipe_for(TrainParams(max_steps=steps, context=128), Phase.SCRATCH)
    both = msgspec.structs.replace(recipe, nproc=2)
    alone, together = _training(recipe), _training(both)
    difference = max(abs(one - other) for one, other in zip(alone, together, strict=True))
    timings = _Timings()

    def measured(job: TrainingJob) -> LoopState:
        with job.replicas:
            job.replicas.start(job)
            timings.take(job, rounds or (30 if full else 5))
        return job.state

    with patch("engine.training.scratch.train", measured):
        _training(msgspec.structs.replace(both, max_steps=1))
    one, two = median(timings.alone), median(timings.together)
    rest, empty = median(timings.rest), median(timings.empty)
    work = StepWork(timings.weights_bytes, TOKEN_BYTES * timings.tokens, one, rest)
    link = Link(work.weights_bytes / empty)
    expected, speedup = estimate(work, link, 2), (one + rest) / (two + rest)
    about = (
        f"{work.weights_bytes / 1e6:.2f} MB of weights, {timings.tokens:,} bytes of text in a step, "
        f"{link.bytes_per_s / 1e6:.0f} MB/s between the processes, one thread each"
    )
    return [
        compare(
            "distributed.losses",
            ours=max(difference, 1e-12),
            baseline=CLOSE,
            target=1.0,
            unit="nats/byte",
            lower_is_better=True,
            notes=f"largest difference of {steps} losses of one and of two processes, float32, final loss {alone[-1]:.4f}",
        ),
        compare(
            "distributed.speedup",
            ours=speedup,
            baseline=expected.speedup,
            target=AGREEMENT,
            unit="times one process",
            lower_is_better=False,
            notes=f"gradients in {1000 * one:.0f} ms alone and {1000 * two:.0f} ms together, against the scaling model; {about}",
        ),
    ]


BENCHMARKS = (
    Benchmark(
        "distributed",
        "two processes against one: losses, and speed as the scaling model expects",
        distributed,
        90,
    ),
)
