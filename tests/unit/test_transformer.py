"""The native model against transformers' Qwen3, and cached against uncached generation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.models.card import ModelCard
from engine.models.native_format import load_model, save_model
from engine.models.transformer import KVCache, ModelConfig, Transformer, attend

torch.set_num_threads(1)
TINY = ModelConfig(dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn=48, context=64, max_positions=128)


def random_model(config: ModelConfig = TINY) -> Transformer:
    model = Transformer(config)
    model.initialise(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def card(name: str = "tiny") -> ModelCard:
    return ModelCard(name=name, mode="scratch", created_at=0.0, parameters=1, context=64)


def test_transformers_computes_the_same_logits_from_the_saved_directory(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = random_model()
    save_model(tmp_path / "tiny", model, card())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "tiny", local_files_only=True
    ).eval()
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    ids = torch.randint(0, 259, (2, 50), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.allclose(model(ids), theirs(ids).logits, atol=1e-4)


@pytest.mark.parametrize("new", [2, 127, 128, 129, 300, 1024, 1100])
@pytest.mark.parametrize("before", [0, 5])
def test_blocked_and_fused_attention_match_the_formula(new: int, before: int) -> None:
    generator = torch.Generator().manual_seed(3)
    total = new + before
    queries = torch.randn(1, 2, new, 8, generator=generator)
    keys, values = (torch.randn(1, 2, total, 8, generator=generator) for _name in ("keys", "values"))
    scores = queries @ keys.transpose(-1, -2) / 8**0.5
    future = torch.ones(new, total, dtype=torch.bool).triu(before + 1)
    wanted = scores.masked_fill(future, float("-inf")).softmax(dim=-1) @ values
    assert torch.allclose(attend(queries, keys, values), wanted, atol=1e-5)


def test_cached_generation_matches_a_full_forward_pass() -> None:
    model = random_model()
    ids = torch.randint(0, 256, (1, 40), generator=torch.Generator().manual_seed(4))
    cache = KVCache(TINY, capacity=64, like=model.lm_head.weight)
    with torch.no_grad():
        whole = model(ids)
        pieces = [model(ids[:, :17], cache), model(ids[:, 17:30], cache)]
        pieces += [model(ids[:, i : i + 1], cache) for i in range(30, 40)]
    assert torch.allclose(whole, torch.cat(pieces, dim=1), atol=1e-5)


def test_a_full_cache_raises() -> None:
    model = random_model()
    cache = KVCache(TINY, capacity=4, like=model.lm_head.weight)
    with pytest.raises(ValueError, match="has 4"), torch.no_grad():
        model(torch.zeros(1, 5, dtype=torch.long), cache)


def test_the_first_loss_is_that_of_a_uniform_distribution() -> None:
    model = Transformer(TINY)
    model.initialise(0)
    logits = model(torch.randint(0, 256, (1, 8)))
    assert torch.count_nonzero(logits) == 0


def test_a_model_round_trips_through_disk(tmp_path: Path) -> None:
    model = random_model()
    written = save_model(tmp_path / "tiny", model, card())
    loaded, read = load_model(tmp_path / "tiny")
    assert read == written and loaded.config == TINY
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
