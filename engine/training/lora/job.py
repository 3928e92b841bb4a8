"""A training job with an adapter on a frozen base: counts tokens, not bytes, and computes the loss in chunks."""

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
"""Multiple of the evaluation bytes that is tokenized: the last evaluation uses as many."""
EVAL_LENGTH = 256
"""Tokens of a window of the general set."""


@dataclass
class LoraJob(TrainingJob):
    """The job of the `lora` phase. A step depends on the batch number and the adapter alone."""

    windows: list[tuple[list[int], int]] = field(default_factory=list)
    """Windows of the general set with their number of predicted bytes; empty: no evaluation."""

    @property
    def unit(self) -> str:
        return _("tokens")

    def accumulate(self, batch: Batch) -> float:
        # Seeds dropout by batch number, so that a resumed run drops the same units.
        torch.manual_seed((self.recipe.seed << 32) + self.state.batches_drawn)
        return super().accumulate(batch)

    def _losses(self, part: MicroBatch) -> Tensor:
        assert isinstance(self.model, AdapterModel)
        device = self.device.name
        positions = None if part.positions is None else part.positions.to(device)
        mask = (part.weights != 0) | (part.report_weights != 0)
        return self.model.losses(part.ids.to(device), part.targets.to(device), mask.to(device), positions)

    @torch.no_grad()
    def evaluate(self, limit: int) -> float | None:
        """Mean loss on about `limit` bytes of the general set, in nats per byte; None without a general set."""
        if not self.windows:
            return None
        assert isinstance(self.model, AdapterModel)
        self.model.eval()
        total = size = 0.0
        for ids, scored in self.windows:
            if size >= limit:
                break
            tokens = torch.tensor([ids], device=self.device.name)
            mask = torch.ones_like(tokens[:, 1:], dtype=torch.bool)
            total += float(self.model.losses(tokens[:, :-1], tokens[:, 1:], mask).sum())
            size += scored
        self.model.train()
        return total / size if size and math.isfinite(total) else None


def tokenized_general_windows(
    chat: ChatTemplate, files: Sequence[Path], length: int, limit: int
) -> list[tuple[list[int], int]]:
    """Tokenized windows of the general set, from each text in turn, with their number of predicted bytes.

    Covers about `limit` bytes of the texts' tails, so that the tokenizer can be freed afterwards.
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
