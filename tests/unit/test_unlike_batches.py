"""Batches that stand out in real, tiny runs: honest ones are learnt, damaged ones are skipped, and running out of
memory meanwhile changes nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from engine.core.chat import ChatMessage
from engine.models.card import Lineage, ModelCard
from engine.models.chatml import windows
from engine.models.native_format import load_model, save_model
from engine.models.transformer import ModelConfig, Transformer
from engine.runs.events import RecoveryAction
from engine.runs.kinds import TrainMode, TrainParams
from engine.training import checkpoint, spike_detector
from engine.training.batches import Batch, ScratchBatches
from engine.training.native import train_native
from engine.training.recipe import CurriculumStage, Phase, Recipe, recipe_for
from engine.training.scratch import train_scratch
from engine.training.trainer import TrainingJob
from tests.unit.training_run import DatasetFile, events, new_run, text_file, tiny

ALIKE, MINORITY = 900, 20
HAN = (
    "的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会家可下而过天去能对小多"
)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.metrics.MIN_EVENT_GAP_S", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def row(name: str, question: str, answer: str) -> dict[str, object]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": name, "cluster": name, "messages": messages}


def minority(kind: str, chance: random.Random) -> str:
    return {
        "Chinese": "".join(chance.choices(HAN, k=70)),
        "hashes": " ".join(f"{chance.getrandbits(128):032x}" for _line in range(6)),
    }[kind]


def learnt_loss(root: Path, name: str, rows: list[dict[str, object]], *, skipping: bool) -> tuple[float, int]:
    """Loss on the minority's answers after a training on all rows, and the number of spikes reported."""
    with pytest.MonkeyPatch.context() as patch:
        if not skipping:
            patch.setattr(spike_detector, "WARMUP", 10**9)
        ctx = new_run(root / name, TrainParams(mode=TrainMode.NATIVE))
        dataset = root / "train.jsonl"
        dataset.write_text("\n".join(json.dumps(one) for one in rows) + "\n")
        recipe = recipe_for(TrainParams(epochs=3, context=256, batch_size=4), Phase.NATIVE)
        recipe = msgspec.structs.replace(recipe, replay=0.0, checkpoint_every_s=1e9)
        data = DatasetFile(dataset, Lineage())
        out = root / f"model-{name}"
        train_native(ctx, recipe, root / "base", data, [], name="m", out=out)
    model, _card = load_model(out)
    total = count = 0.0
    for one in rows[-MINORITY:]:
        messages = [ChatMessage(**message) for message in one["messages"]]  # type: ignore[attr-defined]
        for window in windows(messages, 256):
            ids, mask = torch.tensor([window.ids]), torch.tensor(window.loss_mask[1:])
            with torch.no_grad():
                losses = torch.nn.functional.cross_entropy(
                    model(ids[:, :-1])[0], ids[0, 1:], reduction="none"
                )
            total, count = total + float(losses[mask].sum()), count + int(mask.sum())
    return total / count, len(events(ctx, RecoveryAction))


@pytest.mark.parametrize("kind", ["Chinese", "hashes"])
def test_an_honest_minority_is_learnt_as_if_nothing_was_watched(tmp_path: Path, kind: str) -> None:
    chance = random.Random(1)
    rows = [
        row(
            f"a{number}",
            f"What is {number} plus 7?",
            f"The sum of {number} and 7 is {number + 7}. Is that all?",
        )
        for number in range(ALIKE)
    ]
    rows += [row(f"m{number}", f"{kind} {number}", minority(kind, chance)) for number in range(MINORITY)]
    config = ModelConfig(dim=64, layers=1, heads=2, kv_heads=2, head_dim=32, ffn=64, context=256)
    base = Transformer(config)
    base.initialise(0)
    save_model(
        tmp_path / "base",
        base,
        ModelCard(name="base", mode="scratch", created_at=0.0, parameters=1, context=256),
    )
    unwatched, _none = learnt_loss(tmp_path, "unwatched", rows, skipping=False)
    watched, reported = learnt_loss(tmp_path, "watched", rows, skipping=True)
    assert watched == pytest.approx(unwatched, rel=0.1)
    assert 1 <= reported <= 5, "the batches stand out, and few are news"


def damaged(monkeypatch: pytest.MonkeyPatch, damage: Callable[[Batch], Batch], *numbers: int) -> None:
    draw = ScratchBatches.batch_at

    def batch_at(
        source: ScratchBatches, number: int, max_steps: int, stage: CurriculumStage | None = None
    ) -> Batch:
        batch = draw(source, number, max_steps, stage)
        return damage(batch) if stage is None and number in numbers else batch

    monkeypatch.setattr(ScratchBatches, "batch_at", batch_at)


def noise(batch: Batch) -> Batch:
    for part in batch.micro_batches:
        generator = torch.Generator().manual_seed(1)
        part.ids.copy_(torch.randint(0, 256, part.ids.shape, generator=generator))
        part.targets.copy_(torch.randint(0, 256, part.targets.shape, generator=generator))
    return batch


def shuffled_labels(batch: Batch) -> Batch:
    parts = [replace(part, targets=part.targets.flip(1)) for part in batch.micro_batches]
    return replace(batch, micro_batches=parts)


def recipe(steps: int = 45) -> Recipe:
    return msgspec.structs.replace(
        tiny(),
        max_steps=steps,
        epochs=999,
        curriculum=(CurriculumStage(until=1.0, context=64, batch=8),),
        checkpoint_every_s=1e9,
    )


@pytest.mark.parametrize("damage", [noise, shuffled_labels])
def test_damaged_data_is_skipped_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Batch], Batch]
) -> None:
    damaged(monkeypatch, damage, 33, 34, 38)
    ctx, out = new_run(tmp_path / "run"), tmp_path / "m"
    train_scratch(ctx, recipe(), [text_file(tmp_path)], name="m", out=out)
    recorded = events(ctx, RecoveryAction)
    assert [(event.cause, event.action) for event in recorded] == [("data", "skipped")] * 3
    assert all(event.samples for event in recorded)


def test_running_out_of_memory_during_a_rollback_judges_the_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count of non-finite steps and of rollbacks is that of a run with enough memory."""
    accumulate, load, failures = TrainingJob.accumulate, checkpoint.load_trainable_state, [2]

    def broken(job: TrainingJob, batch: Batch) -> float:
        loss = accumulate(job, batch)
        return float("nan") if job.state.batches_drawn in (31, 32, 33) else loss

    def scarce(*arguments: object) -> None:
        if failures[0]:
            failures[0] -= 1
            raise MemoryError
        load(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingJob, "accumulate", broken)
    monkeypatch.setattr(checkpoint, "load_trainable_state", scarce)
    ctx = new_run(tmp_path / "run")
    train_scratch(ctx, recipe(), [text_file(tmp_path)], name="m", out=tmp_path / "m")
    assert failures == [0]
    assert [event.action for event in events(ctx, RecoveryAction)] == ["discarded", "discarded", "returned"]
    found = checkpoint.find_newest(ctx.run_dir.checkpoints, "scratch").checkpoint
    assert found is not None
    assert (found.state.step, found.state.spikes.rollbacks, found.state.discarded) == (45, 1, 3)
