"""The memory budget held over long runs, over a text larger than any cache, and while it shrinks.

`H2Q_BENCH_MINUTES` sets the length of the long run, `H2Q_BENCH_DIR` where its text lies, `OMP_NUM_THREADS` its
threads.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from bench.engine_run import POLL_S, Cgroup, EngineRun, cgroup, large_text, start
from bench.result import Benchmark, BenchResult, compare
from engine.paths import Workspace
from engine.runs import control
from engine.runs.spec import TrainMode, TrainParams
from engine.training.stream import TextStream
from engine.training.text_files import Span, training_part

MB = 1 << 20
GROWTH_MB = 20.0
LIMIT_MB = 4096.0
WARM, END = 0.25, 0.7
"""Shares of the steps between which growth is measured: the windows have one length there."""
NO_CGROUP = "; no cgroup could be made here, so only the budget bounded it"


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="memory-", dir=os.environ.get("H2Q_BENCH_DIR"))


def growth_mb(run: EngineRun) -> float:
    """MB by which the resident memory rose between warm-up and the end of the first stretch."""
    steps = run.steps()
    most = steps[-1][1].max_steps
    times = [t for t, step in steps if WARM * most <= step.step <= END * most]
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
        with TextStream([Span(path, 0, size)], chunk_bytes=32 << 10, cached_chunks=64) as stream:
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


FULL, SHORT = _Fall(4.0, 1.5, 16, 640), _Fall(2.0, 0.9, 6, 160)


def _until_step(run: EngineRun, step: int) -> None:
    while run.poll() and not any(event.step >= step for _t, event in run.steps()):
        time.sleep(POLL_S)


def _squeeze(run: EngineRun, group: Cgroup, mb: float) -> None:
    """Lowers the limit to `mb` as an administrator may: as fast as it can be given back, never below what is held."""
    while run.poll() and group.limit_mb > mb + 1:
        group.set_limit(max(mb, min(group.limit_mb, group.used_mb + 300)))
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


BENCHMARKS = (
    Benchmark("memory.long", "a run in a cgroup of 4 GiB on a text of 1 GB", long_run, 60),
    Benchmark("memory.loader", "a large text read once", loader, 5),
    Benchmark(
        "memory.shrink", "the budget falls during a run (from 4 to 1.5 GB in the full form)", shrink, 60
    ),
)
