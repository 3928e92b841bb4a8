"""The memory budget held over long runs, over a text larger than any cache, and while it shrinks.

`H2Q_BENCH_MINUTES` sets the length of the long run, `H2Q_BENCH_DIR` where its text lies, `OMP_NUM_THREADS` its
threads.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import median
from unittest.mock import patch

import msgspec
import psutil
import torch

from bench.engine_run import POLL_S, Cgroup, EngineRun, cgroup, large_text, start
from bench.result import Benchmark, BenchResult, compare
from engine.core.paths import Workspace
from engine.models.tokenizer import VOCAB
from engine.runs import control
from engine.runs.kinds import TrainMode, TrainParams
from engine.training.batches import ScratchBatches
from engine.training.prefetch import Prefetcher
from engine.training.recipe import CurriculumStage, Phase, recipe_for
from engine.training.text_files import FileSpan, training_part
from engine.training.text_stream import TextStream

MB = 1 << 20
GROWTH_MB = 20.0
LIMIT_MB = 4096.0
MARGIN_MB = 300.0
"""Above the highest use of a step, to which a shrinking limit is set next. The same micro-batches differ by up to 150 MB from
step to step: what the allocator keeps lies where the last sizes left it."""
WARM, END = 0.25, 0.7
"""Shares of the steps between which growth is measured: the windows have one length there."""
NO_CGROUP = "; no cgroup could be made here, so only the budget bounded it"


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="memory-", dir=os.environ.get("H2Q_BENCH_DIR"))


def growth_mb(run: EngineRun) -> float:
    """MB by which the resident memory rose between warm-up and the end of the first stage."""
    # A phase that is bounded by time changes its steps while it runs: longer windows may come and go.
    first = list(takewhile(lambda one: one[1].step <= END * one[1].max_steps, run.steps()))
    times = [t for t, step in first if step.step >= WARM * step.max_steps]
    held = [mb for t, mb in run.memory() if times and times[0] <= t <= times[-1]]
    part = max(1, len(held) // 5)
    return median(held[-part:]) - median(held[:part]) if held else float("nan")


def long_run(full: bool) -> list[BenchResult]:
    """Trains in a cgroup of 4 GiB on windows from the whole length of a large text."""
    minutes = float(os.environ.get("H2Q_BENCH_MINUTES", "20" if full else "0.4"))
    size = 1 << 30 if full else 64 * MB
    with _folder() as name, cgroup(LIMIT_MB) as group:
        folder = Path(name)
        large_text(folder / "text.txt", size)
        params = TrainParams(
            mode=TrainMode.SCRATCH,
            data=[str(folder / "text.txt")],
            context=512,
            time_budget_s=minutes * 60,
            checkpoint_every_s=30.0,
            settings={"update_interval": 1.0 if full else 0.2},
        )
        run = start(Workspace(folder / "ws"), params, group=group)
        run.wait(minutes * 60 * 3 + 600)
        kills = group.kills if group is not None else 0
        if not run.done:
            raise RuntimeError(f"the long run failed: {run.error}, {kills} kills by the kernel")
        peak = max(mb for _t, mb in run.memory())
        charged = group.peak_mb if group is not None else peak
        last = run.steps()[-1][1]
        with TextStream([training_part(folder / "text.txt")]) as stream:
            blocks = {
                start * 100 // stream.size for n in range(last.draws) for start in stream.starts(n, 24, 129)
            }
        took = run.records[-1].t - run.records[0].t
    what = (
        f"{took / 60:.1f} minutes, {last.step:,} steps, {last.tokens / 1e6:.1f} MB drawn from {len(blocks)} of 100 "
        f"parts of {size / MB:,.0f} MB of text, {kills} kills" + ("" if group is not None else NO_CGROUP)
    )
    return [
        compare(
            "memory.long.peak",
            ours=max(peak, min(charged, LIMIT_MB)) if group is not None else peak,
            baseline=LIMIT_MB,
            target=1.0,
            unit="MB",
            lower_is_better=True,
            notes=f"{what}; resident at most {peak:,.0f} MB, charged with page cache {charged:,.0f} MB",
        ),
        compare(
            "memory.long.growth",
            ours=max(growth_mb(run), 0.1),
            baseline=GROWTH_MB,
            target=1.0,
            unit="MB",
            lower_is_better=True,
            notes=f"resident memory between {WARM:.0%} and {END:.0%} of the steps; limit {GROWTH_MB:.0f} MB",
        ),
    ]


def loader(full: bool) -> list[BenchResult]:
    """Reads a text once from end to end, against a mapped file that is read in the same pieces."""
    size = 1 << 30 if full else 64 * MB
    with _folder() as name:
        path = Path(name) / "text.txt"
        large_text(path, size)
        process = psutil.Process()
        with TextStream([FileSpan(path, 0, size)], chunk_bytes=32 << 10, cached_chunks=64) as stream:
            stream.read(0, 2049)
            before, highest = process.memory_info().rss, 0
            begin = time.perf_counter()
            for place in range(0, size, 65536):
                stream.read(place, min(65536, size - place))
                if place % (16 * MB) == 0:
                    highest = max(highest, process.memory_info().rss)
            seconds = time.perf_counter() - begin
            highest = max(highest, process.memory_info().rss)
        mapped = process.memory_info().rss
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            for place in range(0, size, 65536):
                bytes(view[place : place + 65536])
            mapped = process.memory_info().rss - mapped
    grown = (highest - before) / MB
    return [
        compare(
            "memory.loader.growth",
            ours=max(grown, 0.1),
            baseline=GROWTH_MB,
            target=1.0,
            unit="MB",
            lower_is_better=True,
            notes=f"{size / MB:,.0f} MB read once in {seconds:.1f} s; a mapped file grew by {mapped / MB:,.0f} MB",
        )
    ]


@dataclass(frozen=True)
class _Fall:
    """A budget that falls from `before` to `after` GB during `steps` steps of `windows` windows in one pass."""

    before: float
    after: float
    steps: int
    windows: int

    def params(self, text: Path) -> TrainParams:
        return TrainParams(
            mode=TrainMode.SCRATCH,
            data=[str(text)],
            context=128,
            batch_size=self.windows,
            max_steps=self.steps,
            max_memory_gb=self.before,
            checkpoint_every_s=30.0,
            settings={"update_interval": 0.5, "resource_check_interval": 0.5},
        )


FULL, SHORT = _Fall(4.0, 1.5, 16, 640), _Fall(2.0, 0.9, 10, 160)


def _until_step(run: EngineRun, step: int) -> None:
    while run.poll() and not any(event.step >= step for _t, event in run.steps()):
        time.sleep(POLL_S)


def _squeeze(run: EngineRun, group: Cgroup, mb: float) -> None:
    """Lowers the limit to `mb` step by step, each time to little above the most that the step before has held.

    A limit below what is held at some moment of a step ends any program: the kernel has nothing to take back.
    """
    group.restart_peak()
    before = run.steps()[-1][1].step if run.steps() else 0
    while run.poll() and group.limit_mb > mb + 1:
        if run.steps()[-1][1].step >= before + 2:
            before = run.steps()[-1][1].step
            group.set_limit(max(mb, min(group.limit_mb, group.peak_mb + MARGIN_MB)))
            group.restart_peak()
        time.sleep(POLL_S)


def shrink(full: bool) -> list[BenchResult]:
    """The budget falls during a run: by a command, and by the limit of a cgroup."""
    fall = FULL if full else SHORT
    results = []
    with _folder() as name, cgroup(LIMIT_MB) as group:
        folder = Path(name)
        large_text(folder / "text.txt", 16 * MB)
        runs = {}
        for kind in ("whole", "command", *(["cgroup"] if group is not None else [])):
            run = start(Workspace(folder / kind), fall.params(folder / "text.txt"), group=group)
            _until_step(run, max(1, fall.steps // 4))
            if kind == "command":
                control.send_sync(run.run, "set", f"max_memory_gb={fall.after}", timeout=300)
            elif kind == "cgroup" and group is not None:
                _squeeze(run, group, 1024 * fall.after)
            asked = run.records[-1].t
            run.wait(3600)
            if not run.done:
                raise RuntimeError(f"{kind}: {run.error}")
            runs[kind] = (run, asked)
        whole = runs.pop("whole")[0]
        for kind, (run, asked) in runs.items():
            loss, expected = run.steps()[-1][1].loss, whole.steps()[-1][1].loss
            assert loss is not None and expected is not None
            told = ", ".join(f"{event.step}: {event.action}" for event in run.governed())
            # The first step after the command is under way when it comes, and each remedy takes one more.
            settled = [t for t, step in run.steps() if t > asked][-max(1, fall.steps // 4) :]
            after = [mb for t, mb in run.memory() if settled and t > settled[0]] or [run.memory()[-1][1]]
            peak = max(mb for _t, mb in whole.memory())
            results += [
                compare(
                    f"memory.shrink.{kind}.loss",
                    ours=max(abs(loss / expected - 1), 1e-9),
                    baseline=0.01,
                    target=1.0,
                    unit="relative change of the final loss",
                    lower_is_better=True,
                    notes=f"{loss:.4f} against {expected:.4f} after {fall.steps} steps; {told}",
                ),
                compare(
                    f"memory.shrink.{kind}.peak",
                    ours=max(after),
                    baseline=1024 * fall.after,
                    target=1.0,
                    unit="MB",
                    lower_is_better=True,
                    notes=f"resident memory over the last quarter of the steps; {peak:,.0f} MB in the run left alone",
                ),
            ]
    return results


@dataclass(frozen=True)
class _Way:
    """How batches are had: threads, bytes of a chunk, and whether their memory is used again."""

    threads: int = 1
    chunk: int = 32 << 10
    reuse: bool = True
    delay_s: float = 0.0
    """What each read of a file takes longer: a disk on the network or on a USB stick."""


def _waiting(path: Path, way: _Way, steps: int, clock: Callable[[], float]) -> float:
    """Seconds of `clock` that a step of a small model spends on having its batch; gradients are computed for real."""
    recipe = recipe_for(TrainParams(context=512, batch_size=96, seed=1), Phase.SCRATCH)
    curriculum = (CurriculumStage(until=1.0, context=512, batch=8),)
    recipe = msgspec.structs.replace(recipe, curriculum=curriculum)
    model = torch.nn.Sequential(torch.nn.Embedding(VOCAB, 32), torch.nn.Linear(32, 64))
    pread, waited = os.pread, 0.0

    def slow(fd: int, length: int, offset: int) -> bytes:
        time.sleep(way.delay_s)
        return pread(fd, length, offset)

    part = training_part(path)
    with (
        patch.object(os, "pread", slow if way.delay_s else pread),
        TextStream([part], chunk_bytes=way.chunk, cached_chunks=64) as stream,
        Prefetcher(ScratchBatches(stream, recipe, 1 << 20), threads=way.threads, ahead=3) as batches,
    ):
        for number in range(steps + 5):
            begin = clock()
            batch = batches.batch_at(number, 1 << 20)
            waited += clock() - begin if number >= 5 else 0.0
            for one in batch.micro_batches:
                model(one.ids).square().mean().backward()
            model.zero_grad()
            if way.reuse:
                batch.release()
    return waited / steps


def streaming(full: bool) -> list[BenchResult]:
    """What threads, chunks and used buffers bring: the wait of a step for its data, with and without each."""
    torch.set_num_threads(1)
    steps = 300 if full else 40
    with _folder() as name:
        path = Path(name) / "text.txt"
        large_text(path, MB)

        def pair(what: str, ours: _Way, other: _Way, target: float, notes: str) -> BenchResult:
            # With a fast disk it is work of a fraction of a millisecond, of which a busy machine must not change
            # the figure: the computing thread's own time, the least of more rounds, taken in turn.
            clock, rounds = (time.perf_counter, 2) if other.delay_s else (time.thread_time, 6)
            waits = [[_waiting(path, way, steps, clock) for way in (ours, other)] for _round in range(rounds)]
            with_it, without = (min(times) for times in zip(*waits, strict=True))
            return compare(
                f"memory.streaming.{what}",
                ours=max(1000 * with_it, 1e-3),
                baseline=1000 * without,
                target=target,
                unit="ms of waiting a step" if other.delay_s else "ms of the computing thread a step",
                lower_is_better=True,
                notes=notes,
            )

        slow = 0.001
        return [
            pair(
                "prefetch",
                _Way(),
                _Way(threads=0),
                1.5,
                "batches ahead in a thread; 1 MB of text, local disk",
            ),
            pair(
                "prefetch.slow",
                _Way(chunk=0, delay_s=slow),
                _Way(threads=0, chunk=0, delay_s=slow),
                1.2,
                "the same, each read 1 ms longer, no chunks",
            ),
            pair(
                "chunks.slow",
                _Way(threads=0, delay_s=slow),
                _Way(threads=0, chunk=0, delay_s=slow),
                5.0,
                "32 KB chunks kept, each read 1 ms longer, no thread",
            ),
            pair(
                "chunks",
                _Way(threads=0),
                _Way(threads=0, chunk=0),
                0.9,
                "32 KB chunks kept, local disk, no thread",
            ),
            pair(
                "buffers",
                _Way(threads=0),
                _Way(threads=0, reuse=False),
                0.9,
                "memory of batches used again, no thread",
            ),
        ]


BENCHMARKS = (
    Benchmark(
        "memory.streaming",
        "batches ahead, chunks kept and buffers used again, each with and without",
        streaming,
        20,
    ),
    Benchmark("memory.long", "a run in a cgroup of 4 GiB on a text of 1 GB", long_run, 60, long=True),
    Benchmark("memory.loader", "a large text read once", loader, 5),
    Benchmark(
        "memory.shrink", "the budget falls during a run (from 4 to 1.5 GB in the full form)", shrink, 60
    ),
)
