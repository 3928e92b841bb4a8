"""The context of a run for the code of its kind: parameters, journal, commands, stages, locks and budget."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine.core.config import load_settings, with_overrides
from engine.core.errors import Busy, H2QError, Interrupted, NotEnoughData
from engine.core.files import write_bytes_unsynced
from engine.core.i18n import _
from engine.core.json_text import encode_json
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.machine.budget import requested_budget
from engine.machine.process_memory import ProcessTreeMemory
from engine.runs import lock
from engine.runs.command_queue import CommandQueue, RunCommand
from engine.runs.control import ControlServer
from engine.runs.events import (
    Event,
    JournalRecord,
    Log,
    MemoryUsage,
    Progress,
    RunStatus,
    StageChanged,
    StatusChanged,
)
from engine.runs.journal import JournalWriter
from engine.runs.kinds import KINDS
from engine.runs.legacy_status import StatusFiles
from engine.runs.rundir import TRAIN_LOCK, RunDir, training_run_id
from engine.runs.spec import params_of
from engine.runs.view import RunView

P = TypeVar("P", bound=msgspec.Struct)

_PROGRESS_S = 0.2
_QUEUE_S = 0.5
_LOG_LIMIT = 8000


@dataclass(frozen=True)
class RunResult:
    """Result of a run.

    Attributes:
        result: output of the command with `--json`: a Struct, or anything that msgspec encodes.
        report: file with all figures.
    """

    status: RunStatus
    exit_code: int = 0
    result: Any = None
    report: Path | None = None
    error: str = ""


class _Overrides(msgspec.Struct):
    """Parameters of a run that override settings; not every kind has them."""

    settings: dict[str, bool | int | float | str] = {}
    max_memory_gb: float | None = None


def _settings(run: RunDir) -> Settings:
    overrides = msgspec.json.decode(run.spec.params, type=_Overrides)
    return with_overrides(load_settings(run.workspace), overrides.settings)


def _setting(run: RunDir, name: str) -> float:
    """A numeric setting; its default where settings cannot be read. Code that needs them reports the error."""
    try:
        return float(getattr(_settings(run), name))
    except (H2QError, msgspec.DecodeError):
        return float(getattr(Settings(), name))


def requested_budget_mb(run: RunDir) -> float:
    """Memory budget that the run was given by its flag or the settings, before the machine is measured."""
    flag_gb = None
    with contextlib.suppress(msgspec.DecodeError):
        flag_gb = msgspec.json.decode(run.spec.params, type=_Overrides).max_memory_gb
    return requested_budget(_setting(run, "max_memory_gb"), flag_gb).mb


class StageHandle:
    """A running stage."""

    def __init__(self) -> None:
        self.detail = ""
        """One sentence about the result, shown when the stage ends."""
        self.state = "done"

    def skip(self, detail: str) -> None:
        """Marks the stage as skipped, with the reason."""
        self.state, self.detail = "skipped", detail


class RunContext:
    """A run in progress. `emit`, `log` and `progress` may be called from any thread."""

    def __init__(
        self,
        run_dir: RunDir,
        journal: JournalWriter,
        on_record: Callable[[JournalRecord], None] | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.spec = run_dir.spec
        self.workspace: Workspace = run_dir.workspace
        self.view = RunView(self.spec)
        self.commands = CommandQueue(self.emit)
        self._journal = journal
        self._on_record = on_record
        self._emitting = threading.RLock()
        self._process_memory = ProcessTreeMemory()
        # Until training has resolved the effective budget.
        self._budget_mb, self._budget_reason = requested_budget_mb(run_dir), "max_memory_gb"
        self._tick_s = _setting(run_dir, "update_interval")
        self._had_lock = False
        training = KINDS[self.spec.kind].trains
        self._status_files = StatusFiles(self.workspace, run_dir.run_id) if training else None
        self._ended = threading.Event()
        self._stage_started = 0.0
        self._progress_at = 0.0
        self._progress_waiting: Progress | None = None
        self._last_progress: tuple[str, float] | None = None

    @cached_property
    def settings(self) -> Settings:
        """The settings of the workspace with the overrides of this run.

        Raises BadInput for a broken file, UsageProblem for an invalid value.
        """
        return _settings(self.run_dir)

    @property
    def budget_mb(self) -> float:
        """Memory budget: the requested one until `set_budget`."""
        return self._budget_mb

    @property
    def stop_requested(self) -> bool:
        """Whether a command or a signal requested a checkpoint and a stop."""
        return self.commands.stop_requested

    def params(self, type_: type[P]) -> P:
        """The run's parameters as `type_`. Raises msgspec.ValidationError when they do not match."""
        return params_of(self.spec, type_)

    def emit(self, event: Event) -> None:
        """Writes a record; a full disk never raises."""
        with self._emitting:
            record = self._journal.write(event)
            self.view.apply(record)
            if self._status_files is not None:
                self._status_files.update(event)
            if self._on_record is not None:
                try:
                    self._on_record(record)
                except OSError:
                    # The terminal is gone; the run continues.
                    self._on_record = None

    def log(self, text: str, level: str = "info") -> None:
        """Logs one line for the user; `level` is that of `Log`."""
        cut = text if len(text) <= _LOG_LIMIT else text[:_LOG_LIMIT] + " …"
        self.emit(Log(level=level, text=cut))

    @contextmanager
    def stage(self, name: str, index: int = 0, total: int = 0) -> Iterator[StageHandle]:
        """Runs the block as a stage and emits its start and end; `index` of `total`, from 1."""
        self.check_stop()
        self.commands.new_stage()
        handle = StageHandle()
        self._stage_started, self._progress_at = time.monotonic(), 0.0
        self._progress_waiting = self._last_progress = None
        self.emit(StageChanged(name=name, state="started", index=index, total=total))
        try:
            yield handle
        except (Interrupted, KeyboardInterrupt):
            self.emit(
                StageChanged(name=name, state="stopped", index=index, total=total, detail=handle.detail)
            )
            raise
        except BaseException as problem:
            detail = problem.message if isinstance(problem, H2QError) else handle.detail
            state = "skipped" if isinstance(problem, NotEnoughData) else "failed"
            self.emit(StageChanged(name=name, state=state, index=index, total=total, detail=detail))
            raise
        else:
            self._flush_progress()
            self.emit(
                StageChanged(name=name, state=handle.state, index=index, total=total, detail=handle.detail)
            )
        finally:
            self.commands.new_stage()

    def progress(
        self, stage: str, done: float, total: float | None = None, unit: str = "", eta_s: float | None = None
    ) -> None:
        """Reports the progress of a stage. May be called for every row: it emits a few events per second, and the last.

        Without `eta_s` the remaining time is extrapolated from the elapsed time of the stage.
        """
        now = time.monotonic()
        if eta_s is None and total and done > 0:
            eta_s = (now - self._stage_started) / done * max(0.0, total - done)
        event = Progress(stage=stage, done=done, total=total, unit=unit, eta_s=eta_s)
        last = total is not None and done >= total
        if last and self._last_progress == (stage, done):
            return
        if not last and now - self._progress_at < _PROGRESS_S:
            self._progress_waiting = event
            return
        self._progress_at, self._progress_waiting, self._last_progress = now, None, (stage, done)
        self.emit(event)

    def poll(self) -> Iterator[RunCommand]:
        """Waiting commands; called between optimizer steps. Blocks while the run is paused."""
        return self.commands.poll()

    def check_stop(self) -> None:
        """Blocks while the run is paused. Raises Interrupted when a stop is requested."""
        self.commands.check_stop()

    def set_budget(self, budget_mb: float, reason: str) -> None:
        """Sets the effective budget; `reason` is "max_memory_gb", "cgroup" or "available"."""
        self._budget_mb, self._budget_reason = budget_mb, reason

    @contextmanager
    def train_lock(self, *, wait: bool = True) -> Iterator[None]:
        """Holds the training lock of the workspace; the run is `queued` while another one trains.

        Raises Busy with the other run's id if `wait` is False; Interrupted when a queued run is stopped.
        """
        path = self.workspace.runs / TRAIN_LOCK
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = lock.acquire(path)
        if fd is None:
            fd = self._queue_for(path, wait)
        try:
            os.ftruncate(fd, 0)
            with contextlib.suppress(OSError):
                os.pwrite(fd, self.run_dir.run_id.encode(), 0)
            self._had_lock = True
            yield
        finally:
            os.close(fd)

    def _queue_for(self, path: Path, wait: bool) -> int:
        other = training_run_id(self.workspace)
        if not wait:
            message = _("run {run} is training").format(run=other) if other else _("another run is training")
            raise Busy(message, hint=f"h2q-tui runs attach {other}" if other else "h2q-tui runs list")
        reported: str | None = None
        while True:
            other = training_run_id(self.workspace)
            if other != reported:
                reported = other
                reason = (
                    _("waiting for run {run}").format(run=other) if other else _("waiting for another run")
                )
                self.commands.idle_status = StatusChanged(status=RunStatus.QUEUED, reason=reason)
                self.emit(self.commands.idle_status)
            self.check_stop()
            fd = lock.acquire(path, timeout_s=_QUEUE_S)
            if fd is not None:
                self.commands.idle_status = StatusChanged(status=RunStatus.RUNNING)
                self.emit(self.commands.idle_status)
                return fd

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Within the block the run answers commands, measures its memory and updates `state.json`."""
        server = None
        try:
            server = ControlServer(self.run_dir, self.commands.handle)
        except (OSError, H2QError) as problem:
            self.log(_("no control socket, only signals: {problem}").format(problem=problem), "warning")
        self._tick()
        ticker = threading.Thread(target=self._tick_on, name="ticker", daemon=True)
        ticker.start()
        try:
            yield
        finally:
            self._ended.set()
            ticker.join(timeout=5.0)
            self.commands.close()
            if server is not None:
                server.close()
            self.record_memory()

    def record_memory(self) -> None:
        """Emits the memory in use."""
        used = self._process_memory.sample()
        self.emit(
            MemoryUsage(
                used_mb=round(used, 1),
                peak_mb=round(self._process_memory.peak_mb, 1),
                budget_mb=self._budget_mb,
                reason=self._budget_reason,
            )
        )

    def write_state(self, *, alive: bool = True) -> None:
        """Replaces `state.json` without a sync: it only caches the journal."""
        with self._emitting:
            data = encode_json(self.view.summary(alive))
        with contextlib.suppress(OSError):
            write_bytes_unsynced(self.run_dir.state_path, data)
        self._write_status_files()

    def _write_status_files(self) -> None:
        """Writes the status files for other programs, unless the run is queued or was refused the training lock."""
        if self._status_files is None or not self._had_lock:
            return
        if training_run_id(self.workspace) not in ("", self.run_dir.run_id):
            return
        with self._emitting:
            figures = self._status_files.figures(self.view, self._budget_mb, time.time())
        self._status_files.write(figures)

    def _tick(self) -> None:
        self.record_memory()
        self.write_state()

    def _tick_on(self) -> None:
        while not self._ended.wait(self._tick_s):
            self._tick()

    def _flush_progress(self) -> None:
        if self._progress_waiting is not None:
            self.emit(self._progress_waiting)
            self._progress_waiting = None
