from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
import torch

from engine.core.errors import BadInput, Interrupted, NotEnoughData, RunFailed
from engine.core.settings import Settings
from engine.models.card import ModelCard
from engine.models.native_format import load_model
from engine.runs.command_queue import RunCommand
from engine.runs.context import RunContext
from engine.runs.control import Request
from engine.runs.events import (
    CheckpointFailed,
    CheckpointWritten,
    CommandHandled,
    EpochDone,
    Evaluated,
    Log,
    RunStatus,
    StatusChanged,
    Step,
)
from engine.training import checkpoint, checkpoint_saver, eta
from engine.training.eta import EtaEstimator
from engine.training.recipe import Recipe
from engine.training.scratch import train_scratch
from engine.training.trainer import TrainingJob
from tests.unit.training_run import events, new_run, text_file, tiny


@pytest.fixture(autouse=True)
def journal_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.metrics.MIN_EVENT_GAP_S", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("engine.training.devices.physical_cores", lambda: 1)


class Commanded(RunContext):
    """A run that receives commands at given polls."""

    script: dict[int, list[RunCommand]]
    polls: int

    def poll(self) -> Iterator[RunCommand]:
        self.polls += 1
        yield from self.script.get(self.polls - 1, [])


def commanded(root: Path, *commands: tuple[int, str, str]) -> Commanded:
    """A run with commands as (poll from 0, name, value)."""
    ctx = new_run(root)
    ctx.__class__ = Commanded
    assert isinstance(ctx, Commanded)
    ctx.script, ctx.polls = {}, 0
    for poll, name, value in commands:
        ctx.script.setdefault(poll, []).append(RunCommand(name, value, ctx.emit))
    return ctx


def run(ctx: RunContext, root: Path, recipe: Recipe | None = None, resume: Path | None = None) -> ModelCard:
    text = root / "a.txt"
    if not text.exists():
        text_file(root)
    return train_scratch(
        ctx, recipe or tiny(), [text], name="tiny", out=ctx.workspace.models / "tiny", resume=resume
    )


def losses(ctx: RunContext) -> dict[int, float | None]:
    return {event.step: event.loss for event in events(ctx, Step)}


def test_training_reduces_the_loss_and_saves_a_model(tmp_path: Path) -> None:
    ctx = new_run(tmp_path)
    card = run(ctx, tmp_path, msgspec.structs.replace(tiny(), max_steps=40))
    recorded = losses(ctx)
    assert list(recorded) == list(range(1, 41))
    assert recorded[1] == pytest.approx(5.576, abs=0.01)
    assert recorded[40] is not None
    assert recorded[40] < 3.5
    model, read = load_model(ctx.workspace.models / "tiny")
    assert read == card
    assert (card.mode, card.languages, card.context) == ("scratch", ["en"], 64)
    assert card.train_bytes == 20 * 64 + 20 * 128
    assert model.parameters_count() == card.parameters
    assert card.lineage.texts[str(tmp_path / "a.txt")]


def test_the_general_set_is_evaluated_at_the_start_the_end_and_in_between(tmp_path: Path) -> None:
    ctx = new_run(tmp_path)
    run(ctx, tmp_path)
    assert [event.step for event in events(ctx, Evaluated)] == [0, 1, 2, 3, 4, 5, 6]
    assert all(event.loss is not None for event in events(ctx, Evaluated))


def test_the_training_log_has_the_h2q_format(tmp_path: Path) -> None:
    ctx = new_run(tmp_path)
    run(ctx, tmp_path, msgspec.structs.replace(tiny(), max_steps=100, epochs=2))
    rows = json.loads((tmp_path / "training_log.json").read_text())
    epochs = events(ctx, EpochDone)
    assert [row["epoch"] for row in rows] == [event.epoch for event in epochs] == [1, 2]
    assert set(rows[0]) == {"epoch", "train_loss", "eval_loss", "perplexity", "epoch_time", "total_time"}
    assert rows[1]["total_time"] == pytest.approx(rows[0]["epoch_time"] + rows[1]["epoch_time"])
    assert all(event.epochs == 2 for event in epochs)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_a_resumed_run_takes_exactly_the_same_steps(kind: str, tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(tiny(), optimizer=kind, max_steps=8)
    whole, resumed = new_run(tmp_path / "a"), new_run(tmp_path / "b")
    text_file(tmp_path)
    train_scratch(whole, recipe, [tmp_path / "a.txt"], name="m", out=tmp_path / "whole")
    stopping = commanded(tmp_path / "d", (5, "stop", ""))
    with pytest.raises(Interrupted, match="step 5"):
        train_scratch(stopping, recipe, [tmp_path / "a.txt"], name="m", out=tmp_path / "stopped")
    assert not (tmp_path / "stopped").exists()
    card = train_scratch(
        resumed,
        recipe,
        [tmp_path / "a.txt"],
        name="m",
        out=tmp_path / "resumed",
        resume=stopping.run_dir.path,
    )
    both = losses(stopping) | losses(resumed)
    assert both == losses(whole)
    assert list(losses(resumed)) == [6, 7, 8]
    assert card.weights_sha256 == load_model(tmp_path / "whole")[1].weights_sha256


def test_a_run_resumes_from_its_own_checkpoint(tmp_path: Path) -> None:
    ctx = commanded(tmp_path, (3, "stop", ""))
    with pytest.raises(Interrupted):
        run(ctx, tmp_path)
    ctx.script = {}
    run(ctx, tmp_path)
    assert [event.step for event in events(ctx, Step)] == [1, 2, 3, 4, 5, 6]


def test_a_pause_starts_with_a_checkpoint(tmp_path: Path) -> None:
    ctx = new_run(tmp_path)
    seen: list[str] = []

    def paused() -> None:
        deadline = time.monotonic() + 30
        while ctx.view.status is not RunStatus.PAUSED and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.extend(path.name for path in checkpoint.list_checkpoints(ctx.run_dir.checkpoints, "scratch"))
        ctx.commands.handle(Request("resume"))

    # When the first step is requested, the initial checkpoint exists.
    ctx.commands.handle(Request("pause"))
    watcher = threading.Thread(target=paused)
    watcher.start()
    run(ctx, tmp_path)
    watcher.join(60)
    assert seen[0] == "scratch-0000000.1"
    assert [event.step for event in events(ctx, Step)] == [1, 2, 3, 4, 5, 6]


def test_a_stop_has_a_hint_with_the_resume_command(tmp_path: Path) -> None:
    ctx = commanded(tmp_path, (2, "stop", ""))
    with pytest.raises(Interrupted) as stopped:
        run(ctx, tmp_path)
    assert stopped.value.hint == f"h2q-tui runs resume {ctx.spec.run_id}"


def test_settings_determine_how_many_checkpoints_are_kept(tmp_path: Path) -> None:
    polls = [(poll, "checkpoint", "") for poll in range(1, 6)]
    ctx = commanded(tmp_path, *polls)
    ctx.__dict__["settings"] = Settings(checkpoints_last=4)
    run(ctx, tmp_path)
    kept = [path.name for path in checkpoint.list_checkpoints(ctx.run_dir.checkpoints, "scratch")]
    assert kept[:4] == [f"scratch-{draw:07d}" for draw in (6, 5, 4, 3)]


def test_a_damaged_checkpoint_is_logged_and_the_older_one_used(tmp_path: Path) -> None:
    ctx = commanded(tmp_path, (2, "checkpoint", ""), (4, "stop", ""))
    with pytest.raises(Interrupted):
        run(ctx, tmp_path)
    weights = checkpoint.list_checkpoints(ctx.run_dir.checkpoints, "scratch")[0] / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 4
    weights.write_bytes(data)
    ctx.script = {}
    run(ctx, tmp_path)
    warnings = [event.text for event in events(ctx, Log) if event.level == "warning"]
    assert any(str(weights.parent) in text and weights.name in text for text in warnings)
    assert [event.step for event in events(ctx, Step)] == [1, 2, 3, 4, 3, 4, 5, 6]


def test_a_checkpoint_of_other_data_or_settings_is_rejected(tmp_path: Path) -> None:
    ctx = commanded(tmp_path, (3, "stop", ""))
    with pytest.raises(Interrupted):
        run(ctx, tmp_path)
    with pytest.raises(BadInput, match="another recipe or with other settings") as other:
        run(new_run(tmp_path / "b"), tmp_path, tiny(seed=5), resume=ctx.run_dir.path)
    assert other.value.hint == f"h2q-tui runs resume {ctx.run_dir.run_id}"
    text_file(tmp_path, size=5000)
    with pytest.raises(BadInput, match="training data or the base has changed") as changed:
        run(new_run(tmp_path / "d"), tmp_path, resume=ctx.run_dir.path)
    assert changed.value.hint == "h2q-tui train"
    with pytest.raises(BadInput, match="no valid checkpoint"):
        run(new_run(tmp_path / "c"), tmp_path, resume=tmp_path / "nothing")


def test_commands_are_handled_between_steps(tmp_path: Path) -> None:
    ctx = commanded(
        tmp_path,
        (1, "set", "lr=0.001"),
        (1, "checkpoint", ""),
        (2, "set", "max_steps=4"),
        (3, "set", "speed=9"),
        (3, "set", "max_steps=1"),
        (3, "dance", ""),
    )
    run(ctx, tmp_path)
    recorded = events(ctx, Step)
    assert [event.step for event in recorded] == [1, 2, 3, 4]
    assert recorded[0].lr == pytest.approx(0.002)
    assert recorded[1].lr == pytest.approx(0.0002)
    handled = [(event.value or event.name, event.accepted) for event in events(ctx, CommandHandled)]
    assert handled == [
        ("lr=0.001", True),
        ("checkpoint", True),
        ("max_steps=4", True),
        ("speed=9", False),
        ("max_steps=1", False),
        ("dance", False),
    ]
    assert [event.step for event in events(ctx, CheckpointWritten)] == [0, 1, 4]


def test_accumulated_micro_batches_take_the_step_of_the_whole_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_file(tmp_path)
    found = []
    for name, windows in (("a", 4), ("b", 1)):
        monkeypatch.setattr("engine.training.microbatch.windows_that_fit", lambda *_figures, n=windows: n)
        recipe = tiny(optimizer="adamw", eps=1e-8, lr=1e-3)
        ctx = new_run(tmp_path / name)
        run(ctx, tmp_path, recipe)
        found.append(losses(ctx))
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_non_finite_steps_are_discarded_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulate = TrainingJob.accumulate
    seen: list[torch.Tensor] = []

    def sometimes(job: TrainingJob, batch):  # type: ignore[no-untyped-def]
        loss = accumulate(job, batch)
        if job.state.batches_drawn in (3, 4):
            seen.append(job.optimizer.parameters[-1].detach().clone())
            return float("nan")
        if job.state.batches_drawn == 5:
            seen.append(job.optimizer.parameters[-1].detach().clone())
        return loss

    monkeypatch.setattr(TrainingJob, "accumulate", sometimes)
    ctx = new_run(tmp_path)
    run(ctx, tmp_path)
    assert torch.equal(seen[0], seen[2])
    recorded = events(ctx, Step)
    assert [event.step for event in recorded if event.finite] == [1, 2, 3, 4, 5, 6]
    assert sum(not event.finite for event in recorded) == 2


def test_three_non_finite_steps_in_a_row_fail_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingJob, "accumulate", lambda job, batch: float("inf"))
    ctx = new_run(tmp_path)
    with pytest.raises(RunFailed, match="NaN or infinite 3 times in a row"):
        run(ctx, tmp_path)
    assert not (ctx.workspace.models / "tiny").exists()


def test_a_full_disk_does_not_stop_training_immediately(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, tries = checkpoint.write, []

    def sometimes(*arguments):  # type: ignore[no-untyped-def]
        tries.append(1)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments)

    monkeypatch.setattr("engine.training.checkpoint.write", sometimes)
    ctx = commanded(tmp_path, (1, "checkpoint", ""), (2, "checkpoint", ""))
    run(ctx, tmp_path)
    assert [event.step for event in events(ctx, CheckpointWritten)] == [2, 6]
    assert [event.step for event in events(ctx, CheckpointFailed)] == [0, 1]


def test_a_disk_full_for_long_pauses_training_until_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, tries = checkpoint.write, []

    def sometimes(*arguments):  # type: ignore[no-untyped-def]
        tries.append(1)
        if len(tries) < 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments)

    monkeypatch.setattr("engine.training.checkpoint.write", sometimes)
    monkeypatch.setattr(checkpoint_saver, "_RETRY_S", 0.0)
    ctx = new_run(tmp_path)
    run(ctx, tmp_path, tiny(checkpoint_every_s=1e-6))
    changes = [(event.status, event.reason) for event in events(ctx, StatusChanged)]
    assert changes == [(RunStatus.PAUSED, "No space left on device"), (RunStatus.RUNNING, "")]
    assert losses(ctx).keys() == {1, 2, 3, 4, 5, 6}


def test_a_time_budget_limits_the_number_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        eta, "measure_step_times", lambda job: EtaEstimator(job.recipe, [100.0, 200.0], eval_seconds=0.0)
    )
    monkeypatch.setattr(eta, "FEW_STEPS", 0)
    ctx = new_run(tmp_path)
    # Half of the steps belong to each stage: four steps take 600 s, five 800 s.
    run(ctx, tmp_path, msgspec.structs.replace(tiny(), max_steps=None, epochs=1000, time_budget_s=700.0))
    assert [(event.step, event.max_steps) for event in events(ctx, Step)] == [(n, 4) for n in range(1, 5)]


@pytest.mark.parametrize(
    ("steps", "stages", "rounds"),
    [(1, 1, 1), (2, 3, 1), (17, 3, 1), (18, 3, 2), (27, 3, 3), (9000, 3, 3), (6, 1, 2)],
)
def test_a_short_phase_does_not_take_longer_to_measure_than_to_train(
    steps: int, stages: int, rounds: int
) -> None:
    assert eta.timed_rounds(steps, stages) == rounds
    assert rounds == 1 or 3 * rounds * stages <= steps


@pytest.mark.parametrize(("seconds", "steps"), [(100.0, 40), (104.0, 40), (120.0, 36), (60.0, 48)])
def test_a_phase_that_would_miss_its_time_changes_its_steps(
    tmp_path: Path, seconds: float, steps: int
) -> None:
    """At step 20 of 40 with 5 s per step and a budget of 200 s, 100 s should have been spent."""
    recipe = msgspec.structs.replace(
        tiny(), curriculum=tiny().curriculum[1:], max_steps=None, time_budget_s=200.0
    )
    state = checkpoint.LoopState(phase="scratch", step=20, max_steps=40, peak_lr=0.1)
    job = SimpleNamespace(
        state=state, recipe=recipe, batches=SimpleNamespace(steps=lambda: 60), ctx=new_run(tmp_path)
    )
    estimator = EtaEstimator(recipe, [5.0], eval_seconds=0.0)
    eta.replan_steps(cast(TrainingJob, job), estimator, seconds)
    assert state.max_steps == steps


@pytest.mark.parametrize(
    ("step", "planned", "seconds", "steps"),
    [
        (1, 1, 9.0, 4),  # the only step took 9 s of 200 s; with the measurement 55 s are expected
        (2, 4, 18.0, 6),
        (1, 1, 180.0, 1),
        (1, 1, 250.0, 1),
        (3, 5, 120.0, 4),
        (3, 5, 199.0, 4),
    ],
)
def test_a_plan_of_few_steps_is_corrected_after_each_of_them(
    tmp_path: Path, step: int, planned: int, seconds: float, steps: int
) -> None:
    """Measured in a busy moment: 100 s a step, with a budget of 200 s."""
    recipe = msgspec.structs.replace(
        tiny(), curriculum=tiny().curriculum[1:], max_steps=None, time_budget_s=200.0
    )
    state = checkpoint.LoopState(phase="scratch", step=step, max_steps=planned, peak_lr=0.1)
    job = SimpleNamespace(
        state=state, recipe=recipe, batches=SimpleNamespace(steps=lambda: 60), ctx=new_run(tmp_path)
    )
    estimator = EtaEstimator(recipe, [100.0], eval_seconds=0.0)
    for _number in range(step):
        estimator.observe_step(recipe.curriculum[0], seconds / step)
    eta.replan_steps(cast(TrainingJob, job), estimator, seconds)
    assert state.max_steps == steps


def test_too_little_text_is_rejected_before_anything_is_written(tmp_path: Path) -> None:
    ctx = new_run(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"too short")
    with pytest.raises(NotEnoughData, match=r"a\.txt"):
        run(ctx, tmp_path)
    assert not ctx.run_dir.checkpoints.exists()


@pytest.mark.parametrize(
    ("settings", "recorded"),
    [
        (Settings(), ""),
        (Settings(data_chunk_size=1), "text is read in chunks of 1 KB; 64 are cached"),
        (Settings(max_cached_chunks=0), "each window of text is read separately"),
    ],
)
def test_configured_text_chunks_are_logged(tmp_path: Path, settings: Settings, recorded: str) -> None:
    ctx = new_run(tmp_path)
    ctx.__dict__["settings"] = settings
    run(ctx, tmp_path)
    lines = [line.text for line in events(ctx, Log) if "text is read" in line.text or "of text" in line.text]
    assert (lines[0].startswith(recorded) and len(lines) == 1) if recorded else lines == []
