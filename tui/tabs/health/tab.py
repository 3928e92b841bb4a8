"""The Health tab: the machine, the run on it, and what limits the app found. Looks only while it is shown."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.containers import Grid, VerticalScroll
from textual.content import Content
from textual.geometry import Size

from engine.core.errors import H2QError
from engine.core.i18n import N_, _
from engine.core.paths import Workspace
from engine.health.limits import find_limits
from engine.inference.client import InferenceClient
from engine.inference.protocol import ServiceStatus
from engine.machine.probes import MachineProbes, MachineSample
from engine.runs import control
from tui.app.actions import AppAction
from tui.app.run_follower import RunUpdated
from tui.app.text import safe
from tui.screens.ask import Confirm
from tui.tabs.base import Tab
from tui.tabs.health import panels_text
from tui.widgets.cell_lines import CellLines

INTERVALS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
HISTORY = 120
"""Looks kept for the bars of each core."""

_PANELS = (
    ("cpu", N_("CPU")),
    ("memory", N_("Memory")),
    ("training", N_("Training")),
    ("disk", N_("Disk")),
    ("service", N_("Inference service")),
    ("limits", N_("Limits")),
)


class Panel(CellLines):
    """Figures in a box that is as high as they are."""

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(3, len(self.lines))

    def set_lines(self, lines: Sequence[Content]) -> None:
        grown = max(3, len(lines)) != max(3, len(self.lines))
        super().set_lines(lines)
        if grown:
            self.refresh(layout=True)


class HealthTab(Tab):
    """Six panels; two columns from 80 cells, three from 120, one below."""

    TAB_ID: ClassVar[str] = "health"
    TITLE: ClassVar[str] = N_("Health")
    FIRST_FOCUS: ClassVar[str] = "#health-scroll"

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self.snapshot: MachineSample | None = None
        self.service: ServiceStatus | None = None
        self._probes = MachineProbes(workspace.root)
        self._client = InferenceClient(workspace)
        self._history: deque[list[float]] = deque(maxlen=HISTORY)

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="health-scroll"), Grid(id="health-grid"):
            for name, title in _PANELS:
                panel = Panel(id=f"health-{name}", classes="panel")
                panel.border_title = safe(_(title))
                yield panel

    def activate(self) -> None:
        self._watch()

    def deactivate(self) -> None:
        self.workers.cancel_node(self)

    @work(group="health", exclusive=True, exit_on_error=False)
    async def _watch(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(self.h2q.interval)

    async def _look(self) -> None:
        entry = self.h2q.board.current
        view = self.h2q.board.view(entry.run_id) if entry is not None else None
        pid = view.pid if view is not None else None
        self.snapshot = await asyncio.to_thread(self._probes.sample, pid)
        try:
            self.service = await self._client.status()
        except H2QError:
            self.service = None
        if self.snapshot.cpu_percent is not None:
            self._history.append(self.snapshot.cpu_percent)
        self.draw()

    def draw(self) -> None:
        """The panels as the last look has them."""
        snapshot = self.snapshot
        if snapshot is None or not self.is_mounted:
            return
        glyphs, board = self.h2q.glyphs, self.h2q.board
        entry = board.current
        view = board.view(entry.run_id) if entry is not None else None
        width = self.query_one("#health-cpu", Panel).size.width
        found = find_limits(self.h2q.settings.max_memory_gb)
        panels = {
            "cpu": panels_text.cpu(snapshot, self._history, glyphs, width),
            "memory": panels_text.memory(
                snapshot, glyphs, self.query_one("#health-memory", Panel).size.width
            ),
            "training": panels_text.training(
                view, entry.run_id if entry is not None else "", snapshot, glyphs, now=time.time()
            ),
            "disk": panels_text.disk(snapshot),
            "service": panels_text.service(self.service),
            "limits": panels_text.limits(
                found, self.h2q.terminal, glyphs, view.scope if view is not None else ""
            ),
        }
        for name, lines in panels.items():
            self.query_one(f"#health-{name}", Panel).set_lines(lines)

    def run_updated(self, message: RunUpdated) -> None:
        """The next look draws it: twice a second would be more than an eye reads here."""

    def runs_changed(self) -> None:
        self.draw()

    # Actions

    def is_enabled(self, row: AppAction) -> bool:
        if row.verb == "stop":
            return self.h2q.board.current is not None
        return True

    def _set_interval(self, step: int) -> None:
        place = min(range(len(INTERVALS)), key=lambda n: abs(INTERVALS[n] - self.h2q.interval))
        self.h2q.interval = INTERVALS[max(0, min(len(INTERVALS) - 1, place + step))]
        self.show_message(_("a look every {seconds:g} s").format(seconds=self.h2q.interval))
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
        entry = self.h2q.board.current
        if entry is None:
            return
        question = _("Checkpoint and stop run {run}?").format(run=entry.run_id[:9])
        if not await self.app.push_screen_wait(Confirm(question)):
            return
        try:
            reply = await control.send(entry.run_dir, "stop")
        except H2QError as error:
            self.show_message(str(error), "error")
        else:
            self.show_message(reply.text or _("accepted"), "success" if reply.accepted else "warning")
