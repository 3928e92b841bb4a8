"""The Health tab: the machine, the run on it, processes, and alerts."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.containers import Grid, VerticalScroll
from textual.message import Message
from textual.widget import Widget

from engine.core.errors import H2QError, UsageProblem
from engine.core.i18n import N_, _
from engine.inference.client import InferenceClient
from engine.inference.protocol import ServiceStatus
from engine.runs import control
from engine.runs.view import RunView
from engine.sinks.peers import PeerReading, parse_peer, read_peer
from tui.actions import AppAction
from tui.host.run_follower import RunEntry, RunUpdated
from tui.screens.ask import Confirm, LinePrompt
from tui.tabs.base import Tab
from tui.tabs.health import alerts_text
from tui.tabs.health.alert_actions import AlertActions
from tui.tabs.health.alerts_text import AlertBoard
from tui.tabs.health.layout import COLUMNS, panel_rows, row_heights
from tui.tabs.health.machine_text import cpu_lines, device_lines, memory_lines
from tui.tabs.health.panels import LinePanel, ProcessList, what_it_is
from tui.tabs.health.reader import HealthReader, HealthReadings
from tui.tabs.health.run_text import run_memory, training_lines
from tui.tabs.health.scene import RANGES, MachineScene, range_name
from tui.tabs.health.system_text import system_lines
from tui.terminal.text import safe

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

INTERVALS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
READ_S = 5.0
"""Between two looks at alerts, processes and the inference service."""
PEERS_S = 15.0

_PANELS = (
    ("cpu", N_("CPU")),
    ("memory", N_("Memory")),
    ("training", N_("Training")),
    ("devices", N_("Devices")),
    ("processes", N_("Processes")),
    ("alerts", N_("Alerts")),
    ("system", N_("System")),
)


class HealthTab(AlertActions):
    """Panels that fill the window; which ones and where depends on its size (`layout.py`)."""

    TAB_ID: ClassVar[str] = "health"
    TITLE: ClassVar[str] = N_("Health")
    FIRST_FOCUS: ClassVar[str] = "#health-processes"

    class ReadingsCame(Message):
        """Alerts, processes and limits, and the inference service."""

        def __init__(self, readings: HealthReadings, service: ServiceStatus | None) -> None:
            super().__init__()
            self.readings = readings
            self.service = service

    class PeersAnswered(Message):
        """What the other machines said."""

        def __init__(self, peers: tuple[PeerReading, ...]) -> None:
            super().__init__()
            self.peers = peers

    def __init__(self, host: AppHost) -> None:
        super().__init__(host)
        self.service: ServiceStatus | None = None
        self.readings = HealthReadings()
        self.peers: tuple[PeerReading, ...] = ()
        self.span = RANGES[0]
        self._client = InferenceClient(self.workspace)
        self._reader: HealthReader | None = None
        titles = dict(_PANELS)
        self._boxes = {
            name: LinePanel(_(title), id=f"health-{name}")
            for name, title in titles.items()
            if name != "processes"
        }
        self.processes = ProcessList(id="health-processes")
        self._grid = Grid(id="health-grid")
        self._scroll = VerticalScroll(self._grid, id="health-scroll", can_focus=False)
        self._subtitle = ""
        self._placed_for: tuple[int, int] | None = None

    @property
    def alerts(self) -> AlertBoard:  # type: ignore[override]
        """The alerts as they were read last."""
        return self.readings.alerts

    @property
    def panels(self) -> dict[str, Widget]:
        """All panels by name, in their order."""
        return {name: self.processes if name == "processes" else self._boxes[name] for name, _t in _PANELS}

    def compose(self) -> ComposeResult:
        yield self._scroll

    def on_mount(self) -> None:
        self._grid.mount(*self.panels.values())
        self._say_range()

    def restore_from(self, previous: Tab) -> None:
        if isinstance(previous, HealthTab):
            self.span = previous.span
            self.processes.set_filter(previous.processes.words)

    def activate(self) -> None:
        self.draw()
        self._read()
        self._ask_peers()

    def deactivate(self) -> None:
        self.workers.cancel_node(self)

    # Readings

    @work(group="health", exclusive=True, exit_on_error=False)
    async def _read(self) -> None:
        while True:
            if self._reader is None:
                self._reader = await asyncio.to_thread(HealthReader, self.workspace)
            readings = await asyncio.to_thread(self._reader.read, self.host.settings, self._run_pids())
            try:
                service = await self._client.status()
            except H2QError:
                service = None
            self.post_message(self.ReadingsCame(readings, service))
            await asyncio.sleep(max(READ_S, self.host.interval))

    @work(group="health:peers", exclusive=True, exit_on_error=False)
    async def _ask_peers(self) -> None:
        while self.host.settings.peers:
            found = []
            for text in self.host.settings.peers:
                try:
                    peer = parse_peer(text)
                except UsageProblem:
                    found.append(PeerReading(name=text, t=time.time(), error="unknown"))
                    continue
                found.append(await asyncio.to_thread(read_peer, peer))
            self.post_message(self.PeersAnswered(tuple(found)))
            await asyncio.sleep(PEERS_S)

    def _run_pids(self) -> dict[int, str]:
        views = ((run.run_id, self.host.board.view(run.run_id)) for run in self.host.board.live)
        return {view.pid: run_id for run_id, view in views if view is not None and view.pid is not None}

    @on(ReadingsCame)
    def _was_read(self, message: ReadingsCame) -> None:
        changed = message.readings.alerts.open != self.alerts.open
        self.readings, self.service = message.readings, message.service
        self.processes.show(self.readings.processes)
        if changed:
            self.host.refresh_footer()
        self._draw_slow()

    @on(PeersAnswered)
    def _peers_answered(self, message: PeersAnswered) -> None:
        self.peers = message.peers
        self.draw()

    def read_again(self) -> None:
        self.host.machine.refresh()
        self._read()

    def machine_sampled(self) -> None:
        self.draw()

    def run_updated(self, message: RunUpdated) -> None:
        """The next sample draws it: twice a second would be more than one reads here."""

    def runs_changed(self) -> None:
        self.draw()

    # Drawing

    def on_resize(self, _event: events.Resize) -> None:
        self._place()

    def _place(self) -> None:
        """Puts the panels into the grid for the size of the window."""
        size = (self.size.width, self.size.height)
        if size == self._placed_for or not self.is_mounted:
            return
        self._placed_for = size
        rows = panel_rows(*size)
        spans = {name: span for row in rows for name, span in row.panels}
        for name, panel in self.panels.items():
            panel.display = name in spans
            panel.styles.column_span = spans.get(name, COLUMNS)
        heights = row_heights(rows, size[1])
        self._grid.styles.grid_size_columns = COLUMNS
        self._grid.styles.grid_rows = " ".join(map(str, heights))
        self._grid.styles.height = sum(heights)

    def _current_view(self) -> RunView | None:
        entry = self.host.board.current
        return self.host.board.view(entry.run_id) if entry is not None else None

    def draw(self) -> None:
        """Draws the newest sample."""
        sample = self.host.machine.sample
        if sample is None or not self.is_mounted:
            return
        scene = MachineScene(
            sample,
            self.host.machine.history,
            self.host.glyphs,
            self.span,
            self.host.interval,
            self.host.terminal.colours,
        )
        entry, view, now = self.host.board.current, self._current_view(), time.time()
        run_id = entry.run_id if entry is not None else ""
        run, budget = run_memory(view)
        self._boxes["cpu"].show(lambda width, height: cpu_lines(scene, width, height))
        self._boxes["memory"].show(
            lambda width, height: memory_lines(scene, width, height, run=run, budget=budget)
        )
        self._boxes["training"].show(
            lambda width, height: training_lines(scene, view, run_id, width, height, now=now)
        )
        self._boxes["devices"].show(lambda width, height: device_lines(scene, width, height, self.peers))

    def _draw_slow(self) -> None:
        """Draws what is read more rarely."""
        view = self._current_view()
        scope = view.scope if view is not None else ""
        glyphs, limits = self.host.glyphs, self.readings.limits
        self._boxes["alerts"].show(
            lambda width, height: alerts_text.alert_lines(self.alerts, glyphs, width, height)
        )
        subtitle = alerts_text.subtitle(self.alerts)
        if subtitle != self._subtitle:
            self._subtitle = subtitle
            self._boxes["alerts"].border_subtitle = safe(subtitle)
        self._boxes["system"].show(
            lambda _width, _height: system_lines(self.service, limits, self.host.terminal, glyphs, scope)
        )

    # Actions

    def is_enabled(self, action: AppAction) -> bool:
        if action.verb == "stop":
            return self._run_to_stop() is not None
        if action.verb == "ack":
            return any(state.acknowledged_at is None for state in self.alerts.open)
        if action.verb == "test":
            return bool(self.host.settings.alert_channels)
        return True

    def _set_interval(self, step: int) -> None:
        place = min(range(len(INTERVALS)), key=lambda n: abs(INTERVALS[n] - self.host.interval))
        self.host.interval = INTERVALS[max(0, min(len(INTERVALS) - 1, place + step))]
        self.show_message(_("refreshes every {seconds:g} s").format(seconds=self.host.interval))
        self.host.machine.refresh()

    def action_faster(self) -> None:
        self._set_interval(-1)

    def action_slower(self) -> None:
        self._set_interval(1)

    def _set_range(self, step: int) -> None:
        place = RANGES.index(self.span) + step
        self.span = RANGES[max(0, min(len(RANGES) - 1, place))]
        self._say_range()
        self.draw()

    def _say_range(self) -> None:
        keys = self.host.action_keys
        hint = " ".join([*keys.get("health.shorter", ())[:1], *keys.get("health.longer", ())[:1]])
        self._boxes["cpu"].border_subtitle = safe(f"{range_name(self.span)}  {hint}".rstrip())

    def action_shorter(self) -> None:
        self._set_range(-1)

    def action_longer(self) -> None:
        self._set_range(1)

    def action_now(self) -> None:
        self.read_again()

    def action_refresh(self) -> None:
        self.read_again()

    def action_clear(self) -> None:
        self.host.machine.history.clear()
        self.draw()

    def action_filter(self) -> None:
        def answered(text: str | None) -> None:
            if text is not None:
                self.processes.set_filter(text)

        question = _("processes with")
        self.app.push_screen(LinePrompt(question, self.processes.words, select=True), answered)

    def action_back(self) -> None:
        """Esc clears the filter."""
        self.processes.set_filter("")

    def action_copy(self) -> None:
        row = self.processes.current
        if row is not None:
            self.host.copy_to_clipboard(str(row.pid))
            self.show_message(_("copied"))

    def _run_to_stop(self) -> RunEntry | None:
        """The run of the process under the cursor while the table has the focus, else the run in progress."""
        row = self.processes.current
        if self.processes.has_focus and row is not None and row.run_id:
            return self.host.board.entry(row.run_id)
        return self.host.board.current

    @work(group="ask", exclusive=True)
    async def action_stop(self) -> None:
        row = self.processes.current
        if self.processes.has_focus and self.processes.chosen and row is not None and not row.run_id:
            text = _("only your own runs are ended here; {name} is none")
            self.show_message(text.format(name=what_it_is(row)), "warning")
            return
        entry = self._run_to_stop()
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
