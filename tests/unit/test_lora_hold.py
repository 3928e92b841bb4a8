"""An adapter is held to its base where nothing is answered: the divergence, its place in a step, its use in a training."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
import torch
import torch.nn.functional as F

from engine.core.settings import Settings
from engine.models import losses
from engine.models.adapters import AdapterModel
from engine.models.divergence import chunked_divergence, divergence
from engine.runs.kinds import TrainParams
from engine.training.batches import MicroBatch
from engine.training.lora.data import LoraBatches, RowLayout, render_windows
from engine.training.recipe import Phase, Recipe, as_begun, recipe_for
from tests.unit.test_lean import adapted, base_of
from tests.unit.test_lora_data import CHAT, rows, windows


@pytest.mark.parametrize("chunk", [100, 1 << 20])
@pytest.mark.parametrize("biased", [False, True])
def test_the_divergence_and_its_gradient_are_those_of_whole_logits(
    monkeypatch: pytest.MonkeyPatch, chunk: int, biased: bool
) -> None:
    """In float64, where rounding hides nothing."""
    monkeypatch.setattr(losses, "CHUNK_BYTES", chunk)
    torch.manual_seed(0)
    hidden = torch.randn(9, 8, dtype=torch.float64, requires_grad=True)
    other, weight = torch.randn(9, 8, dtype=torch.float64), torch.randn(13, 8, dtype=torch.float64)
    bias = torch.randn(13, dtype=torch.float64) if biased else None
    scale = torch.randn(9, dtype=torch.float64)
    ours = chunked_divergence(hidden, other, weight, bias)
    likely, wished = (F.linear(one, weight, bias).log_softmax(-1) for one in (hidden, other))
    wanted = F.kl_div(likely, wished, log_target=True, reduction="none").sum(-1)
    assert torch.allclose(ours, wanted, rtol=1e-12, atol=1e-14)
    whole = divergence(F.linear(hidden, weight, bias), F.linear(other, weight, bias))
    assert torch.allclose(whole, wanted.float(), rtol=1e-4, atol=1e-5)
    mine = torch.autograd.grad((ours * scale).sum(), hidden)[0]
    assert torch.allclose(
        mine, torch.autograd.grad((wanted * scale).sum(), hidden)[0], rtol=1e-10, atol=1e-12
    )


def test_no_positions_have_no_divergence() -> None:
    nothing = torch.zeros(0, 4, requires_grad=True)
    assert chunked_divergence(nothing, torch.zeros(0, 4), torch.zeros(5, 4), None).shape == (0,)


def recipe(hold: float, packing: bool = True) -> Recipe:
    made = recipe_for(TrainParams(context=128, rank=4, batch_size=4), Phase.LORA)
    return msgspec.structs.replace(
        made, adapter=msgspec.structs.replace(made.adapter, hold=hold, packing=packing, dropout=0.0)
    )


@pytest.mark.parametrize("layout", list(RowLayout))
@pytest.mark.parametrize("room", [1, 4096])
def test_every_prediction_is_trained_or_held_and_padding_is_neither(layout: RowLayout, room: int) -> None:
    batches = LoraBatches(windows(), recipe(2.0), room, pad=0, layout=layout)
    for number in range(batches.per_epoch):
        parts = batches.batch_at(number, 3).micro_batches
        predicted = sum(int(batches.data.lengths[one]) - 1 for one in batches._members(number))
        held = [part.hold_weights for part in parts if part.hold_weights is not None]
        assert len(held) == len(parts)
        assert sum(float(one.sum()) for one in held) == pytest.approx(2.0, rel=1e-5)
        assert sum(float(part.weights.sum()) for part in parts) == pytest.approx(1.0, rel=1e-5)
        trained = sum(int((part.weights != 0).sum()) for part in parts)
        assert trained + sum(int((one != 0).sum()) for one in held) == predicted
        assert not any(
            bool(((part.weights != 0) & (one != 0)).any()) for part, one in zip(parts, held, strict=True)
        )


def test_without_hold_a_step_is_as_it_was() -> None:
    parts = LoraBatches(windows(), recipe(0.0), 4096, pad=0).batch_at(0, 3).micro_batches
    assert [part.hold_weights for part in parts] == [None] * len(parts)


MORE: dict[str, dict[str, Any]] = {"granite": {"logits_scaling": 4.0}}


def step_of(kind: str, joined: bool) -> tuple[AdapterModel, MicroBatch]:
    model = AdapterModel(adapted(base_of(kind, vocab_size=len(CHAT.tokenizer), **MORE.get(kind, {}))), 128)
    model.make_lean(fused=False)
    layout = RowLayout.APART
    if joined:
        assert model.joins_rows(fused=False, longest=128)
        layout = RowLayout.JOINED
    batches = LoraBatches(render_windows(rows()[:4], CHAT, 128), recipe(1.0), 4096, pad=0, layout=layout)
    return model.train(), batches.batch_at(0, 1).micro_batches[0]


@pytest.mark.parametrize(
    ("kind", "joined"), [("qwen3", True), ("qwen3", False), ("llama", True), ("granite", False)]
)
def test_drift_is_the_divergence_from_the_base_and_moves_only_the_adapter(kind: str, joined: bool) -> None:
    """Granite scales its logits, so its head is more than a product."""
    model, part = step_of(kind, joined)
    assert model.linear_head is (kind != "granite")
    assert part.hold_weights is not None
    mask, held = part.weights != 0, part.hold_weights != 0
    values, drift = model.losses_and_drift(part.ids, part.targets, mask, held, part.positions, joined=joined)
    alone = model.losses(part.ids, part.targets, mask, part.positions, joined=joined)
    assert torch.allclose(values, alone, atol=1e-5)
    assert float(drift[~held].abs().sum()) == 0.0
    with torch.no_grad():
        expected = torch.zeros_like(drift)
        for row in range(len(part.ids)):
            assert part.positions is not None
            starts = [*(part.positions[row] == 0).nonzero()[:, 0].tolist(), part.ids.shape[1]]
            for begin, end in pairwise(starts):
                if not held[row, begin:end].any():
                    continue
                ids = part.ids[row : row + 1, begin:end]
                with model.peft.disable_adapter():
                    theirs = model(ids)[0]
                expected[row, begin:end] = divergence(model(ids)[0], theirs)
        expected[~held] = 0.0
    assert torch.allclose(drift, expected, rtol=1e-3, atol=1e-5)
    assert float(drift.sum()) > 0.01
    torch.autograd.backward(drift.sum())
    slopes = {name for name, value in model.named_parameters() if value.grad is not None}
    assert slopes and all("lora_" in name for name in slopes)
    assert (
        model.training and {name for name, value in model.named_parameters() if value.requires_grad} == slopes
    )


def test_a_training_that_holds_keeps_the_base_where_nothing_is_answered() -> None:
    """The same steps with and without: the answers are learnt in both, the questions drift in one."""
    drifts, learnt = [], []
    for hold in (0.0, 3.0):
        model, part = step_of("qwen3", joined=True)
        with torch.no_grad():
            for name, value in model.named_parameters():
                if "lora_B" in name:
                    value.zero_()
        assert part.hold_weights is not None
        mask, held = part.weights != 0, part.hold_weights != 0
        optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=3e-3)
        for _step in range(25):
            optimizer.zero_grad()
            values, drift = model.losses_and_drift(
                part.ids, part.targets, mask, held, part.positions, joined=True
            )
            torch.autograd.backward((values * part.weights).sum() + hold * drift[held].mean())
            optimizer.step()
        drifts.append(float(drift[held].mean()))
        learnt.append(float((values * part.weights).sum()))
    assert drifts[1] < 0.5 * drifts[0]
    assert learnt[1] < 3.0


OLD = {
    Phase.LORA: "bf0c9d223f67e20e301364a760ba3f02614ff03a3a5c7cd7c1d6e6da81b44b43",
    Phase.NATIVE: "07fb051f090bcfa54dad1d817007990d076d0f5d8a96d34b48f14486c8b1a81d",
}
"""Digests in checkpoints that were made before adapters were held."""


@pytest.mark.parametrize("phase", list(OLD))
def test_a_checkpoint_from_before_is_resumed_without_holding(phase: Phase) -> None:
    params = TrainParams(mode="lora")  # type: ignore[arg-type]
    assert recipe_for(params, phase, settings=Settings(lora_hold=0.0)).digest() == OLD[phase]
    now = recipe_for(params, phase, settings=Settings(lora_hold=1.0))
    begun = as_begun(now, OLD[phase])
    assert begun.digest() == OLD[phase] and begun.adapter.hold == 0.0
    if phase is Phase.LORA:
        assert now.digest() != OLD[phase]
        assert as_begun(now, now.digest()) == now
