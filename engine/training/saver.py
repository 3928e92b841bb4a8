"""When a checkpoint of a running phase is written, and what happens when the disk is full."""

from __future__ import annotations

import time
from pathlib import Path

from engine.errors import Interrupted
from engine.i18n import _
from engine.runs.events import CheckpointWritten, RunStatus, StatusChanged
from engine.training import checkpoint
from engine.training.job import Job
from engine.training.meter import Meter
from engine.training.retry import retried

PATIENCE = 2
"""Intervals without a checkpoint after which training waits for room on the disk."""
_RETRY_S = 5.0


class Saver:
    """Writes checkpoints at least every `recipe.checkpoint_every_s` seconds."""

    def __init__(self, job: Job, meter: Meter) -> None:
        self.job, self.meter = job, meter
        self.problem = ""
        """Why the last attempt failed."""
        self._good = self._tried = time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._tried >= self.job.recipe.checkpoint_every_s

    def save(self) -> Path | None:
        """Writes one; None when that failed, which is told. A second one at the same step is not written.

        When none could be written for `PATIENCE` intervals it waits until there is room; Interrupted is
        raised when the run is stopped meanwhile.
        """
        path = self._write()
        overdue = PATIENCE * self.job.recipe.checkpoint_every_s
        if path is None and time.monotonic() - self._good > overdue:
            self.job.ctx.emit(StatusChanged(status=RunStatus.PAUSED, reason=self.problem))
            while path is None:
                time.sleep(_RETRY_S)
                if self.job.ctx.stop_requested:
                    raise Interrupted(_("stopped without a checkpoint: {reason}").format(reason=self.problem))
                path = self._write()
            self.job.ctx.emit(StatusChanged(status=RunStatus.RUNNING))
        self.meter.resume()
        return path

    def _write(self) -> Path | None:
        job, begin = self.job, time.monotonic()
        self._tried = begin
        job.state.seconds = self.meter.seconds
        try:
            path, size = retried(
                lambda: checkpoint.save(
                    job.checkpoints, job.state, job.model.state_dict(), job.optimizer.state()
                ),
                job.retrying,
            )
        except OSError as problem:
            self.problem = problem.strerror or str(problem)
            job.ctx.log(
                _("the checkpoint of step {step} could not be written: {reason}").format(
                    step=job.state.step, reason=self.problem
                ),
                "error",
            )
            return None
        self._good = self._tried = time.monotonic()
        job.ctx.emit(
            CheckpointWritten(
                phase=job.state.phase,
                step=job.state.step,
                path=str(path),
                seconds=self._good - begin,
                bytes=size,
                loss=job.state.loss,
            )
        )
        return path
