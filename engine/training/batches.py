"""What a step learns from: passes of token windows with the weight of each prediction, and the scratch source."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from engine.training.settings import Recipe, Stretch
from engine.training.stream import TextStream, Tokens


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass: tensors of shape `(windows, length)`.

    The weights of all passes of a step sum to 1: the loss is the weighted sum of the predictions' losses.
    `counted` weighs the part that is reported (in `native` the conversations without the replayed text).
    """

    ids: Tensor
    targets: Tensor
    weights: Tensor
    counted: Tensor


@dataclass(frozen=True)
class Batch:
    """All passes of one optimizer step."""

    passes: list[Pass]
    tokens: int
    """Bytes and control tokens that the model sees in it, without padding."""


class Batches(Protocol):
    """A source of batches. What it draws depends on the settings and the number of the draw alone."""

    tokens_per_pass: int
    """How large its passes are at most; it may change between two draws."""

    def steps(self) -> int:
        """Optimizer steps that the recipe's epochs take."""

    def epoch_after(self, draws: int, tokens: int) -> float:
        """Epochs done after `draws` batches with `tokens` bytes together."""

    def draw(self, number: int, max_steps: int, stretch: Stretch | None = None) -> Batch:
        """Batch `number` (from 0) of a phase of `max_steps`; `stretch` overrules its window length."""

    def samples(self, number: int, max_steps: int) -> list[str]:
        """What batch `number` consists of, in words that find it again: conversations, or places in files."""


class ScratchBatches:
    """Random windows of text, longer from stretch to stretch."""

    def __init__(self, stream: TextStream, recipe: Recipe, tokens_per_pass: int) -> None:
        self.stream, self.recipe, self.tokens_per_pass = stream, recipe, tokens_per_pass

    def steps(self) -> int:
        shares = np.diff([0.0, *(stretch.until for stretch in self.recipe.stretches)])
        per_step = sum(
            share * _tokens(stretch, self.recipe)
            for share, stretch in zip(shares, self.recipe.stretches, strict=True)
        )
        return max(1, math.ceil(self.recipe.epochs * self.stream.size / float(per_step)))

    def epoch_after(self, draws: int, tokens: int) -> float:
        return tokens / self.stream.size

    def draw(self, number: int, max_steps: int, stretch: Stretch | None = None) -> Batch:
        chosen = stretch or self.recipe.stretch_at(number, max_steps)
        count = chosen.batch * self.recipe.accumulation
        tokens = self.stream.windows(number, count, chosen.context + 1)
        rows = min(chosen.batch, max(1, self.tokens_per_pass // chosen.context))
        weight = 1.0 / (count * chosen.context)
        passes = [text_pass(tokens[at : at + rows], weight, counted=weight) for at in range(0, count, rows)]
        return Batch(passes, count * chosen.context)

    def samples(self, number: int, max_steps: int) -> list[str]:
        chosen = self.recipe.stretch_at(number, max_steps)
        starts = self.stream.starts(number, chosen.batch * self.recipe.accumulation, chosen.context + 1)
        return [self.stream.place(start) for start in starts]


def _tokens(stretch: Stretch, recipe: Recipe) -> int:
    return stretch.context * stretch.batch * recipe.accumulation


def text_pass(windows: Tokens, weight: float, *, counted: float) -> Pass:
    """A pass over whole windows `(count, length + 1)`, each prediction with the same weight."""
    tokens = torch.from_numpy(windows.astype(np.int64))
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    shape = tuple(targets.shape)
    return Pass(ids, targets, torch.full(shape, weight), torch.full(shape, counted))
