"""Cross-entropy of a large vocabulary without ever holding all logits at once."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK_BYTES = 32 << 20
"""Logits in float32 that are held at once."""


def chunked_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """-log p of each target, `(tokens,)` in float32, from hidden states `(tokens, dim)` and a head `(vocab, dim)`.

    Logits are made for a few tokens at a time, and once more in the backward pass, so that memory does not
    grow with tokens times vocabulary (as in Liger's fused linear cross-entropy, arXiv 2410.10989).
    """
    apply: Any = _Chunked.apply
    losses: Tensor = apply(hidden, weight, bias, targets)
    return losses


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, targets)
        losses = [
            F.cross_entropy(_logits(part, weight, bias), wanted, reduction="none")
            for part, wanted in _chunks(hidden, targets, weight.shape[0])
        ]
        return torch.cat(losses) if losses else hidden.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        start = 0
        for part, wanted in _chunks(hidden, targets, weight.shape[0]):
            end = start + len(part)
            # The gradient of the logits: (softmax - one-hot) times that of the loss.
            slope = _logits(part, weight, bias).softmax(dim=-1)
            slope[torch.arange(len(part), device=slope.device), wanted] -= 1
            slope *= gradients[0][start:end, None]
            low = slope.to(weight.dtype)
            if d_hidden is not None:
                torch.matmul(low, weight, out=d_hidden[start:end])
            if d_weight is not None:
                d_weight += low.T @ part
            if d_bias is not None:
                d_bias += slope.sum(dim=0)
            start = end
        return (
            d_hidden,
            None if d_weight is None else d_weight.to(weight.dtype),
            None if d_bias is None else d_bias.to(bias.dtype),
            None,
        )


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(hidden.to(weight.dtype), weight, bias).float()


def _chunks(hidden: Tensor, targets: Tensor, vocab: int) -> zip[tuple[Tensor, Tensor]]:
    rows = max(1, CHUNK_BYTES // (4 * vocab))
    starts = range(0, len(hidden), rows)
    return zip(
        [hidden[at : at + rows] for at in starts], [targets[at : at + rows] for at in starts], strict=True
    )


def token_losses(
    model: Any, ids: Tensor, targets: Tensor, wanted: Tensor, positions: Tensor | None, *, head_apart: bool
) -> Tensor:
    """-log p of `targets` under a causal language model where `wanted`, 0 elsewhere; all `(rows, length)`."""
    found = torch.zeros(ids.shape, dtype=torch.float32, device=ids.device)
    if head_apart:
        hidden = model.get_decoder()(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
        head = model.get_output_embeddings()
        values = chunked_cross_entropy(hidden[wanted], head.weight, head.bias, targets[wanted])
    else:
        logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits[wanted].float()
        values = F.cross_entropy(logits, targets[wanted], reduction="none")
    return found.masked_scatter(wanted, values)


@torch.no_grad()
def has_linear_head(model: Any) -> bool:
    """Whether logits are the head's product with the last hidden states and nothing more; the model is asked."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        return False
    ids = torch.arange(1, 5, device=head.weight.device)[None] % model.config.get_text_config().vocab_size
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    return torch.equal(head(hidden), model(input_ids=ids, use_cache=False).logits)
