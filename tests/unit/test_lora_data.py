"""Batches of a LoRA step: packed rows whose conversations do not attend to each other."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.core.chat import ChatMessage
from engine.corpus.dataset import DatasetRow
from engine.models.adapters import AdapterModel
from engine.models.base_models import ModelDimensions
from engine.models.chat_template import ChatTemplate
from engine.runs.kinds import TrainParams
from engine.training.batches import Batch
from engine.training.lora.data import LoraBatches, render_windows
from engine.training.recipe import LoraSettings, Phase, Recipe, recipe_for
from engine.training.replay import replay_counts
from engine.training.token_windows import TokenWindows
from tests.hf_models import tiny_tokenizer

CHAT = ChatTemplate(tiny_tokenizer())


def row(number: int, answer: str) -> DatasetRow:
    messages = [
        ChatMessage(role="user", content=f"question {number}"),
        ChatMessage(role="assistant", content=answer),
    ]
    return DatasetRow(id=f"c{number}", cluster=f"k{number}", messages=messages)


def rows() -> list[DatasetRow]:
    """One long conversation and nine short ones."""
    return [row(0, "Boil some water. " * 6), *(row(number, "tea") for number in range(1, 10))]


def windows(context: int = 128) -> TokenWindows:
    return render_windows(rows(), CHAT, context)


def recipe(*, packing: bool = True, batch: int = 4) -> Recipe:
    made = recipe_for(TrainParams(context=128, rank=4, batch_size=batch, epochs=2), Phase.LORA)
    return msgspec.structs.replace(made, adapter=LoraSettings(rank=4, dropout=0.0, packing=packing))


def batches(*, packing: bool = True, batch: int = 4, room: int = 4096) -> LoraBatches:
    return LoraBatches(windows(), recipe(packing=packing, batch=batch), room, pad=0)


def adapter_model() -> AdapterModel:
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3Config

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(CHAT.tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
    )
    make: Any = AutoModelForCausalLM
    base = make.from_config(config)
    base.requires_grad_(False)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    return AdapterModel(get_peft_model(base, lora), 128)


def gradients(model: AdapterModel, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    total = 0.0
    for part in batch.micro_batches:
        losses = model.losses(part.ids, part.targets, part.weights != 0, part.positions)
        torch.autograd.backward((losses * part.weights).sum())
        total += float((losses.detach() * part.report_weights).sum())
    return total, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_packing_changes_the_padding_but_not_the_gradients() -> None:
    model = adapter_model()
    packed, apart = batches(batch=10).batch_at(0, 2), batches(packing=False, batch=10).batch_at(0, 2)
    assert len(packed.micro_batches[0].ids) < len(apart.micro_batches[0].ids) == 10
    loss, slopes = gradients(model, packed)
    other, wanted = gradients(model, apart)
    assert loss == pytest.approx(other, rel=1e-4)
    assert slopes.keys() == wanted.keys() and slopes
    for name, slope in slopes.items():
        assert torch.allclose(slope, wanted[name], atol=1e-5), name


def test_small_micro_batches_add_up_to_the_whole_step() -> None:
    model = adapter_model()
    whole = gradients(model, batches(batch=10).batch_at(0, 2))
    parts = batches(batch=10, room=1).batch_at(0, 2)
    assert len(parts.micro_batches) > 1
    pieces = gradients(model, parts)
    assert whole[0] == pytest.approx(pieces[0], rel=1e-4)
    for name, slope in whole[1].items():
        assert torch.allclose(slope, pieces[1][name], atol=1e-5), name


def test_each_conversation_appears_once_per_epoch_in_a_new_order() -> None:
    source = batches(batch=3)
    assert (source.per_epoch, source.steps()) == (4, 8)
    epochs = [
        [name for step in range(4) for name in source.sample_names(first + step, 8)] for first in (0, 4)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(f"c{number}" for number in range(10))
    assert epochs[0] != epochs[1]
    assert torch.equal(
        source.batch_at(5, 8).micro_batches[0].ids, batches(batch=3).batch_at(5, 8).micro_batches[0].ids
    )


def test_the_loss_is_reported_per_byte_of_answers() -> None:
    batch = batches(batch=10).batch_at(0, 2)
    size = sum(len(one.messages[1].content.encode()) + 1 for one in rows())
    counted = sum(float(part.report_weights.sum()) for part in batch.micro_batches)
    trained = sum(int((part.weights > 0).sum()) for part in batch.micro_batches)
    assert counted == pytest.approx(trained / size)
    assert sum(float(part.weights.sum()) for part in batch.micro_batches) == pytest.approx(1.0)


def test_a_copy_shares_the_base_but_not_the_adapter() -> None:
    import copy

    model = adapter_model()
    duplicate = copy.deepcopy(model)
    frozen = dict(model.named_parameters())
    for name, parameter in duplicate.named_parameters():
        assert (parameter is frozen[name]) is not parameter.requires_grad, name
    assert set(model.state_dict()) == {name for name in frozen if "lora_" in name}


def test_activation_checkpointing_changes_no_gradient() -> None:
    model = adapter_model().train()
    batch = batches(batch=10).batch_at(0, 2)
    plain = gradients(model, batch)
    model.activation_checkpointing = True
    again = gradients(model, batch)
    assert plain[0] == pytest.approx(again[0])
    assert all(torch.allclose(slope, again[1][name], atol=1e-6) for name, slope in plain[1].items())


def test_at_least_half_of_the_trained_bytes_are_older_conversations() -> None:
    older = {"c1", "c2"}
    repeats = replay_counts(rows(), older)
    sizes: Counter[bool] = Counter()
    for one in rows():
        sizes[one.id in older] += len(one.messages[1].content) * repeats.get(one.id, 1)
    assert sizes[True] >= sizes[False]
    found = render_windows(rows(), CHAT, 128, repeats)
    assert Counter(found.names)["c1"] == repeats["c1"] > 1 == Counter(found.names)["c0"]


def test_nothing_is_repeated_without_older_conversations_or_with_a_majority() -> None:
    assert replay_counts(rows(), {"c0"}) == {}
    assert replay_counts(rows(), set()) == {}
    assert replay_counts(rows(), {one.id for one in rows()}) == {}


def test_adapter_parameters_are_counted_from_the_dimensions() -> None:
    from engine.training.lora.fit import adapter_parameters

    shape = ModelDimensions(
        hidden=32, layers=2, heads=2, kv_heads=1, head_dim=16, ffn=48, vocab=400, context=256
    )
    assert adapter_parameters(shape, LoraSettings(rank=4)) == adapter_model().parameters_count()
