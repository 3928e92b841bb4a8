"""One phase of training put together: model, data, optimizer, device and where it stands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.models.transformer import Transformer
from engine.training.batches import Batch, Batches, Pass
from engine.training.checkpoint import LoopState
from engine.training.devices import Device
from engine.training.optim import Optimizer
from engine.training.settings import Recipe
from engine.training.stream import general_windows

if TYPE_CHECKING:
    from engine.runs.context import RunContext


@dataclass
class Job:
    """What the loop works with."""

    ctx: RunContext
    recipe: Recipe
    model: Transformer
    optimizer: Optimizer
    batches: Batches
    device: Device
    general: list[Path]
    """Texts whose tails are the general set; empty: nothing is evaluated."""
    checkpoints: Path
    state: LoopState
    training_log: Path
    log_rows: list[dict[str, float | int | None]] = field(default_factory=list)

    def accumulate(self, batch: Batch) -> float:
        """Gradients of a whole batch into the parameters; its reported loss, nats per byte."""
        counted = torch.zeros((), device=self.device.name)
        for part in batch.passes:
            losses = self._losses(part)
            torch.autograd.backward((losses * part.weights.to(losses.device)).sum())
            counted += (losses.detach() * part.counted.to(losses.device)).sum()
        return float(counted)

    def _losses(self, part: Pass) -> Tensor:
        """Loss of each prediction, `(windows, length)`."""
        with self.device.autocast():
            logits = self.model(part.ids.to(self.device.name))
        flat = F.cross_entropy(
            logits.float().flatten(0, 1), part.targets.to(self.device.name).flatten(), reduction="none"
        )
        return flat.view(part.targets.shape)

    @torch.no_grad()
    def evaluate(self, limit: int) -> float | None:
        """Mean loss on at most about `limit` bytes of the general set, nats per byte; None without one.

        Windows are as long as the training windows of the moment: longer ones ask for positions that are
        not learnt yet.
        """
        length = self.recipe.stretch_at(self.state.step, self.state.max_steps).context
        total = count = 0.0
        for window in general_windows(self.general, min(length, self.model.config.context), limit):
            tokens = torch.from_numpy(window.astype("int64")).unsqueeze(0)
            empty = tokens.new_zeros(0)
            losses = self._losses(Pass(tokens[:, :-1], tokens[:, 1:], empty, empty))
            total += float(losses.sum())
            count += losses.numel()
        return total / count if count and math.isfinite(total) else None
