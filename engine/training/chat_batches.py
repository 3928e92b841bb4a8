"""BatchSource of conversations for `native`: each answer once per epoch, together with replayed scratch text."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.core.errors import BadInput, NotEnoughData
from engine.core.i18n import _
from engine.corpus.dataset import read_dataset
from engine.models.chatml import windows
from engine.models.tokenizer import END_OF_TEXT
from engine.training.batches import (
    Batch,
    BufferPool,
    MicroBatch,
    pad_multiple,
    padded_length,
    text_micro_batch,
    windows_per_micro_batch,
)
from engine.training.recipe import CurriculumStage, Recipe
from engine.training.text_stream import TextStream
from engine.training.token_windows import BYTE_TOKENS, TokenWindows, WindowBuilder

JITTER = 0.15
"""Relative noise on the lengths before sorting, so that batches differ from epoch to epoch."""


def read_windows(path: Path, context: int, repeats: Mapping[str, int] | None = None) -> TokenWindows:
    """Windows of at most `context` tokens of every row of a dataset; `repeats` maps row ids to their number of
    repetitions.

    Raises BadInput for a broken row or when no byte has a loss, NotEnoughData without rows.
    """
    builder, rows = WindowBuilder(BYTE_TOKENS), 0
    for row in read_dataset(path):
        rows += 1
        builder.add(windows(row.messages, context), row.id, (repeats or {}).get(row.id, 1))
    if rows == 0:
        raise NotEnoughData(
            _("the dataset has no conversation: {path}").format(path=path), hint="h2q-tui corpus build"
        )
    if not len(builder):
        raise BadInput(
            _(
                "the {count} conversations of the dataset have no assistant turn to train on, so the "
                "loss mask is empty"
            ).format(count=rows),
            path=path,
            hint="h2q-tui corpus stats",
        )
    return builder.build()


class NativeBatches:
    """Windows bucketed by length, each once per epoch, plus text from the scratch stream."""

    def __init__(
        self,
        data: TokenWindows,
        replay: TextStream | None,
        recipe: Recipe,
        context: int,
        tokens_per_micro_batch: int,
    ) -> None:
        """`context` is the longest window of the model; without `replay` a batch has conversations only."""
        self.data, self.replay, self.recipe = data, replay, recipe
        self.context, self.tokens_per_micro_batch = context, tokens_per_micro_batch
        self.share = recipe.replay if replay is not None else 0.0
        self.buffers = BufferPool()
        self._lock = threading.RLock()
        self._plans: dict[int, list[NDArray[np.int64]]] = {}
        self._counts: list[int] = []

    def steps(self) -> int:
        return sum(self._count(epoch) for epoch in range(self.recipe.epochs))

    def epoch_after(self, batches: int, tokens: int) -> float:
        epoch, index = self._locate(max(0, batches - 1))
        return epoch + (index + 1) / self._count(epoch) if batches > 0 else 0.0

    def batch_at(self, number: int, max_steps: int, stage: CurriculumStage | None = None) -> Batch:
        epoch, index = self._locate(number)
        members = self._plan(epoch)[index]
        longest = padded_length(int(self.data.lengths[members].max()) - 1, self.context)
        trained = sum(int(self.data[int(member)][1][1:].sum()) for member in members)
        rows = windows_per_micro_batch(self.recipe, self.tokens_per_micro_batch, longest)
        leased: list[NDArray[np.uint8]] = []
        micro_batches = [
            self._micro_batch(
                members[at : at + rows], longest, (1 - self.share) / trained, 1 / trained, leased
            )
            for at in range(0, len(members), rows)
        ]
        tokens = int(self.data.lengths[members].sum())
        if self.replay is not None and self.share > 0:
            replay_tokens = tokens * self.share / (1 - self.share)
            count = max(1, round(replay_tokens / longest))
            multiple = pad_multiple(round(replay_tokens / count))
            length = max(8, min(self.context, round(replay_tokens / count / multiple) * multiple))
            texts, memory = self.buffers.acquire((count, length + 1), np.int64)
            leased.append(memory)
            self.replay.windows(number, count, length + 1, texts)
            rows = windows_per_micro_batch(self.recipe, self.tokens_per_micro_batch, length)
            weight = self.share / (count * length)
            micro_batches += [
                text_micro_batch(texts[at : at + rows], weight, report_weight=0.0)
                for at in range(0, count, rows)
            ]
            tokens += count * length
        return Batch(micro_batches, tokens, self.buffers, leased)

    def sample_names(self, number: int, max_steps: int) -> list[str]:
        epoch, index = self._locate(number)
        names = [self.data.names[member] for member in self._plan(epoch)[index] if self.data.names]
        return list(dict.fromkeys(names))

    def _micro_batch(
        self,
        members: NDArray[np.int64],
        length: int,
        weight: float,
        report_weight: float,
        leased: list[NDArray[np.uint8]],
    ) -> MicroBatch:
        ids, memory = self.buffers.acquire((len(members), length + 1), np.int64)
        mask, more = self.buffers.acquire((len(members), length + 1), np.float32)
        leased += [memory, more]
        ids.fill(END_OF_TEXT)
        mask.fill(0.0)
        for row, member in enumerate(members):
            tokens, train = self.data[int(member)]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = train
        tokens_, mask_ = torch.from_numpy(ids), torch.from_numpy(mask)[:, 1:]
        return MicroBatch(tokens_[:, :-1], tokens_[:, 1:], mask_ * weight, mask_ * report_weight)

    def _locate(self, number: int) -> tuple[int, int]:
        """Epoch of a batch number, and its index in the epoch."""
        epoch = 0
        while number >= self._count(epoch):
            number -= self._count(epoch)
            epoch += 1
        return epoch, number

    def _count(self, epoch: int) -> int:
        with self._lock:
            while len(self._counts) <= epoch:
                self._counts.append(len(self._plan(len(self._counts))))
            return self._counts[epoch]

    def _plan(self, epoch: int) -> list[NDArray[np.int64]]:
        """The batches of an epoch: windows of similar length, cut where they reach the bytes of a step with
        padding."""
        with self._lock:
            if epoch not in self._plans:
                self._plans = {epoch: self._make_plan(epoch)}
            return self._plans[epoch]

    def _make_plan(self, epoch: int) -> list[NDArray[np.int64]]:
        rng = np.random.default_rng((self.recipe.seed, epoch, len(self.data)))
        jitter = 1 + JITTER * rng.random(len(self.data))
        order = np.argsort(self.data.lengths * jitter, kind="stable")
        room = math.ceil(self.recipe.tokens_per_step * (1 - self.share))
        batches: list[NDArray[np.int64]] = []
        start = longest = 0
        for place, member in enumerate(order):
            longest = max(longest, int(self.data.lengths[member]))
            if place > start and longest * (place - start + 1) > room:
                batches.append(order[start:place])
                start, longest = place, int(self.data.lengths[member])
        batches.append(order[start:])
        return [batches[int(place)] for place in rng.permutation(len(batches))]
