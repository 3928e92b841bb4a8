"""What the Health tab reads besides the samples of the machine, while it is shown: alerts, processes, limits."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.alerts.collect import MachineCollector
from engine.alerts.desk import alert_overview
from engine.alerts.diagnosis import diagnose
from engine.alerts.run_collect import RunCollector
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.health.limits import Limits, find_limits
from engine.machine.processes import ProcessRow, ProcessTable
from tui.tabs.health.alerts_text import AlertBoard

REPORTED = 20
"""Past messages that the panel has room for."""


MOST_PROCESSES = 1000
"""For the filter; the table itself shows fewer."""


@dataclass(frozen=True)
class HealthReadings:
    """One look."""

    alerts: AlertBoard = field(default_factory=AlertBoard)
    processes: tuple[ProcessRow, ...] = ()
    limits: Limits | None = None


class HealthReader:
    """Reads in a thread; keeps earlier readings for rates."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._machine = MachineCollector(workspace.root)
        self._runs = RunCollector(workspace)
        self._table = ProcessTable()

    def read(self, settings: Settings, runs: Mapping[int, str]) -> HealthReadings:
        """`runs` are the ids of the runs in progress by process id."""
        return HealthReadings(
            self._read_alerts(len(settings.alert_channels)),
            tuple(self._table.read(runs, MOST_PROCESSES)),
            find_limits(settings.max_memory_gb),
        )

    def _read_alerts(self, channels: int) -> AlertBoard:
        """What the watcher found, and why the run is slower than usual."""
        runs = self._runs.read()
        machine = self._machine.read(self._runs.pids)
        reasons = (diagnose(machine, run) for run in runs if run.alive and not run.over)
        reason = next(filter(None, reasons), "")
        try:
            states, told, muted = alert_overview(self._workspace, REPORTED)
        except (sqlite3.Error, OSError):
            return AlertBoard(diagnosis=reason, channels=channels)
        return AlertBoard(reason, tuple(states), tuple(told), channels, muted)
