"""Per-token cross-entropy of causal language models without the full logits in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.models.threads import single_threaded

CHUNK_BYTES = 32 << 20
"""Size of the float32 logits of one chunk."""


def chunked_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """-log p of each target, `(tokens,)` in float32, from hidden states `(tokens, dim)` and a head `(vocab, dim)`.

    Logits are computed chunk by chunk, so memory does not grow with tokens times vocabulary (as in Liger's fused
    linear cross-entropy, arXiv 2410.10989). With a frozen head the gradient of the hidden states is taken in the
    forward pass; else the logits are computed again in the backward pass. torch's own chunked
    `linear_cross_entropy` (2.13) rounds differently and takes twice the time on a CPU.
    """
    apply: Any = _ChunkedCrossEntropy.apply
    losses: Tensor = apply(hidden, weight, bias, targets)
    return losses


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        frozen = not weight.requires_grad and (bias is None or not bias.requires_grad)
        ctx.slopes = frozen and hidden.requires_grad
        slopes = torch.empty(hidden.shape, dtype=weight.dtype, device=hidden.device) if ctx.slopes else None
        losses = torch.empty(len(hidden), dtype=_precise(weight.dtype), device=hidden.device)
        start = 0
        for part, labels in _chunks(hidden, targets, weight.shape[0]):
            end = start + len(part)
            likely = head_logits(part, weight, bias).log_softmax(dim=-1)
            losses[start:end] = -likely.gather(1, labels[:, None])[:, 0]
            if slopes is not None:
                low = _less_one_hot(likely.exp_(), labels).to(weight.dtype)
                torch.matmul(low, weight, out=slopes[start:end])
            start = end
        if slopes is not None:
            # The head is frozen: the gradient of a loss only scales its row.
            ctx.save_for_backward(slopes)
        else:
            ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.format = hidden.dtype
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.slopes:
            (slopes,) = ctx.saved_tensors
            return (slopes * gradients[0][:, None]).to(ctx.format), None, None, None
        hidden, weight, bias, targets = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        d_weight = torch.zeros_like(weight, dtype=_precise(weight.dtype)) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias, dtype=_precise(bias.dtype)) if ctx.needs_input_grad[2] else None
        start = 0
        for part, labels in _chunks(hidden, targets, weight.shape[0]):
            end = start + len(part)
            d_logits = _less_one_hot(head_logits(part, weight, bias).softmax(dim=-1), labels)
            d_logits *= gradients[0][start:end, None]
            low = d_logits.to(weight.dtype)
            if d_hidden is not None:
                d_hidden[start:end] = low @ weight
            if d_weight is not None:
                d_weight += low.T @ part.to(weight.dtype)
            if d_bias is not None:
                d_bias += d_logits.sum(dim=0)
            start = end
        return (
            d_hidden,
            None if d_weight is None else d_weight.to(weight.dtype),
            None if d_bias is None else d_bias.to(bias.dtype),
            None,
        )


def _less_one_hot(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Gradient of each row's loss with respect to its logits; in place."""
    probabilities[torch.arange(len(labels), device=labels.device), labels] -= 1
    return probabilities


def head_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Logits of a head that is a product, in float32 or what is more precise."""
    logits = F.linear(hidden.to(weight.dtype), weight, bias)
    return logits.to(_precise(logits.dtype))


def _precise(dtype: torch.dtype) -> torch.dtype:
    """float32, or more where the model has it."""
    return torch.promote_types(dtype, torch.float32)


def chunk_starts(count: int, vocab: int) -> list[tuple[int, int]]:
    """(begin, end) of the parts of `count` positions whose float32 logits take about `CHUNK_BYTES` each."""
    rows = max(1, CHUNK_BYTES // (4 * vocab))
    return [(at, min(count, at + rows)) for at in range(0, count, rows)]


def _chunks(hidden: Tensor, targets: Tensor, vocab: int) -> list[tuple[Tensor, Tensor]]:
    return [(hidden[at:end], targets[at:end]) for at, end in chunk_starts(len(hidden), vocab)]


def token_losses(
    model: Any,
    ids: Tensor,
    targets: Tensor,
    mask: Tensor,
    positions: Tensor | None,
    *,
    linear_head: bool,
    past: Any = None,
) -> Tensor:
    """-log p of `targets` under a causal language model where `mask`, 0 elsewhere; all `(rows, length)`.

    With `linear_head` (`has_linear_head`) the cross-entropy is chunked. `past` is the cache of what stands before.
    """
    losses = torch.zeros(ids.shape, dtype=torch.float32, device=ids.device)
    more = {"position_ids": positions, "past_key_values": past, "use_cache": past is not None}
    if linear_head:
        hidden = model.get_decoder()(input_ids=ids, **more).last_hidden_state
        head = model.get_output_embeddings()
        values = chunked_cross_entropy(hidden[mask], head.weight, head.bias, targets[mask]).float()
    else:
        logits = model(input_ids=ids, **more).logits[mask].float()
        values = F.cross_entropy(logits, targets[mask], reduction="none")
    return losses.masked_scatter(mask, values)


def logit_chunks(model: Any, ids: Tensor, *, linear_head: bool) -> Iterator[Tensor]:
    """Float32 logits `(positions, vocab)` after each of `ids`, `(1, length)`, in order; chunked with `linear_head`."""
    if not linear_head:
        yield model(input_ids=ids, use_cache=False).logits[0].float()
        return
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0]
    head = model.get_output_embeddings()
    for part, _ids in _chunks(hidden, ids[0], head.weight.shape[0]):
        yield head_logits(part, head.weight, head.bias)


@torch.no_grad()
@single_threaded()
def has_linear_head(model: Any) -> bool:
    """Whether the logits are exactly the head applied to the last hidden states, checked on four tokens."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        return False
    ids = torch.arange(1, 5, device=head.weight.device)[None] % model.config.get_text_config().vocab_size
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    return torch.equal(head(hidden), model(input_ids=ids, use_cache=False).logits)
