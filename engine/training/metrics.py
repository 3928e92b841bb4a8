"""Metrics of a running phase as journal events: steps, evaluations, epochs, speed and remaining time."""

from __future__ import annotations

import math
import time
from collections import deque

from engine.core.files import write_json
from engine.core.i18n import _
from engine.runs.events import EpochDone, Evaluated, Step
from engine.training.batches import Batch
from engine.training.eta import EtaEstimator
from engine.training.trainer import TrainingJob

MIN_EVENT_GAP_S = 0.1
"""Minimum seconds between two step events."""
SPEED_WINDOW_S = 10.0
"""Seconds that the speed is averaged over."""


class TrainingMetrics:
    """Follows a job and emits its events."""

    def __init__(self, job: TrainingJob, eta: EtaEstimator) -> None:
        self.job, self.eta = job, eta
        self._recent: deque[tuple[float, int, float]] = deque()
        self._last_record = -math.inf
        self._seconds_before = job.state.seconds
        self._begin = self._mark = time.perf_counter()
        self._epoch_began = job.state.seconds
        self._waited_s = self._waited_total_s = 0.0
        self._first = True
        self._batch: Batch | None = None

    def next_batch(self) -> Batch:
        """The next batch; its delay counts as waiting for data. Releases the previous batch."""
        state, begin = self.job.state, time.perf_counter()
        if self._batch is not None:
            self._batch.release()
        self._batch = batch = self.job.batches.batch_at(state.batches_drawn, state.max_steps)
        state.batches_drawn += 1
        self._waited_s = time.perf_counter() - begin
        self._waited_total_s += self._waited_s
        return batch

    @property
    def seconds(self) -> float:
        """Time spent in the phase, earlier processes included."""
        return self._seconds_before + time.perf_counter() - self._begin

    def step_done(self, loss: float, lr: float, norm: float) -> None:
        """A step was applied, or discarded when `loss` or `norm` is not finite."""
        now, state = time.perf_counter(), self.job.state
        state.seconds = self.seconds
        self._recent.append((now - self._mark, state.tokens, self._waited_s))
        while len(self._recent) > 2 and sum(gap for gap, _t, _w in self._recent) > SPEED_WINDOW_S:
            self._recent.popleft()
        stage = self.job.recipe.stage_at(max(0, state.step - 1), state.max_steps)
        self.eta.observe_step(stage, now - self._mark)
        self._mark = now
        finite = math.isfinite(loss)
        if (
            self._first
            or not finite
            or state.step >= state.max_steps
            or now - self._last_record >= MIN_EVENT_GAP_S
        ):
            self._first, self._last_record = False, now
            speed, waiting = self._speed()
            self.job.ctx.emit(
                Step(
                    phase=state.phase,
                    step=state.step,
                    max_steps=state.max_steps,
                    epoch=self.epoch,
                    loss=loss if finite else None,
                    finite=finite,
                    lr=lr,
                    grad_norm=norm if math.isfinite(norm) else None,
                    tokens=state.tokens,
                    tokens_per_s=speed,
                    waiting=waiting,
                    waited_s=round(self._waited_total_s, 3),
                    wall_s=round(now - self._begin, 3),
                    draws=state.batches_drawn,
                    eta_s=self.eta.remaining_s(state.step, state.max_steps),
                )
            )

    def _speed(self) -> tuple[float, float]:
        """Tokens per second and the share of waiting, over the last seconds."""
        spent = sum(gap for gap, _tokens, _wait in self._recent)
        tokens = self._recent[-1][1] - self._recent[0][1] if len(self._recent) > 1 else self._recent[0][1]
        counted = spent - (self._recent[0][0] if len(self._recent) > 1 else 0.0)
        waited = sum(wait for _gap, _tokens, wait in self._recent)
        return tokens / max(counted, 1e-9), min(1.0, waited / max(spent, 1e-9))

    def step_discarded(self, loss: float, norm: float) -> None:
        """A step was not applied. A finite one is left out of the curve: its recovery event reports it."""
        self._recent.clear()
        if math.isfinite(loss) and math.isfinite(norm):
            self.exclude_pause()
        else:
            self.step_done(math.nan, 0.0, math.nan)

    def exclude_pause(self) -> None:
        """Excludes the time since the last step from the speed: a pause, an evaluation, a checkpoint."""
        self._mark = time.perf_counter()

    @property
    def epoch(self) -> float:
        return self.job.batches.epoch_after(self.job.state.batches_drawn, self.job.state.tokens)

    @property
    def is_epoch_complete(self) -> bool:
        """Whether an epoch has been read since the last row. The last one lasts to the end of the phase: steps that take
        the place of discarded ones read beyond it."""
        epoch = self.job.state.epoch + 1
        return self.epoch >= epoch and epoch < self._planned_epochs

    @property
    def _planned_epochs(self) -> int:
        state, job = self.job.state, self.job
        return math.ceil(state.max_steps / job.batches.steps() * job.recipe.epochs - 1e-6)

    def evaluate(self, limit: int) -> None:
        """Evaluates on the general set: emits the loss and stores it in the state."""
        state = self.job.state
        state.last_eval = loss = self.job.evaluate(limit)
        if loss is not None:
            state.best_eval = min(loss, state.best_eval if state.best_eval is not None else loss)
        if self.job.general:
            self.job.ctx.emit(
                Evaluated(
                    phase=state.phase, step=state.step, name="general", loss=loss, finite=loss is not None
                )
            )
        self.exclude_pause()

    def sample(self, *, last: bool = False) -> None:
        """Emits what the model writes, when that is due."""
        samples, job = self.job.samples, self.job
        if samples is not None and samples.emit_if_due(job.model, job.state.step, last=last):
            self.exclude_pause()

    def epoch_done(self, lr: float) -> None:
        """Ends an epoch, an incomplete last one included: an event and a row of `training_log.json`."""
        state = self.job.state
        if state.epoch_steps == 0:
            return
        state.epoch += 1
        train_loss = state.epoch_loss / state.epoch_steps
        seconds = self.seconds
        epoch_time = seconds - self._epoch_began
        self.job.ctx.emit(
            EpochDone(
                phase=state.phase,
                epoch=state.epoch,
                epochs=max(self._planned_epochs, state.epoch),
                train_loss=train_loss,
                eval_loss=state.last_eval,
                seconds=epoch_time,
                lr=lr,
            )
        )
        self.job.log_rows = [row for row in self.job.log_rows if (row["epoch"] or 0) < state.epoch]
        self.job.log_rows.append(
            {
                "epoch": state.epoch,
                "train_loss": train_loss,
                "eval_loss": state.last_eval,
                "perplexity": None if state.last_eval is None else math.exp(min(state.last_eval, 700.0)),
                "epoch_time": epoch_time,
                "total_time": seconds,
            }
        )
        state.epoch_loss, state.epoch_steps, self._epoch_began = 0.0, 0, seconds
        try:
            write_json(self.job.training_log, self.job.log_rows)
        except OSError as problem:
            self.job.ctx.log(
                _("training_log.json could not be written: {reason}").format(reason=problem.strerror),
                "warning",
            )
