"""What a LoRA run measures before its first step, and how much it evaluates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.machine.budget import Budget
from engine.models.adapters import AdapterModel
from engine.models.base_models import BaseModel, ModelDimensions
from engine.runs.events import Evaluated, MemoryPlan
from engine.runs.kinds import TrainParams
from engine.training.batches import MicroBatch
from engine.training.eta import EtaEstimator
from engine.training.lora import measure
from engine.training.lora.data import LoraBatches, RowLayout
from engine.training.lora.fit import fit_to_budget
from engine.training.lora.job import LoraJob, affordable_evaluations, affordable_windows
from engine.training.objective import TrainableModel
from engine.training.recipe import LoraSettings, Phase, recipe_for
from engine.training.setup import make_job
from tests.unit.test_lora_data import adapter_model, recipe, windows
from tests.unit.training_run import events, new_run

SHAPE = ModelDimensions(
    hidden=576, layers=30, heads=9, kv_heads=3, head_dim=64, ffn=1536, vocab=49_152, context=8192
)


def job(root: Path) -> LoraJob:
    """A job of ten conversations in steps of ten, on a tiny model."""
    settings = recipe(batch=10)
    source = LoraBatches(windows(), settings, 4096, pad=0, layout=RowLayout.JOINED)
    model = adapter_model()
    assert model.joins_rows(fused=False, longest=128)
    made = make_job(
        new_run(root),
        settings,
        model,
        source,
        general=[],
        data_sha256="",
        max_tokens=4096,
        budget=Budget(4096, ""),
        resumed=None,
        kind=LoraJob,
    )
    assert isinstance(made, LoraJob)
    return made


class ScriptedMemory:
    """Peak memory by a formula of tokens, allocator and checkpointing."""

    def __init__(self, job: LoraJob, per_token: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.job, self.per_token, self.tokens, self.returned = job, per_token, 0, False
        losses = job.objective.losses

        def watched(model: TrainableModel, part: MicroBatch) -> torch.Tensor:
            self.tokens = part.ids.numel()
            return losses(model, part)

        monkeypatch.setattr(job.objective, "losses", watched)
        monkeypatch.setattr(measure, "keep_freed_memory", lambda *, keep: setattr(self, "returned", not keep))

    def drop_caches(self) -> None:
        pass

    def peak_mb(self) -> float:
        each = self.per_token * (0.8 if self.returned else 1.0)
        return 100 + self.tokens * each * (0.5 if self.job.state.activation_checkpointing else 1.0)


@pytest.mark.parametrize(
    ("per_token", "whole", "returned", "recomputes"),
    [
        (0.1, True, False, False),
        (1.5, False, False, False),
        (3.2, False, True, False),
        (5.5, False, True, True),
        (99.0, False, True, True),
    ],
)
def test_a_short_budget_costs_the_mildest_slowdown_that_fits(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    per_token: float,
    whole: bool,
    returned: bool,
    recomputes: bool,
) -> None:
    """Smaller micro-batches, then memory returned to the system, then activations computed again."""
    made = job(tmp_path)
    room = 350.0
    memory: Any = ScriptedMemory(made, per_token, monkeypatch)
    made.fit_micro_batches(memory, 100.0, room)
    parts = made.batches.batch_at(0, 2).micro_batches
    assert (len(parts) == 1) is whole
    assert (memory.returned, made.state.activation_checkpointing) == (returned, recomputes)
    memory.tokens = max(part.ids.numel() for part in parts)
    assert memory.peak_mb() <= room or per_token == 99.0
    (plan,) = events(made.ctx, MemoryPlan)
    assert plan.windows == made.state.tokens_per_micro_batch == memory.tokens
    assert made.measured_work().step_seconds > 0
    assert all(parameter.grad is None for parameter in made.optimizer.parameters)


def test_a_failed_allocation_counts_as_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = job(tmp_path)
    losses = made.objective.losses

    def greedy(model: TrainableModel, part: MicroBatch) -> torch.Tensor:
        if part.joined > 2:
            raise MemoryError
        return losses(model, part)

    monkeypatch.setattr(made.objective, "losses", greedy)
    memory: Any = ScriptedMemory(made, 0.01, monkeypatch)
    made.fit_micro_batches(memory, 100.0, 350.0)
    assert all(part.joined <= 2 for part in made.batches.batch_at(0, 2).micro_batches)


@pytest.mark.parametrize(("longest", "recomputes"), [(None, True), (331, False), (1024, True)])
def test_the_fit_uses_the_longest_window_of_the_data(longest: int | None, recomputes: bool) -> None:
    base = BaseModel("b", Path("b"), "b", SHAPE, 134_515_008, "BF16", "h")
    fit = fit_to_budget(
        base,
        LoraSettings(),
        Budget(3000, "max_memory_gb"),
        context=1024,
        four_bit=False,
        bf16_fast=True,
        longest=longest,
    )
    assert (fit.context, fit.activation_checkpointing) == (1024, recomputes)


def test_an_untouched_model_gives_the_same_value_at_every_evaluation(tmp_path: Path) -> None:
    from engine.training.scratch import train_scratch
    from tests.unit.training_run import text_file, tiny

    ctx = new_run(tmp_path)
    still = msgspec.structs.replace(
        tiny(lr=1e-30, embed_lr=1e-30, head_lr=1e-30, norm_lr=1e-30, eval_every=0.2), eval_bytes=64
    )
    still = msgspec.structs.replace(still, curriculum=still.curriculum[1:])
    text = text_file(tmp_path)
    text.write_bytes(text.read_bytes()[:2000] + bytes(range(32, 127)) * 22)
    train_scratch(ctx, still, [text], name="m", out=tmp_path / "m")
    found = {event.loss for event in events(ctx, Evaluated)}
    assert len(events(ctx, Evaluated)) > 3 and len(found) == 1


@pytest.mark.parametrize("most", [10, 20, 4096])
def test_an_evaluation_keeps_to_its_tokens_and_gives_the_same_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    made = job(tmp_path)
    made.windows = [([1 + (row * 7 + at) % 50 for at in range(9 + row % 3)], 20) for row in range(9)]
    made.eval_tokens = 1
    wanted = made.evaluate(100)
    made.eval_tokens = most
    seen: list[int] = []
    assert isinstance(made.model, AdapterModel)
    losses = made.model.losses

    def watched(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(ids.numel())
        return losses(ids, *rest)

    monkeypatch.setattr(made.model, "losses", watched)
    assert made.evaluate(100) == pytest.approx(wanted, rel=1e-5)
    assert max(seen) <= most and (most < 20 or len(seen) < 5)


@given(st.integers(1, 4), st.integers(0, 10**6), st.floats(2, 20))
def test_evaluations_take_a_small_share_of_the_steps(
    texts: int, step_tokens: int, evaluations: float
) -> None:
    general = [([0] * 256, 900)] * 40
    chosen = affordable_windows(general, texts, step_tokens, evaluations)
    assert len(chosen) >= texts
    # A forward pass costs less than half of a step.
    work = 0.45 * 256 * len(chosen) * evaluations
    assert len(chosen) == texts or work <= 0.05 * step_tokens


def test_the_time_left_follows_steps_that_are_slower_than_measured() -> None:
    settings = recipe_for(TrainParams(), Phase.LORA)
    estimate = EtaEstimator(settings, [1.0], eval_seconds=0.0)
    for _step in range(4):
        estimate.observe_step(settings.curriculum[0], 4.0)
    assert 3.0 < estimate.remaining_s(4, 5) <= 4.0


@pytest.mark.parametrize(
    ("token_mb", "time_budget_s", "measured"),
    [(0.01, None, False), (2.0, None, True), (0.01, 60.0, True)],
)
def test_a_step_that_fits_by_its_estimate_alone_is_not_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    token_mb: float,
    time_budget_s: float | None,
    measured: bool,
) -> None:
    """Unless the time decides the number of steps. The first evaluation then tells the time of a step, and is made once."""
    made = job(tmp_path)
    made.recipe = msgspec.structs.replace(made.recipe, time_budget_s=time_budget_s)
    made.windows, made.token_mb = [(list(range(1, 30)), 60)], token_mb
    memory: Any = ScriptedMemory(made, 0.1, monkeypatch)
    made.fit_micro_batches(memory, 100.0, 450.0)
    (plan,) = events(made.ctx, MemoryPlan)
    assert bool(plan.measured) is measured
    parts = made.batches.batch_at(0, 2).micro_batches
    assert len(parts) == 1 and parts[0].ids.numel() == plan.windows == made.state.tokens_per_micro_batch
    passes: list[int] = []
    assert isinstance(made.model, AdapterModel)
    losses = made.model.losses

    def counted(*rest: Any) -> torch.Tensor:
        passes.append(1)
        return losses(*rest)

    monkeypatch.setattr(made.model, "losses", counted)
    work = made.measured_work()
    assert work.step_seconds > 0 and work.eval_seconds > 0
    first = made.evaluate(100)
    assert len(passes) == 1
    assert made.evaluate(100) == first and len(passes) == 2


@given(st.integers(1, 60), st.integers(0, 10**6), st.integers(1, 10))
def test_a_short_run_is_evaluated_less_often(windows: int, step_tokens: int, wanted: int) -> None:
    chosen = [([0] * 256, 900)] * windows
    number = affordable_evaluations(chosen, step_tokens, wanted)
    assert 1 <= number <= wanted
    work = [0.45 * 256 * windows * (count + 1) for count in (number, number + 1)]
    assert number == 1 or work[0] <= 0.05 * step_tokens
    assert number == wanted or work[1] > 0.05 * step_tokens - 1e-6
