"""LoRA layers with a lean training step: no gradient of the frozen weight, small products in the base's format."""

from __future__ import annotations

import weakref
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn

from engine.models.kernels.fused import kernels

_LEVELS = 256
"""Dropout compares random bytes, so its rate is a multiple of 1 / 256."""


class LowRankFunction(torch.autograd.Function):
    """`x W' + bias + scale * z A' B'` of rows `x`; `z` is `x` with dropout, None: `x` itself.

    `A` and `B` are float32 masters, their products run in the format of `x`. Saves `z` and `z A'` only.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float,
    ) -> Tensor:
        low_down, low_up = down.to(x.dtype), up.to(x.dtype)
        source = x if dropped is None else dropped
        inner = F.linear(source, low_down)
        out = F.linear(x, weight, bias)
        out.addmm_(inner, low_up.T, alpha=scale)
        ctx.save_for_backward(source, inner, weight, low_down, low_up)
        ctx.scale, ctx.separate = scale, dropped is not None
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        source, inner, weight, down, up = ctx.saved_tensors
        gradient = gradients[0]
        d_inner = (gradient @ up).mul_(ctx.scale)
        d_up = (gradient.T @ inner).float().mul_(ctx.scale)
        d_down = (d_inner.T @ source).float()
        d_x = gradient @ weight if ctx.needs_input_grad[0] else None
        d_dropped = None
        if ctx.separate:
            d_dropped = d_inner @ down if ctx.needs_input_grad[1] else None
        elif d_x is not None:
            d_x.addmm_(d_inner, down)
        return d_x, d_dropped, None, None, d_down, d_up, None


class DropFunction(torch.autograd.Function):
    """`x` with elements set to 0 where a random byte is below `level`; not scaled."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, random: Tensor, level: int, fused: bool) -> Tensor:
        ctx.save_for_backward(random)
        ctx.level, ctx.fused = level, fused
        return _drop(x, random, level, fused)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (random,) = ctx.saved_tensors
        return _drop(gradients[0], random, ctx.level, ctx.fused), None, None, None


def _drop(x: Tensor, random: Tensor, level: int, fused: bool) -> Tensor:
    if not fused or x.dtype not in (torch.float32, torch.bfloat16):
        return x.masked_fill(random < level, 0)
    source = x.contiguous()
    out = torch.empty_like(source)
    kernels().call("drop", x.dtype, source, random, out, x.numel(), level)
    return out


class SharedDropout:
    """Drops elements of an input once for all layers that it enters: q, k and v, or gate and up."""

    def __init__(self, *, fused: bool = False) -> None:
        """`fused`: with the kernels of `engine.models.kernels.build`, on a CPU."""
        self.fused = fused
        self._last: tuple[weakref.ref[Tensor], float, Tensor] | None = None

    def __call__(self, x: Tensor, rate: float) -> tuple[Tensor, float]:
        """`x` with about `rate` of its elements dropped, and the share that was kept."""
        level = round(rate * _LEVELS)
        kept = 1 - level / _LEVELS
        if self._last is not None and self._last[0]() is x and self._last[1] == rate:
            return self._last[2], kept
        apply: Any = DropFunction.apply
        dropped: Tensor = apply(x, _random_bytes(x), level, self.fused and x.device.type == "cpu")
        self._last = weakref.ref(x), rate, dropped
        return dropped, kept

    def forget(self) -> None:
        """Frees the last input."""
        self._last = None

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedDropout:
        made: SharedDropout = memo.setdefault(id(self), SharedDropout(fused=self.fused))
        return made


def _random_bytes(x: Tensor) -> Tensor:
    """A random byte for each element, from torch's generator: eight at a time."""
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None)
    return words.view(torch.uint8)[: x.numel()].view(x.shape)


class LeanLinear(PeftLinear):
    """A LoRA layer over `nn.Linear` with one adapter; everything else is left to PEFT's forward."""

    shared_dropout: SharedDropout

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        active = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or len(active) != 1 or args or kwargs:
            plain: Tensor = super().forward(x, *args, **kwargs)
            return plain
        name, base = active[0], self.base_layer
        assert isinstance(base, nn.Linear)
        flat = x.to(base.weight.dtype).reshape(-1, x.shape[-1])
        drop = self.lora_dropout[name]
        rate = drop.p if isinstance(drop, nn.Dropout) else 0.0
        dropped, scale = None, self.scaling[name]
        if rate > 0 and self.training:
            # The same input object enters the layers that share its mask, and `flat` is a view of it.
            whole, kept = self.shared_dropout(x, rate)
            dropped, scale = whole.to(base.weight.dtype).reshape(flat.shape), scale / kept
        apply: Any = LowRankFunction.apply
        out: Tensor = apply(
            flat, dropped, base.weight, base.bias, self.lora_A[name].weight, self.lora_B[name].weight, scale
        )
        return out.view(*x.shape[:-1], -1)


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
        module.__dict__["shared_dropout"] = shared
        count += 1
    return count
