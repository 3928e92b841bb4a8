"""BatchSource of a training step: micro-batches of token windows with a weight for each prediction, and the
scratch source."""

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
    """Input of one forward and backward pass: tensors of shape `(windows, length)`.

    The weights of all micro-batches of a step sum to 1: the loss is the weighted sum of the predictions'
    losses. `report_weights` weighs the reported part of it (in `native`, conversations without replayed
    text).
    """

    ids: Tensor
    targets: Tensor
    weights: Tensor
    report_weights: Tensor
    positions: Tensor | None = None
    """Position of each token in its own conversation when a row packs several (`lora`). None: its position in
    the row."""
    joined: int = 0
    """Number of conversations that the only row joins without padding (`lora`); 0: rows are padded."""

    hold_weights: Tensor | None = None
    """Weight of the divergence from the base at each position (`lora`); None: it is not measured."""

    @property
    def parts(self) -> int:
        """Number of parts that a smaller micro-batch could be cut into: conversations of a joined row, else rows."""
        return self.joined or self.ids.shape[0]


S = TypeVar("S", np.int64, np.float32)


class BufferPool:
    """Pool of the memory of used batches, for the next ones. Thread-safe."""

    MAX_FREE = 16
    """Upper bound on the free buffers."""

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()
        self.allocations = 0
        """Number of new allocations so far."""

    def acquire(self, shape: tuple[int, ...], dtype: type[S]) -> tuple[NDArray[S], NDArray[np.uint8]]:
        """An uninitialised array of `shape`, and its buffer to `release` later."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        with self._lock:
            fitting = [number for number, memory in enumerate(self._free) if memory.nbytes >= size]
            if fitting:
                best = min(fitting, key=lambda number: self._free[number].nbytes)
                memory = self._free.pop(best)
            else:
                memory = np.empty(size, dtype=np.uint8)
                self.allocations += 1
        return memory[:size].view(dtype).reshape(shape), memory

    def release(self, leased: list[NDArray[np.uint8]]) -> None:
        with self._lock:
            self._free += leased
            self._free.sort(key=len)
            # Drops the smallest: a large buffer fits every request.
            del self._free[: -self.MAX_FREE]


@dataclass(frozen=True)
class Batch:
    """All micro-batches of one optimizer step."""

    micro_batches: list[MicroBatch]
    tokens: int
    """Bytes and control tokens in it, without padding."""
    buffers: BufferPool | None = None
    leased: list[NDArray[np.uint8]] = field(default_factory=list)
    """Buffers of the pool that hold the tensors of the micro-batches."""

    def release(self) -> None:
        """Returns the buffers to the pool; the micro-batches must not be used any more."""
        if self.buffers is not None:
            self.buffers.release(self.leased)
            self.leased.clear()


class BatchSource(Protocol):
    """A source of batches. A batch depends on the settings and its number alone."""

    tokens_per_micro_batch: int
    """Upper bound on the tokens of a micro-batch; may change between two batches."""

    def steps(self) -> int:
        """Optimizer steps of the recipe's epochs."""

    def epoch_after(self, batches: int, tokens: int) -> float:
        """Epochs done after `batches` batches with `tokens` tokens in total."""

    def batch_at(self, number: int, max_steps: int, stage: CurriculumStage | None = None) -> Batch:
        """Batch `number` (from 0) of a phase of `max_steps` steps; `stage` overrides its window length."""

    def sample_names(self, number: int, max_steps: int) -> list[str]:
        """Names of the samples in batch `number`: conversation ids, or places in files."""


PAD_MULTIPLE = 128
"""Micro-batches of any length are padded to multiples of this many tokens, short ones to multiples of fewer.
oneDNN compiles a kernel per shape of a bfloat16 product, about a megabyte each, and caches a thousand: with
arbitrary lengths, training on conversations is slower than in float32 and grows by two gigabytes
(`bench/conversations.py`)."""


def pad_multiple(length: int, most: int = PAD_MULTIPLE) -> int:
    """Power of two whose multiples are used for micro-batches of about `length`: an eighth to a quarter of
    it, at most `most`."""
    return min(most, 1 << max(0, (length // 4).bit_length() - 1))


def padded_length(length: int, context: int, most: int = PAD_MULTIPLE) -> int:
    """`length` rounded up to its `pad_multiple`, at most `context`."""
    multiple = pad_multiple(length, most)
    return max(length, min(context, -(-length // multiple) * multiple))


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

    def epoch_after(self, batches: int, tokens: int) -> float:
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

    def sample_names(self, number: int, max_steps: int) -> list[str]:
        chosen = self.recipe.stage_at(number, max_steps)
        starts = self.stream.starts(number, chosen.batch * self.recipe.accumulation, chosen.context + 1)
        return [self.stream.place(start) for start in starts]


def _tokens(stage: CurriculumStage, recipe: Recipe) -> int:
    return stage.context * stage.batch * recipe.accumulation


def windows_per_micro_batch(recipe: Recipe, tokens_per_micro_batch: int, length: int) -> int:
    """Windows of `length` in one micro-batch: as many as memory and the recipe allow."""
    return max(1, min(tokens_per_micro_batch // length, recipe.micro_batch or tokens_per_micro_batch))


def text_micro_batch(windows: NDArray[np.int64], weight: float, *, report_weight: float) -> MicroBatch:
    """A micro-batch that shares the memory of `windows`, `(count, length + 1)`; each prediction has the same
    weight."""
    tokens = torch.from_numpy(windows)
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    # One value, expanded without memory.
    return MicroBatch(
        ids,
        targets,
        torch.tensor(weight).expand(targets.shape),
        torch.tensor(report_weight).expand(targets.shape),
    )
