"""The Health tab: the machine, the run on it, and the limits of the app. It samples only while it is shown."""

from __future__ import annotations

import asyncio
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

from engine.core.errors import H2QError
from engine.core.i18n import N_, _
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
from tui.tabs.health import panels_text
from tui.terminal.text import safe
from tui.widgets.cell_lines import CellLines

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

INTERVALS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
HISTORY = 120
"""Samples kept for the bars of each core."""

_PANELS = (
    ("cpu", N_("CPU")),
    ("memory", N_("Memory")),
    ("training", N_("Training")),
    ("disk", N_("Disk")),
    ("service", N_("Inference service")),
    ("limits", N_("Limits")),
)


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
    """Six panels; three columns from 120 cells, two from 80, else one."""

    TAB_ID: ClassVar[str] = "health"
    TITLE: ClassVar[str] = N_("Health")
    FIRST_FOCUS: ClassVar[str] = "#health-scroll"

    class Sampled(Message):
        """A new sample of the machine and of the inference service."""

        def __init__(self, snapshot: MachineSample, service: ServiceStatus | None) -> None:
            super().__init__()
            self.snapshot = snapshot
            self.service = service

    def __init__(self, host: AppHost) -> None:
        super().__init__(host)
        self.snapshot: MachineSample | None = None
        self.service: ServiceStatus | None = None
        self._probes = MachineProbes(self.workspace.root)
        self._client = InferenceClient(self.workspace)
        self._history: deque[list[float]] = deque(maxlen=HISTORY)
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
        self.post_message(self.Sampled(snapshot, service))

    @on(Sampled)
    def _sampled(self, message: Sampled) -> None:
        self.snapshot, self.service = message.snapshot, message.service
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
        lines = {
            "cpu": panels_text.cpu(snapshot, self._history, glyphs, self._panels["cpu"].size.width),
            "memory": panels_text.memory(snapshot, glyphs, self._panels["memory"].size.width),
            "training": panels_text.training(view, run_id, snapshot, glyphs, now=time.time()),
            "disk": panels_text.disk(snapshot),
            "service": panels_text.service(self.service),
            "limits": panels_text.limits(limits, self.host.terminal, glyphs, scope),
        }
        for name, panel in self._panels.items():
            panel.set_lines(lines[name])

    def run_updated(self, message: RunUpdated) -> None:
        """The next sample draws it: twice a second would be more than one reads here."""

    def runs_changed(self) -> None:
        self.draw()

    # Actions

    def is_enabled(self, action: AppAction) -> bool:
        if action.verb == "stop":
            return self.host.board.current is not None
        return True

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
        self._history.clear()
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
