"""One training job: model, data, optimizer, device and the current state of a phase."""

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
from engine.training.batches import Batch, BatchSource, MicroBatch
from engine.training.checkpoint import LoopState
from engine.training.devices import Device
from engine.training.optim import Optimizer
from engine.training.peak_memory import PeakMemory
from engine.training.recipe import Recipe
from engine.training.rng_state import RngStates
from engine.training.text_stream import Tokens, general_windows

if TYPE_CHECKING:
    from engine.models.adapters import AdapterModel
    from engine.runs.context import RunContext
    from engine.training.samples import ModelSamples

TrainableModel: TypeAlias = "Transformer | AdapterModel"
"""The trained model: a whole model, or an adapter on a frozen one."""


EVAL_TOKENS = 4096
"""Default number of tokens per forward pass of an evaluation."""


@dataclass(frozen=True)
class MeasuredWork:
    """Times that a job knows before its first step."""

    step_seconds: float
    """Seconds of a step."""
    tokens: int
    """Tokens of that step, without padding."""
    eval_seconds: float
    """Seconds of one evaluation."""


@dataclass
class TrainingJob:
    """Everything that the training loop works with."""

    ctx: RunContext
    recipe: Recipe
    model: TrainableModel
    optimizer: Optimizer
    batches: BatchSource
    device: Device
    general: list[Path]
    """Texts whose tails form the general set; empty: no evaluation."""
    checkpoints: Path
    state: LoopState
    training_log: Path
    resumed: Path | None = None
    """The checkpoint that the job resumes from."""
    rng: RngStates | None = None
    """Its random states, restored right before the first step."""
    budget: Budget | None = None
    """Memory budget; None: unlimited."""
    eval_tokens: int = EVAL_TOKENS
    """Tokens per forward pass of an evaluation."""
    samples: ModelSamples | None = None
    """What the model writes during the phase; None: nothing."""
    log_rows: list[dict[str, float | int | None]] = field(default_factory=list)

    @property
    def unit(self) -> str:
        """Translated name of the units that tokens are counted in."""
        return _("bytes")

    @property
    def eval_every(self) -> float:
        """Share of the steps between two evaluations."""
        return self.recipe.eval_every

    def accumulate(self, batch: Batch) -> float:
        """Adds the gradients of a whole batch to the parameters; returns its reported loss in nats per byte."""
        reported = torch.zeros((), device=self.device.name)
        for part in batch.micro_batches:
            losses, more = self._objective(part)
            torch.autograd.backward((losses * part.weights.to(losses.device)).sum() + more)
            reported += (losses.detach() * part.report_weights.to(losses.device)).sum()
        return float(reported)

    def fit_micro_batches(self, memory: PeakMemory, used_mb: float, room_mb: float) -> bool:
        """Before the first step: sets the micro-batches to the largest that fit into `room_mb`, where the job has a
        way of its own to find them; False: it has none.

        `used_mb` MB are in use already.
        """
        return False

    def measured_work(self) -> MeasuredWork | None:
        """The time of a step and of an evaluation, where the job has a way of its own to find them."""
        return None

    def log_retry(self, problem: OSError) -> None:
        """Journals a transient file error."""
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
        """The reported loss of a batch under the current weights. Call it without gradients."""
        return sum(
            float((self._losses(part) * part.report_weights.to(self.device.name)).sum())
            for part in batch.micro_batches
        )

    def _objective(self, part: MicroBatch) -> tuple[Tensor, Tensor | float]:
        """(loss of each prediction, `(windows, length)`; what a job minimises besides their weighted sum)."""
        return self._losses(part), 0.0

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
        """Mean loss on about `limit` bytes of the general set, in nats per byte; None without a general set.

        Windows are as long as the current training windows: longer ones have positions that are not trained
        yet.
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
    """Stacks neighbours of equal length as `(count, length)`, up to about `most` tokens each."""
    waiting: list[Tokens] = []
    for window in windows:
        if waiting and (len(waiting[0]) != len(window) or (len(waiting) + 1) * len(window) > most):
            yield np.stack(waiting)
            waiting = []
        waiting.append(window)
    if waiting:
        yield np.stack(waiting)
