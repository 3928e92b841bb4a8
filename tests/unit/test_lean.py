"""The lean training step against PEFT, transformers and autograd."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from engine.models.adapters import AdapterModel
from engine.models.kernels.build import load_kernels
from engine.models.lean import joined_attention
from engine.models.lean.dropout import SharedDropout
from engine.models.lean.install import joined_row, keeps_apart
from engine.models.lean.joined_attention import JOINED
from engine.models.lean.low_rank import LeanLinear, use_lean_layers

COMMON: dict[str, Any] = {
    "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WITHOUT_GROUPS = ("phi", "gpt_neox", "gpt2", "opt", "bloom", "mpt")
LINEAR = {
    "head_dim": 16, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
FUSED = [False, *([True] if load_kernels() is not None else [])]


def base_of(kind: str, dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    """A random frozen model of an architecture, with weights large enough that positions and states matter."""
    settings = COMMON | more
    if kind in WITHOUT_GROUPS:
        settings = {name: value for name, value in settings.items() if name != "num_key_value_heads"}
    make: Any = AutoModelForCausalLM
    torch.manual_seed(0)
    model = make.from_config(AutoConfig.for_model(kind, **settings), dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(3.0) if parameter.ndim == 2 else None
            # Norms of ones would hide a weight that is left out.
            if "norm" in name and parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.to(dtype).eval().requires_grad_(False)


def adapted(base: Any, dropout: float = 0.0) -> Any:
    torch.manual_seed(1)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear",
        init_lora_weights=False,
    )  # fmt: skip
    return get_peft_model(base, config)


def gradients(model: AdapterModel, *arguments: Tensor, joined: bool = False) -> dict[str, Tensor]:
    """The losses and the gradients of the adapter."""
    model.zero_grad()
    losses = model.losses(*arguments, joined=joined)
    torch.autograd.backward((losses * torch.linspace(0.5, 1.5, losses.numel()).view(losses.shape)).sum())
    found = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    return {"losses": losses.detach()} | found


def row_of(lengths: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids, targets, mask and positions of conversations in one row."""
    generator = torch.Generator().manual_seed(sum(lengths))
    ids = torch.randint(3, 256, (1, sum(lengths)), generator=generator)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    last = torch.cat([torch.arange(length) == length - 1 for length in lengths])[None]
    mask = (torch.rand(ids.shape, generator=generator) < 0.6) & ~last
    return ids, ids.roll(-1, 1), mask, positions


def close(one: Tensor, other: Tensor, rel: float) -> bool:
    return float((one - other).abs().max()) <= rel * max(1e-6, float(other.abs().max()))


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", {}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
        ("gemma", {"head_dim": 16}),
        ("gemma3_text", {"head_dim": 16, "sliding_window": 512}),
        ("phi3", {}),
    ],
)
def test_a_lean_joined_step_has_the_losses_and_gradients_of_peft(
    kind: str, more: dict[str, Any], fused: bool
) -> None:
    """Padding at the end, a long conversation in blocks and one of a single token are among them."""
    plain = AdapterModel(adapted(base_of(kind, **more)), 512).train()
    lean = copy.deepcopy(plain)
    lean.make_lean(fused=fused)
    assert any(type(module) is LeanLinear for module in lean.modules())
    assert lean.joins_rows(fused=fused, longest=290)
    row = row_of((37, 290, 1, 20, 5))
    wanted, found = gradients(plain, *row), gradients(lean, *row, joined=True)
    assert found.keys() == wanted.keys() and len(wanted) > 10
    for name, value in wanted.items():
        assert close(found[name], value, 2e-4), name


@pytest.mark.parametrize("recompute", [False, True])
def test_recomputed_layers_have_the_same_row_and_dropout(recompute: bool) -> None:
    model = AdapterModel(adapted(base_of("llama"), dropout=0.3), 512).train()
    model.make_lean(fused=FUSED[-1])
    assert model.joins_rows(fused=FUSED[-1], longest=60)
    row = row_of((60, 21))
    torch.manual_seed(5)
    wanted = gradients(model, *row, joined=True)
    model.activation_checkpointing = recompute
    torch.manual_seed(5)
    found = gradients(model, *row, joined=True)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    torch.manual_seed(6)
    assert not torch.equal(gradients(model, *row, joined=True)["losses"], wanted["losses"])
    assert model.base.config._attn_implementation != JOINED


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("recompute", [False, True])
def test_attention_of_padding_is_left_out_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, fused: bool, recompute: bool
) -> None:
    model = AdapterModel(adapted(base_of("llama")), 512).train()
    model.make_lean(fused=fused)
    assert model.joins_rows(fused=fused, longest=60)
    model.activation_checkpointing = recompute
    ids, targets, mask, positions = row_of((60, 21, 13))
    spans: list[tuple[int, int]] = []
    padded = joined_attention._padded

    def watched(query: Tensor, key: Tensor, value: Tensor, start: int, end: int) -> Any:
        spans.append((start, end))
        return padded(query, key, value, start, end)

    monkeypatch.setattr(joined_attention, "_padded", watched)
    mask[:, 81:] = False
    found = gradients(model, ids, targets, mask, positions, joined=True)
    assert set(spans) == {(0, 60), (60, 81)}
    wanted = gradients(model, ids[:, :81], targets[:, :81], mask[:, :81], positions[:, :81], joined=True)
    assert not bool(found["losses"][:, 81:].any())
    found["losses"] = found["losses"][:, :81]
    assert close(found["losses"], wanted["losses"], 1e-5)
    ids[:, 81:] = 7
    again = gradients(model, ids, targets, mask, positions, joined=True)
    assert all(
        close(again[name][..., :81] if name == "losses" else again[name], value, 1e-6)
        for name, value in found.items()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
def test_a_lean_layer_computes_what_peft_does(dtype: torch.dtype, biased: bool) -> None:
    torch.manual_seed(0)
    base = nn.Linear(24, 40, bias=biased).to(dtype).requires_grad_(False)
    layer = PeftLinear(
        base, "default", LoraConfig(r=4, lora_alpha=8, init_lora_weights=False), r=4, lora_alpha=8
    )
    # As PEFT's models hold them.
    layer.lora_A.float()
    layer.lora_B.float()
    x = torch.randn(2, 9, 24).to(dtype)
    up = torch.randn(2, 9, 40).to(dtype)
    results = []
    for lean in (False, True):
        made = copy.deepcopy(layer)
        if lean:
            assert use_lean_layers(nn.ModuleDict({"a": made}), SharedDropout()) == 1
        source = x.clone().requires_grad_(True)
        out: Tensor = made(source)
        torch.autograd.backward(out, up)
        slopes = [made.lora_A["default"].weight.grad, made.lora_B["default"].weight.grad]
        assert all(slope is not None and slope.dtype is torch.float32 for slope in slopes)
        results.append([out.detach(), source.grad, *slopes])
    for one, other in zip(*results, strict=True):
        assert one is not None and other is not None
        assert close(other.float(), one.float(), 1e-5 if dtype is torch.float32 else 0.02)


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_of_one_input_share_their_mask_and_keep_the_mean(fused: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    shared, x = SharedDropout(fused=fused), torch.ones(401, 99, dtype=dtype)
    first, mask = shared(x, 0.3)
    again, _mask = shared(x, 0.3)
    other, _mask = shared(x.clone(), 0.3)
    assert again is first and not torch.equal(other, first)
    assert mask.kept == pytest.approx(0.7, abs=1 / 256)
    assert set(first.flatten().tolist()) == {0.0, 1.0}
    for side in (0, 1):
        each = first.float().mean(dim=side)
        # Each row and column has its own, as independent draws would.
        assert float(each.mean()) == pytest.approx(mask.kept, abs=0.01)
        assert float(each.std()) == pytest.approx((0.21 / first.shape[side]) ** 0.5, rel=0.25)
    assert float((first[:, 1:] * first[:, :-1]).float().mean()) == pytest.approx(mask.kept**2, abs=0.01)
    total = torch.full_like(x, 2.0)
    mask.add_kept(total, 3 * x)
    assert torch.equal(total, 2 + 3 * first)


class Block(nn.Module):
    """Three adapted layers of one input with different widths, ranks and scales."""

    def __init__(self, dtype: torch.dtype, rate: float, shared: SharedDropout) -> None:
        super().__init__()
        for name, width, rank in (("q_proj", 40, 4), ("k_proj", 8, 2), ("v_proj", 8, 4)):
            base = nn.Linear(24, width, bias=name == "k_proj").to(dtype).requires_grad_(False)
            config = LoraConfig(r=rank, lora_alpha=8, lora_dropout=rate, init_lora_weights=False)
            layer = PeftLinear(base, "default", config, r=rank, lora_alpha=8)
            layer.lora_A.float()
            layer.lora_B.float()
            setattr(self, name, layer)
        assert use_lean_layers(self, shared) == 3

    @property
    def layers(self) -> list[LeanLinear]:
        return [self.q_proj, self.k_proj, self.v_proj]  # type: ignore[list-item]


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1,), (0, 2)])
def test_layers_of_one_input_have_the_gradients_of_autograd_with_dropout(
    fused: bool, dtype: torch.dtype, order: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    shared = SharedDropout(fused=fused)
    block = Block(dtype, 0.3, shared).train()
    x = torch.randn(2, 9, 24).to(dtype).requires_grad_(True)
    # The layers use the mask of the last input.
    dropped, mask = shared(x, 0.3)
    kept = (dropped != 0).double()
    outs = [block.layers[at](x) for at in order]
    ups = [torch.randn_like(out) for out in outs]
    leaves = [x, *(value for name, value in block.named_parameters() if "lora_" in name)]
    found = torch.autograd.grad(outs, leaves, ups, allow_unused=True)
    exact = x.detach().double().requires_grad_(True)
    masters = {name: value.detach().double().requires_grad_(True) for name, value in block.named_parameters()}
    wanted_outs = []
    for at in order:
        layer, name = block.layers[at], ("q_proj", "k_proj", "v_proj")[at]
        down, up = (masters[f"{name}.lora_{letter}.default.weight"] for letter in "AB")
        low = (exact * kept) @ down.T @ up.T * (layer.scaling["default"] / mask.kept)
        bias = masters.get(f"{name}.base_layer.bias")
        wanted_outs.append(
            exact @ masters[f"{name}.base_layer.weight"].T + low + (0 if bias is None else bias)
        )
    leaves = [exact, *(value for name, value in masters.items() if "lora_" in name)]
    wanted = torch.autograd.grad(wanted_outs, leaves, [up.double() for up in ups], allow_unused=True)
    rel = 1e-5 if dtype is torch.float32 else 0.02
    for one, other in zip([*outs, *found], [*wanted_outs, *wanted], strict=True):
        # A layer that was not asked for has no gradient, or one of 0.
        expected = torch.zeros_like(one) if other is None else other
        assert one is None or close(one.double(), expected.double(), rel)
        assert one is not None or other is None


def test_an_input_that_changed_in_place_is_computed_again() -> None:
    torch.manual_seed(0)
    block: Any = Block(torch.float32, 0.0, SharedDropout())
    x = torch.randn(3, 24)
    with torch.no_grad():
        block.layers[0](x)
        x.mul_(2)
        found = block.layers[1](x)
        assert torch.equal(found, copy.deepcopy(block).layers[1](x.clone()))
        # Evaluated without the adapter, in between, and as a copy with weights of its own.
        block.layers[0](x)
        block.layers[1].enable_adapters(False)
        base = block.layers[1].base_layer
        assert torch.equal(block.layers[1](x), base(x))
        other: Any = copy.deepcopy(block)
        other.layers[0].lora_B["default"].weight.zero_()
        assert torch.equal(other.layers[0](x), other.layers[0].base_layer(x))
        assert not torch.equal(block.layers[0](x), block.layers[0].base_layer(x))


@pytest.mark.parametrize(
    ("kind", "packed", "joined", "more"),
    [
        ("llama", True, True, {}),
        ("qwen3", True, True, {"head_dim": 16}),
        ("gemma2", True, False, {"head_dim": 16, "sliding_window": 16}),
        ("phi", True, True, {}),
        ("gpt2", True, True, {"attn_pdrop": 0.0}),
        # In training their attention drops scores.
        ("gpt2", True, False, {"attn_pdrop": 0.1}),
        ("llama", True, False, {"attention_dropout": 0.1}),
        ("granite", True, True, {}),
        ("olmo2", True, True, {}),
        ("smollm3", True, True, {}),
        ("qwen3_5_text", False, False, LINEAR),
        ("lfm2", False, False, {"layer_types": ["conv", "full_attention"], "block_ff_dim": 96}),
        (
            "recurrent_gemma",
            False,
            False,
            {"head_dim": 16, "lru_width": 64, "block_types": ["recurrent", "attention"]},
        ),
        # Its mask ignores positions, which a joined row does not need.
        ("opt", False, True, {"word_embed_proj_dim": 64, "ffn_dim": 96}),
        ("bloom", False, False, {}),
        ("mpt", False, False, {"d_model": 64, "n_heads": 4, "n_layers": 2}),
        ("falcon", False, False, {"alibi": True}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_conversations_share_rows_only_where_they_stay_apart(
    kind: str, packed: bool, joined: bool, more: dict[str, Any], dtype: torch.dtype
) -> None:
    base = base_of(kind, dtype, **more)
    assert keeps_apart(base) is packed
    row = joined_row(base, fused=FUSED[-1], longest=14)
    assert (row is not None) is joined


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("gemma3_text", {"head_dim": 16, "sliding_window": 16}),
        ("gemma2", {"head_dim": 16, "sliding_window": 512}),
        (
            "gpt_oss",
            {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16, "sliding_window": 512},
        ),
    ],
)
def test_attention_of_another_kind_keeps_its_own_rows(kind: str, more: dict[str, Any]) -> None:
    """A window shorter than the conversations, capped scores, sinks."""
    base = base_of(kind, **more)
    before = base.config._attn_implementation
    assert joined_row(base, fused=False, longest=100) is None
    assert base.config._attn_implementation == before


def test_a_lean_model_is_saved_as_the_same_adapter_and_judged_as_peft_does() -> None:
    plain = AdapterModel(adapted(base_of("llama")), 512).eval()
    lean = copy.deepcopy(plain)
    lean.make_lean(fused=FUSED[-1])
    assert lean.state_dict().keys() == plain.state_dict().keys()
    ids = torch.randint(3, 256, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert close(lean(ids), plain(ids), 1e-4)
        with lean.peft.disable_adapter(), plain.peft.disable_adapter():
            assert close(lean(ids), plain(ids), 1e-4)
