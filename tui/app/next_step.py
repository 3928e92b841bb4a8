"""The line above the footer that says what follows. It reads the workspace in a thread, when something has changed."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from textual import events, work
from textual.message import Message

from engine.core.errors import H2QError
from engine.core.paths import Workspace
from engine.runs.kinds import KINDS, RunKind
from tui.app.next_step_text import NextFacts, Now, next_step
from tui.terminal.text import safe
from tui.widgets.cell_lines import CellLines

if TYPE_CHECKING:
    from engine.runs.estimates import RunHistory
    from tui.host.app_host import AppHost

READ_S = 5.0
"""Seconds between two looks whether the workspace has changed."""


class NextStepLine(CellLines):
    """One dim line; "" until the workspace has been read."""

    DEFAULT_CSS = "NextStepLine { height: 1; color: $foreground-muted; }"

    class FactsRead(Message):
        """What the workspace has."""

        def __init__(self, facts: NextFacts) -> None:
            super().__init__()
            self.facts = facts

    def __init__(self, host: AppHost) -> None:
        super().__init__(id="next-step")
        self.host = host
        self.tab_id = ""
        """The tab on the screen."""
        self.facts: NextFacts | None = None
        self._history: RunHistory | None = None
        self._seen: tuple[object, ...] = ()

    def on_mount(self) -> None:
        self.call_after_refresh(self.read)
        self.set_interval(READ_S, self.read)

    def on_resize(self, _event: events.Resize) -> None:
        self.redraw()

    @work(group="next:read", exclusive=True, exit_on_error=False)
    async def read(self) -> None:
        """Reads the workspace where its files have changed since the last time."""
        with contextlib.suppress(H2QError, sqlite3.Error, OSError):
            seen = (await asyncio.to_thread(_changes, self.host.workspace), len(self.host.board.live))
            if seen == self._seen:
                return
            facts = await asyncio.to_thread(self._read_facts)
            self._seen = seen
            self.post_message(self.FactsRead(facts))

    def _read_facts(self) -> NextFacts:
        """Called in a thread: modules are loaded and files are read."""
        from engine.runs.estimates import RunHistory
        from tui.app.next_step_facts import read_facts

        if self._history is None:
            self._history = RunHistory(self.host.workspace)
        return read_facts(self.host.workspace, self._history, self.host.settings.max_memory_gb)

    def on_next_step_line_facts_read(self, message: FactsRead) -> None:
        message.stop()
        self.facts = message.facts
        self.redraw()

    def redraw(self) -> None:
        """Draws the line for the tab and the runs of now."""
        if self.facts is None or not self.is_attached:
            return
        kinds = [KINDS[RunKind(run.kind)] for run in self.host.board.live]
        now = Now(
            self.tab_id,
            self.host.action_keys,
            training=any(kind.trains for kind in kinds),
            preparing=self.host.preparing
            or any((kind.imports or kind.builds_corpus) and not kind.trains for kind in kinds),
            arrow=">" if self.host.glyphs.ascii else "→",
        )
        self.set_lines([safe(f" {next_step(self.facts, now)}")])


def _changes(workspace: Workspace) -> tuple[object, ...]:
    """Differs from an earlier answer when the memory, the models or the runs have changed."""
    database = workspace.memory_db
    return tuple(
        _stamp(path)
        for path in (
            database,
            database.with_name(f"{database.name}-wal"),
            workspace.runs,
            workspace.models,
            workspace.models_json,
        )
    )


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)
