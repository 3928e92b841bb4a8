"""The process of a run, from its first event to its last. Detached and foreground runs both use `main`."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import msgspec

from engine.core.errors import Busy, H2QError, Interrupted, NotEnoughData, RunFailed
from engine.core.i18n import _
from engine.core.json_text import encode_json
from engine.runs import lock, network_guard
from engine.runs.allocator_env import limit_device_memory, limit_onednn_cache
from engine.runs.command_queue import CommandQueue
from engine.runs.context import RunContext, RunResult
from engine.runs.events import Finished, JournalRecord, RunStatus, Started
from engine.runs.journal import JournalWriter
from engine.runs.kinds import KINDS
from engine.runs.last_visit import is_scheduled
from engine.runs.rundir import RunDir, link_checkpoints

NICE = 10
_AUTOGROUP = Path("/proc/self/autogroup")
"""Linux alone has it."""
_RESERVE = 64 << 10
BEFORE_RUN = "engine.health.before_run:check_before_run"
"""What looks at machine and workspace before a run; found by its name, as the entry points are."""


def main(
    run_dir: Path,
    *,
    lock_fd: int | None = None,
    scope: str = "",
    on_record: Callable[[JournalRecord], None] | None = None,
) -> int:
    """Executes the run in `run_dir` and returns its exit code.

    `lock_fd` is the run's lock if the launcher holds it; otherwise it is acquired here. `scope` names how the
    process is kept alive. `on_record` receives every record after it is written. Raises BadInput for an invalid
    spec and Busy when the run is already alive; every later failure is an event and an exit code.
    """
    run = RunDir(run_dir.resolve())
    spec = run.spec
    held = (
        lock_fd if lock_fd is not None and lock.adopt(lock_fd, run.lock_path) else lock.acquire(run.lock_path)
    )
    if held is None:
        raise Busy(
            _("run {run} is already running").format(run=run.run_id), hint=f"h2q-tui runs attach {run.run_id}"
        )
    journal = JournalWriter(run.events_path)
    reserve = run.path / ".reserve"
    try:
        with contextlib.suppress(OSError):
            reserve.write_bytes(bytes(_RESERVE))
            if KINDS[spec.kind].trains:
                link_checkpoints(run)
        context = RunContext(run, journal, on_record)
        limit_device_memory(context.budget_mb)
        limit_onednn_cache()
        with _signals(context.commands), network_guard.loopback_only():
            context.emit(
                Started(
                    pid=os.getpid(),
                    program=_program_version(),
                    host=socket.gethostname(),
                    scope=_stay_awake() or scope,
                )
            )
            with context.serving():
                finished = _execute(context, KINDS[spec.kind].entry_point)
                if finished.status is RunStatus.SKIPPED and is_scheduled(run):
                    # A corpus that is too small is no failure of the schedule: launchd and cron expect exit code 0.
                    finished = msgspec.structs.replace(finished, exit_code=0)
                context.commands.close()
            # On a full disk this frees space for the last event, which holds the outcome.
            with contextlib.suppress(OSError):
                reserve.unlink(missing_ok=True)
            context.emit(finished)
            context.write_state()
        return finished.exit_code
    finally:
        journal.close()
        os.close(held)


def lower_priority() -> None:
    """Lowers the CPU priority of the engine.

    Linux shares the CPU among sessions first, and niceness counts only within one (sched(7), autogroup): a session of
    its own is made nice as a whole, but never the session of somebody's terminal.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            _AUTOGROUP.write_text(str(NICE))


def _execute(context: RunContext, code: str) -> Finished:
    """Runs the entry point. An exception becomes one sentence; its traceback goes to `engine.log`."""
    try:
        _function(BEFORE_RUN)(context)
        outcome: RunResult = _function(code)(context)
        return Finished(
            status=outcome.status,
            exit_code=outcome.exit_code,
            error=outcome.error,
            report=str(outcome.report or ""),
            result=msgspec.Raw(encode_json(outcome.result, enc_hook=_plain_value)),
        )
    except (Interrupted, KeyboardInterrupt) as problem:
        return Finished(status=RunStatus.STOPPED, exit_code=Interrupted.exit_code, error=str(problem))
    except NotEnoughData as problem:
        return Finished(
            status=RunStatus.SKIPPED, exit_code=problem.exit_code, error=str(problem), hint=problem.hint
        )
    except Busy as problem:
        if is_scheduled(context.run_dir):
            # A scheduled run behind another one is no failure of the schedule.
            return Finished(status=RunStatus.SKIPPED, exit_code=0, error=str(problem), hint=problem.hint)
        return Finished(
            status=RunStatus.FAILED, exit_code=problem.exit_code, error=str(problem), hint=problem.hint
        )
    except H2QError as problem:
        _log_traceback(context.run_dir)
        return Finished(
            status=RunStatus.FAILED, exit_code=problem.exit_code, error=str(problem), hint=problem.hint
        )
    except BaseException as problem:
        _log_traceback(context.run_dir)
        failure = _failure(problem, context.run_dir)
        return Finished(
            status=RunStatus.FAILED, exit_code=failure.exit_code, error=str(failure), hint=failure.hint
        )


def _function(place: str) -> Callable[[RunContext], Any]:
    """The function at "module:name"."""
    module, _colon, name = place.partition(":")
    found: Callable[[RunContext], Any] = getattr(_imported(module), name)
    return found


def _imported(name: str) -> ModuleType:
    """A module. Meanwhile no garbage is looked for: imports make some hundred thousand objects, and all of them stay."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        if collects:
            gc.enable()


def _failure(problem: BaseException, run: RunDir) -> H2QError:
    """The sentence for the user about an exception that is no `H2QError`."""
    text = str(problem)
    if (
        isinstance(problem, MemoryError)
        or type(problem).__name__ == "OutOfMemoryError"
        or "allocate memory" in text
    ):
        return RunFailed(_("out of memory; a smaller batch needs less"), hint="h2q-tui train --batch-size 1")
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f": {problem.filename}" if problem.filename else ""
        return RunFailed(
            _("the disk is full{where}; finished work is kept").format(where=where), hint="df -h"
        )
    if isinstance(problem, msgspec.ValidationError):
        return RunFailed(_("the run's specification is invalid: {problem}").format(problem=text))
    first = text.strip().splitlines()[0][:300] if text.strip() else ""
    name = type(problem).__name__
    error = f"{name}: {first}" if first else name
    return RunFailed(
        _("the run failed with an internal error ({error})").format(error=error), hint=f"less {run.log_path}"
    )


def _log_traceback(run: RunDir) -> None:
    with (
        contextlib.suppress(OSError),
        run.log_path.open("a", encoding="utf-8", errors="backslashreplace") as log,
    ):
        traceback.print_exc(file=log)


def _plain_value(value: Any) -> Any:
    """Scalars of numpy and torch as their value, other objects as text."""
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)


@contextmanager
def _signals(commands: CommandQueue) -> Iterator[None]:
    """SIGTERM and SIGINT stop at the next step, a second one immediately; SIGHUP (a lost connection) is ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count = 0

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal count
        if commands.closed:
            return
        count += 1
        commands.signal()
        if count > 2:
            os._exit(Interrupted.exit_code)
        if count > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stay_awake() -> str:
    """Keeps macOS from sleeping while this process lives, with `caffeinate`; returns how it is kept alive."""
    if platform.system() != "Darwin" or shutil.which("caffeinate") is None:
        return ""
    process = subprocess.Popen(["caffeinate", "-i", "-w", str(os.getpid())], stdin=subprocess.DEVNULL)
    threading.Thread(target=process.wait, daemon=True).start()
    return "caffeinate"


def _program_version() -> str:
    try:
        return version("h2q-tui")
    except PackageNotFoundError:
        return "unknown"
