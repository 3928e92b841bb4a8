"""One training job: model, data, optimizer, device and the current state of a phase."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

import numpy as np
import torch

from engine.core.i18n import _
from engine.machine.budget import Budget
from engine.runs.events import RecoveryAction
from engine.training.batches import Batch, BatchSource, MicroBatch
from engine.training.checkpoint import LoopState
from engine.training.devices import Device
from engine.training.objective import Objective, TrainableModel
from engine.training.optim import Optimizer
from engine.training.peak_memory import PeakMemory
from engine.training.recipe import Recipe
from engine.training.rng_state import RngStates
from engine.training.text_stream import Tokens, general_windows

if TYPE_CHECKING:
    from engine.runs.context import RunContext
    from engine.training.samples import ModelSamples

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


class Replicas(Protocol):
    """The processes that compute the gradients of a batch together, with the same model. This one alone has the
    optimizer, the data, the journal and the checkpoints.

    Used as a context manager: the other processes end with the block.
    """

    @property
    def count(self) -> int:
        """Processes, this one included."""

    @property
    def memory_shares(self) -> int:
        """Processes among which the run's memory budget is shared."""

    def start(self, job: TrainingJob) -> None:
        """Waits until all processes have the model of `job`. Raises Interrupted, RunFailed."""

    def accumulate(self, job: TrainingJob, parts: Sequence[MicroBatch]) -> float:
        """Adds the gradients of `parts` to the parameters of `job.model`; returns their reported loss.

        Raises MemoryError when one process has run out of memory, RunFailed when processes end again and again.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *problem: object) -> None: ...


class OneProcess:
    """This process computes every batch alone."""

    count = memory_shares = 1

    def start(self, job: TrainingJob) -> None: ...

    def accumulate(self, job: TrainingJob, parts: Sequence[MicroBatch]) -> float:
        return job.accumulate_here(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None: ...


@dataclass
class TrainingJob:
    """Everything that the training loop works with."""

    OBJECTIVE: ClassVar[type[Objective]] = Objective

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
    replicas: Replicas = field(default_factory=OneProcess)
    """The processes that compute gradients, this one included."""
    objective: Objective = field(init=False)
    log_rows: list[dict[str, float | int | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.objective = self.OBJECTIVE(self.device)

    @property
    def unit(self) -> str:
        """Translated name of the units that tokens are counted in."""
        return _("bytes")

    @property
    def eval_every(self) -> float:
        """Share of the steps between two evaluations."""
        return self.recipe.eval_every

    @property
    def dropout_seed(self) -> int | None:
        """Seed of the next step's dropout; None: the model has none."""
        return None

    def accumulate(self, batch: Batch) -> float:
        """Adds the gradients of a whole batch to the parameters; returns its reported loss in nats per byte."""
        return self.replicas.accumulate(self, batch.micro_batches)

    def accumulate_here(self, parts: Sequence[MicroBatch]) -> float:
        """`accumulate` of some micro-batches, computed by this process alone."""
        return self.objective.accumulate(self.model, parts, seed=self.dropout_seed)

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
        return self.objective.loss_of(self.model, batch.micro_batches)

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
            losses = self.objective.losses(
                self.model, MicroBatch(tokens[:, :-1], tokens[:, 1:], empty, empty)
            )
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
