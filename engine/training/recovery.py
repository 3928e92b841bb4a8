"""Recovery from bad steps: discard or skip the step, or roll back to the last good checkpoint.

A finite step is refused only when something is shown to be at fault: the weights (the batch learnt before has lost
what it had), the data (`batch_faults`) or the computation (the same batch gives another loss). A batch that is
merely unlike the rest is learnt, with its gradient scaled down to the usual norm.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.core.errors import RunFailed
from engine.core.i18n import _
from engine.runs import events
from engine.training import checkpoint
from engine.training.batch_faults import data_is_broken
from engine.training.batches import Batch
from engine.training.checkpoint import LoopState
from engine.training.checkpoint_saver import CheckpointSaver
from engine.training.metrics import TrainingMetrics
from engine.training.spike_detector import (
    DIVERGENCE_STEPS,
    MAX_NONFINITE_STEPS,
    MAX_ROLLBACKS,
    SpikeStatistics,
    StepDecision,
)
from engine.training.trainer import TrainingJob

MAX_SAMPLES = 8
"""Maximum number of samples in a record."""
CHECK_OPTIMIZER_EVERY = 16
"""Steps between two checks of the optimizer's state."""
SAME_LOSS = 0.25
"""Relative difference up to which two computations of one batch agree; dropout differs between them."""


@dataclass(frozen=True)
class _RestorePoint:
    """A state to roll back to."""

    state: LoopState
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]


@dataclass(frozen=True)
class _Finding:
    """The judgement of a step: what to do with it, why, and the statistics after it."""

    decision: StepDecision
    cause: str
    statistics: SpikeStatistics


class StepRecovery:
    """Checks each step before it changes the weights."""

    def __init__(
        self,
        job: TrainingJob,
        metrics: TrainingMetrics,
        saver: CheckpointSaver,
        retry_on_oom: Callable[..., object],
    ) -> None:
        """`retry_on_oom` calls a function again with less memory (`ResourceGovernor.retry_on_oom`)."""
        self.job, self.metrics, self.saver = job, metrics, saver
        self._retry_on_oom = retry_on_oom
        self._good = _initial_good_checkpoint(job)
        self._start = None if job.resumed is not None else _capture(job)
        """Kept in memory until the first checkpoint."""
        self._saved: Path | None = None

    def checkpoint_saved(self, path: Path | None) -> None:
        """Notes a written checkpoint; it counts as good after one more good step."""
        if path is not None and self.job.state.spikes.is_calm:
            self._saved = path

    def judge(self, loss: float, norm: float) -> float | None:
        """The factor on the learning rate of this step; None when it must not be applied.

        Then it has been discarded or rolled back, and journalled. Raises RunFailed when the run does not recover.
        """
        state = self.job.state
        finding = self._retry_on_oom(self._examine, loss, norm)
        assert isinstance(finding, _Finding)
        if finding.decision in (StepDecision.TAKE, StepDecision.CLIP):
            return self._accept(finding, loss, norm)
        self.job.optimizer.zero_grad()
        state.discarded += 1
        state.spikes = finding.statistics
        if finding.decision is StepDecision.ROLLBACK:
            self._roll_back(finding.cause, loss, norm)
        else:
            self._emit(finding, loss, norm, samples=self._samples())
        self.metrics.step_discarded(loss, norm)
        return None

    # Judging: nothing below changes the job

    def _examine(self, loss: float, norm: float) -> _Finding:
        """Looks for a fault of the step. May run out of memory and be repeated: it changes nothing."""
        job, state = self.job, self.job.state
        looks = state.batches_drawn % CHECK_OPTIMIZER_EVERY == 0 or self.saver.due
        if not (math.isfinite(loss) and math.isfinite(norm)):
            after = state.spikes.after_nonfinite()
            lost = after.consecutive_nonfinite >= MAX_NONFINITE_STEPS
            return _Finding(StepDecision.ROLLBACK if lost else StepDecision.DISCARD, "not finite", after)
        length = job.recipe.stage_at(state.batches_drawn - 1, state.max_steps).context
        seen = state.spikes.for_windows_of(length)
        if (looks and not job.optimizer.state_is_plausible()) or (
            seen.is_suspicious(loss) and self._weights_are_corrupt(seen)
        ):
            return _Finding(StepDecision.ROLLBACK, "weights", seen.after_skip())
        spike = seen.is_spike(loss, norm)
        if spike and (cause := self._fault_of_batch(loss, computation=seen.is_news(loss))):
            return _Finding(StepDecision.SKIP, cause, seen.after_skip())
        after = seen.after_step(loss, norm, state.batches_drawn - 1, spike=spike)
        if after.steps_above >= DIVERGENCE_STEPS:
            return _Finding(StepDecision.ROLLBACK, "divergence", after)
        return _Finding(StepDecision.CLIP if spike else StepDecision.TAKE, "unlike" if spike else "", after)

    def _weights_are_corrupt(self, seen: SpikeStatistics) -> bool:
        """Whether the batch learnt before has a higher loss than it had: then it is not this batch's data."""
        return seen.last_batch is not None and seen.has_risen(self._loss_of(self._batch(seen.last_batch)))

    def _fault_of_batch(self, loss: float, *, computation: bool) -> str:
        """What is wrong with the batch of this step; "" when it is merely unlike the rest.

        `computation`: whether its loss is computed again, to see if it is the same.
        """
        batch = self._batch(self.job.state.batches_drawn - 1)
        if data_is_broken(batch.micro_batches, self.job.model.config.vocab):
            return "data"
        return "spike" if computation and abs(self._loss_of(batch) - loss) > SAME_LOSS * loss else ""

    def _batch(self, number: int) -> Batch:
        return self.job.batches.batch_at(number, self.job.state.max_steps)

    def _loss_of(self, batch: Batch) -> float:
        with torch.no_grad():
            return self.job.loss_of(batch)

    def _samples(self) -> list[str]:
        state = self.job.state
        return self.job.batches.sample_names(state.batches_drawn - 1, state.max_steps)[:MAX_SAMPLES]

    # Acting on the judgement

    def _accept(self, finding: _Finding, loss: float, norm: float) -> float:
        """Makes the step ready; returns the factor on its learning rate."""
        state, before = self.job.state, self.job.state.spikes
        state.spikes = finding.statistics
        if self._saved is not None:
            self._good, self._saved, self._start = self._saved, None, None
            state.good_checkpoint = self._good.name
        if finding.decision is StepDecision.TAKE:
            return before.lr_multiplier
        limit = before.norm_limit
        if limit is not None:
            self.job.optimizer.limit_gradients(limit)
        if before.is_news(loss):
            self._emit(finding, loss, norm, samples=self._samples())
        return before.lr_multiplier * finding.statistics.series_share

    def _roll_back(self, cause: str, loss: float, norm: float) -> None:
        job, state = self.job, self.job.state
        step, before = state.step, state.spikes
        point = self._retry_on_oom(self._restore_point)
        if not isinstance(point, _RestorePoint) or before.rollbacks + 1 >= MAX_ROLLBACKS:
            self._emit(_Finding(StepDecision.STOP, cause, before), loss, norm)
            raise RunFailed(self._failure(cause), hint=f"h2q-tui runs show {job.ctx.spec.run_id}")
        self._retry_on_oom(self._restore, point)
        read = job.batches.epoch_after(state.batches_drawn, point.state.tokens)
        state.roll_back(point.state, int(read))
        state.spikes = before.after_rollback(point.state.spikes)
        self._saved = None
        self._emit(_Finding(StepDecision.ROLLBACK, cause, before), loss, norm, step=step, back_to=state.step)
        # A crash from here on must not resume from the diverged state.
        self._retry_on_oom(self.saver.save)

    def _restore(self, point: _RestorePoint) -> None:
        """Repeating it gives the same weights."""
        checkpoint.load_trainable_state(self.job.model, point.weights)
        self.job.optimizer.restore(point.optimizer)

    def _restore_point(self) -> _RestorePoint | None:
        """The last good state: its checkpoint if still valid, else the newest one, else the start of the
        phase."""
        state, job = self.job.state, self.job
        if self._good is not None:
            try:
                good: checkpoint.Checkpoint | None = checkpoint.load(self._good)
            except ValueError:
                good = checkpoint.find_newest(job.checkpoints, state.phase).checkpoint
            if good is not None:
                return _RestorePoint(good.state, good.weights, good.optimizer)
        # A copy: a second rollback must find it unchanged.
        return copy.deepcopy(self._start)

    def _failure(self, cause: str) -> str:
        state = self.job.state
        if cause == "not finite":
            return _(
                "training failed at step {step}: the loss or its gradient was NaN or infinite {count} "
                "times in a row"
            ).format(step=state.step, count=state.spikes.consecutive_nonfinite)
        return _(
            "training failed at step {step}: it diverged again after {count} rollbacks to a good checkpoint"
        ).format(step=state.step, count=state.spikes.rollbacks)

    def _emit(
        self,
        finding: _Finding,
        loss: float,
        norm: float,
        *,
        samples: list[str] | None = None,
        step: int | None = None,
        back_to: int | None = None,
    ) -> None:
        state = self.job.state
        self.job.ctx.emit(
            events.RecoveryAction(
                phase=state.phase,
                step=state.step + 1 if step is None else step,
                cause=finding.cause,
                action=finding.decision.value,
                loss=loss if math.isfinite(loss) else None,
                grad_norm=norm if math.isfinite(norm) else None,
                back_to=back_to,
                samples=samples or [],
            )
        )


def _capture(job: TrainingJob) -> _RestorePoint:
    snapshot = checkpoint.take_snapshot(
        job.state, checkpoint.trainable_state(job.model), job.optimizer.state()
    )
    return _RestorePoint(snapshot.state, snapshot.weights, snapshot.optimizer)


def _initial_good_checkpoint(job: TrainingJob) -> Path | None:
    """The rollback target of a resumed run, if it still exists."""
    if job.resumed is None or not job.state.good_checkpoint:
        return job.resumed
    good = job.resumed.with_name(job.state.good_checkpoint)
    return good if good.is_dir() else job.resumed
