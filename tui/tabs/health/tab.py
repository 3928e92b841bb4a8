"""The Health tab: the machine, the run on it, the limits of the app, and alerts. It samples only while it is shown."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Grid, VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.message import Message

from engine.alerts.collect import MachineCollector
from engine.alerts.desk import acknowledge_alerts, alert_overview, mute_alerts, send_tests
from engine.alerts.diagnosis import diagnose
from engine.alerts.run_collect import RunCollector
from engine.core.errors import H2QError
from engine.core.i18n import N_, _, colon, n_
from engine.core.local_time import local_time
from engine.health.limits import find_limits
from engine.inference.client import InferenceClient
from engine.inference.protocol import ServiceStatus
from engine.machine.probes import MachineProbes, MachineSample
from engine.runs import control
from engine.runs.view import RunView
from tui.actions import AppAction
from tui.host.run_follower import RunUpdated
from tui.screens.ask import Confirm
from tui.tabs.base import Tab
from tui.tabs.health import alerts_text, panels_text
from tui.tabs.health.alerts_text import AlertBoard
from tui.terminal.text import safe
from tui.widgets.cell_lines import CellLines

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

INTERVALS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
HISTORY = 600
"""Samples kept for the graphs."""

_PANELS = (
    ("cpu", N_("CPU")),
    ("memory", N_("Memory")),
    ("training", N_("Training")),
    ("disk", N_("Disk")),
    ("service", N_("Inference service")),
    ("limits", N_("Limits")),
    ("alerts", N_("Alerts")),
)
MUTE_S = 8 * 3600.0
TOLD = 20
"""Past messages that the panel has room for."""
_LEAST_ALERT_ROWS = 3
_LEAST_GRAPH = 3
TWO_COLUMNS, WIDE = 80, 120
_FRAME = 2
"""Rows of a border."""


class GaugePanel(CellLines):
    """A box as high as its lines."""

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(3, len(self.lines))

    def set_lines(self, lines: Sequence[Content]) -> None:
        grown = max(3, len(lines)) != max(3, len(self.lines))
        super().set_lines(lines)
        if grown:
            self.refresh(layout=True)


class HealthTab(Tab):
    """Six panels and the alerts below them; three columns from 120 cells, two from 80, else one."""

    TAB_ID: ClassVar[str] = "health"
    TITLE: ClassVar[str] = N_("Health")
    FIRST_FOCUS: ClassVar[str] = "#health-scroll"

    class Sampled(Message):
        """A new sample of the machine and of the inference service, and the alerts."""

        def __init__(
            self, snapshot: MachineSample, service: ServiceStatus | None, alerts: AlertBoard
        ) -> None:
            super().__init__()
            self.snapshot = snapshot
            self.service = service
            self.alerts = alerts

    def __init__(self, host: AppHost) -> None:
        super().__init__(host)
        self.snapshot: MachineSample | None = None
        self.service: ServiceStatus | None = None
        self._probes = MachineProbes(self.workspace.root)
        self._client = InferenceClient(self.workspace)
        self.alerts = AlertBoard()
        self._history: deque[list[float]] = deque(maxlen=HISTORY)
        self._memory: deque[float | None] = deque(maxlen=HISTORY)
        self._speeds: deque[float | None] = deque(maxlen=HISTORY)
        self._machine = MachineCollector(self.workspace.root)
        self._runs = RunCollector(self.workspace)
        self._panels = {name: GaugePanel(id=f"health-{name}", classes="panel") for name, _title in _PANELS}

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="health-scroll"), Grid(id="health-grid"):
            for name, title in _PANELS:
                self._panels[name].border_title = safe(_(title))
                yield self._panels[name]

    def activate(self) -> None:
        self._watch()

    def deactivate(self) -> None:
        self.workers.cancel_node(self)

    @work(group="health", exclusive=True, exit_on_error=False)
    async def _watch(self) -> None:
        while True:
            await self._sample()
            await asyncio.sleep(self.host.interval)

    async def _sample(self) -> None:
        view = self._current_view()
        snapshot = await asyncio.to_thread(self._probes.sample, view.pid if view is not None else None)
        try:
            service = await self._client.status()
        except H2QError:
            service = None
        alerts = await asyncio.to_thread(self._read_alerts)
        self.post_message(self.Sampled(snapshot, service, alerts))

    def _read_alerts(self) -> AlertBoard:
        """What the watcher found, and why the run is slower than usual. Called in a thread."""
        runs = self._runs.read()
        machine = self._machine.read(self._runs.pids)
        reasons = [diagnose(machine, run) for run in runs if run.alive and not run.over]
        try:
            states, told, muted = alert_overview(self.workspace, TOLD)
            return AlertBoard(
                diagnosis=next(filter(None, reasons), ""),
                open=tuple(states),
                told=tuple(told),
                channels=len(self.host.settings.alert_channels),
                muted_until=muted,
            )
        except (sqlite3.Error, OSError):
            return AlertBoard(diagnosis=next(filter(None, reasons), ""))

    @on(Sampled)
    def _sampled(self, message: Sampled) -> None:
        changed = message.alerts.open != self.alerts.open
        self.snapshot, self.service, self.alerts = message.snapshot, message.service, message.alerts
        if changed:
            self.host.refresh_footer()
        total, view = message.snapshot.memory_total, self._current_view()
        self._memory.append((message.snapshot.memory_used or 0) / total if total else None)
        self._speeds.append(view.tokens_per_s if view is not None else None)
        if message.snapshot.cpu_percent is not None:
            self._history.append(message.snapshot.cpu_percent)
        self.draw()

    def _current_view(self) -> RunView | None:
        entry = self.host.board.current
        return self.host.board.view(entry.run_id) if entry is not None else None

    def draw(self) -> None:
        """Draws the last sample."""
        snapshot = self.snapshot
        if snapshot is None or not self.is_mounted:
            return
        glyphs, entry, view = self.host.glyphs, self.host.board.current, self._current_view()
        run_id = entry.run_id if entry is not None else ""
        limits = find_limits(self.host.settings.max_memory_gb)
        scope = view.scope if view is not None else ""
        rows = self._graph_rows()
        width = {name: panel.size.width for name, panel in self._panels.items()}
        lines = {
            "cpu": panels_text.cpu(snapshot, self._history, glyphs, width["cpu"], rows),
            "memory": panels_text.memory(snapshot, glyphs, width["memory"], self._memory, rows),
            "training": panels_text.training(
                view,
                run_id,
                snapshot,
                glyphs,
                now=time.time(),
                speeds=self._speeds,
                width=width["training"],
                graph_rows=rows,
            ),
            "disk": panels_text.disk(snapshot),
            "service": panels_text.service(self.service),
            "limits": panels_text.limits(limits, self.host.terminal, glyphs, scope)[: 5 if rows else 4],
        }
        alert_rows = self._align(lines)
        lines["alerts"] = alerts_text.alert_lines(self.alerts, glyphs, alert_rows)
        lines["alerts"] += [Content("")] * (alert_rows - len(lines["alerts"]))
        for name, panel in self._panels.items():
            panel.set_lines(lines[name])
        self._panels["alerts"].border_subtitle = safe(alerts_text.subtitle(self.alerts))

    def _rows_of_panels(self) -> tuple[tuple[str, ...], ...]:
        """The names of the panels that stand beside each other, in a window with two columns or three."""
        if self.size.width >= WIDE:
            return (("cpu", "memory", "training"), ("disk", "service", "limits"))
        return (("cpu", "memory"), ("training", "disk"), ("service", "limits"))

    def _graph_rows(self) -> int:
        """Rows of each graph: what the window has beyond the panels without graphs and the alerts.

        Graphs stand in the first row of panels of a wide window, in the first two of one with two columns.
        """
        if self.size.width < TWO_COLUMNS or self.snapshot is None:
            return 0
        wide = self.size.width >= WIDE
        figures = [4, 5] if wide else [3, 4, 5]
        spare = self.query_one("#health-scroll").size.height - sum(figures) - _FRAME * (len(figures) + 1)
        graph = (spare - _LEAST_ALERT_ROWS) * 2 // 3 if wide else (spare - _LEAST_ALERT_ROWS) // 3
        return graph if graph >= _LEAST_GRAPH else 0

    def _align(self, lines: dict[str, list[Content]]) -> int:
        """Makes the panels of each row equally high; returns the rows that are left for the alerts."""
        if self.size.width < TWO_COLUMNS:
            return 2 * _LEAST_ALERT_ROWS
        used = 0
        for names in self._rows_of_panels():
            rows = max(3, *(len(lines[name]) for name in names))
            used += rows + _FRAME
            for name in names:
                lines[name] += [Content("")] * (rows - len(lines[name]))
        return max(_LEAST_ALERT_ROWS, self.query_one("#health-scroll").size.height - used - _FRAME)

    def run_updated(self, message: RunUpdated) -> None:
        """The next sample draws it: twice a second would be more than one reads here."""

    def runs_changed(self) -> None:
        self.draw()

    # Actions

    def is_enabled(self, action: AppAction) -> bool:
        if action.verb == "stop":
            return self.host.board.current is not None
        if action.verb == "ack":
            return any(state.acknowledged_at is None for state in self.alerts.open)
        if action.verb == "test":
            return bool(self.host.settings.alert_channels)
        return True

    @work(group="alerts", exclusive=True, exit_on_error=False)
    async def action_ack(self) -> None:
        try:
            seen = await asyncio.to_thread(acknowledge_alerts, self.workspace, "all")
        except (H2QError, sqlite3.Error, OSError) as error:
            self.show_message(str(error), "error")
            return
        n = len(seen)
        self.show_message(n_("{n} alert acknowledged.", "{n} alerts acknowledged.", n).format(n=n), "success")
        self._watch()

    @work(group="alerts", exclusive=True, exit_on_error=False)
    async def action_mute(self) -> None:
        """Mutes everything for eight hours; ends that mute when it is in force."""
        seconds = MUTE_S if self.alerts.muted_until is None else 0.0
        try:
            until = await asyncio.to_thread(mute_alerts, self.workspace, "all", seconds)
        except (sqlite3.Error, OSError) as error:
            self.show_message(str(error), "error")
            return
        clock = local_time("%H:%M", until)
        self.show_message(
            _("only critical alerts are sent until {time}").format(time=clock)
            if until
            else _("No longer muted.")
        )
        self._watch()

    @work(group="alerts", exclusive=True, exit_on_error=False)
    async def action_test(self) -> None:
        self.show_message(_("sending a test message …"))
        try:
            results = await asyncio.to_thread(send_tests, self.workspace)
        except H2QError as error:
            self.show_message(str(error), "error")
            return
        failed = {name: error for name, error in results.items() if error}
        text = _(", ").join(
            colon(name, _("sent") if not error else _("not sent: {error}").format(error=error))
            for name, error in (failed or results).items()
        )
        self.show_message(text, "error" if failed else "success")

    def _set_interval(self, step: int) -> None:
        place = min(range(len(INTERVALS)), key=lambda n: abs(INTERVALS[n] - self.host.interval))
        self.host.interval = INTERVALS[max(0, min(len(INTERVALS) - 1, place + step))]
        self.show_message(_("refreshes every {seconds:g} s").format(seconds=self.host.interval))
        self._watch()

    def action_faster(self) -> None:
        self._set_interval(-1)

    def action_slower(self) -> None:
        self._set_interval(1)

    def action_now(self) -> None:
        self._watch()

    def action_refresh(self) -> None:
        self._watch()

    def action_clear(self) -> None:
        for history in (self._history, self._memory, self._speeds):
            history.clear()
        self.draw()

    @work(group="ask", exclusive=True)
    async def action_stop(self) -> None:
        entry = self.host.board.current
        if entry is None:
            return
        question = _("Write a checkpoint and stop run {run}?").format(run=entry.run_id[:9])
        if not await self.app.push_screen_wait(Confirm(question)):
            return
        try:
            reply = await control.send(entry.run_dir, "stop")
        except H2QError as error:
            self.show_message(str(error), "error")
        else:
            self.show_message(reply.text or _("accepted"), "success" if reply.accepted else "warning")
