"""Several processes train together: the same steps as one process, also after a process is killed or another number
of them resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import psutil
import pytest

from engine.core.errors import Interrupted, RunFailed, UsageProblem
from engine.models.base_models import find_base
from engine.models.card import Lineage
from engine.models.transformer import ModelConfig, Transformer
from engine.runs.context import RunContext
from engine.runs.control import Request
from engine.runs.events import (
    CommandHandled,
    GovernorAction,
    RankLost,
    RanksReported,
    RunStatus,
    StatusChanged,
    Step,
)
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.torchrun import rank_here
from engine.runs.train_flags import check_processes
from engine.training.autotune import CpuTuning
from engine.training.batches import MicroBatch
from engine.training.control import handle_commands
from engine.training.devices import Device
from engine.training.distributed.open import check_device, open_ranks
from engine.training.distributed.processes import SpawnedProcesses
from engine.training.lora.train import train_lora
from engine.training.objective import Objective, TrainableModel
from engine.training.recipe import Phase, Recipe, recipe_for
from engine.training.scratch import train_scratch
from engine.training.trainer import TrainingJob
from tests.hf_models import talks
from tests.unit.training_run import DatasetFile, events, new_run, text_file, tiny

STEPS = 9
CLOSE = 1e-4
"""Difference of two losses that only the order of sums explains."""


def recipe(nproc: int) -> Recipe:
    return msgspec.structs.replace(
        tiny(),
        nproc=nproc,
        max_steps=STEPS,
        epochs=99,
        checkpoint_every_s=1e9,
        curriculum=tiny().curriculum[1:],
    )


def train(ctx: RunContext, nproc: int, resume: RunContext | None = None) -> RunContext:
    root = ctx.workspace.root.parent
    text = root / "a.txt"
    train_scratch(
        ctx,
        recipe(nproc),
        [text if text.exists() else text_file(root)],
        name="m",
        out=ctx.workspace.root / "m",
        resume=resume.run_dir.path if resume is not None else None,
    )
    return ctx


def losses(*runs: RunContext) -> list[float | None]:
    found = {event.step: event.loss for ctx in runs for event in events(ctx, Step)}
    assert list(found) == list(range(1, STEPS + 1))
    return list(found.values())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[float | None]:
    """The losses of one process."""
    with pytest.MonkeyPatch.context() as patch:
        every_step(patch)
        return losses(train(new_run(tmp_path_factory.mktemp("alone") / "run"), 1))


def every_step(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("engine.training.metrics.MIN_EVENT_GAP_S", 0.0)
    patch.setenv("OMP_NUM_THREADS", "1")
    # A machine that computes faster in bfloat16 would round sums of other lengths otherwise than CLOSE allows.
    patch.setattr(
        "engine.training.autotune._measure", lambda _width, threads, _measured: CpuTuning(threads=threads)
    )


@pytest.fixture(autouse=True)
def in_every_test(monkeypatch: pytest.MonkeyPatch) -> None:
    every_step(monkeypatch)


def before_step(patch: pytest.MonkeyPatch, act: Callable[[TrainingJob], None]) -> None:
    def acting(job: TrainingJob, saver: object) -> bool:
        act(job)
        return handle_commands(job, saver)  # type: ignore[arg-type]

    patch.setattr("engine.training.loop.handle_commands", acting)


def kill_rank(job: TrainingJob) -> None:
    (rank,) = job.replicas.processes._children  # type: ignore[attr-defined]
    os.kill(rank.pid, signal.SIGKILL)


def test_a_killed_rank_a_pause_and_a_failed_allocation_change_no_loss(
    tmp_path: Path, alone: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(job: TrainingJob) -> None:
        commands = job.ctx.commands
        if job.state.step == 2:
            commands.handle(Request("pause"))
            threading.Timer(0.2, lambda: commands.handle(Request("resume"))).start()
        if job.state.step == 4:
            kill_rank(job)

    accumulate, short = Objective.accumulate, [5]

    def once_short_of_memory(
        objective: Objective, model: TrainableModel, parts: Sequence[MicroBatch], *, seed: int | None = None
    ) -> float:
        loss = accumulate(objective, model, parts, seed=seed)
        short[0] -= 1
        if short[0] == 0:
            raise MemoryError
        return loss

    monkeypatch.setattr(Objective, "accumulate", once_short_of_memory)
    before_step(monkeypatch, act)
    together = train(new_run(tmp_path / "run"), 2)
    assert losses(together) == pytest.approx(alone, abs=CLOSE)
    (lost,) = events(together, RankLost)
    assert (lost.step, lost.rank, lost.restarts, lost.reason) == (5, 1, 1, "killed by SIGKILL")
    # Other programs on the machine may cause more actions.
    failed = [event for event in events(together, GovernorAction) if event.cause == "allocation"]
    assert [event.action for event in failed] == ["caches"]
    assert [event.name for event in events(together, CommandHandled)] == ["pause", "resume"]
    statuses = [event.status for event in events(together, StatusChanged)]
    assert statuses[:2] == [RunStatus.PAUSED, RunStatus.RUNNING]
    report = events(together, RanksReported)[0]
    assert [one.rank for one in report.ranks] == [0, 1]
    assert report.ranks[0].pid == os.getpid() != report.ranks[1].pid
    assert all(one.tokens_per_s > 0 and one.used_mb > 50 for one in report.ranks)


def test_two_ranks_resume_as_one_process_and_as_two_again(
    tmp_path: Path, alone: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = [3]
    before_step(monkeypatch, lambda job: job.ctx.commands.signal() if job.state.step == stop[0] else None)
    two, one, again = (new_run(tmp_path / name) for name in ("two", "one", "again"))
    with pytest.raises(Interrupted):
        train(two, 2)
    stop[0] = 6
    with pytest.raises(Interrupted):
        train(one, 1, resume=two)
    stop[0] = -1
    train(again, 2, resume=one)
    assert losses(two, one, again) == pytest.approx(alone, abs=CLOSE)


@pytest.mark.long
def test_a_rank_that_is_lost_again_and_again_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step(monkeypatch, lambda job: kill_rank(job) if job.state.step == 4 else None)
    monkeypatch.setattr(SpawnedProcesses, "restarts", 0)
    ctx = new_run(tmp_path / "run")
    with pytest.raises(RunFailed, match=r"step 5: rank 1 was lost: killed by SIGKILL"):
        train(ctx, 2)
    assert len(events(ctx, Step)) == 4 and events(ctx, RankLost) == []


@pytest.mark.parametrize(
    ("device", "gpus", "here", "words"),
    [
        ("cpu", 0, 2, ""),
        ("cuda", 2, 2, ""),
        ("cuda", 1, 2, "needs a GPU for each process, and this machine has 1"),
        ("mps", 0, 2, "works on processors and on CUDA, not on mps"),
        ("xpu", 0, 2, "works on processors and on CUDA, not on xpu"),
    ],
)
def test_devices_that_several_processes_cannot_use_are_refused(
    device: str, gpus: int, here: int, words: str
) -> None:
    if not words:
        check_device(device, gpus, here)
        return
    with pytest.raises(UsageProblem, match=words):
        check_device(device, gpus, here)


def test_only_the_processes_of_this_machine_need_its_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    torchrun = {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "RANK": "1"}
    for name, value in (torchrun | {"LOCAL_RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    device, model = (
        Device("cuda", 1, False, ""),
        Transformer(ModelConfig(dim=8, layers=1, heads=1, kv_heads=1, head_dim=8, ffn=8)),
    )
    assert open_ranks(new_run(tmp_path).run_dir, 2, device, model, None).count == 2
    assert rank_here(1) == 0
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert rank_here(1) == 1
    with pytest.raises(UsageProblem, match="needs a GPU for each process"):
        open_ranks(new_run(tmp_path).run_dir, 2, device, model, None)


@pytest.mark.parametrize(
    ("nproc", "mode", "words"),
    [
        (1, TrainMode.MESSAGE, ""),
        (2, TrainMode.NATIVE, ""),
        (3, TrainMode.NATIVE, "more than the 2 cores"),
        (2, TrainMode.MESSAGE, "trains nothing"),
    ],
)
def test_processes_that_would_not_help_are_refused(
    monkeypatch: pytest.MonkeyPatch, nproc: int, mode: TrainMode, words: str
) -> None:
    monkeypatch.setattr("engine.runs.train_flags.allowed_cores", lambda: [0, 1])
    if not words:
        check_processes(nproc, mode)
        return
    with pytest.raises(UsageProblem, match=words):
        check_processes(nproc, mode)


@pytest.mark.long
def test_a_fault_within_a_step_ends_the_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks: list[psutil.Process] = []

    def fault(job: TrainingJob) -> None:
        if job.state.step == 2:
            ranks.append(psutil.Process(job.replicas.processes._children[0].pid))  # type: ignore[attr-defined]
            monkeypatch.setattr(Objective, "accumulate", broken)

    def broken(*_arguments: object, **_named: object) -> float:
        raise ValueError("a fault")

    before_step(monkeypatch, fault)
    with pytest.raises(ValueError, match="a fault"):
        train(new_run(tmp_path / "run"), 2)
    assert ranks and not ranks[0].is_running()


LEADER = """
import sys
from pathlib import Path
from engine.training import loop
from tests.unit.training_run import new_run
from tests.unit.test_ranks import train

def act(job, saver):
    if job.state.step == 2:
        print(job.replicas.processes._children[0].pid, flush=True)
        sys.stdin.read()

loop.handle_commands = act
train(new_run(Path(sys.argv[1]) / "run"), 2)
"""


@pytest.mark.long
def test_no_rank_outlives_a_killed_run(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEADER, str(tmp_path)]
    leader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert leader.stdout is not None
    rank = psutil.Process(int(leader.stdout.readline()))
    assert rank.is_running()
    leader.kill()
    leader.wait()
    rank.wait(timeout=30)
    assert not rank.is_running()


@pytest.mark.long
@pytest.mark.parametrize("hold", [0.0, 0.5])
def test_an_adapter_learns_the_same_with_two_ranks(tmp_path: Path, knowing_hf: Path, hold: float) -> None:
    """Also where the model is held to its base."""
    data = tmp_path / "data.jsonl"
    pairs = [
        ("What is your name?", "I am little Q."),
        ("How do I make tea?", "Boil some water, then wait."),
    ] * 3
    data.write_text("".join(json.dumps(row) + "\n" for row in talks(pairs)), encoding="utf-8")
    asked = TrainParams(context=128, rank=4, batch_size=4, max_steps=6)
    curves = []
    for nproc in (1, 2):
        made = recipe_for(msgspec.structs.replace(asked, nproc=nproc), Phase.LORA)
        adapter = msgspec.structs.replace(made.adapter, hold=hold, dropout=0.0)
        ctx = new_run(tmp_path / str(nproc))
        train_lora(
            ctx,
            msgspec.structs.replace(made, adapter=adapter, lr=1e-2),
            find_base(ctx.workspace, str(knowing_hf)),
            DatasetFile(data, Lineage()),
            name="mine",
            out=ctx.workspace.root / "mine",
        )
        curves.append([event.loss for event in events(ctx, Step)])
    assert curves[1] == pytest.approx(curves[0], abs=CLOSE)
    first, last = curves[0][0], curves[0][-1]
    assert first is not None and last is not None and first > 1.2 * last
