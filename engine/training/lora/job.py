"""A job whose model is an adapter on a frozen base: tokens instead of bytes, and a loss in chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.core.i18n import _
from engine.models.adapters import AdapterModel
from engine.training.batches import Batch, MicroBatch
from engine.training.text_files import general_tail
from engine.training.trainer import TrainingJob

if TYPE_CHECKING:
    from engine.models.chat_template import ChatTemplate

EVAL_ROOM = 4
"""Times the bytes of an evaluation that are made into tokens: the last one takes as many."""
EVAL_LENGTH = 256
"""Tokens of a window of the general set."""


@dataclass
class LoraJob(TrainingJob):
    """What the loop works with in `lora`. Its steps depend on the number of the draw, the adapter and nothing else."""

    windows: list[tuple[list[int], int]] = field(default_factory=list)
    """Of the general set; empty: nothing is evaluated."""

    @property
    def unit(self) -> str:
        return _("tokens")

    def accumulate(self, batch: Batch) -> float:
        # What dropout drops depends on the number of the draw, so that a resumed run drops the same.
        torch.manual_seed((self.recipe.seed << 32) + self.state.batches_drawn)
        return super().accumulate(batch)

    def _losses(self, part: MicroBatch) -> Tensor:
        assert isinstance(self.model, AdapterModel)
        device = self.device.name
        positions = None if part.positions is None else part.positions.to(device)
        wanted = (part.weights != 0) | (part.report_weights != 0)
        return self.model.losses(part.ids.to(device), part.targets.to(device), wanted.to(device), positions)

    @torch.no_grad()
    def evaluate(self, limit: int) -> float | None:
        """Mean loss on about `limit` bytes of the general set, nats per byte; None without one."""
        if not self.windows:
            return None
        assert isinstance(self.model, AdapterModel)
        self.model.eval()
        total = size = 0.0
        for ids, scored in self.windows:
            if size >= limit:
                break
            tokens = torch.tensor([ids], device=self.device.name)
            wanted = torch.ones_like(tokens[:, 1:], dtype=torch.bool)
            total += float(self.model.losses(tokens[:, :-1], tokens[:, 1:], wanted).sum())
            size += scored
        self.model.train()
        return total / size if size and math.isfinite(total) else None


def tokenized_general_windows(
    chat: ChatTemplate, files: Sequence[Path], length: int, limit: int
) -> list[tuple[list[int], int]]:
    """Windows of the general set, a piece of each text in turn: ids, and the bytes that are predicted.

    About `limit` bytes of the texts' tails; the tokenizer is not needed any more after that.
    """
    columns: list[list[tuple[list[int], int]]] = []
    for file in files:
        tail = general_tail(file)
        text = tail.read(0, min(len(tail), limit // max(1, len(files)))).decode("utf-8", "ignore")
        ids = chat.encode(text)
        windows = [ids[at : at + length] for at in range(0, len(ids), length)]
        columns.append(
            [
                (window, max(1, len(chat.decode(window[1:]).encode("utf-8", "ignore"))))
                for window in windows
                if len(window) > 1
            ]
        )
    longest = max((len(column) for column in columns), default=0)
    return [column[row] for row in range(longest) for column in columns if row < len(column)]
