"""Chooses the lean replacements that a model allows, each checked against the model's own computation."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from engine.models.kernels.build import load_kernels
from engine.models.lean.dropout import SharedDropout
from engine.models.lean.fused_modules import fuse_feed_forward, fuse_norms
from engine.models.lean.joined_attention import JoinedRow, Span, UnsupportedAttention, register
from engine.models.lean.low_rank import use_lean_layers
from engine.models.threads import single_threaded

PROBE_LENGTHS = (11, 14, 7)
"""Tokens of the short conversations of a probe. The last one twice is as long as another: each new length costs time."""
NOISE_FACTOR = 8.0
"""A packed row may differ from its conversations apart by this multiple of the rounding noise."""


def make_lean(model: nn.Module, *, fused: bool) -> SharedDropout:
    """Replaces the layers of a PEFT model on a CPU; elsewhere its LoRA layers only. Returns their dropout."""
    fused = fused and load_kernels() is not None
    shared = SharedDropout(fused=fused)
    use_lean_layers(model, shared)
    if fused:
        fuse_norms(model)
        fuse_feed_forward(model)
    return shared


@torch.no_grad()
@single_threaded()
def keeps_apart(base: Any, row: JoinedRow | None = None) -> bool:
    """Whether conversations in one row with restarting positions have the logits that they have apart.

    `row` computes the row with `joined_attention`, None as the model does it. Two tests: no logit of a conversation
    may depend on the content before it, and each must be that of the conversation alone up to rounding. Hybrid
    models (Qwen3.5, LFM2) carry a state along the row, ALiBi models have no positions.
    """
    lengths = PROBE_LENGTHS
    vocab = base.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    device = base.get_input_embeddings().weight.device

    def tokens(length: int) -> Tensor:
        return torch.randint(0, vocab, (1, length), generator=generator).to(device)

    parts = [tokens(length) for length in lengths]
    positions = torch.cat([torch.arange(length) for length in lengths])[None].to(device)
    ends = [sum(lengths[: count + 1]) for count in range(len(lengths))]
    spans = [(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    training = base.training
    base.eval()
    try:
        packed = _logits(base, torch.cat(parts, dim=1), positions, row, spans)
        other = _logits(base, torch.cat([tokens(lengths[0]), *parts[1:]], dim=1), positions, row, spans)
        if not torch.equal(packed[lengths[0] :], other[lengths[0] :]):
            return False
        alone = [_logits(base, part, None, None, []) for part in parts]
        # Tokens behind a conversation change nothing but the shapes.
        longer = _logits(base, torch.cat([parts[-1], parts[-1]], dim=1), None, None, [])
    finally:
        base.train(training)
    noise = float((alone[-1] - longer[: lengths[-1]]).abs().max())
    wanted = torch.cat(alone)
    rounding = torch.finfo(base.get_input_embeddings().weight.dtype).eps
    allowed = NOISE_FACTOR * max(noise, rounding * float(wanted.abs().max()))
    return bool((packed - wanted).abs().max() <= allowed)


@torch.no_grad()
def _trains(base: Any, row: JoinedRow) -> bool:
    """True, or UnsupportedAttention where the model in training mode asks for more, as for dropout of the attention."""
    training = base.training
    base.train()
    try:
        ids = torch.arange(4)[None] % base.get_input_embeddings().weight.shape[0]
        _logits(base, ids, torch.arange(4)[None], row, [(0, 4)])
    finally:
        base.train(training)
    return True


def _logits(
    base: Any, ids: Tensor, positions: Tensor | None, row: JoinedRow | None, spans: list[Span]
) -> Tensor:
    context = contextlib.nullcontext() if row is None else row.active(spans)
    with context:
        out: Tensor = base(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
    return out.float()


def joined_row(base: Any, *, fused: bool, longest: int) -> JoinedRow | None:
    """The row on which `base` computes joined conversations of at most `longest` tokens; None where it cannot."""
    config = base.config.get_text_config()
    bounds = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    if base.get_input_embeddings().weight.device.type != "cpu" or any(
        bound is not None and bound < longest for bound in bounds
    ):
        return None
    if config._attn_implementation not in ("sdpa", "eager"):
        return None
    register()
    row = JoinedRow(config, fused and load_kernels() is not None)
    try:
        return row if keeps_apart(base, row) and _trains(base, row) else None
    except (UnsupportedAttention, TypeError, AttributeError, RuntimeError, ValueError):
        # Models with code of their own for masks fail in many ways without one.
        return None
