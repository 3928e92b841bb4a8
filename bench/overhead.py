"""What checkpoints cost a training: processor time of the thread that writes, and the wait of the step that copies."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from unittest.mock import patch

import msgspec

from bench.result import Benchmark, BenchResult, compare
from engine.core.paths import Workspace, shipped
from engine.runs.context import RunContext
from engine.runs.journal import JournalWriter
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.rundir import RunDir
from engine.runs.spec import encode_spec, make_spec
from engine.training import checkpoint
from engine.training.checkpoint_saver import CheckpointSaver
from engine.training.loop import train
from engine.training.recipe import Phase, Recipe, recipe_for
from engine.training.scratch import train_scratch

TEXT = shipped("data") / "sample" / "text" / "tinyshakespeare.txt"
LIMIT = 3.5
"""Per cent of the time of a training (CheckFreq, FAST 2021)."""
SCALED_S = 1.0
"""Interval of the measured run: as many checkpoints in seconds as a run has in as many minutes."""
NEVER_S = 1e9


@dataclass
class Cost:
    """Seconds of each checkpoint, and of the whole training."""

    written: list[float] = field(default_factory=list)
    """Processor time of the thread."""
    waited: list[float] = field(default_factory=list)
    """Wall time that a step was held up."""
    cpu: float = 0.0
    wall: float = 0.0
    bytes: int = 0


@contextmanager
def _watched(cost: Cost) -> Iterator[None]:
    """The product's own methods, timed."""
    write, begin = checkpoint.write, CheckpointSaver._begin

    def timed_write(*arguments: object) -> tuple[Path, int]:
        start = time.thread_time()
        written = write(*arguments)  # type: ignore[arg-type]
        cost.written.append(time.thread_time() - start)
        cost.bytes = written[1]
        return written

    def timed_begin(saver: CheckpointSaver) -> None:
        start = time.perf_counter()
        begin(saver)
        cost.waited.append(time.perf_counter() - start)

    def timed_train(*arguments: object) -> object:
        wall, cpu = time.perf_counter(), time.process_time()
        state = train(*arguments)  # type: ignore[arg-type]
        cost.wall, cost.cpu = time.perf_counter() - wall, time.process_time() - cpu
        return state

    with (
        patch.object(checkpoint, "write", timed_write),
        patch.object(CheckpointSaver, "_begin", timed_begin),
        patch("engine.training.scratch.train", timed_train),
    ):
        yield


def measure(recipe: Recipe) -> Cost:
    """A real training by `recipe`."""
    cost = Cost()
    with tempfile.TemporaryDirectory() as folder, _watched(cost):
        ws = Workspace(Path(folder))
        spec = make_spec(ws.root, TrainParams(mode=TrainMode.SCRATCH))
        spec.folder.mkdir(parents=True)
        (spec.folder / "spec.json").write_bytes(encode_spec(spec))
        ws.models.mkdir()
        run_dir = RunDir(spec.folder)
        ctx = RunContext(run_dir, JournalWriter(run_dir.events_path))
        train_scratch(ctx, recipe, [TEXT], name="m", out=ws.models / "m")
    return cost


def overhead(full: bool, *, steps: int | None = None) -> list[BenchResult]:
    """The cost of a checkpoint over the default interval, and two trainings against each other, with and without."""
    params = TrainParams(max_steps=steps or (300 if full else 60), context=512)
    recipe = recipe_for(params, Phase.SCRATCH)
    interval = TrainParams().checkpoint_every_s
    without, often = (
        measure(msgspec.structs.replace(recipe, checkpoint_every_s=every)) for every in (NEVER_S, SCALED_S)
    )
    # The last one is written in both.
    count = max(1, len(often.written) - 1)
    each = median(often.written) + median(often.waited)
    extra = max(0.0, often.cpu - without.cpu) / count
    about = f"{often.bytes / 1e6:.1f} MB, default interval {interval:.0f} s; limit {LIMIT} %"
    return [
        compare(
            "durability.overhead",
            ours=100 * each / interval,
            baseline=LIMIT,
            target=1.0,
            unit="% of the time",
            lower_is_better=True,
            notes=f"median of {len(often.written)}: {1000 * median(often.waited):.1f} ms that a step waits for the copy "
            f"and {1000 * median(often.written):.1f} ms of a processor in the thread; {about}",
        ),
        compare(
            "durability.overhead.scaled",
            ours=max(0.01, 100 * extra / interval),
            baseline=LIMIT,
            target=1.0,
            unit="% of the time",
            lower_is_better=True,
            notes=f"the same {recipe.max_steps} steps with {count} checkpoints and without: processor time "
            f"{often.cpu:.1f} s against {without.cpu:.1f} s, wall {often.wall:.1f} s against {without.wall:.1f} s, "
            f"as if {interval:.0f} s apart; {about}",
        ),
    ]


BENCHMARKS = (Benchmark("durability.overhead", "what checkpoints cost a training", overhead, 40),)
