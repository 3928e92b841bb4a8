"""Whether the data of a batch is broken, whatever the model thinks of it."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from engine.training.batches import MicroBatch

MIN_TOKENS = 256
"""Fewer tokens do not show how they are distributed."""
COINCIDENCES = 2.0
"""Text in any language or encoding repeats its tokens far more often than this multiple of pure chance: base64,
the most even of common encodings, four times as often as random bytes."""


def data_is_broken(micro_batches: Iterable[MicroBatch], vocab: int) -> bool:
    """Whether the targets are not the next tokens, or the tokens are noise, evenly spread over the vocabulary."""
    parts = list(micro_batches)
    return any(_labels_are_shuffled(part) for part in parts) or _is_noise(parts, vocab)


def _labels_are_shuffled(part: MicroBatch) -> bool:
    """Whether a predicted token differs from the one that follows in the same row."""
    predicted = part.weights[:, :-1] > 0
    return bool((predicted & (part.targets[:, :-1] != part.ids[:, 1:])).any())


def _is_noise(parts: list[MicroBatch], vocab: int) -> bool:
    """The index of coincidence (Friedman, 1922): how often two random tokens of the batch are equal."""
    tokens = torch.cat([part.targets[part.weights > 0] for part in parts])
    count = tokens.numel()
    if count < MIN_TOKENS:
        return False
    repeats = torch.bincount(tokens).double()
    equal = float((repeats * (repeats - 1)).sum()) / (count * (count - 1))
    return equal < COINCIDENCES / vocab
