"""What is done when a step goes wrong: discard it, skip it, or go back to the last good checkpoint."""

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
from engine.training.checkpoint_saver import Saver
from engine.training.metrics import Meter
from engine.training.spike_detector import Decision, Watch
from engine.training.trainer import Job

NAMED = 8
"""Samples that a record names at most."""
SOUND_EVERY = 16
"""Steps between two looks at the optimizer's state."""
RETURNING = ("step", "tokens", "epoch", "epoch_loss", "epoch_steps", "loss", "last_eval")
"""What of the state goes back with the weights. The cursor of the data does not: the batches since are skipped."""


@dataclass(frozen=True)
class _Kept:
    """A place to come back to."""

    state: LoopState
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]


class Recovery:
    """Looks at each step before it reaches the weights."""

    def __init__(self, job: Job, meter: Meter, saver: Saver) -> None:
        self.job, self.meter, self.saver = job, meter, saver
        self.watch = Watch(job.state.watch)
        self._good = _good_one(job)
        self._start = None if job.resumed is not None else _keep(job)
        """In memory only until there is a checkpoint."""
        self._saved: Path | None = None

    @property
    def factor(self) -> float:
        """By which the learning rate is multiplied."""
        return self.watch.factor

    def saved(self, path: Path | None) -> None:
        """A checkpoint was written. It is good once a step after it has gone well."""
        if path is not None and self.watch.calm:
            self._saved = path

    def refuses(self, loss: float, norm: float) -> bool:
        """Whether the step must not be taken; what had to be done instead has been done and journalled.

        Raises RunFailed in one sentence when the run does not recover.
        """
        job, state = self.job, self.job.state
        level = job.recipe.stretch_at(state.draw - 1, state.max_steps).context
        broken = level == state.watch.level and math.isfinite(loss) and self._weights_are_broken(loss, norm)
        looks = state.draw % SOUND_EVERY == 0 or self.saver.due
        broken = broken or (looks and not job.optimizer.sound())
        decision = Decision.BACK if broken else self.watch.judge(loss, norm, level)
        if decision is Decision.TAKE:
            state.watch.taken = state.draw - 1
            if self._saved is not None:
                self._good, self._saved, self._start = self._saved, None, None
                state.good = self._good.name
            return False
        job.optimizer.zero_grad()
        state.discarded += 1
        finite = math.isfinite(loss) and math.isfinite(norm)
        cause = "spike" if decision is Decision.SKIP else "divergence" if finite else "not finite"
        cause = "weights" if broken else cause
        if decision is Decision.BACK:
            self._go_back(cause, loss, norm)
        else:
            self._tell(cause, decision, loss, norm, job.batches.samples(state.draw - 1, state.max_steps))
        self.meter.discarded(loss, norm)
        return True

    def _weights_are_broken(self, loss: float, norm: float) -> bool:
        """Asks the model about the batch it learnt from last: if that is hard too, the data is not to blame."""
        if not math.isfinite(norm) or not self.watch.suspects(loss):
            return False
        job, taken = self.job, self.job.state.watch.taken
        if taken is None:
            return False
        with torch.no_grad():
            return self.watch.suspects(job.loss_of(job.batches.draw(taken, job.state.max_steps)))

    def _go_back(self, cause: str, loss: float, norm: float) -> None:
        job, state = self.job, self.job.state
        kept, step = self._kept(), state.step
        if kept is None or self.watch.returned(kept.state.watch) is Decision.STOP:
            self._tell(cause, Decision.STOP, loss, norm, [])
            raise RunFailed(self._failure(cause), hint=f"h2q-tui runs show {job.ctx.spec.run_id}")
        checkpoint.load_trainable(job.model, kept.weights)
        job.optimizer.restore(kept.optimizer)
        for name in RETURNING:
            setattr(state, name, getattr(kept.state, name))
        self._saved = None
        self._tell(cause, Decision.BACK, loss, norm, [], step=step, back_to=state.step)
        # A crash from here on must not go on from what was left behind.
        self.saver.save()

    def _kept(self) -> _Kept | None:
        """The last good place: a checkpoint that still is whole, else the newest one, else the start."""
        state, job = self.job.state, self.job
        if self._good is not None:
            try:
                found: checkpoint.Checkpoint | None = checkpoint.load(self._good)
            except ValueError:
                found = checkpoint.newest(job.checkpoints, state.phase).checkpoint
            if found is not None:
                return _Kept(found.state, found.weights, found.optimizer)
        # Copies: a second return must find it as it was.
        return copy.deepcopy(self._start)

    def _failure(self, cause: str) -> str:
        state = self.job.state
        if cause == "not finite":
            return _(
                "training failed at step {step}: the loss or its gradient was not a number "
                "{count} times in a row"
            ).format(step=state.step, count=state.watch.bad)
        return _(
            "training failed at step {step}: it diverged again after {count} returns to a good checkpoint"
        ).format(step=state.step, count=state.watch.returns - 1)

    def _tell(
        self,
        cause: str,
        action: Decision,
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
                samples=samples[:NAMED],
            )
        )


def _keep(job: Job) -> _Kept:
    taken = checkpoint.snapshot(job.state, checkpoint.trainable(job.model), job.optimizer.state())
    return _Kept(taken.state, taken.weights, taken.optimizer)


def _good_one(job: Job) -> Path | None:
    """The checkpoint that a resumed run would have returned to before, if it is still there."""
    if job.resumed is None or not job.state.good:
        return job.resumed
    good = job.resumed.with_name(job.state.good)
    return good if good.is_dir() else job.resumed
