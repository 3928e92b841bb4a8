"""Samples the machine from the start of the app, whatever tab is shown, and keeps their history.

Its worker posts a message for each sample and never touches a widget.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.message import Message

from engine.machine.history import MachineHistory

if TYPE_CHECKING:
    from textual.app import App

    from engine.core.paths import Workspace
    from engine.machine.history import HistoryPoint
    from engine.machine.history_file import HistoryFile
    from engine.machine.probes import MachineProbes, MachineSample
    from engine.machine.recording import RunFigures
    from tui.host.run_follower import RunBoard

FIRST_S = 1.0
"""Until the first sample: what is on the screen first comes before it."""
MB = 1 << 20


class MachineSampled(Message):
    """`MachineFeed` has a new sample."""


class MachineFeed:
    """The newest sample and the history. All methods run on the app's loop."""

    def __init__(
        self, app: App[None], board: RunBoard, interval: Callable[[], float], *, keeps: bool = True
    ) -> None:
        """`interval` tells the seconds between two samples; with `keeps`, the history is written into the workspace."""
        self.history = MachineHistory()
        self.sample: MachineSample | None = None
        self._app, self._board, self._interval, self._keeps = app, board, interval, keeps
        self._wanted = asyncio.Event()

    def start(self) -> None:
        """Starts the worker."""
        self._app.run_worker(
            self._watch(), name="machine", group="machine", exclusive=True, exit_on_error=False
        )

    def refresh(self) -> None:
        """Takes a sample now; also when the interval has changed."""
        self._wanted.set()

    async def _watch(self) -> None:
        await self._wait(FIRST_S)
        older, probes, file = await asyncio.to_thread(_prepare, self._board.workspace)
        self.history.load(older)
        while True:
            self.sample, point = await asyncio.to_thread(
                _take, probes, self._run_figures(), file if self._keeps else None
            )
            self.history.add(point)
            self._app.post_message(MachineSampled())
            await self._wait(self._interval())

    async def _wait(self, seconds: float) -> None:
        self._wanted.clear()
        try:
            await asyncio.wait_for(self._wanted.wait(), seconds)
        except TimeoutError:
            return

    def _run_figures(self) -> RunFigures:
        from engine.machine.recording import NO_RUN, RunFigures

        entry = self._board.current
        view = self._board.view(entry.run_id) if entry is not None else None
        if view is None:
            return NO_RUN
        memory = view.memory
        return RunFigures(
            memory=None if memory is None else memory.used_mb * MB,
            budget=None if memory is None else memory.budget_mb * MB,
            loss=view.loss,
            tokens_per_s=view.tokens_per_s,
        )


def _prepare(workspace: Workspace) -> tuple[list[HistoryPoint], MachineProbes, HistoryFile]:
    """Called in a thread: modules are loaded and a file is read."""
    from engine.machine.history_file import HistoryFile
    from engine.machine.probes import MachineProbes

    file = HistoryFile(workspace.machine_history)
    return file.read(time.time()), MachineProbes(workspace.root, devices=True), file


def _take(
    probes: MachineProbes, figures: RunFigures, file: HistoryFile | None
) -> tuple[MachineSample, HistoryPoint]:
    """Called in a thread."""
    from engine.machine.recording import record

    sample = probes.sample()
    point = record(sample, figures)
    if file is not None:
        file.write(point)
    return sample, point
