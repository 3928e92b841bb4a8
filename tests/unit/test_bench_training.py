from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import pytest
import torch

from bench import throughput, training
from engine.models.transformer import ModelConfig, Transformer
from engine.training.text_stream import general_windows


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr("engine.training.devices.physical_cores", lambda: 1)


def test_the_validation_covers_the_last_tenth_and_knows_a_uniform_guess() -> None:
    seen = 0

    def uniform(ids: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += ids.numel()
        return torch.zeros(*ids.shape, 256)

    assert training.validate(uniform) == pytest.approx(math.log(256), rel=1e-5)
    assert 111_000 < seen <= training.TEXT.stat().st_size // 10 + 1


@pytest.mark.long
def test_few_steps_give_two_ratios_with_their_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "PLANS", (600,))
    rows = training.to_loss(False, steps=12)
    assert [row.name for row in rows] == ["training.time_to_loss", "training.tokens_to_loss"]
    assert rows[1].baseline == 12 * 12 * 64
    assert all("GPT2LMHeadModel 12 steps to" in row.notes for row in rows)


@pytest.mark.long
def test_the_quality_recipe_is_given_the_time_of_two_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = list(islice(general_windows([training.TEXT], training.QUALITY_CONTEXT, 1 << 30), 20))
    monkeypatch.setattr(training, "general_windows", lambda *_where: windows)
    monkeypatch.setattr(training, "SHORT_S", 0.5)
    monkeypatch.setattr(training, "PACED_STEPS", 3)
    monkeypatch.setattr(training, "gpt2", lambda steps: training.TrainingOutcome(2.5, 1.0, 100))
    (row,) = training.quality(False)
    assert row.baseline == 2.5
    assert 1.0 < row.ours < math.log(320)
    assert "4x256" in row.notes


def test_speed_compares_models_of_the_same_size_with_and_without_bfloat16() -> None:
    rows = throughput.speed(False, batch=1, context=32, rounds=1)
    assert [row.name for row in rows] == ["training.tokens_per_s", "training.tokens_per_s_fp32"]
    assert all(row.ours > 0 < row.baseline for row in rows)
    assert "fp32, " in rows[1].notes.partition("Muon")[2]
    baseline = throughput.EncoderModel(dim=256, layers=6, heads=8, ffn=2048)
    ours = Transformer(ModelConfig(dim=256, layers=6, heads=4, kv_heads=4, head_dim=64, ffn=1376))
    sizes = [sum(p.numel() for p in model.parameters()) for model in (baseline, ours)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.03)


@pytest.mark.parametrize(("flags", "has"), [("fpu avx512_bf16", False), ("fpu amx_bf16 amx_tile", True)])
def test_matrix_units_are_told_by_the_flags_of_the_processor(tmp_path: Path, flags: str, has: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t: {flags}\n")
    assert throughput.has_matrix_units(tmp_path / "cpuinfo") is has
    assert not throughput.has_matrix_units(tmp_path / "nothing")
