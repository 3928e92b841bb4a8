"""Faults injected into real, tiny runs."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from engine.core.errors import RunFailed
from engine.models.card import Lineage, ModelCard
from engine.models.native_format import load_model, save_model
from engine.models.transformer import ModelConfig, Transformer
from engine.runs.context import RunContext
from engine.runs.events import EpochDone, RecoveryAction, Step
from engine.runs.kinds import TrainMode, TrainParams
from engine.training import checkpoint, retry
from engine.training.native import train_native
from engine.training.recipe import Phase, Recipe, recipe_for
from engine.training.retry import retry_transient
from engine.training.scratch import train_scratch
from engine.training.trainer import TrainingJob
from tests.unit.training_run import DatasetFile, events, new_run, text_file, tiny


@pytest.fixture(autouse=True)
def journal_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.metrics.MIN_EVENT_GAP_S", 0.0)
    monkeypatch.setattr(retry, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def recipe(steps: int = 60) -> Recipe:
    # Windows of one length, so that the statistics are not reset.
    return msgspec.structs.replace(tiny(), max_steps=steps, epochs=99, curriculum=tiny().curriculum[1:])


def run(ctx: RunContext, root: Path, of: Recipe | None = None) -> None:
    text = root / "a.txt"
    train_scratch(ctx, of or recipe(), [text if text.exists() else text_file(root)], name="m", out=root / "m")


def faulty(monkeypatch: pytest.MonkeyPatch, fault: Callable[[TrainingJob], float | None]) -> None:
    """Calls `fault` after the gradients of each real step; its result replaces the loss."""
    accumulate = TrainingJob.accumulate

    def broken(job: TrainingJob, batch):  # type: ignore[no-untyped-def]
        loss = accumulate(job, batch)
        changed = fault(job) if job.state.batches_drawn > 0 else None
        return loss if changed is None else changed

    monkeypatch.setattr(TrainingJob, "accumulate", broken)


def test_a_spike_is_skipped_and_its_samples_are_journalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty(monkeypatch, lambda job: 50.0 if job.state.batches_drawn == 40 else None)
    ctx = new_run(tmp_path)
    run(ctx, tmp_path)
    (recorded,) = events(ctx, RecoveryAction)
    assert (recorded.step, recorded.cause, recorded.action, recorded.loss) == (40, "spike", "skipped", 50.0)
    assert recorded.samples and all(name.startswith("a.txt:") for name in recorded.samples)
    assert [event.step for event in events(ctx, Step)] == list(range(1, 61))
    assert ctx.view.annotations[0].step == 40
    assert any("a.txt:" in line.text for line in ctx.view.log)


def test_corrupt_weights_are_distinguished_from_bad_data_and_rolled_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(job: TrainingJob) -> None:
        if job.state.batches_drawn == 40:
            with torch.no_grad():
                for parameter in job.model.parameters():
                    parameter.mul_(-30.0)

    faulty(monkeypatch, damage)
    ctx = new_run(tmp_path)
    run(ctx, tmp_path)
    (recorded,) = events(ctx, RecoveryAction)
    assert (recorded.cause, recorded.action, recorded.back_to) == ("weights", "returned", 0)
    steps = [event.step for event in events(ctx, Step)]
    assert steps == [*range(1, 41), *range(1, 61)]
    last = events(ctx, Step)[-1].loss
    assert last is not None
    assert last < 4


def test_a_rollback_goes_to_the_last_good_checkpoint_at_half_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty(monkeypatch, lambda job: float("nan") if job.state.batches_drawn in (51, 52, 53) else None)
    ctx = new_run(tmp_path)
    run(ctx, tmp_path, msgspec.structs.replace(recipe(), checkpoint_every_s=1e-6))
    recorded = events(ctx, RecoveryAction)
    assert [event.action for event in recorded] == ["discarded", "discarded", "returned"]
    back_to = recorded[-1].back_to
    assert back_to is not None and 0 < back_to <= 50
    steps = events(ctx, Step)
    before = next(event for event in steps if event.step == 50)
    after = [event for event in steps if event.finite][-10]
    assert before.lr * 0.25 < after.lr < before.lr * 0.5
    state = checkpoint.find_newest(ctx.run_dir.checkpoints, "scratch").checkpoint
    assert state is not None
    assert (state.state.step, state.state.batches_drawn, state.state.spikes.rollbacks) == (
        60,
        60 + 3 + 50 - back_to,
        1,
    )


def test_a_run_that_keeps_diverging_stops_with_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(job: TrainingJob) -> None:
        if job.state.batches_drawn % 30 == 29:
            with torch.no_grad():
                job.model.get_parameter("lm_head.weight").mul_(-1000.0)

    faulty(monkeypatch, damage)
    ctx = new_run(tmp_path)
    with pytest.raises(RunFailed, match="diverged again after 2 rollbacks"):
        run(ctx, tmp_path, recipe(200))
    assert [event.action for event in events(ctx, RecoveryAction)] == ["returned", "returned", "stopped"]


def test_a_run_resumed_after_a_spike_ends_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty(monkeypatch, lambda job: 50.0 if job.state.batches_drawn in (30, 45) else None)
    text_file(tmp_path)
    whole, first, second = (new_run(tmp_path / name) for name in ("whole", "first", "second"))
    of = recipe()
    for ctx, resume in ((whole, None), (first, None), (second, first)):
        if ctx is first:
            monkeypatch.setattr(
                "engine.training.loop.handle_commands", lambda job, saver: job.state.step == 40
            )
        else:
            monkeypatch.setattr("engine.training.loop.handle_commands", lambda job, saver: False)
        try:
            train_scratch(
                ctx,
                of,
                [tmp_path / "a.txt"],
                name="m",
                out=tmp_path / ctx.run_dir.run_id,
                resume=resume.run_dir.path if resume else None,
            )
        except Exception as stopped:
            assert ctx is first, stopped
    recorded = {event.step: event.loss for ctx in (first, second) for event in events(ctx, Step)}
    assert recorded == {event.step: event.loss for event in events(whole, Step)}
    assert [event.step for event in events(second, RecoveryAction)] == [44]
    shas = [load_model(tmp_path / ctx.run_dir.run_id)[1].weights_sha256 for ctx in (whole, second)]
    assert shas[0] == shas[1]


def test_a_transient_error_is_retried_and_journalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, tries = checkpoint.write, []

    def sometimes(*arguments):  # type: ignore[no-untyped-def]
        tries.append(1)
        if len(tries) == 1:
            raise OSError(errno.EIO, "Input/output error")
        return write(*arguments)

    monkeypatch.setattr("engine.training.checkpoint.write", sometimes)
    ctx = new_run(tmp_path)
    run(ctx, tmp_path, recipe(3))
    (recorded,) = events(ctx, RecoveryAction)
    assert (recorded.cause, recorded.action, recorded.detail) == ("file", "retried", "Input/output error")
    assert [mark.kind for mark in ctx.view.annotations] == ["recovery"], "shown on the curve"


def test_other_errors_are_raised_immediately_and_transient_ones_after_the_last_attempt() -> None:
    tries: list[int] = []

    def fail(number: int) -> None:
        tries.append(number)
        raise OSError(number, "no")

    with pytest.raises(OSError, match="no"):
        retry_transient(lambda: fail(errno.ENOSPC))
    assert len(tries) == 1
    with pytest.raises(OSError, match="no"):
        retry_transient(lambda: fail(errno.EIO))
    assert len(tries) == 1 + 3


def test_an_implausible_optimizer_state_is_rolled_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(job: TrainingJob) -> None:
        if job.state.batches_drawn == 40:
            state = job.optimizer.state()
            job.optimizer.restore({name: tensor.abs() * 1e3 for name, tensor in state.items()})

    faulty(monkeypatch, damage)
    ctx = new_run(tmp_path)
    run(ctx, tmp_path)
    recorded = events(ctx, RecoveryAction)
    assert recorded[0].action == "returned"
    assert recorded[0].step <= 40 + 16


@pytest.mark.parametrize("fault_at", [20, 45])
def test_after_a_rollback_each_epoch_has_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault_at: int
) -> None:
    """The steps are taken again, and the data is read on: a return to the start at any batch."""
    faulty(
        monkeypatch, lambda job: float("nan") if fault_at <= job.state.batches_drawn < fault_at + 3 else None
    )
    model = Transformer(ModelConfig(dim=32, layers=1, heads=2, kv_heads=2, head_dim=16, ffn=32, context=128))
    model.initialise(0)
    save_model(
        tmp_path / "base",
        model,
        ModelCard(name="base", mode="scratch", created_at=0.0, parameters=1, context=128),
    )
    talks = [
        {"id": f"s{n}", "cluster": f"s{n}", "messages": [
            {"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a" * 60}]}
        for n in range(40)
    ]  # fmt: skip
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in talks), encoding="utf-8")
    ctx = new_run(tmp_path / "ws", TrainParams(mode=TrainMode.NATIVE))
    made = recipe_for(TrainParams(epochs=4, context=128, batch_size=2, checkpoint_every_s=1e9), Phase.NATIVE)
    data = DatasetFile(tmp_path / "d.jsonl", Lineage())
    train_native(
        ctx,
        msgspec.structs.replace(made, replay=0.0),
        tmp_path / "base",
        data,
        [],
        name="m",
        out=tmp_path / "m",
    )
    assert [event.action for event in events(ctx, RecoveryAction)] == ["discarded", "discarded", "returned"]
    done = events(ctx, EpochDone)
    assert [(event.epoch, event.epochs) for event in done] == [(n, 4) for n in range(1, 5)]
    rows = json.loads((tmp_path / "ws" / "training_log.json").read_text(encoding="utf-8"))
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["train_loss"] for row in rows] == [event.train_loss for event in done]
