"""Fused CPU kernels for training: norms, rotary positions, SwiGLU and causal attention, one pass over memory each.

`engine.models.transformer` has the reference in plain torch. The fused versions run where `load_kernels` succeeds, on
a CPU without a KV cache.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from engine.models.kernels.build import Kernels, load_kernels

BLOCK = 128
"""Queries per attention block. A block reads only the keys up to its end, which saves half of the products."""
BLOCK_BF16 = 256
"""The same in bfloat16, where products are cheap compared to the memory passes around them."""


def kernels() -> Kernels:
    """The loaded kernels; call only after `load_kernels` succeeded."""
    loaded = load_kernels()
    assert loaded is not None
    return loaded


class RMSNormFunction(torch.autograd.Function):
    """`x / rms(x) * weight` over the last dimension, float32 in, `dtype` out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        x = x.contiguous()
        width = x.shape[-1]
        rows = x.numel() // width
        out = torch.empty(x.shape, dtype=dtype)
        scales = torch.empty(rows)
        kernels().call("norm_forward", dtype, x, weight, out, scales, rows, width, eps)
        ctx.save_for_backward(x, weight, scales)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight, scales = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        dx, dweight = torch.empty_like(x), torch.empty_like(weight)
        kernels().call(
            "norm_backward",
            gradient.dtype,
            gradient,
            x,
            weight,
            scales,
            dx,
            dweight,
            len(scales),
            x.shape[-1],
        )
        return dx, dweight, None, None


class NormRopeFunction(torch.autograd.Function):
    """RMSNorm and rotary embedding of heads: `(B, T, H, D)` to `(B, H, T, D)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
        x, cos, sin = x.contiguous(), cos.contiguous(), sin.contiguous()
        batch, time, heads, width = x.shape
        out = torch.empty(batch, heads, time, width, dtype=x.dtype)
        scales = torch.empty(batch * time * heads)
        kernels().call(
            "rope_forward", x.dtype, x, weight, cos, sin, out, scales, batch, time, heads, width, eps
        )
        ctx.save_for_backward(x, weight, cos, sin, scales)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, weight, cos, sin, scales = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        dx, dweight = torch.empty_like(x), torch.empty_like(weight)
        kernels().call("rope_backward", x.dtype, gradient, x, weight, cos, sin, scales, dx, dweight, *x.shape)
        return dx, dweight, None, None, None


class SwiGLUFunction(torch.autograd.Function):
    """`silu(gate) * up`."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        out = torch.empty_like(gate)
        kernels().call("swiglu_forward", gate.dtype, gate, up, out, gate.numel())
        ctx.save_for_backward(gate, up)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        dgate, dup = torch.empty_like(gate), torch.empty_like(up)
        kernels().call("swiglu_backward", gate.dtype, gradient, gate, up, dgate, dup, gate.numel())
        return dgate, dup


class CausalAttentionFunction(torch.autograd.Function):
    """Causal attention over `(heads, T, D)`, each query block over the keys up to its end."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        heads, time, width = queries.shape
        scale = 1 / math.sqrt(width)
        out = torch.empty_like(queries)
        saved = []
        for start, stop in _blocks(time, queries.dtype):
            weights = torch.bmm(queries[:, start:stop], keys[:, :stop].transpose(1, 2))
            kernels().call("softmax_forward", weights.dtype, weights, heads, stop - start, stop, start, scale)
            torch.bmm(weights, values[:, :stop], out=out[:, start:stop])
            saved.append(weights)
        ctx.save_for_backward(queries, keys, values, *saved)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values, *saved = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        heads, time, width = queries.shape
        scale = 1 / math.sqrt(width)
        dqueries = torch.empty_like(queries)
        dkeys, dvalues = torch.empty_like(keys), torch.empty_like(values)
        # The last block covers all keys: it initialises their gradients, the others add to them.
        for (start, stop), weights in zip(
            reversed(_blocks(time, queries.dtype)), reversed(saved), strict=True
        ):
            accumulate = torch.Tensor.copy_ if stop == time else torch.Tensor.add_
            up = gradient[:, start:stop]
            accumulate(dvalues[:, :stop], torch.bmm(weights.transpose(1, 2), up))
            change = torch.bmm(up, values[:, :stop].transpose(1, 2))
            kernels().call(
                "softmax_backward", change.dtype, change, weights, heads, stop - start, stop, start, scale
            )
            torch.bmm(change, keys[:, :stop], out=dqueries[:, start:stop])
            accumulate(dkeys[:, :stop], torch.bmm(change.transpose(1, 2), queries[:, start:stop]))
        return dqueries, dkeys, dvalues


def _blocks(time: int, dtype: torch.dtype) -> list[tuple[int, int]]:
    """(first query, end) of each block."""
    size = BLOCK_BF16 if dtype is torch.bfloat16 else BLOCK
    return [(start, min(start + size, time)) for start in range(0, time, size)]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm of float32 `(..., D)`, in the dtype of the following products."""
    return _apply(RMSNormFunction, x, weight, eps, _product_dtype(x))


def norm_rope(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Queries or keys `(B, T, H, D)`, normalised and rotated, as `(B, H, T, D)`; angles float32 `(T, D/2)`."""
    return _apply(NormRopeFunction, x, weight, cos, sin, eps)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`; both of the same shape."""
    return _apply(SwiGLUFunction, gate, up)


def causal_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention over `(B, H, T, D)`; all three of the same shape."""
    flat = [part.contiguous().flatten(0, 1) for part in (queries, keys, values)]
    return _apply(CausalAttentionFunction, *flat).view(queries.shape)


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    out: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return out


def _product_dtype(x: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
