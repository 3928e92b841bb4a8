"""The watcher: one process per workspace that reads machine and runs, decides what is reported, and has it delivered.

It is started with the first run (`engine.runs.launch`), holds a lock while it lives, and ends when nothing is left to watch.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import FrameType

import msgspec

from engine.alerts.alert_state import MAX_REPEATS, AlertState
from engine.alerts.collect import MachineCollector
from engine.alerts.cycle import run_cycle
from engine.alerts.delivery import open_channel
from engine.alerts.heartbeat import beat
from engine.alerts.message import MessagePlace
from engine.alerts.readings import AlertLevel, MachineReading, RunReading
from engine.alerts.run_collect import RunCollector
from engine.alerts.store import AlertStore
from engine.core.config import load_settings
from engine.core.errors import H2QError
from engine.core.i18n import set_language, system_language
from engine.core.paths import Workspace, find_workspace
from engine.core.settings import Settings
from engine.machine.history_file import HistoryFile
from engine.machine.recording import NO_RUN, RunFigures, record
from engine.runs import lock
from engine.runs.launch import WATCH_LOCK
from engine.runs.own_process import engine_command, engine_environment

TICK_S = 5.0
IDLE_S = 60.0
"""Without anything to watch, before it ends: the next run often starts within a minute."""
SLEPT_S = 30.0
"""A longer gap between two rounds means that the machine slept."""
DELIVERY_S = 600.0
"""A delivery that takes longer hangs and is killed; what it had not sent is sent by the next one."""
HEARTBEAT_S = 300.0


class Watcher:
    """The state of the loop."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.settings = _settings(workspace, Settings())
        self._settings_at = 0.0
        self.store = AlertStore(workspace)
        now = time.time()
        self._lock_path = workspace.alerts / WATCH_LOCK
        self._awake_since = self._earlier("awake_since", now) if self._was_here(now) else now
        self._machine = MachineCollector(
            workspace.root,
            temperature_limit_c=float(self.settings.pause_above_c or 95),
            oom_before=self._oom_before(),
        )
        before = self.store.meta("watched")
        self._runs = RunCollector(
            workspace, before=before.split("\n") if before else (), heartbeat_s=self.settings.update_interval
        )
        self._saved_ids, self._noted_at = before, 0.0
        self._last = now
        self._idle_since: float | None = None
        self._delivery: subprocess.Popen[bytes] | None = None
        self._delivery_at = 0.0
        self._beat_at = 0.0
        self._secrets: tuple[str, ...] = ()
        self._history = HistoryFile(workspace.machine_history)
        self.stopped = threading.Event()

    def _was_here(self, now: float) -> bool:
        """Whether another watcher was at work a moment ago."""
        with contextlib.suppress(OSError, ValueError):
            return now - float(self.store.meta("seen_at") or 0.0) < SLEPT_S * 4
        return False

    def _earlier(self, name: str, default: float) -> float:
        with contextlib.suppress(ValueError):
            return float(self.store.meta(name) or default)
        return default

    def _oom_before(self) -> int | None:
        """The kernel's counter as an earlier watcher saw it: it may have been the one that was killed."""
        boot, _space, count = self.store.meta("oom").partition(" ")
        return int(count) if count.isdecimal() and boot == _boot_id() else None

    def run(self, tick_s: float = TICK_S) -> None:
        """Rounds until nothing is left to watch."""
        while not self.stopped.is_set():
            if not self.round():
                return
            self.stopped.wait(tick_s)

    def round(self) -> bool:
        """One round; False when nothing is left to watch."""
        now = time.time()
        if not self._lock_path.exists():
            return False  # the workspace was deleted: nothing of it is created again
        if not 0 <= now - self._last < SLEPT_S + TICK_S:
            self._awake_since = now
        self._last = now
        self._read_settings(now)
        states = self.store.states()
        keep = {
            state.subject.partition("@")[0] for state in states.values() if state.firing and state.subject
        }
        runs = self._runs.read(awake_since=self._awake_since, keep=keep)
        machine = self._machine.read(self._runs.pids)
        self._keep_history(machine, runs)
        self._told(machine, runs)
        self._deliver(now)
        at_work = any(run.alive and not run.over for run in runs)
        if at_work and self.settings.heartbeat_url and now - self._beat_at >= HEARTBEAT_S:
            self._beat_at = now
            beat(self.settings.heartbeat_url)
        if at_work or self._is_owed(states):
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        return self.settings.watch and (self._idle_since is None or now - self._idle_since < IDLE_S)

    def _told(self, machine: MachineReading, runs: list[RunReading]) -> None:
        place = MessagePlace(
            host=socket.gethostname(),
            folder=self.workspace.root,
            default=find_workspace().root == self.workspace.root,
            machine=machine,
            runs={run.run_id: run for run in runs},
        )
        run_cycle(self.store, machine, runs, self.settings, place, secrets=self._secrets)
        ids, oom = "\n".join(self._runs.ids), f"{_boot_id()} {self._machine.oom_count}"
        if ids != self._saved_ids or machine.t - self._noted_at >= 60.0:
            self._saved_ids, self._noted_at = ids, machine.t
            with self.store.transaction():
                self.store.set_meta("watched", ids)
                self.store.set_meta("oom", oom)
                self.store.set_meta("seen_at", f"{machine.t:.0f}")
                self.store.set_meta("awake_since", f"{self._awake_since:.0f}")

    def _keep_history(self, machine: MachineReading, runs: list[RunReading]) -> None:
        """The day on disk, for the Health tab: also of the time when no app was open."""
        sample = self._machine.sample
        if sample is not None:
            sample = msgspec.structs.replace(sample, temperature_c=machine.temperature_c)
            at_work = next((run for run in runs if run.alive and not run.over), None)
            self._history.write(record(sample, NO_RUN if at_work is None else _figures(at_work)))

    def _is_owed(self, states: dict[str, AlertState]) -> bool:
        """Whether something is still to be sent: a message that waits, what was suppressed, or an alert that will be repeated."""
        if not self.settings.alert_channels:
            return False
        if self.store.next_due() is not None or any(state.held or state.untold for state in states.values()):
            return True
        return any(
            state.firing
            and state.level.rank <= AlertLevel.ERROR.rank
            and state.acknowledged_at is None
            and state.repeats < MAX_REPEATS
            for state in states.values()
        )

    def _deliver(self, now: float) -> None:
        """Starts a delivery when something is due and none is at work."""
        if self._delivery is not None:
            if self._delivery.poll() is None:
                if now - self._delivery_at > DELIVERY_S:
                    self._delivery.kill()
                return
            self._delivery = None
        due = self.store.next_due()
        if due is None or due > now or not self.settings.alert_channels:
            return
        self._delivery_at = now
        with contextlib.suppress(OSError):
            self._delivery = subprocess.Popen(
                [*engine_command(), "deliver", str(self.workspace.root)],
                stdin=subprocess.DEVNULL,
                env=engine_environment(),
            )

    def _read_settings(self, now: float) -> None:
        """Reads the settings again when their file changed."""
        try:
            changed = self.workspace.settings_file.stat().st_mtime
        except OSError:
            changed = 1.0
        if changed == self._settings_at:
            return
        self._settings_at = changed
        self.settings = _settings(self.workspace, self.settings)
        language = self.settings.language
        set_language(system_language() if language == "auto" else language)
        secrets: list[str] = []
        for name in self.settings.alert_channels:
            with contextlib.suppress(H2QError):
                secrets += open_channel(self.workspace, self.settings, name).secrets
        self._secrets = tuple(secrets)
        self._runs.hide(self._secrets)


def _settings(workspace: Workspace, before: Settings) -> Settings:
    """The settings; those from before while the file is broken."""
    try:
        return load_settings(workspace)
    except (H2QError, msgspec.DecodeError):
        return before


def _figures(run: RunReading) -> RunFigures:
    used, budget = run.used_mb, run.budget_mb
    return RunFigures(
        memory=None if used is None else used * 2**20,
        budget=None if budget is None else budget * 2**20,
        loss=run.loss,
        tokens_per_s=run.tokens_per_s,
    )


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def main(data_dir: Path, tick_s: float = TICK_S) -> int:
    """`python -m engine watch DATA_DIR`; ends immediately when another watcher is at work."""
    workspace = Workspace(data_dir)
    workspace.alerts.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = lock.acquire(workspace.alerts / WATCH_LOCK, timeout_s=0.0)
    if held is None:
        return 0
    try:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, 5)
        watcher = Watcher(workspace)

        def stop(_number: int, _frame: FrameType | None) -> None:
            watcher.stopped.set()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        watcher.run(tick_s)
        watcher.store.close()
        return 0
    finally:
        os.close(held)
