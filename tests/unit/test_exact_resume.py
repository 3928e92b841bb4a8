"""Exact resuming: everything a checkpoint must contain, and how it is written."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from engine.core.errors import Interrupted
from engine.models.native_format import load_model
from engine.runs.context import RunContext
from engine.runs.events import CheckpointFailed, Log, RecoveryAction, RunStatus, StatusChanged, Step
from engine.training import checkpoint
from engine.training.batches import Batch
from engine.training.checkpoint import (
    CheckpointSnapshot,
    LoopState,
    RetentionPolicy,
    find_newest,
    load,
    load_trainable_state,
    save,
    trainable_state,
)
from engine.training.checkpoint_saver import CheckpointSaver
from engine.training.recipe import Recipe
from engine.training.rng_state import RngStates
from engine.training.scratch import train_scratch
from engine.training.trainer import TrainingJob
from tests.unit.training_run import events, new_run, text_file, tiny


@pytest.fixture(autouse=True)
def journal_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.metrics.MIN_EVENT_GAP_S", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def recipe(steps: int, every_s: float = 1e9) -> Recipe:
    return msgspec.structs.replace(
        tiny(), max_steps=steps, epochs=99, curriculum=tiny().curriculum[1:], checkpoint_every_s=every_s
    )


def run(ctx: RunContext, root: Path, of: Recipe, resume: Path | None = None) -> str:
    """The hash of the finished weights."""
    text = root / "a.txt"
    out = ctx.workspace.root / "m"
    train_scratch(ctx, of, [text if text.exists() else text_file(root)], name="m", out=out, resume=resume)
    return load_model(out)[1].weights_sha256


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.loop.handle_commands", lambda job, saver: job.state.step == step)


def losses(*runs: RunContext) -> dict[int, float | None]:
    return {event.step: event.loss for ctx in runs for event in events(ctx, Step)}


def test_random_numbers_of_steps_are_the_same_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulate = TrainingJob.accumulate

    def with_noise(job: TrainingJob, batch: Batch) -> float:
        loss = accumulate(job, batch)
        noise = float(torch.rand(())) + random.random() + float(np.random.rand())
        gradient = job.model.get_parameter("lm_head.weight").grad
        assert gradient is not None
        gradient.mul_(1 + noise)
        return loss

    monkeypatch.setattr(TrainingJob, "accumulate", with_noise)
    whole, stopped, resumed = (new_run(tmp_path / name) for name in ("whole", "stopped", "resumed"))
    wanted = run(whole, tmp_path, recipe(9))
    stop_at(5, monkeypatch)
    with pytest.raises(Interrupted):
        run(stopped, tmp_path, recipe(9))
    stop_at(-1, monkeypatch)
    random.seed(99)
    assert run(resumed, tmp_path, recipe(9), resume=stopped.run_dir.path) == wanted
    assert losses(stopped, resumed) == losses(whole)


def test_random_states_of_every_library_are_seeded_and_restored() -> None:
    def drawn() -> tuple[float, float, float]:
        return float(torch.rand(())), random.random(), float(np.random.rand())

    RngStates.seed_all(7)
    kept = RngStates.capture()
    first = drawn()
    RngStates.seed_all(7)
    assert drawn() == first
    kept.restore()
    assert drawn() == first


def test_training_continues_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, ctx = checkpoint.write, new_run(tmp_path)
    went_on, taken = threading.Event(), []

    def slow(folder: Path, snapshot: CheckpointSnapshot, rule: RetentionPolicy) -> tuple[Path, int]:
        # Only steps taken meanwhile can end this wait: a writer that blocks training would hang. The first
        # checkpoint comes before the first step and blocks.
        assert snapshot.state.step == 0 or went_on.wait(60)
        taken.append(snapshot.state.step)
        return write(folder, snapshot, rule)

    def watching(job: TrainingJob, saver: object) -> bool:
        if job.state.step == 12:
            went_on.set()
        return False

    monkeypatch.setattr("engine.training.checkpoint.write", slow)
    monkeypatch.setattr("engine.training.loop.handle_commands", watching)
    run(ctx, tmp_path, recipe(14, every_s=1e-6))
    assert taken[0] == 0 < taken[1] < 12
    assert taken[-1] == 14


def test_a_checkpoint_has_the_state_at_the_time_of_its_snapshot(tmp_path: Path) -> None:
    weights = {"w": torch.ones(3)}
    state = LoopState(phase="scratch", step=1, batches_drawn=1, max_steps=9, peak_lr=0.1)
    state.spikes.losses.append(1.0)
    taken = checkpoint.take_snapshot(state, weights, {"m": torch.zeros(3)})
    weights["w"].fill_(5.0)
    state.step = 2
    state.spikes.losses.append(2.0)
    found = load(checkpoint.write(tmp_path, taken)[0])
    assert (found.state.step, found.state.spikes.losses) == (1, [1.0])
    assert torch.equal(found.weights["w"], torch.ones(3))


def test_only_trained_tensors_of_a_frozen_model_are_saved() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert set(trainable_state(model)) == set(model.state_dict())
    model[0].requires_grad_(False)
    kept = {name: tensor.clone() for name, tensor in trainable_state(model).items()}
    assert set(kept) == {"1.weight", "1.bias"}
    with torch.no_grad():
        model.get_parameter("1.weight").zero_()
    load_trainable_state(model, kept)
    assert torch.equal(model.get_parameter("1.weight"), kept["1.weight"])
    with pytest.raises(RuntimeError, match="other names"):
        load_trainable_state(model, {"1.weight": kept["1.weight"]})


def taken_at(folder: Path, step: int, draw: int, good: str = "") -> Path:
    state = LoopState(
        phase="scratch", step=step, batches_drawn=draw, max_steps=99, peak_lr=0.1, good_checkpoint=good
    )
    return save(folder, state, {"w": torch.full((2,), float(step))}, {})[0]


def test_after_a_rollback_the_newest_checkpoint_is_the_rolled_back_one(
    tmp_path: Path,
) -> None:
    taken_at(tmp_path, step=50, draw=50)
    taken_at(tmp_path, step=20, draw=60)
    found = find_newest(tmp_path, "scratch").checkpoint
    assert found is not None
    assert found.state.step == 20


def test_a_second_checkpoint_at_the_same_batch_gets_a_new_name_and_is_newer(tmp_path: Path) -> None:
    first, second = taken_at(tmp_path, 1, 9), taken_at(tmp_path, 2, 9)
    assert first.is_dir()
    assert second.name == f"{first.name}.1"
    found = find_newest(tmp_path, "scratch").checkpoint
    assert found is not None
    assert found.state.step == 2


def test_the_rollback_target_is_kept_until_a_later_checkpoint_is_good(tmp_path: Path) -> None:
    for draw in range(1, 8):
        taken_at(tmp_path, draw, draw, good="scratch-0000002" if draw > 2 else "")
    names = {path.name for path in tmp_path.iterdir()}
    assert {"scratch-0000002", "scratch-0000006", "scratch-0000007"} <= names


def test_a_rollback_survives_a_crash_and_does_not_resume_the_diverged_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulate = TrainingJob.accumulate

    def damaged(job: TrainingJob, batch: Batch) -> float:
        loss = accumulate(job, batch)
        return float("nan") if job.state.batches_drawn in (31, 32, 33) else loss

    monkeypatch.setattr(TrainingJob, "accumulate", damaged)
    ctx, later = new_run(tmp_path / "first"), new_run(tmp_path / "later")
    # Stops after the rollback and before another step: only what is on disk remains.
    monkeypatch.setattr(
        "engine.training.loop.handle_commands", lambda job, saver: job.state.batches_drawn == 33
    )
    monkeypatch.setattr(CheckpointSaver, "save", _twice(CheckpointSaver.save))
    with pytest.raises(Interrupted):
        run(ctx, tmp_path, recipe(60))
    (*_others, recorded) = events(ctx, RecoveryAction)
    assert recorded.action == "returned"
    found = find_newest(ctx.run_dir.checkpoints, "scratch").checkpoint
    assert found is not None
    assert (found.state.step, found.state.batches_drawn, found.state.spikes.rollbacks) == (
        recorded.back_to,
        33,
        1,
    )
    stop_at(-1, monkeypatch)
    run(later, tmp_path, recipe(60), resume=ctx.run_dir.path)
    assert next(iter(losses(later))) == found.state.step + 1


def _twice(save: Callable[[CheckpointSaver], Path | None]) -> Callable[[CheckpointSaver], Path | None]:
    """Saves before the first step and at the rollback, but not when the run is stopped."""
    asked: list[int] = []

    def twice(saver: CheckpointSaver) -> Path | None:
        asked.append(1)
        return save(saver) if len(asked) <= 2 else None

    return twice


def nearly_full(folder: Path, monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    """A disk where only removing checkpoints frees space: there is some with fewer than `least`."""
    usage = type(shutil.disk_usage(folder))

    def disk(_folder: Path) -> object:
        free = 2 << 30 if len(list(folder.glob("scratch-*"))) < least else 1 << 20
        return usage(1 << 40, (1 << 40) - free, free)

    monkeypatch.setattr(shutil, "disk_usage", disk)


def test_hourly_checkpoints_are_removed_first_when_disk_space_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("engine.training.checkpoint.time.time", lambda: clock[0])
    for hour in range(6):
        clock[0] = 3600.0 * hour
        taken_at(tmp_path, hour + 1, hour + 1)
    assert len(list(tmp_path.iterdir())) == 6
    nearly_full(tmp_path, monkeypatch, least=3)
    taken_at(tmp_path, 9, 9)
    assert {path.name for path in tmp_path.iterdir()} == {"scratch-0000006", "scratch-0000009"}


def test_a_nearly_full_disk_is_logged_and_later_pauses_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = new_run(tmp_path)
    ctx.run_dir.checkpoints.mkdir()
    nearly_full(ctx.run_dir.checkpoints, monkeypatch, least=0)
    waits: list[float] = []

    def room_comes(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            nearly_full(ctx.run_dir.checkpoints, monkeypatch, least=99)

    monkeypatch.setattr("engine.training.checkpoint_saver.time.sleep", room_comes)
    run(ctx, tmp_path, recipe(20, every_s=1e-6))
    assert "the disk is nearly full" in events(ctx, CheckpointFailed)[0].reason
    changes = [(event.status, event.reason) for event in events(ctx, StatusChanged)]
    assert [status for status, _reason in changes] == [RunStatus.PAUSED, RunStatus.RUNNING]
    assert "nearly full" in changes[0][1]
    assert list(losses(ctx)) == list(range(1, 21))
    assert any(mark.text for mark in ctx.view.annotations)


def test_a_checkpoint_of_another_torch_or_cpu_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, later = new_run(tmp_path / "first"), new_run(tmp_path / "later")
    stop_at(2, monkeypatch)
    with pytest.raises(Interrupted):
        run(ctx, tmp_path, recipe(4))
    stop_at(-1, monkeypatch)
    monkeypatch.setattr(torch, "__version__", "9.9")
    run(later, tmp_path, recipe(4), resume=ctx.run_dir.path)
    assert any("torch 9.9" in event.text for event in events(later, Log) if event.level == "warning")


def test_a_resume_reads_the_checkpoint_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit.test_training_loop import commanded

    text_file(tmp_path)
    first = commanded(tmp_path / "first", (4, "stop", ""))
    with pytest.raises(Interrupted):
        train_scratch(first, tiny(), [tmp_path / "a.txt"], name="m", out=tmp_path / "m")
    read: list[str] = []
    plain = Path.read_bytes

    def counted(path: Path) -> bytes:
        if path.is_relative_to(first.run_dir.checkpoints):
            read.append(path.name)
        return plain(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    second = new_run(tmp_path / "second")
    train_scratch(
        second, tiny(), [tmp_path / "a.txt"], name="m", out=tmp_path / "m", resume=first.run_dir.path
    )
    assert sorted(read) == sorted(set(read)) and "weights.safetensors" in read
