from __future__ import annotations

import math

import pytest
import torch

from bench import training
from engine.models.transformer import ModelConfig, Transformer


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr("engine.training.devices.usable_cores", lambda: 1)


def test_the_validation_covers_the_last_tenth_and_knows_a_uniform_guess() -> None:
    seen = 0

    def uniform(ids: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += ids.numel()
        return torch.zeros(*ids.shape, 256)

    assert training.validate(uniform) == pytest.approx(math.log(256), rel=1e-5)
    assert 111_000 < seen <= training.TEXT.stat().st_size // 10 + 1


def test_few_steps_give_two_ratios_with_their_losses() -> None:
    rows = training.to_loss(False, steps=12)
    assert [row.name for row in rows] == ["training.time_to_loss", "training.tokens_to_loss"]
    assert rows[1].baseline == 12 * 12 * 64
    assert all("GPT2LMHeadModel 12 steps to" in row.notes for row in rows)


def test_speed_compares_models_of_the_same_size() -> None:
    (row,) = training.speed(False, batch=1, context=32, rounds=1)
    assert row.name == "training.tokens_per_s"
    assert row.ours > 0 < row.baseline
    baseline = training.EncoderModel(dim=256, layers=6, heads=8, ffn=2048)
    ours = Transformer(ModelConfig(dim=256, layers=6, heads=8, kv_heads=8, head_dim=32, ffn=1376))
    sizes = [sum(p.numel() for p in model.parameters()) for model in (baseline, ours)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.03)
