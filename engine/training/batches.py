"""What a step learns from: passes of token windows with the weight of each prediction, and the scratch source."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.training.recipe import Recipe, Stretch
from engine.training.text_stream import TextStream


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
    positions: Tensor | None = None
    """Where each token stands in its own conversation, when a row holds several (`lora`). None: in its row."""


S = TypeVar("S", np.int64, np.float32)


class Buffers:
    """Memory of batches that are done with, for the next ones. Any thread may take and give."""

    KEPT = 16
    """Unused ones at most."""

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()
        self.made = 0
        """How often new memory had to be had."""

    def take(self, shape: tuple[int, ...], kind: type[S]) -> tuple[NDArray[S], NDArray[np.uint8]]:
        """An array of `shape` with anything in it, and the memory to `give` back."""
        wanted = math.prod(shape) * np.dtype(kind).itemsize
        with self._lock:
            fitting = [number for number, memory in enumerate(self._free) if memory.nbytes >= wanted]
            if fitting:
                best = min(fitting, key=lambda number: self._free[number].nbytes)
                memory = self._free.pop(best)
            else:
                memory = np.empty(wanted, dtype=np.uint8)
                self.made += 1
        return memory[:wanted].view(kind).reshape(shape), memory

    def give(self, memories: list[NDArray[np.uint8]]) -> None:
        with self._lock:
            self._free += memories
            self._free.sort(key=len)
            # The smallest go: a large one serves for all.
            del self._free[: -self.KEPT]


@dataclass(frozen=True)
class Batch:
    """All passes of one optimizer step."""

    passes: list[Pass]
    tokens: int
    """Bytes and control tokens that the model sees in it, without padding."""
    buffers: Buffers | None = None
    memories: list[NDArray[np.uint8]] = field(default_factory=list)
    """Of `buffers`; the tensors of the passes lie in them."""

    def release(self) -> None:
        """Nobody will look at the passes again: their memory may be used for another batch."""
        if self.buffers is not None:
            self.buffers.give(self.memories)
            self.memories.clear()


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


GRAIN = 128
"""Passes over windows of any length have lengths that are multiples of so many places, short ones of fewer. oneDNN makes
a program for each shape of a product in bfloat16, about a megabyte, and keeps a thousand: with every length its own,
training on conversations is slower than in float32 and grows by two gigabytes (`bench/conversations.py`)."""


def grain_of(length: int, most: int = GRAIN) -> int:
    """The power of two that passes of about `length` are multiples of: an eighth to a quarter of it, at most `most`."""
    return min(most, 1 << max(0, (length // 4).bit_length() - 1))


def padded(length: int, context: int, most: int = GRAIN) -> int:
    """`length` up to the next multiple of its grain, but not beyond `context`."""
    grain = grain_of(length, most)
    return max(length, min(context, -(-length // grain) * grain))


class ScratchBatches:
    """Random windows of text, longer from stretch to stretch."""

    def __init__(self, stream: TextStream, recipe: Recipe, tokens_per_pass: int) -> None:
        self.stream, self.recipe, self.tokens_per_pass = stream, recipe, tokens_per_pass
        self.buffers = Buffers()

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
        tokens, memory = self.buffers.take((count, chosen.context + 1), np.int64)
        self.stream.windows(number, count, chosen.context + 1, tokens)
        rows = min(chosen.batch, windows_per_pass(self.recipe, self.tokens_per_pass, chosen.context))
        weight = 1.0 / (count * chosen.context)
        passes = [text_pass(tokens[at : at + rows], weight, counted=weight) for at in range(0, count, rows)]
        return Batch(passes, count * chosen.context, self.buffers, [memory])

    def samples(self, number: int, max_steps: int) -> list[str]:
        chosen = self.recipe.stretch_at(number, max_steps)
        starts = self.stream.starts(number, chosen.batch * self.recipe.accumulation, chosen.context + 1)
        return [self.stream.place(start) for start in starts]


def _tokens(stretch: Stretch, recipe: Recipe) -> int:
    return stretch.context * stretch.batch * recipe.accumulation


def windows_per_pass(recipe: Recipe, tokens_per_pass: int, length: int) -> int:
    """Windows of `length` in one pass: as many as memory allows and the recipe wants at most."""
    return max(1, min(tokens_per_pass // length, recipe.micro_batch or tokens_per_pass))


def text_pass(windows: NDArray[np.int64], weight: float, *, counted: float) -> Pass:
    """A pass over whole windows `(count, length + 1)`, which it shares; each prediction with the same weight."""
    tokens = torch.from_numpy(windows)
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    # One number that stands in every place.
    return Pass(
        ids, targets, torch.tensor(weight).expand(targets.shape), torch.tensor(counted).expand(targets.shape)
    )
