"""The fused kernels match plain torch, forward and backward."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models.kernels import build, fused
from engine.models.transformer import NORM_EPS, ModelConfig, Transformer, attend, rotate

needs_compiler = pytest.mark.skipif(build.load_kernels() is None, reason="no compiler with OpenMP is here")
Case = tuple[torch.Tensor, ...]


def gradients(out: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    up = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out, *torch.autograd.grad(out, inputs, up)]


def close(ours: list[torch.Tensor], reference: list[torch.Tensor], *, bf16: bool) -> None:
    for mine, theirs in zip(ours, reference, strict=True):
        assert mine.shape == theirs.shape
        assert torch.allclose(
            mine.float(), theirs.float(), rtol=0.05 if bf16 else 1e-4, atol=0.06 if bf16 else 2e-5
        )


def random(*shape: int, bf16: bool = False, seed: int = 0) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))
    return values.to(torch.bfloat16 if bf16 else torch.float32).requires_grad_()


@needs_compiler
@given(rows=st.integers(1, 9), width=st.integers(1, 70))
@settings(deadline=None, max_examples=30)
def test_rms_norm_matches_torch(rows: int, width: int) -> None:
    x, weight = random(rows, width), random(width)
    ours = gradients(fused.rms_norm(x, weight, NORM_EPS), x, weight)
    close(ours, gradients(F.rms_norm(x, (width,), weight, NORM_EPS), x, weight), bf16=False)


@needs_compiler
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 3), st.integers(1, 20), st.booleans())
@settings(deadline=None, max_examples=30)
def test_norm_rope_matches_torch(batch: int, time: int, heads: int, half: int, bf16: bool) -> None:
    x, weight = random(batch, time, heads, 2 * half, bf16=bf16), random(2 * half)
    angles = random(time, half).detach()
    cos, sin = angles.cos(), angles.sin()
    normed = F.rms_norm(x, (2 * half,), weight.to(x.dtype), NORM_EPS)
    reference = rotate(normed.transpose(1, 2), cos.to(x.dtype), sin.to(x.dtype))
    ours = gradients(fused.norm_rope(x, weight, cos, sin, NORM_EPS), x, weight)
    if bf16:
        # The reference rounds between its steps, so the direction of the summed gradient is compared.
        close(ours[:2], gradients(reference, x, weight)[:2], bf16=True)
        return
    close(ours, gradients(reference, x, weight), bf16=False)


@needs_compiler
@given(rows=st.integers(1, 5), width=st.integers(1, 70), bf16=st.booleans())
@settings(deadline=None, max_examples=30)
def test_swiglu_matches_torch(rows: int, width: int, bf16: bool) -> None:
    gate, up = random(rows, width, bf16=bf16), random(rows, width, bf16=bf16, seed=3)
    ours = gradients(fused.swiglu(gate, up), gate, up)
    close(ours, gradients(F.silu(gate) * up, gate, up), bf16=bf16)


@needs_compiler
@pytest.mark.parametrize("time", [1, 5, 127, 128, 129, 300])
@pytest.mark.parametrize("bf16", [False, True])
def test_attention_matches_torch_across_block_boundaries(time: int, bf16: bool) -> None:
    queries, keys, values = (random(2, 3, time, 16, bf16=bf16, seed=seed) for seed in (0, 1, 2))
    ours = gradients(fused.causal_attention(queries, keys, values), queries, keys, values)
    reference = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    close(ours, gradients(reference, queries, keys, values), bf16=bf16)
    plain = gradients(attend(queries, keys, values), queries, keys, values)
    close(ours, plain, bf16=bf16)


@needs_compiler
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("bf16", [False, True])
def test_non_finite_values_propagate(value: float, bf16: bool) -> None:
    """Recovery discards a step by its loss; a kernel must not hide a NaN."""
    x = torch.ones(2, 8)
    x[1, 3] = value
    assert not fused.rms_norm(x, torch.ones(8), NORM_EPS)[1].isfinite().all()
    kind = torch.bfloat16 if bf16 else torch.float32
    gate = torch.full((1, 1, 20, 16), 1.0, dtype=kind)
    gate[0, 0, 7, 0] = value
    assert not fused.causal_attention(gate, gate, gate)[0, 0, 7].isfinite().all()
    if value != -float("inf"):
        assert not fused.swiglu(gate, gate).isfinite().all()
    everything = torch.tensor(0x7FFFFFFF, dtype=torch.int32).view(torch.float32).expand(1, 8).contiguous()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fused.rms_norm(everything, torch.ones(8), NORM_EPS).isnan().all()


@needs_compiler
@pytest.mark.parametrize("recompute", [False, True])
def test_a_fused_model_has_the_same_loss_and_gradients(recompute: bool) -> None:
    model = Transformer(ModelConfig(dim=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn=96))
    model.initialise(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    ids = torch.randint(0, 256, (2, 150), generator=torch.Generator().manual_seed(0))
    found = []
    for fast in (False, True):
        model.model.fused, model.model.activation_checkpointing = fast, recompute and fast
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        found.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    close(found[1], found[0], bf16=False)


def test_without_a_compiler_torch_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    build.load_kernels.cache_clear()
    try:
        assert build.load_kernels() is None
    finally:
        build.load_kernels.cache_clear()


def test_kernels_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("H2Q_KERNELS", "0")
    build.load_kernels.cache_clear()
    try:
        assert build.load_kernels() is None
    finally:
        build.load_kernels.cache_clear()


def test_a_failing_compiler_falls_back_to_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.load_kernels.cache_clear()
    try:
        assert build.load_kernels() is None
    finally:
        build.load_kernels.cache_clear()
