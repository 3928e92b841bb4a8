"""What a step learns from: micro-batches of token windows with the weight of each prediction, and the scratch source."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.training.recipe import CurriculumStage, Recipe
from engine.training.text_stream import TextStream


@dataclass(frozen=True)
class MicroBatch:
    """One forward and backward pass: tensors of shape `(windows, length)`.

    The weights of all micro-batches of a step sum to 1: the loss is the weighted sum of the predictions' losses.
    `report_weights` weighs the part that is reported (in `native` the conversations without the replayed text).
    """

    ids: Tensor
    targets: Tensor
    weights: Tensor
    report_weights: Tensor
    positions: Tensor | None = None
    """Where each token stands in its own conversation, when a row holds several (`lora`). None: in its row."""


S = TypeVar("S", np.int64, np.float32)


class BufferPool:
    """Memory of batches that are done with, for the next ones. Any thread may take and give."""

    MAX_FREE = 16
    """Unused ones at most."""

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()
        self.allocations = 0
        """How often new memory had to be had."""

    def acquire(self, shape: tuple[int, ...], kind: type[S]) -> tuple[NDArray[S], NDArray[np.uint8]]:
        """An array of `shape` with anything in it, and the memory to `give` back."""
        wanted = math.prod(shape) * np.dtype(kind).itemsize
        with self._lock:
            fitting = [number for number, memory in enumerate(self._free) if memory.nbytes >= wanted]
            if fitting:
                best = min(fitting, key=lambda number: self._free[number].nbytes)
                memory = self._free.pop(best)
            else:
                memory = np.empty(wanted, dtype=np.uint8)
                self.allocations += 1
        return memory[:wanted].view(kind).reshape(shape), memory

    def release(self, leased: list[NDArray[np.uint8]]) -> None:
        with self._lock:
            self._free += leased
            self._free.sort(key=len)
            # The smallest go: a large one serves for all.
            del self._free[: -self.MAX_FREE]


@dataclass(frozen=True)
class Batch:
    """All micro-batches of one optimizer step."""

    micro_batches: list[MicroBatch]
    tokens: int
    """Bytes and control tokens that the model sees in it, without padding."""
    buffers: BufferPool | None = None
    leased: list[NDArray[np.uint8]] = field(default_factory=list)
    """Of `buffers`; the tensors of the micro-batches lie in them."""

    def release(self) -> None:
        """Nobody will look at the micro-batches again: their memory may be used for another batch."""
        if self.buffers is not None:
            self.buffers.release(self.leased)
            self.leased.clear()


class Batches(Protocol):
    """A source of batches. What it draws depends on the settings and the number of the draw alone."""

    tokens_per_micro_batch: int
    """How large its micro-batches are at most; it may change between two draws."""

    def steps(self) -> int:
        """Optimizer steps that the recipe's epochs take."""

    def epoch_after(self, draws: int, tokens: int) -> float:
        """Epochs done after `draws` batches with `tokens` bytes together."""

    def batch_at(self, number: int, max_steps: int, stage: CurriculumStage | None = None) -> Batch:
        """Batch `number` (from 0) of a phase of `max_steps`; `stage` overrules its window length."""

    def samples(self, number: int, max_steps: int) -> list[str]:
        """What batch `number` consists of, in words that find it again: conversations, or places in files."""


PAD_MULTIPLE = 128
"""Passes over windows of any length have lengths that are multiples of so many places, short ones of fewer. oneDNN makes
a program for each shape of a product in bfloat16, about a megabyte, and keeps a thousand: with every length its own,
training on conversations is slower than in float32 and grows by two gigabytes (`bench/conversations.py`)."""


def pad_multiple(length: int, most: int = PAD_MULTIPLE) -> int:
    """The power of two that micro-batches of about `length` are multiples of: an eighth to a quarter of it, at most `most`."""
    return min(most, 1 << max(0, (length // 4).bit_length() - 1))


def padded_length(length: int, context: int, most: int = PAD_MULTIPLE) -> int:
    """`length` up to the next multiple of its grain, but not beyond `context`."""
    grain = pad_multiple(length, most)
    return max(length, min(context, -(-length // grain) * grain))


class ScratchBatches:
    """Random windows of text, longer from stage to stage."""

    def __init__(self, stream: TextStream, recipe: Recipe, tokens_per_micro_batch: int) -> None:
        self.stream, self.recipe, self.tokens_per_micro_batch = stream, recipe, tokens_per_micro_batch
        self.buffers = BufferPool()

    def steps(self) -> int:
        shares = np.diff([0.0, *(stage.until for stage in self.recipe.curriculum)])
        per_step = sum(
            share * _tokens(stage, self.recipe)
            for share, stage in zip(shares, self.recipe.curriculum, strict=True)
        )
        return max(1, math.ceil(self.recipe.epochs * self.stream.size / float(per_step)))

    def epoch_after(self, draws: int, tokens: int) -> float:
        return tokens / self.stream.size

    def batch_at(self, number: int, max_steps: int, stage: CurriculumStage | None = None) -> Batch:
        chosen = stage or self.recipe.stage_at(number, max_steps)
        count = chosen.batch * self.recipe.accumulation
        tokens, memory = self.buffers.acquire((count, chosen.context + 1), np.int64)
        self.stream.windows(number, count, chosen.context + 1, tokens)
        rows = min(
            chosen.batch, windows_per_micro_batch(self.recipe, self.tokens_per_micro_batch, chosen.context)
        )
        weight = 1.0 / (count * chosen.context)
        micro_batches = [
            text_micro_batch(tokens[at : at + rows], weight, report_weight=weight)
            for at in range(0, count, rows)
        ]
        return Batch(micro_batches, count * chosen.context, self.buffers, [memory])

    def samples(self, number: int, max_steps: int) -> list[str]:
        chosen = self.recipe.stage_at(number, max_steps)
        starts = self.stream.starts(number, chosen.batch * self.recipe.accumulation, chosen.context + 1)
        return [self.stream.place(start) for start in starts]


def _tokens(stage: CurriculumStage, recipe: Recipe) -> int:
    return stage.context * stage.batch * recipe.accumulation


def windows_per_micro_batch(recipe: Recipe, tokens_per_micro_batch: int, length: int) -> int:
    """Windows of `length` in one pass: as many as memory allows and the recipe wants at most."""
    return max(1, min(tokens_per_micro_batch // length, recipe.micro_batch or tokens_per_micro_batch))


def text_micro_batch(windows: NDArray[np.int64], weight: float, *, report_weight: float) -> MicroBatch:
    """A pass over whole windows `(count, length + 1)`, which it shares; each prediction with the same weight."""
    tokens = torch.from_numpy(windows)
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    # One number that stands in every place.
    return MicroBatch(
        ids,
        targets,
        torch.tensor(weight).expand(targets.shape),
        torch.tensor(report_weight).expand(targets.shape),
    )
