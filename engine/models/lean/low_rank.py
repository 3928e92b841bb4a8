"""LoRA layers with a lean training step: no gradient of frozen weights, small products in the base's format, and layers
with one input computed together.
"""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn

from engine.models.lean.dropout import DropMask, SharedDropout

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))
"""Names of layers of one block that usually have one input. Whether they do is seen at every call."""


@dataclass(frozen=True)
class GroupWeights:
    """The weights of layers with one input."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    downs: tuple[Tensor, ...]
    """Float32 masters `A` of `(rank, input)`."""
    ups: tuple[Tensor, ...]
    """Float32 masters `B` of `(output, rank)`."""
    scales: tuple[float, ...]


class LowRankFunction(torch.autograd.Function):
    """`x W' + bias + scale * z A' B'` of rows `x` for each layer of a group; `z` is `x` with dropout, None: `x` itself.

    `A` and `B` are float32 masters, their products run in the format of `x`. Saves `z` and `z A'` only.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        mask: DropMask | None,
        group: GroupWeights,
        *_masters: Tensor,
    ) -> tuple[Tensor, ...]:
        source = x if dropped is None else dropped
        down = torch.cat([one.to(x.dtype) for one in group.downs])
        ups = [(up * scale).to(x.dtype) for up, scale in zip(group.ups, group.scales, strict=True)]
        inner = F.linear(source, down)
        outs = []
        parts = torch.split(inner, [len(one) for one in group.downs], dim=1)
        for weight, bias, up, part in zip(group.weights, group.biases, ups, parts, strict=True):
            out = F.linear(x, weight, bias)
            outs.append(out.addmm_(part, up.T))
        ctx.save_for_backward(source, inner, down, *ups)
        ctx.group, ctx.mask = group, mask
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        source, inner, down, *ups = ctx.saved_tensors
        group: GroupWeights = ctx.group
        ranks = [len(one) for one in group.downs]
        d_inner = torch.empty_like(inner)
        d_ups: list[Tensor | None] = []
        parts = zip(torch.split(inner, ranks, 1), torch.split(d_inner, ranks, 1), strict=True)
        for gradient, up, scale, (part, d_part) in zip(gradients, ups, group.scales, parts, strict=True):
            torch.mm(gradient, up, out=d_part)
            d_ups.append((gradient.T @ part).float().mul_(scale))
        d_downs = torch.split((d_inner.T @ source).float(), ranks)
        return _input_gradient(ctx, gradients, d_inner, down), None, None, None, *d_downs, *d_ups


def _input_gradient(ctx: Any, gradients: tuple[Tensor, ...], d_inner: Tensor, down: Tensor) -> Tensor | None:
    if not ctx.needs_input_grad[0]:
        return None
    first, *others = zip(gradients, ctx.group.weights, strict=True)
    d_x: Tensor = first[0] @ first[1]
    for gradient, weight in others:
        d_x.addmm_(gradient, weight)
    if ctx.mask is None:
        d_x.addmm_(d_inner, down)
    else:
        ctx.mask.add_kept(d_x, d_inner @ down)
    return d_x


class LayerGroup:
    """Layers that usually have one input: the first that is called computes all of them."""

    def __init__(self, members: list[LeanLinear], shared: SharedDropout) -> None:
        self.members, self.shared = members, shared
        self._source: weakref.ref[Tensor] | None = None
        self._key: tuple[Any, ...] = ()
        self._waiting: dict[int, Tensor] = {}
        """Outputs that were not asked for yet, by the place of their layer."""

    def output(self, member: LeanLinear, x: Tensor) -> Tensor:
        """The output of `member` on `x`, `(..., outputs)`."""
        place = next(at for at, one in enumerate(self.members) if one is member)
        # A changed input is another one, though the object is the same.
        key = (0 if x.is_inference() else x._version, member.training, torch.is_grad_enabled())
        if self._source is None or self._source() is not x or self._key != key or place not in self._waiting:
            self._compute(member, x)
            self._source, self._key = weakref.ref(x), key
        return self._waiting.pop(place)

    def _compute(self, member: LeanLinear, x: Tensor) -> None:
        rate = member.dropout_rate
        places = [
            at
            for at, one in enumerate(self.members)
            if one is member
            or (one.is_plain and one.training == member.training and one.dropout_rate == rate)
        ]
        group = GroupWeights(*zip(*(self.members[at].parts for at in places), strict=True))
        dtype = group.weights[0].dtype
        flat = x.to(dtype).reshape(-1, x.shape[-1])
        dropped = mask = None
        if rate > 0 and member.training:
            whole, mask = self.shared(x, rate)
            dropped = whole.to(dtype).reshape(flat.shape)
            scales = tuple(scale / mask.kept for scale in group.scales)
            group = GroupWeights(group.weights, group.biases, group.downs, group.ups, scales)
        apply: Any = LowRankFunction.apply
        outs: tuple[Tensor, ...] = apply(flat, dropped, mask, group, *group.downs, *group.ups)
        self._waiting = {at: out.view(*x.shape[:-1], -1) for at, out in zip(places, outs, strict=True)}

    def __deepcopy__(self, memo: dict[int, Any]) -> LayerGroup:
        made = LayerGroup([], copy.deepcopy(self.shared, memo))
        memo[id(self)] = made
        made.members = [copy.deepcopy(one, memo) for one in self.members]
        return made


class LeanLinear(PeftLinear):
    """A LoRA layer over `nn.Linear` with one adapter; everything else is left to PEFT's forward."""

    lean_group: LayerGroup

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.is_plain or args or kwargs:
            plain: Tensor = super().forward(x, *args, **kwargs)
            return plain
        return self.lean_group.output(self, x)

    @property
    def is_plain(self) -> bool:
        """Whether exactly one adapter is added to the base layer."""
        return not self.disable_adapters and not self.merged and len(self._active) == 1

    @property
    def _active(self) -> list[str]:
        return [name for name in self.active_adapters if name in self.lora_A]

    @property
    def dropout_rate(self) -> float:
        drop = self.lora_dropout[self._active[0]]
        return drop.p if isinstance(drop, nn.Dropout) else 0.0

    @property
    def parts(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor, float]:
        """Weight, bias, A, B and scale."""
        (name,), base = self._active, self.base_layer
        assert isinstance(base, nn.Linear)
        down, up = self.lora_A[name], self.lora_B[name]
        assert isinstance(down, nn.Linear) and isinstance(up, nn.Linear)
        return base.weight, base.bias, down.weight, up.weight, self.scaling[name]


def use_lean_layers(model: nn.Module, shared: SharedDropout) -> int:
    """Makes the plain LoRA layers over frozen `nn.Linear` of `model` lean; returns their number."""
    count = 0
    for module in model.modules():
        if type(module) is not PeftLinear or type(module.base_layer) is not nn.Linear:
            continue
        base = module.base_layer
        frozen = not base.weight.requires_grad and (base.bias is None or not base.bias.requires_grad)
        if not frozen or module.lora_variant or any(module.lora_bias.values()) or module.fan_in_fan_out:
            continue
        module.__class__ = LeanLinear
        module.__dict__["lean_group"] = LayerGroup([module], shared)  # type: ignore[list-item]
        count += 1
    for block in model.modules():
        for names in SIBLINGS:
            _join([getattr(block, name, None) for name in names], shared)
    return count


def _join(layers: list[Any], shared: SharedDropout) -> None:
    """Puts lean layers with inputs of one width and weights of one format into one group."""
    lean = [layer for layer in layers if isinstance(layer, LeanLinear)]
    kinds = {
        (layer.in_features, layer.base_layer.weight.dtype, layer.base_layer.weight.device) for layer in lean
    }
    if len(lean) < 2 or len(kinds) > 1:
        return
    group = LayerGroup(lean, shared)
    for layer in lean:
        layer.__dict__["lean_group"] = group
