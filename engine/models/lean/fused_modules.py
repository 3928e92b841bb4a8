"""RMSNorm and SwiGLU of a frozen transformers model in one pass over memory each, where they compute the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from engine.models.kernels.fused import kernels, swiglu

_FORMATS = (torch.float32, torch.bfloat16)
_TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 0.02}
"""Largest relative difference of a replacement on random input: rounding only."""


class FrozenNormFunction(torch.autograd.Function):
    """`x / rms(x) * weight` over the last dimension, in the format of `x`; the float32 weight has no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        rows = x.numel() // x.shape[-1]
        out, scales = torch.empty_like(x), torch.empty(rows)
        kernels().call("frozen_norm_forward", x.dtype, x, weight, out, scales, rows, x.shape[-1], eps)
        ctx.save_for_backward(x, weight, scales)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, weight, scales = ctx.saved_tensors
        gradient, dx = gradients[0].contiguous(), torch.empty_like(x)
        kernels().call(
            "frozen_norm_backward", x.dtype, gradient, x, weight, scales, dx, len(scales), x.shape[-1]
        )
        return dx, None, None


class _LeanNorm(nn.Module):
    """Mixed into a norm's class."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        if hidden_states.dtype not in _FORMATS or hidden_states.device.type != "cpu":
            return _plain(_LeanNorm, self, hidden_states)
        apply: Any = FrozenNormFunction.apply
        out: Tensor = apply(hidden_states, self.__dict__["lean_weight"], self.__dict__["lean_eps"])
        return out


class _LeanMLP(nn.Module):
    """Mixed into the class of a feed-forward block with `gate_proj`, `up_proj` and `down_proj`."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype not in _FORMATS or x.device.type != "cpu":
            return _plain(_LeanMLP, self, x)
        return _swiglu_block(self, x)


def _plain(mixin: Any, module: nn.Module, x: Tensor) -> Tensor:
    """The forward of the class that was replaced."""
    out: Tensor = super(mixin, module).forward(x)
    return out


def _swiglu_block(module: Any, x: Tensor) -> Tensor:
    out: Tensor = module.down_proj(swiglu(module.gate_proj(x), module.up_proj(x)))
    return out


_MIXED: dict[tuple[Any, Any], type[nn.Module]] = {}
"""Classes made so far, by mixin and class."""


def _mixed(mixin: Any, kind: Any) -> type[nn.Module]:
    if (mixin, kind) not in _MIXED:
        _MIXED[mixin, kind] = type(f"{mixin.__name__.strip('_')}{kind.__name__}", (mixin, kind), {})
    return _MIXED[mixin, kind]


@torch.no_grad()
def fuse_norms(model: nn.Module) -> int:
    """Replaces frozen RMSNorms that compute the same; returns their number."""
    count = 0
    agreed: dict[tuple[type[nn.Module], int, torch.dtype], float | None] = {}
    for module in list(model.modules()):
        weight, kind = getattr(module, "weight", None), type(module)
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if (
            not kind.__name__.endswith("RMSNorm")
            or not isinstance(weight, Tensor)
            or not isinstance(eps, float)
        ):
            continue
        if (
            weight.ndim != 1
            or weight.requires_grad
            or weight.dtype not in _FORMATS
            or weight.device.type != "cpu"
        ):
            continue
        key = kind, len(weight), weight.dtype
        if key not in agreed:
            agreed[key] = _agreed_offset(module, weight, eps)
        offset = agreed[key]
        if offset is None:
            continue
        module.__class__ = _mixed(_LeanNorm, kind)
        # Not a buffer: it is neither saved nor moved.
        module.__dict__ |= {"lean_weight": weight.float() + offset, "lean_eps": eps}
        count += 1
    return count


def _agreed_offset(module: nn.Module, weight: Tensor, eps: float) -> float | None:
    """What a norm adds to its weight (Gemma adds 1); None when it is not an RMSNorm in this format."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, len(weight), generator=generator).to(weight.dtype)
    apply: Any = FrozenNormFunction.apply
    try:
        wanted = module(x)
    except (RuntimeError, TypeError, ValueError):
        return None
    for offset in (0.0, 1.0):
        found = apply(x, weight.float() + offset, eps)
        if wanted.dtype == found.dtype and _close(found, wanted):
            return offset
    return None


@torch.no_grad()
def fuse_feed_forward(model: nn.Module) -> int:
    """Replaces SwiGLU blocks that compute the same; returns their number."""
    count = 0
    agreed: dict[type[nn.Module], bool] = {}
    for module in list(model.modules()):
        kind = type(module)
        parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
        if not all(isinstance(part, nn.Module) for part in parts):
            continue
        if kind not in agreed:
            agreed[kind] = _is_swiglu(module)
        if agreed[kind]:
            module.__class__ = _mixed(_LeanMLP, kind)
            count += 1
    return count


def _is_swiglu(module: Any) -> bool:
    parameter = next(module.gate_proj.parameters())
    if parameter.dtype not in _FORMATS or parameter.device.type != "cpu":
        return False
    width = getattr(module.gate_proj, "in_features", 0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, width, generator=generator).to(parameter.dtype)
    training = module.training
    module.eval()
    try:
        return _close(_swiglu_block(module, x), module(x))
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return False
    finally:
        module.train(training)


def _close(found: Tensor, wanted: Tensor) -> bool:
    scale = wanted.float().abs().max().clamp(min=1e-6)
    return bool((found.float() - wanted.float()).abs().max() <= _TOLERANCES[wanted.dtype] * scale)
