"""Checkpoints of a running phase: when they are due, the writer thread, and waiting on a full disk."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import Interrupted
from engine.core.i18n import _
from engine.runs.events import CheckpointFailed, CheckpointWritten, RunStatus, StatusChanged
from engine.training import checkpoint
from engine.training.checkpoint import RetentionPolicy
from engine.training.metrics import TrainingMetrics
from engine.training.retry import retry_transient
from engine.training.trainer import TrainingJob

MAX_MISSED_INTERVALS = 2
"""Intervals without a checkpoint after which training pauses until there is disk space."""
_RETRY_S = 5.0


@dataclass(frozen=True)
class _WriteResult:
    path: Path
    size: int
    seconds: float


class CheckpointSaver:
    """Saves a checkpoint at least every `recipe.checkpoint_every_s` seconds.

    A step only waits for the copy in memory; a thread serialises, hashes, writes and syncs it.
    """

    def __init__(self, job: TrainingJob, metrics: TrainingMetrics) -> None:
        self.job, self.metrics = job, metrics
        self.problem = ""
        """Error text of the last failed attempt."""
        settings = job.ctx.settings
        self._retention = RetentionPolicy(last=settings.checkpoints_last, hourly=settings.checkpoints_hourly)
        self._succeeded_at = self._attempted_at = time.monotonic()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[_WriteResult] | None = None
        self._snapshot: checkpoint.LoopState | None = None
        """State of the checkpoint that is being written."""

    @property
    def due(self) -> bool:
        return (
            self._writing is None
            and time.monotonic() - self._attempted_at >= self.job.recipe.checkpoint_every_s
        )

    def save_if_due(self, last: bool = False) -> Path | None:
        """After each step: starts one when it is due; returns the path of one that has been written since.

        `last` waits for it. Raises Interrupted as `save` does.
        """
        if last:
            return self.save()
        done = None
        if self._writing is not None and self._writing.done():
            done = self._finish()
            if done is None and self._overdue:
                done = self._wait_for_disk_space()
        # Never saves an implausible state; the check before the next step catches it as well.
        if self.due and self.job.optimizer.state_is_plausible():
            self._begin()
            self.metrics.exclude_pause()
        return done

    def save(self) -> Path | None:
        """Writes a checkpoint and waits for it; None when that failed, which is logged.

        After `MAX_MISSED_INTERVALS` intervals without success it waits for disk space; raises Interrupted
        when the run is stopped meanwhile.
        """
        if self._writing is not None:
            self._finish()
        self._begin()
        path = self._finish()
        if path is None and self._overdue:
            path = self._wait_for_disk_space()
        self.metrics.exclude_pause()
        return path

    @property
    def _overdue(self) -> bool:
        return (
            time.monotonic() - self._succeeded_at > MAX_MISSED_INTERVALS * self.job.recipe.checkpoint_every_s
        )

    def _wait_for_disk_space(self) -> Path:
        self.job.ctx.emit(StatusChanged(status=RunStatus.PAUSED, reason=self.problem))
        path = None
        while path is None:
            time.sleep(_RETRY_S)
            if self.job.ctx.stop_requested:
                raise Interrupted(_("stopped without a checkpoint: {reason}").format(reason=self.problem))
            self._begin()
            path = self._finish()
        self.job.ctx.emit(StatusChanged(status=RunStatus.RUNNING))
        self.metrics.exclude_pause()
        return path

    def _begin(self) -> None:
        """Copies the state and hands it to the thread."""
        job, self._attempted_at = self.job, time.monotonic()
        job.state.seconds = self.metrics.seconds
        snapshot = checkpoint.take_snapshot(
            job.state, checkpoint.trainable_state(job.model), job.optimizer.state()
        )
        self._snapshot = snapshot.state
        self._writing = self._writer.submit(self._write, snapshot)

    def _write(self, snapshot: checkpoint.CheckpointSnapshot) -> _WriteResult:
        begin = time.monotonic()
        path, size = retry_transient(
            lambda: checkpoint.write(self.job.checkpoints, snapshot, self._retention), self.job.log_retry
        )
        return _WriteResult(path, size, time.monotonic() - begin)

    def _finish(self) -> Path | None:
        """Waits for the thread and logs the result."""
        assert self._writing is not None and self._snapshot is not None
        job, state, writing = self.job, self._snapshot, self._writing
        self._writing = self._snapshot = None
        try:
            written = writing.result()
        except OSError as problem:
            self.problem = problem.strerror or str(problem)
            job.ctx.emit(CheckpointFailed(phase=state.phase, step=state.step, reason=self.problem))
            return None
        self._succeeded_at = time.monotonic()
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
