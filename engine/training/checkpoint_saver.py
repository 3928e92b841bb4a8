"""When a checkpoint of a running phase is taken, the thread that writes it, and what a full disk means."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import Interrupted
from engine.core.i18n import _
from engine.runs.events import CheckpointWritten, RunStatus, StatusChanged
from engine.training import checkpoint
from engine.training.checkpoint import Retention
from engine.training.metrics import Meter
from engine.training.retry import retried
from engine.training.trainer import Job

PATIENCE = 2
"""Intervals without a checkpoint after which training waits for room on the disk."""
_RETRY_S = 5.0


@dataclass(frozen=True)
class _Written:
    path: Path
    size: int
    seconds: float


class Saver:
    """Takes a checkpoint at least every `recipe.checkpoint_every_s` seconds.

    A step waits for the copy in memory alone; a thread serialises, hashes, writes and syncs it.
    """

    def __init__(self, job: Job, meter: Meter) -> None:
        self.job, self.meter = job, meter
        self.problem = ""
        """Why the last attempt failed."""
        settings = job.ctx.settings
        self._rule = Retention(last=settings.checkpoints_last, hourly=settings.checkpoints_hourly)
        self._good = self._tried = time.monotonic()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[_Written] | None = None
        self._taken: checkpoint.LoopState | None = None
        """What is being written."""

    @property
    def due(self) -> bool:
        return self._writing is None and time.monotonic() - self._tried >= self.job.recipe.checkpoint_every_s

    def keep(self, last: bool = False) -> Path | None:
        """After each step: begins one when it is due, and gives the path of one that has come to the disk since.

        `last` waits for it. Raises Interrupted as `save` does.
        """
        if last:
            return self.save()
        done = None
        if self._writing is not None and self._writing.done():
            done = self._finish()
            if done is None and self._overdue:
                done = self._wait_for_room()
        # A state that no steps can have made is never kept: the look before the next step finds it, too.
        if self.due and self.job.optimizer.sound():
            self._begin()
            self.meter.resume()
        return done

    def save(self) -> Path | None:
        """Writes one and waits for it; None when that failed, which is told.

        When none could be written for `PATIENCE` intervals it waits until there is room; Interrupted is
        raised when the run is stopped meanwhile.
        """
        if self._writing is not None:
            self._finish()
        self._begin()
        path = self._finish()
        if path is None and self._overdue:
            path = self._wait_for_room()
        self.meter.resume()
        return path

    @property
    def _overdue(self) -> bool:
        return time.monotonic() - self._good > PATIENCE * self.job.recipe.checkpoint_every_s

    def _wait_for_room(self) -> Path:
        self.job.ctx.emit(StatusChanged(status=RunStatus.PAUSED, reason=self.problem))
        path = None
        while path is None:
            time.sleep(_RETRY_S)
            if self.job.ctx.stop_requested:
                raise Interrupted(_("stopped without a checkpoint: {reason}").format(reason=self.problem))
            self._begin()
            path = self._finish()
        self.job.ctx.emit(StatusChanged(status=RunStatus.RUNNING))
        self.meter.resume()
        return path

    def _begin(self) -> None:
        """Copies everything and hands it to the thread."""
        job, self._tried = self.job, time.monotonic()
        job.state.seconds = self.meter.seconds
        taken = checkpoint.snapshot(job.state, checkpoint.trainable(job.model), job.optimizer.state())
        self._taken = taken.state
        self._writing = self._writer.submit(self._write, taken)

    def _write(self, taken: checkpoint.Snapshot) -> _Written:
        begin = time.monotonic()
        path, size = retried(
            lambda: checkpoint.write(self.job.checkpoints, taken, self._rule), self.job.retrying
        )
        return _Written(path, size, time.monotonic() - begin)

    def _finish(self) -> Path | None:
        """Waits for the thread and tells what came of it."""
        assert self._writing is not None and self._taken is not None
        job, state, writing = self.job, self._taken, self._writing
        self._writing = self._taken = None
        try:
            written = writing.result()
        except OSError as problem:
            self.problem = problem.strerror or str(problem)
            job.ctx.log(
                _("the checkpoint of step {step} could not be written: {reason}").format(
                    step=state.step, reason=self.problem
                ),
                "error",
            )
            return None
        self._good = time.monotonic()
        job.ctx.emit(
            CheckpointWritten(
                phase=state.phase,
                step=state.step,
                path=str(written.path),
                seconds=written.seconds,
                bytes=written.size,
                loss=state.loss,
            )
        )
        return written.path
