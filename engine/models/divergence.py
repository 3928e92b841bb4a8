"""How far the predictions of a model in training have moved: the Kullback-Leibler divergence from the frozen one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.models.losses import chunk_starts, chunked_cross_entropy, head_logits


def chunked_divergence(hidden: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """KL(other ‖ model) of each position, `(positions,)` in float32, from hidden states `(positions, dim)` of both and
    the frozen head `(vocab, dim)` that they share.

    Logits are computed chunk by chunk. The gradient of `hidden` is taken in the forward pass; `other` has none.
    """
    apply: Any = _ChunkedDivergence.apply
    divergences: Tensor = apply(hidden, other, weight, bias)
    return divergences


def divergence(logits: Tensor, other: Tensor) -> Tensor:
    """The same from logits `(positions, vocab)`, for heads that are more than a product."""
    theirs = other.float().log_softmax(dim=-1)
    return (theirs.exp() * (theirs - logits.float().log_softmax(dim=-1))).sum(dim=-1)


def token_losses_and_drift(
    model: Any,
    frozen: Callable[[], AbstractContextManager[Any]],
    ids: Tensor,
    targets: Tensor,
    mask: Tensor,
    held: Tensor,
    positions: Tensor | None,
    *,
    linear_head: bool,
) -> tuple[Tensor, Tensor]:
    """(`losses.token_losses`, the divergence from the frozen model where `held`, 0 elsewhere), `(rows, length)` float32.

    Inside `frozen` the model computes what it did before training, without gradients.
    """
    if linear_head:
        decoder, head = model.get_decoder(), model.get_output_embeddings()

        def hidden() -> Tensor:
            states: Tensor = decoder(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
            return states

        with torch.no_grad(), frozen():
            theirs = hidden()[held]
        ours = hidden()
        losses = chunked_cross_entropy(ours[mask], head.weight, head.bias, targets[mask])
        drift = chunked_divergence(ours[held], theirs, head.weight, head.bias)
    else:
        with torch.no_grad(), frozen():
            theirs = model(input_ids=ids, position_ids=positions, use_cache=False).logits[held]
        logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        losses = F.cross_entropy(logits[mask].float(), targets[mask], reduction="none")
        drift = divergence(logits[held], theirs)
    nothing = torch.zeros(ids.shape, dtype=torch.float32, device=ids.device)
    return nothing.masked_scatter(mask, losses.float()), nothing.masked_scatter(held, drift.float())


class _ChunkedDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        slopes = torch.empty(hidden.shape, dtype=weight.dtype, device=hidden.device)
        starts = chunk_starts(len(hidden), weight.shape[0])
        values = []
        for begin, end in starts:
            theirs = head_logits(other[begin:end], weight, bias).log_softmax(dim=-1)
            ours = head_logits(hidden[begin:end], weight, bias).log_softmax(dim=-1)
            expected = theirs.exp()
            values.append((expected * theirs.sub_(ours)).sum(dim=-1))
            torch.matmul(ours.exp_().sub_(expected).to(weight.dtype), weight, out=slopes[begin:end])
        ctx.save_for_backward(slopes)
        ctx.format = hidden.dtype
        return torch.cat(values) if values else hidden.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (slopes * gradients[0][:, None]).to(ctx.format), None, None, None
