"""Recovery from bad steps: discard or skip the step, or roll back to the last good checkpoint."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.core.errors import RunFailed
from engine.core.i18n import _
from engine.runs import events
from engine.training import checkpoint
from engine.training.checkpoint import LoopState
from engine.training.checkpoint_saver import CheckpointSaver
from engine.training.metrics import TrainingMetrics
from engine.training.spike_detector import SpikeDetector, StepDecision
from engine.training.trainer import TrainingJob

MAX_SAMPLES = 8
"""Maximum number of samples in a record."""
CHECK_OPTIMIZER_EVERY = 16
"""Steps between two checks of the optimizer's state."""
ROLLED_BACK_FIELDS = ("step", "tokens", "epoch", "epoch_loss", "epoch_steps", "loss", "last_eval")
"""Fields of the state that are rolled back with the weights. The cursor of the data is not: the batches since
are skipped."""


@dataclass(frozen=True)
class _RestorePoint:
    """A state to roll back to."""

    state: LoopState
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]


class StepRecovery:
    """Checks each step before it changes the weights."""

    def __init__(self, job: TrainingJob, metrics: TrainingMetrics, saver: CheckpointSaver) -> None:
        self.job, self.metrics, self.saver = job, metrics, saver
        self.detector = SpikeDetector(job.state.spikes)
        self._good = _initial_good_checkpoint(job)
        self._start = None if job.resumed is not None else _capture(job)
        """Kept in memory until the first checkpoint."""
        self._saved: Path | None = None

    @property
    def lr_multiplier(self) -> float:
        """Factor on the learning rate."""
        return self.detector.lr_multiplier

    def checkpoint_saved(self, path: Path | None) -> None:
        """Notes a written checkpoint; it counts as good after one more good step."""
        if path is not None and self.detector.is_calm:
            self._saved = path

    def should_skip(self, loss: float, norm: float) -> bool:
        """Whether the step must not be applied; has then discarded it or rolled back, and journalled that.

        Raises RunFailed when the run does not recover.
        """
        job, state = self.job, self.job.state
        level = job.recipe.stage_at(state.batches_drawn - 1, state.max_steps).context
        broken = (
            level == state.spikes.window_length
            and math.isfinite(loss)
            and self._weights_are_corrupt(loss, norm)
        )
        looks = state.batches_drawn % CHECK_OPTIMIZER_EVERY == 0 or self.saver.due
        broken = broken or (looks and not job.optimizer.state_is_plausible())
        decision = StepDecision.ROLLBACK if broken else self.detector.decide(loss, norm, level)
        if decision is StepDecision.TAKE:
            state.spikes.last_batch = state.batches_drawn - 1
            if self._saved is not None:
                self._good, self._saved, self._start = self._saved, None, None
                state.good_checkpoint = self._good.name
            return False
        job.optimizer.zero_grad()
        state.discarded += 1
        finite = math.isfinite(loss) and math.isfinite(norm)
        cause = "spike" if decision is StepDecision.SKIP else "divergence" if finite else "not finite"
        cause = "weights" if broken else cause
        if decision is StepDecision.ROLLBACK:
            self._roll_back(cause, loss, norm)
        else:
            self._emit(
                cause,
                decision,
                loss,
                norm,
                job.batches.sample_names(state.batches_drawn - 1, state.max_steps),
            )
        self.metrics.step_discarded(loss, norm)
        return True

    def _weights_are_corrupt(self, loss: float, norm: float) -> bool:
        """Re-evaluates the last trained batch: if its loss is high too, the weights are corrupt, not the
        data."""
        if not math.isfinite(norm) or not self.detector.is_suspicious(loss):
            return False
        job, last = self.job, self.job.state.spikes.last_batch
        if last is None:
            return False
        with torch.no_grad():
            return self.detector.is_suspicious(job.loss_of(job.batches.batch_at(last, job.state.max_steps)))

    def _roll_back(self, cause: str, loss: float, norm: float) -> None:
        job, state = self.job, self.job.state
        point, step = self._restore_point(), state.step
        if point is None or self.detector.rolled_back(point.state.spikes) is StepDecision.STOP:
            self._emit(cause, StepDecision.STOP, loss, norm, [])
            raise RunFailed(self._failure(cause), hint=f"h2q-tui runs show {job.ctx.spec.run_id}")
        checkpoint.load_trainable_state(job.model, point.weights)
        job.optimizer.restore(point.optimizer)
        for name in ROLLED_BACK_FIELDS:
            setattr(state, name, getattr(point.state, name))
        self._saved = None
        self._emit(cause, StepDecision.ROLLBACK, loss, norm, [], step=step, back_to=state.step)
        # A crash from here on must not resume from the diverged state.
        self.saver.save()

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
        ).format(step=state.step, count=state.spikes.rollbacks - 1)

    def _emit(
        self,
        cause: str,
        action: StepDecision,
        loss: float,
        norm: float,
        samples: list[str],
        *,
        step: int | None = None,
        back_to: int | None = None,
    ) -> None:
        state = self.job.state
        self.job.ctx.emit(
            events.RecoveryAction(
                phase=state.phase,
                step=state.step + 1 if step is None else step,
                cause=cause,
                action=action.value,
                loss=loss if math.isfinite(loss) else None,
                grad_norm=norm if math.isfinite(norm) else None,
                back_to=back_to,
                samples=samples[:MAX_SAMPLES],
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
