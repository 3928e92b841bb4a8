"""The status files that other programs poll."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from engine.core.paths import Workspace
from engine.machine.cpu import ProcessTreeCpu
from engine.machine.probes import MachineProbes
from engine.runs.context import RunContext
from engine.runs.events import Finished, RunStatus, StageChanged, Started, Step
from engine.runs.journal import JournalWriter
from engine.runs.kinds import CorpusParams, Params, TrainParams
from engine.runs.launch import create_run
from engine.runs.legacy_status import (
    REPORT,
    STATUS,
    STREAMING,
    StatusFigures,
    engine_report,
    engine_status,
    issues,
    streaming_status,
)
from engine.runs.rundir import TRAIN_LOCK
from engine.runs.spec import make_spec
from engine.training.batches import ScratchBatches
from engine.training.scratch import train_scratch
from tests.unit.training_run import events, new_run, text_file, tiny

FIELDS = {
    STREAMING: {
        "timestamp", "training_active", "current_step", "best_loss", "memory_usage_mb", "cpu_usage_percent",
        "streaming_efficiency", "data_chunks_processed",
    },
    STATUS: {
        "timestamp", "streaming_running", "training_active", "current_step", "best_loss", "memory_usage_mb",
        "cpu_usage_percent", "streaming_efficiency", "issues", "platform", "memory_limit",
    },
    REPORT: {"timestamp", "platform", "memory_config", "optimization", "components", "status"},
}  # fmt: skip
"""As the earlier trainer wrote them."""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[Params], RunContext]]:
    journals = []

    def make(params: Params) -> RunContext:
        (tmp_path / "status").mkdir(exist_ok=True)
        run = create_run(Workspace(tmp_path), make_spec(tmp_path, params))
        journals.append(JournalWriter(run.events_path))
        ctx = RunContext(run, journals[-1])
        ctx.emit(Started(pid=os.getpid(), program="test"))
        return ctx

    yield make
    for journal in journals:
        journal.close()


def read(folder: Path, name: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads((folder / "status" / name).read_text(encoding="utf-8"), parse_constant=refuse)


def step(number: int, phase: str = "native", **more: Any) -> Step:
    written = {"max_steps": 100, "loss": 2.0, "lr": 0.1, "tokens": 9, "tokens_per_s": 9.0, **more}
    return Step(phase=phase, step=number, **written)


def facts(**more: Any) -> StatusFigures:
    base = StatusFigures(
        now=1_700_000_000.25,
        run_id="1114-221320-aa",
        pid=7,
        status=RunStatus.RUNNING,
        alive=True,
        training=True,
        step=100,
        best_loss=1.5,
        memory_mb=812.5,
        limit_mb=4096.0,
        cpu_percent=48.0,
        efficiency=0.97,
        batches=100,
        warnings=(),
        machine=MachineProbes(Path("/")).sample(),
    )
    return replace(base, machine=replace_disk(base, 1 << 40), **more)


def replace_disk(base: StatusFigures, free: int) -> Any:
    return msgspec.structs.replace(base.machine, disk_free=free)


def test_file_names_and_fields_match_the_earlier_trainer(
    tmp_path: Path, make: Callable[[Params], RunContext]
) -> None:
    ctx = make(TrainParams())
    with ctx.train_lock():
        ctx.record_memory()
        ctx.write_state()
    for name, fields in FIELDS.items():
        written = read(tmp_path, name)
        assert fields <= set(written)
        assert written["run_id"] == ctx.run_dir.run_id
    parts = read(tmp_path, REPORT)["components"]
    assert set(parts) == {"streaming_trainer", "health_monitor"}
    assert set(parts["streaming_trainer"]) == {
        "running", "training_active", "current_step", "best_loss", "memory_limit_gb"
    }  # fmt: skip
    assert set(parts["health_monitor"]) == {"realtime_stats", "streaming_status", "system_health"}
    assert read(tmp_path, STREAMING)["memory_usage_mb"] == ctx.view.memory.used_mb  # type: ignore[union-attr]


def test_figures_of_two_phases_are_summed(tmp_path: Path, make: Callable[[Params], RunContext]) -> None:
    ctx = make(TrainParams())
    with ctx.train_lock():
        ctx.emit(StageChanged(name="scratch", state="started"))
        ctx.emit(step(40, "scratch", draws=41, wall_s=6.0, waited_s=0.5))
        ctx.emit(StageChanged(name="scratch", state="done"))
        ctx.emit(StageChanged(name="native", state="started"))
        ctx.emit(step(9, draws=9, wall_s=1.5, waited_s=0.4))
        ctx.emit(step(10, draws=10, wall_s=2.0, waited_s=0.5))
        ctx.write_state()
        written = read(tmp_path, STREAMING)
        assert (written["data_chunks_processed"], written["current_step"], written["best_loss"]) == (
            51,
            10,
            2.0,
        )
        assert written["streaming_efficiency"] == 1 - 1.0 / 8.0
        assert written["training_active"] is True
        ctx.emit(StageChanged(name="native", state="done"))
        ctx.write_state()
        assert read(tmp_path, STREAMING)["training_active"] is False
        assert read(tmp_path, STATUS)["streaming_running"] is True


def test_a_training_reports_its_batches_and_data_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = ScratchBatches.batch_at

    def slowly(batches: ScratchBatches, *words: Any) -> Any:
        time.sleep(0.05)
        return draw(batches, *words)

    monkeypatch.setattr(ScratchBatches, "batch_at", slowly)
    ctx = new_run(tmp_path, TrainParams(settings={"num_worker_threads": 0}))
    (tmp_path / "status").mkdir()
    with ctx.train_lock():
        train_scratch(ctx, tiny(), [text_file(tmp_path)], name="base", out=tmp_path / "models" / "base")
        ctx.write_state()
    written = read(tmp_path, STREAMING)
    last = events(ctx, Step)[-1]
    assert written["data_chunks_processed"] == written["current_step"] == 6
    assert last.waited_s >= 6 * 0.05 and last.waited_s < last.wall_s
    assert written["streaming_efficiency"] == round(1 - last.waited_s / last.wall_s, 4)


def test_an_ended_run_reports_its_shutdown(tmp_path: Path, make: Callable[[Params], RunContext]) -> None:
    ctx = make(TrainParams())
    with ctx.train_lock():
        ctx.write_state()
        assert "shutdown_time" not in read(tmp_path, REPORT)
    ctx.emit(Finished(status=RunStatus.FAILED, exit_code=5, error="no"))
    ctx.write_state()
    written = read(tmp_path, REPORT)
    assert (written["status"], written["outcome"], written["shutdown_time"]) == (
        "shutdown",
        "failed",
        written["timestamp"],
    )
    assert read(tmp_path, STATUS)["streaming_running"] is False
    assert read(tmp_path, STATUS)["status"] == "shutdown"


def test_the_files_are_updated_at_the_configured_interval(
    tmp_path: Path, make: Callable[[Params], RunContext]
) -> None:
    ctx = make(TrainParams(settings={"update_interval": 0.1}))
    stamps: set[str] = set()
    deadline = time.monotonic() + 10
    with ctx.train_lock(), ctx.serving():
        while len(stamps) < 3 and time.monotonic() < deadline:
            if (tmp_path / "status" / STREAMING).exists():
                stamps.add(read(tmp_path, STREAMING)["timestamp"])
    assert len(stamps) == 3


def test_a_reader_never_sees_a_partial_file(tmp_path: Path, make: Callable[[Params], RunContext]) -> None:
    ctx = make(TrainParams())
    with ctx.train_lock():
        ctx.write_state()
        over = threading.Event()

        def write_on() -> None:
            for _time in range(40):
                ctx.write_state()
            over.set()

        writer = threading.Thread(target=write_on)
        writer.start()
        looks = 0
        while not over.is_set() or looks == 0:
            for name in FIELDS:
                assert read(tmp_path, name)["run_id"]
            looks += 1
        writer.join()
    assert [file.name for file in (tmp_path / "status").iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize("params", [CorpusParams(), TrainParams()], ids=["no training", "refused or waiting"])
def test_a_run_that_does_not_train_writes_no_files(
    tmp_path: Path, make: Callable[[Params], RunContext], params: Params
) -> None:
    ctx = make(params)
    ctx.write_state()
    ctx.emit(Finished(status=RunStatus.FAILED, exit_code=5))
    ctx.write_state()
    assert list((tmp_path / "status").iterdir()) == []


def test_an_ended_run_does_not_overwrite_the_files_of_the_training_run(
    tmp_path: Path, make: Callable[[Params], RunContext]
) -> None:
    first, second = make(TrainParams()), make(TrainParams())
    with first.train_lock():
        first.write_state()
    with second.train_lock():
        second.write_state()
        first.emit(Finished(status=RunStatus.DONE, exit_code=0))
        first.write_state()
        assert read(tmp_path, STREAMING)["run_id"] == second.run_dir.run_id
    assert (tmp_path / "runs" / TRAIN_LOCK).exists()


def test_infinite_and_unknown_values_are_null() -> None:
    unknown = facts(best_loss=float("inf"), memory_mb=None, efficiency=None, step=0)
    for content in (streaming_status, engine_status, engine_report):
        written = json.loads(msgspec.json.encode(content(unknown)))
        assert "Infinity" not in json.dumps(written)
    assert json.loads(msgspec.json.encode(streaming_status(unknown)))["best_loss"] is None
    assert streaming_status(unknown)["streaming_efficiency"] is None


def test_problems_are_listed_as_issues() -> None:
    assert issues(facts()) == []
    assert len(issues(facts(memory_mb=4097.0))) == 1
    assert len(issues(facts(efficiency=0.5))) == 1
    assert issues(facts(warnings=("step 3 discarded",))) == ["step 3 discarded"]
    full = replace(facts(), machine=replace_disk(facts(), 1 << 20))
    assert issues(full) == [text for text in issues(full) if "disk" in text] and issues(full)
    assert engine_report(full)["components"]["health_monitor"]["system_health"]["healthy"] is False


def test_each_warning_is_listed_once(tmp_path: Path, make: Callable[[Params], RunContext]) -> None:
    ctx = make(TrainParams())
    with ctx.train_lock():
        for _again in range(3):
            ctx.log("no room for a checkpoint", "warning")
        ctx.log("all is well")
        ctx.write_state()
    found = [text for text in read(tmp_path, STATUS)["issues"] if "disk is almost" not in text]
    assert found == ["no room for a checkpoint"]


def test_a_full_disk_does_not_fail_the_run(
    make: Callable[[Params], RunContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = make(TrainParams())
    called = []

    def refuse(path: Path, data: bytes) -> None:
        called.append(path.name)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.core.files.write_bytes_unsynced", refuse)
    with ctx.train_lock():
        ctx.write_state()
    assert called == [STREAMING, STATUS, REPORT]


def test_the_cpu_load_covers_the_process_tree() -> None:
    ticks = iter([0.0, 1e-6, 1e-6 + 1.0])
    load = ProcessTreeCpu(clock=lambda: next(ticks))
    child = subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None and child.stdout.readline()
        load.sample()
        watched = psutil.Process(child.pid)
        before = watched.cpu_times().user
        while watched.cpu_times().user < before + 0.2:
            time.sleep(0.01)
        # The clock of the test says that one second has passed, whatever the machine does.
        assert load.sample() >= 100 * 0.2 / (psutil.cpu_count() or 1) - 1
    finally:
        child.kill()
        child.wait()
