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
from engine.corpus.review.store import ReviewStore
from engine.memory.store import MemoryStore
from engine.models.registry import in_use, list_models
from engine.runs.estimates import MeasuredRun, RunHistory, Workload, estimate
from engine.runs.kinds import KINDS, RunKind, TrainMode
from tui.app.next_step_text import NextFacts, Now, next_step
from tui.terminal.text import safe
from tui.widgets.cell_lines import CellLines

if TYPE_CHECKING:
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
        self._history = RunHistory(host.workspace)
        self._seen: tuple[object, ...] = ()

    def on_mount(self) -> None:
        self.read()
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
            memory_gb = self.host.settings.max_memory_gb
            facts = await asyncio.to_thread(read_facts, self.host.workspace, self._history, memory_gb)
            self._seen = seen
            self.post_message(self.FactsRead(facts))

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


def read_facts(workspace: Workspace, history: RunHistory, budget_gb: float) -> NextFacts:
    """Reads memory, corpus, finished trainings and the model in use. Raises H2QError, OSError and sqlite3.Error."""
    used = in_use(workspace) or ""
    made_by = next((card.run_id for card in list_models(workspace) if card.name == used), "")
    runs = history.runs()
    last = runs[0] if runs else None
    if not workspace.memory_db.exists():
        return NextFacts(in_use=used)
    with MemoryStore(workspace.memory_db, readonly=True) as store:
        in_memory, characters = store.count(), store.mean_characters()
    with ReviewStore(workspace.memory_db, readonly=True) as review:
        funnel = review.funnel()
    load = _workload(last, funnel.train, funnel.test, characters)
    return NextFacts(
        in_memory=in_memory,
        collected=funnel.collected,
        accepted=funnel.accepted,
        train=funnel.train,
        unassigned=funnel.unassigned,
        # Of the demo, which is no training run, the model in use is all that is known.
        trained=last.summary.conversations if last is not None else funnel.train if made_by else 0,
        trained_in_use=bool(made_by) and (last is None or made_by == last.run),
        in_use=used,
        estimate=estimate(load, runs) if funnel.train else None,
        budget_mb=budget_gb * 1024,
    )


def _workload(last: MeasuredRun | None, train: int, test: int, characters: float) -> Workload:
    """The training that `n` offers: the newest one again, with the conversations of now."""
    mode = last.mode if last is not None and last.mode is not TrainMode.SCRATCH else TrainMode.NATIVE
    base = (last.params.model or "") if last is not None and mode is not TrainMode.NATIVE else ""
    return Workload(mode, conversations=train, test=test, base=base, characters=characters)
