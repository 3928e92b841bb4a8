"""One phase of training put together: model, data, optimizer, device and where it stands."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.core.i18n import _
from engine.machine.budget import Budget
from engine.models.transformer import Transformer
from engine.runs.events import RecoveryAction
from engine.training.batches import Batch, Batches, MicroBatch
from engine.training.checkpoint import LoopState
from engine.training.devices import Device
from engine.training.optim import Optimizer
from engine.training.recipe import Recipe
from engine.training.rng_state import RngStates
from engine.training.text_stream import Tokens, general_windows

if TYPE_CHECKING:
    from engine.models.adapters import AdapterModel
    from engine.runs.context import RunContext

TrainableModel: TypeAlias = "Transformer | AdapterModel"
"""What is trained: a whole model, or an adapter on a frozen one."""


EVAL_TOKENS = 4096
"""Tokens of one forward pass of an evaluation."""


@dataclass
class TrainingJob:
    """What the loop works with."""

    ctx: RunContext
    recipe: Recipe
    model: TrainableModel
    optimizer: Optimizer
    batches: Batches
    device: Device
    general: list[Path]
    """Texts whose tails are the general set; empty: nothing is evaluated."""
    checkpoints: Path
    state: LoopState
    training_log: Path
    resumed: Path | None = None
    """The checkpoint it goes on from."""
    rng: RngStates | None = None
    """Its random states, to be set right before the first step."""
    budget: Budget | None = None
    """Memory it may take; None: not bounded."""
    eval_tokens: int = EVAL_TOKENS
    """Tokens of one forward pass of an evaluation."""
    log_rows: list[dict[str, float | int | None]] = field(default_factory=list)

    @property
    def unit(self) -> str:
        """What its tokens are, in words."""
        return _("bytes")

    def accumulate(self, batch: Batch) -> float:
        """Gradients of a whole batch into the parameters; its reported loss, nats per byte."""
        reported = torch.zeros((), device=self.device.name)
        for part in batch.micro_batches:
            losses = self._losses(part)
            torch.autograd.backward((losses * part.weights.to(losses.device)).sum())
            reported += (losses.detach() * part.report_weights.to(losses.device)).sum()
        return float(reported)

    def log_retry(self, problem: OSError) -> None:
        """Journals an error of a file that may pass by itself."""
        self.ctx.emit(
            RecoveryAction(
                phase=self.state.phase,
                step=self.state.step,
                cause="file",
                action="retried",
                detail=problem.strerror or str(problem),
            )
        )

    def loss_of(self, batch: Batch) -> float:
        """The reported loss of a batch as it would be now. Call it without gradients."""
        return sum(
            float((self._losses(part) * part.report_weights.to(self.device.name)).sum())
            for part in batch.micro_batches
        )

    def _losses(self, part: MicroBatch) -> Tensor:
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
        length = min(
            self.recipe.stage_at(self.state.step, self.state.max_steps).context, self.model.config.context
        )
        total = count = 0.0
        for windows in _equal_length_batches(general_windows(self.general, length, limit), self.eval_tokens):
            tokens = torch.from_numpy(windows.astype("int64"))
            empty = tokens.new_zeros(0)
            losses = self._losses(MicroBatch(tokens[:, :-1], tokens[:, 1:], empty, empty))
            total += float(losses.sum())
            count += losses.numel()
        return total / count if count and math.isfinite(total) else None


def _equal_length_batches(windows: Iterable[Tokens], most: int) -> Iterator[Tokens]:
    """Neighbours of one length as `(count, length)`, up to about `most` tokens together."""
    waiting: list[Tokens] = []
    for window in windows:
        if waiting and (len(waiting[0]) != len(window) or (len(waiting) + 1) * len(window) > most):
            yield np.stack(waiting)
            waiting = []
        waiting.append(window)
    if waiting:
        yield np.stack(waiting)
