"""Starts a run: detached, so that it outlives the app, its terminal and the SSH connection, or in the foreground."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TextIO

import msgspec

from engine.core.config import load_settings
from engine.core.errors import Busy, H2QError, RunFailed, error_text
from engine.core.files import write_bytes
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.runs import lock, runner
from engine.runs.context import requested_budget_mb
from engine.runs.events import JournalRecord
from engine.runs.kinds import KINDS
from engine.runs.own_process import engine_command, engine_environment
from engine.runs.resume import freeze_settings
from engine.runs.rundir import LOCK, SPEC, RunDir
from engine.runs.spec import RunSpec, encode_spec, new_run_id

SYSTEMD_SCOPE = "systemd scope"
WATCH_LOCK = "watch.lock"
"""Held by the watcher of a workspace while it lives."""
NO_WATCH = "H2Q_NO_WATCH"
"""Environment variable: when set, no watcher is started."""


def create_run(ws: Workspace, spec: RunSpec) -> RunDir:
    """Creates the folder of a run with its `spec.json`; the run gets a new id if its id is taken."""
    ws.runs.mkdir(parents=True, exist_ok=True)
    return _prepare(ws, spec)[0]


def launch(ws: Workspace, spec: RunSpec) -> RunDir:
    """Starts the engine for `spec` in a session of its own and returns immediately.

    Raises RunFailed when it does not start.
    """
    run, fd = _locked(ws, spec)
    scope = SYSTEMD_SCOPE if _scope_works() else ""
    try:
        with run.log_path.open("ab") as log:
            process = subprocess.Popen(
                [*(_scope_command(run) if scope else []), *_engine_command(run, fd, scope)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(fd,),
                env=engine_environment(),
            )
    except OSError as problem:
        raise RunFailed(_("the engine cannot be started: {problem}").format(problem=problem)) from problem
    finally:
        os.close(fd)
    _reap(process)
    start_watcher(ws, spec)
    return run


def run_in_foreground(
    ws: Workspace,
    spec: RunSpec,
    on_record: Callable[[JournalRecord], None] | None = None,
    *,
    on_start: Callable[[RunDir], None] | None = None,
) -> int:
    """Runs `spec` in this process and returns its exit code; `on_record` receives every record.

    Output of libraries goes to `engine.log` meanwhile: `on_record` must write to a stream saved before the call.
    `on_start` receives the run's folder, whose id may differ from that of `spec`.
    """
    run, fd = _locked(ws, spec)
    if on_start is not None:
        on_start(run)
    start_watcher(ws, spec)
    with _output_to(run.log_path):
        return runner.main(run.path, lock_fd=fd, on_record=on_record)


def start_watcher(ws: Workspace, spec: RunSpec) -> None:
    """Starts the process that watches machine and runs, unless one does, the settings forbid it, or the run is a short one.

    A run does without it: nothing is raised.
    """
    kind = KINDS[spec.kind]
    if os.environ.get(NO_WATCH) or not (kind.trains or kind.validates):
        return
    with contextlib.suppress(OSError, H2QError, msgspec.DecodeError):
        if lock.is_locked(ws.alerts / WATCH_LOCK) or not load_settings(ws).watch:
            return
        ws.alerts.mkdir(mode=0o700, parents=True, exist_ok=True)
        scope = ["systemd-run", "--user", "--scope", "--quiet", "--collect", "--"] if _scope_works() else []
        with (ws.alerts / "watcher.log").open("ab") as log:
            process = subprocess.Popen(
                [*scope, *engine_command(), "watch", str(ws.root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=engine_environment(),
            )
        _reap(process)


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Waits for a child in a thread: an ended one stays a zombie until it is waited for."""
    threading.Thread(target=process.wait, name=f"reap {process.pid}", daemon=True).start()


def _prepare(ws: Workspace, spec: RunSpec, *, locked: bool = False) -> tuple[RunDir, int]:
    spec = freeze_settings(ws, spec)
    while True:
        run = RunDir(ws.runs / spec.run_id)
        try:
            run.path.mkdir(mode=0o700)
            break
        except FileExistsError:
            spec = msgspec.structs.replace(spec, run_id=new_run_id())
    fd = -1
    if locked:
        # Readers ignore a folder without a spec, so they never see a run that is neither alive nor over.
        lock_fd = lock.acquire(run.path / LOCK)
        if lock_fd is None:
            raise Busy(_("run {run} is already running").format(run=run.run_id), hint="h2q-tui runs list")
        fd = lock_fd
    run.checkpoints.mkdir()
    write_bytes(run.path / SPEC, encode_spec(spec))
    return run, fd


def _locked(ws: Workspace, spec: RunSpec) -> tuple[RunDir, int]:
    try:
        ws.runs.mkdir(parents=True, exist_ok=True)
        return _prepare(ws, spec, locked=True)
    except OSError as problem:
        raise RunFailed(
            _("the run cannot be written: {problem}").format(problem=error_text(problem)),
            hint="h2q-tui check",
        ) from problem


def _engine_command(run: RunDir, fd: int, scope: str) -> list[str]:
    command = [*engine_command(), "run", str(run.path), "--lock-fd", str(fd)]
    return [*command, "--scope", scope] if scope else command


def _scope_command(run: RunDir) -> list[str]:
    """The scope's memory limit backs the budget of the whole run, validation and export included."""
    return [
        "systemd-run", "--user", "--scope", "--quiet", "--collect", f"--unit=h2q-{run.run_id}",
        f"--property=MemoryMax={round(requested_budget_mb(run) * 2**20)}", "--",
    ]  # fmt: skip


@cache
def _scope_works() -> bool:
    """Whether systemd --user supports scopes; without one, logind may kill the processes of an ended session."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if sys.platform != "linux" or not runtime or not (Path(runtime) / "systemd" / "private").exists():
        return False
    if shutil.which("systemd-run") is None:
        return False
    try:
        probe = subprocess.run(
            ["systemd-run", "--user", "--scope", "--quiet", "--collect", "--", "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return probe.returncode == 0


class _Diverted(io.TextIOBase):
    """Replaces a standard stream. Loggers of libraries keep a reference, so it is redirected back, not closed."""

    def __init__(self, target: TextIO) -> None:
        self.target = target

    def write(self, text: str) -> int:
        return self.target.write(text)

    def flush(self) -> None:
        self.target.flush()

    def fileno(self) -> int:
        return self.target.fileno()

    def isatty(self) -> bool:
        return self.target.isatty()

    def writable(self) -> bool:
        return True


@contextmanager
def _output_to(log_path: Path) -> Iterator[None]:
    out, err = sys.stdout, sys.stderr
    with log_path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1) as log:
        diverted_out, diverted_err = _Diverted(log), _Diverted(log)
        sys.stdout, sys.stderr = diverted_out, diverted_err
        try:
            yield
        finally:
            sys.stdout, sys.stderr = out, err
            diverted_out.target, diverted_err.target = out, err
