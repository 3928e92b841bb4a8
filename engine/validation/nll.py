"""Negative log-likelihood of given bytes under a model: nothing is sampled, nothing is judged by a judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from engine.models.chatml import MaskedTokens
from engine.models.transformer import Transformer
from engine.training.peak_memory import out_of_memory
from engine.validation.cases import Case, GeneralBlock

BATCH_TOKENS = 8192
"""Tokens in one forward pass: about 9 MB of logits."""

Step = Callable[[int], None]
"""Called with the tokens done since the last call; may raise to stop."""


@dataclass(frozen=True)
class Piece:
    """A sequence and which of its tokens are scored, `(T,)` both."""

    ids: Sequence[int]
    scored: Sequence[bool]


@torch.inference_mode()
def nll_sums(model: Transformer, pieces: Sequence[Piece], *, step: Step | None = None) -> list[float]:
    """Sum of -log p over the scored tokens of each piece, in nats; NaN where the model gives none.

    The first token of a piece cannot be predicted and is never scored. Pieces are batched by length; where
    memory cannot be had for a batch it is made smaller.
    """
    sums = [0.0] * len(pieces)
    order = sorted(range(len(pieces)), key=lambda i: len(pieces[i].ids))
    start, most = 0, BATCH_TOKENS
    while start < len(order):
        end = start + 1
        while end < len(order) and len(pieces[order[end]].ids) * (end + 1 - start) <= most:
            end += 1
        rows = order[start:end]
        try:
            done = _score(model, pieces, rows, sums)
        except (MemoryError, RuntimeError) as problem:
            if not out_of_memory(problem) or len(rows) == 1:
                raise
            most //= 2
            continue
        if step is not None:
            step(done)
        start = end
    return sums


def _score(model: Transformer, pieces: Sequence[Piece], rows: Sequence[int], sums: list[float]) -> int:
    """Puts the sums of the pieces `rows` into `sums`; the tokens read."""
    longest = len(pieces[rows[-1]].ids)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, index in enumerate(rows):
        piece = pieces[index]
        ids[row, : len(piece.ids)] = torch.tensor(piece.ids, dtype=torch.int64)
        mask[row, : len(piece.ids)] = torch.tensor(piece.scored, dtype=torch.bool)
    if longest > 1:
        logits = model(ids[:, :-1]).float()
        losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        found = torch.where(mask[:, 1:], losses, 0.0).sum(dim=1, dtype=torch.float64)
        for row, index in enumerate(rows):
            value = float(found[row])
            sums[index] = value if math.isfinite(value) else math.nan
    return ids.numel()


def case_pieces(cases: Sequence[Case]) -> list[Piece]:
    """Every window of every case, in order."""
    return [_piece(window) for case in cases for window in case.windows]


def score_cases(model: Transformer, cases: Sequence[Case], *, step: Step | None = None) -> list[float]:
    """NLL per scored byte of each case, nats; NaN where the model gives none."""
    sums = nll_sums(model, case_pieces(cases), step=step)
    result, position = [], 0
    for case in cases:
        count = len(case.windows)
        result.append(sum(sums[position : position + count]) / case.bytes)
        position += count
    return result


def score_general(
    model: Transformer, blocks: Sequence[GeneralBlock], *, step: Step | None = None
) -> list[float]:
    """NLL per byte of each block, nats; the first byte of each chunk is given, not scored."""
    pieces = [
        Piece(ids=list(chunk), scored=[True] * len(chunk)) for block in blocks for chunk in block.chunks
    ]
    sums = nll_sums(model, pieces, step=step)
    result, position = [], 0
    for block in blocks:
        count = len(block.chunks)
        scored = sum(len(chunk) - 1 for chunk in block.chunks)
        result.append(sum(sums[position : position + count]) / scored)
        position += count
    return result


def tokens_of(cases: Sequence[Case], blocks: Sequence[GeneralBlock]) -> int:
    """How many tokens one model reads to score all of it, for the progress."""
    return sum(len(window.ids) for case in cases for window in case.windows) + sum(
        len(chunk) for block in blocks for chunk in block.chunks
    )


def _piece(window: MaskedTokens) -> Piece:
    return Piece(ids=window.ids, scored=window.loss_mask)
