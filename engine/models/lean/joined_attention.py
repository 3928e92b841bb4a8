"""Attention over a joined row: each conversation attends to itself only, without a mask and without padding between.

Registered with transformers under `JOINED`; a model uses it while `JoinedRow.active` is entered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from engine.models.kernels.fused import kernels

JOINED = "h2q_joined"
"""Name of the attention function in transformers."""
MULTIPLE = 32
"""Conversations are padded to multiples of this many tokens: oneDNN compiles a kernel for each length."""
BLOCK = 256
"""Queries per block: a block reads only the keys up to its end."""
MAX_KEPT = 256
"""Conversations up to this length keep their probabilities for the backward pass; of longer ones they are computed
again."""

Span = tuple[int, int]
"""First token of a conversation and the end of it."""


class UnsupportedAttention(NotImplementedError):
    """The model asks for an attention that is not plain causal softmax."""


@dataclass
class JoinedRow:
    """The conversations of the row that a model computes on."""

    config: Any
    """The text configuration of the model."""
    fused: bool
    """Uses the kernels of `engine.models.kernels.build`."""
    spans: list[Span] = field(default_factory=list)
    length: int = 0
    """Tokens of the row."""

    @contextlib.contextmanager
    def active(self, spans: list[Span], length: int = 0) -> Iterator[None]:
        """The model's attention is that of a joined row with these conversations.

        `length` is that of the row, 0: the end of the last one. Tokens outside of them have no attention: padding.
        """
        global _current
        before, name = (_current, list(self.spans), self.length), self.config._attn_implementation
        _current, self.spans, self.length = self, spans, length or spans[-1][1]
        self.config._attn_implementation = JOINED
        try:
            yield
        finally:
            _current, self.spans, self.length = before
            self.config._attn_implementation = name

    def checkpoint_contexts(self) -> tuple[contextlib.AbstractContextManager[Any], ...]:
        """Contexts of a layer's forward pass and of its repetition in the backward pass."""
        again = self.active(list(self.spans), self.length) if _current is self else contextlib.nullcontext()
        return contextlib.nullcontext(), again


_current: JoinedRow | None = None


def register() -> None:
    """Makes `JOINED` known to transformers; without a mask function of that name it builds no mask."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(JOINED, joined_attention)


def joined_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """Output `(1, tokens, heads, width)` of queries `(1, heads, tokens, width)`; raises UnsupportedAttention."""
    row = _current
    unusual = [name for name in ("softcap", "s_aux", "position_bias") if more.get(name) is not None]
    if (
        row is None
        or attention_mask is not None
        or query.shape[0] != 1
        or query.shape[2] != row.length
        or key.shape[2] != query.shape[2]
        or query.shape[1] % key.shape[1]
        or dropout > 0
        or not getattr(module, "is_causal", True)
        or more.get("is_causal") is False
        or unusual
    ):
        raise UnsupportedAttention
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    apply: Any = JoinedAttentionFunction.apply
    out: Tensor = apply(query[0], key[0], value[0], tuple(row.spans), scale, row.fused)
    return out[None], None


class JoinedAttentionFunction(torch.autograd.Function):
    """Causal attention of each span, from `(heads, tokens, width)` to `(tokens, heads, width)`.

    Several query heads may share a key head.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        spans: tuple[Span, ...],
        scale: float,
        fused: bool,
    ) -> Tensor:
        heads, tokens, _width = query.shape
        out = query.new_zeros(tokens, heads, value.shape[-1])
        kept: list[Tensor] = []
        for start, end in spans:
            q, k, v = _padded(query, key, value, start, end)
            parts = []
            for first, last in _blocks(k.shape[1]):
                weights = _weights(q, k, first, last, scale, fused)
                parts.append(_grouped(torch.bmm(weights, v[:, :last]), q.shape[1]))
                if k.shape[1] <= MAX_KEPT:
                    kept.append(weights)
            whole = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
            # (key heads, group, length, width) to (length, heads, width).
            out[start:end] = whole.flatten(0, 1)[:, : end - start].transpose(0, 1)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.spans, ctx.scale, ctx.fused = spans, scale, fused
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        d_query, d_key, d_value = (torch.zeros_like(one) for one in (query, key, value))
        gradient = gradients[0].transpose(0, 1)
        waiting = iter(kept)
        for start, end in ctx.spans:
            length = end - start
            q, k, v = _padded(query, key, value, start, end)
            up = _by_key_head(_rows(gradient, start, end, k.shape[1]), k.shape[0])
            dk, dv = torch.zeros_like(k), torch.zeros_like(v)
            for first, last in _blocks(k.shape[1]):
                weights = (
                    next(waiting)
                    if k.shape[1] <= MAX_KEPT
                    else _weights(q, k, first, last, ctx.scale, ctx.fused)
                )
                upward = up[:, :, first:last].flatten(1, 2)
                change = torch.bmm(upward, v[:, :last].transpose(1, 2))
                dv[:, :last] += torch.bmm(weights.transpose(1, 2), upward)
                _softmax_backward(change, weights, last - first, first, ctx.scale, ctx.fused)
                dq = _grouped(torch.bmm(change, k[:, :last]), q.shape[1]).flatten(0, 1)
                stop = min(last, length)
                if first < stop:
                    d_query[:, start + first : start + stop] = dq[:, : stop - first]
                dk[:, :last] += torch.bmm(change.transpose(1, 2), q[:, :, first:last].flatten(1, 2))
            d_key[:, start:end], d_value[:, start:end] = dk[:, :length], dv[:, :length]
        return d_query, d_key, d_value, None, None, None


def _padded(query: Tensor, key: Tensor, value: Tensor, start: int, end: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries `(key heads, group, length, width)`, keys and values of a span; causality hides what pads them."""
    length = -(-(end - start) // MULTIPLE) * MULTIPLE
    q, k, v = (_rows(one, start, end, length) for one in (query, key, value))
    return _by_key_head(q, k.shape[0]), k, v


def _by_key_head(x: Tensor, key_heads: int) -> Tensor:
    """`(heads, length, width)` as `(key heads, group, length, width)`."""
    return x.view(key_heads, -1, *x.shape[1:])


def _grouped(x: Tensor, group: int) -> Tensor:
    """`(key heads, group * rows, width)` as `(key heads, group, rows, width)`."""
    return x.view(len(x), group, -1, x.shape[-1])


def _rows(x: Tensor, start: int, end: int, length: int) -> Tensor:
    out = x.new_zeros(x.shape[0], length, x.shape[-1])
    out[:, : end - start] = x[:, start:end]
    return out


def _blocks(length: int) -> list[Span]:
    return [(first, min(first + BLOCK, length)) for first in range(0, length, BLOCK)]


def _weights(q: Tensor, k: Tensor, first: int, last: int, scale: float, fused: bool) -> Tensor:
    """Probabilities `(key heads, group * rows, keys)` of the queries from `first` to `last`."""
    scores = torch.bmm(q[:, :, first:last].flatten(1, 2), k[:, :last].transpose(1, 2))
    rows = last - first
    if fused:
        kernels().call(
            "softmax_forward", scores.dtype, scores, scores.shape[0] * q.shape[1], rows, last, first, scale
        )
        return scores
    hidden = torch.ones(rows, last, dtype=torch.bool, device=q.device).triu(first + 1)
    square = scores.float().mul_(scale).view(-1, rows, last).masked_fill_(hidden, -torch.inf)
    return square.softmax(dim=-1).to(scores.dtype).view(scores.shape)


def _softmax_backward(
    change: Tensor, weights: Tensor, rows: int, first: int, scale: float, fused: bool
) -> None:
    """Turns the gradient of the probabilities into that of the products before the scale, in place."""
    if fused:
        heads = change.shape[0] * change.shape[1] // rows
        kernels().call(
            "softmax_backward", change.dtype, change, weights, heads, rows, change.shape[2], first, scale
        )
        return
    slope, likely = change.float(), weights.float()
    slope = likely * (slope - (slope * likely).sum(dim=-1, keepdim=True)) * scale
    change.copy_(slope)
