"""Follows the runs of the workspace: their list, and the new events in their journals as one message per tick.

The board belongs to the App; its workers read journals and post messages, and never touch a widget. Cancelling
a worker detaches from a run and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

from engine.core.errors import H2QError
from engine.runs.event_text import format_left
from engine.runs.events import Finished, JournalRecord, RunStatus
from engine.runs.journal import JournalReader
from engine.runs.rundir import RunDir, list_runs, summarise
from engine.runs.view import RunView
from engine.runs.work import work_done
from engine.validation.verdict_event import in_own_language
from tui.widgets.header import HeaderStatus

if TYPE_CHECKING:
    from textual.app import App

    from engine.core.paths import Workspace

TICK_S = 0.5
"""Seconds between two reads of the journal of a live run."""
LIST_S = 2.0
"""Seconds between two reads of the runs folder."""
BATCH = 500
"""Records applied in one batch, so that the loop is never blocked for long."""
MAX_VIEWS = 8
"""Run views kept in memory; an older one is read again when it is shown."""


@dataclass(frozen=True)
class RunEntry:
    """One line of the list of runs."""

    run_id: str
    label: str
    kind: str
    status: RunStatus
    created_at: float
    run_dir: RunDir


class RunUpdated(Message):
    """A run has new records, which its view has already applied."""

    def __init__(self, run_id: str, view: RunView, *, alive: bool) -> None:
        self.run_id = run_id
        self.view = view
        self.alive = alive
        super().__init__()


class RunsChanged(Message):
    """The list of runs has changed; newest first."""

    def __init__(self, runs: list[RunEntry]) -> None:
        self.runs = runs
        super().__init__()


@dataclass
class _Followed:
    """A journal being read."""

    run_dir: RunDir
    reader: JournalReader
    view: RunView
    alive: bool = True
    ready: bool = False
    """The history has been read to its end once."""
    restarts: int = 0

    def apply(self, records: list[JournalRecord]) -> None:
        """Applies records to the view; to a new one when the journal is read again from its beginning."""
        if self.reader.restarts != self.restarts:
            self.restarts, self.view = self.reader.restarts, RunView(self.run_dir.spec)
        for record in records:
            self.view.apply(in_own_language(record))


class RunBoard:
    """The list of runs, and the views of those that are followed. All methods run on the app's loop."""

    def __init__(self, app: App[None], workspace: Workspace) -> None:
        self.app = app
        self.workspace = workspace
        self.runs: list[RunEntry] = []
        """Newest first."""
        self._followed: OrderedDict[str, _Followed] = OrderedDict()
        self._known: dict[str, RunDir] = {}
        self._ended: dict[str, RunStatus] = {}
        """Status of runs that are over, which cannot change any more."""

    def start(self) -> None:
        """Starts the worker that reads the list."""
        self.app.run_worker(
            self._watch_list(), name="runs", group="runs", exclusive=True, exit_on_error=False
        )

    def entry(self, run_id: str) -> RunEntry | None:
        return next((run for run in self.runs if run.run_id == run_id), None)

    def view(self, run_id: str) -> RunView | None:
        """The view of a run; None until its history has been read once (`follow` starts that)."""
        followed = self._followed.get(run_id)
        return followed.view if followed is not None and followed.ready else None

    @property
    def live(self) -> list[RunEntry]:
        """Runs that are not over, newest first."""
        return [run for run in self.runs if not run.status.over]

    @property
    def current(self) -> RunEntry | None:
        """The run of the header: the newest one in progress, else the newest one in the queue."""
        live = self.live
        return next((run for run in live if run.status is not RunStatus.QUEUED), live[0] if live else None)

    def follow(self, run_id: str) -> None:
        """Reads the history of a run and follows it while it lives; posts RunUpdated."""
        entry = self.entry(run_id)
        if entry is None:
            return
        if run_id in self._followed:
            self._followed.move_to_end(run_id)
            return
        run_dir = entry.run_dir
        self._followed[run_id] = _Followed(run_dir, JournalReader(run_dir.events_path), RunView(run_dir.spec))
        self._forget_old()
        self.app.run_worker(
            self._follow(run_id), name=run_id, group=f"run:{run_id}", exclusive=True, exit_on_error=False
        )

    async def refresh(self) -> None:
        """Reads the runs folder now; posts RunsChanged when something differs."""
        try:
            runs = await asyncio.to_thread(self._list)
        except (OSError, H2QError):
            return
        if runs == self.runs:
            return
        self.runs = runs
        for run in self.live:
            self.follow(run.run_id)
        self.app.post_message(RunsChanged(runs))

    def _list(self) -> list[RunEntry]:
        """Called in a thread. Specs never change, so each is read once."""
        try:
            folders = [
                entry.name for entry in os.scandir(self.workspace.runs) if not entry.name.startswith(".")
            ]
        except OSError:
            return []
        if set(folders) - self._known.keys():
            self._known |= {run.run_id: run for run in list_runs(self.workspace)}
        entries = []
        for name in folders:
            run_dir = self._known.get(name)
            if run_dir is not None:
                spec = run_dir.spec
                status = self._status(run_dir)
                entries.append(RunEntry(name, spec.label, str(spec.kind), status, spec.created_at, run_dir))
        return sorted(entries, key=lambda entry: (entry.created_at, entry.run_id), reverse=True)

    def _status(self, run_dir: RunDir) -> RunStatus:
        known = self._ended.get(run_dir.run_id)
        alive = run_dir.alive()
        if known is not None and not alive:
            return known
        status = summarise(run_dir).status
        if not alive and status.over:
            self._ended[run_dir.run_id] = status
        return status

    async def _watch_list(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(LIST_S)

    async def _follow(self, run_id: str) -> None:
        followed = self._followed[run_id]
        while self._followed.get(run_id) is followed:
            # Checked before reading: the last records of a run are on disk before its lock is free.
            alive = followed.run_dir.alive()
            has_new = has_finished = False
            if followed.ready:
                while batch := await asyncio.to_thread(followed.reader.poll, BATCH):
                    # On the loop: widgets read the view there.
                    followed.apply(batch)
                    has_new = True
                    has_finished |= any(isinstance(record.event, Finished) for record in batch)
            else:
                await asyncio.to_thread(_read_history, followed)
                has_finished = followed.view.finished is not None
            first, followed.ready = not followed.ready, True
            if has_new or first or alive != followed.alive:
                followed.alive = alive
                self.app.post_message(RunUpdated(run_id, followed.view, alive=alive))
            if has_finished:
                await self.refresh()
            if not alive:
                await self.refresh()
                return
            await asyncio.sleep(TICK_S)

    def _forget_old(self) -> None:
        for run_id in list(self._followed):
            if len(self._followed) <= MAX_VIEWS:
                return
            if not self._followed[run_id].alive:
                del self._followed[run_id]


def _read_history(followed: _Followed) -> None:
    """Applies everything written so far, in a thread: the view is not shared yet."""
    while batch := followed.reader.poll(BATCH):
        followed.apply(batch)


def header_status(board: RunBoard) -> HeaderStatus | None:
    """The run in progress for the header; None when nothing runs."""
    entry = board.current
    if entry is None:
        return None
    view = board.view(entry.run_id)
    if view is None:
        return HeaderStatus(paused=entry.status is RunStatus.PAUSED)
    memory, work = view.memory, work_done(view, time.time())
    return HeaderStatus(
        paused=view.status is RunStatus.PAUSED,
        share=work.share,
        left="" if work.left_s is None else format_left(work.left_s),
        memory="" if memory is None else f"{memory.used_mb / 1024:.1f}/{memory.budget_mb / 1024:.1f}G",
    )
