"""Steering a run from the Train tab: pause, checkpoint, stop, kill and the learning rate."""

from __future__ import annotations

import os
import signal

from textual import work

from engine.core.errors import H2QError, error_text
from engine.core.i18n import _, colon, language
from engine.core.paths import Workspace
from engine.runs import control
from engine.runs.events import RunStatus
from engine.runs.kinds import RunKind
from engine.runs.resume import can_resume, resume_spec
from tui.app.run_follower import RunEntry
from tui.app.shutdown import launch_uninterrupted
from tui.screens.ask import Confirm, LinePrompt
from tui.tabs.base import Tab
from tui.widgets.virtual_list import VirtualList

NEEDS_RUN = frozenset({"pause", "checkpoint", "stop", "kill", "rate"})
"""Verbs that need a run that is not over."""


class Steering(Tab):
    """The half of the Train tab that sends commands."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self._gone_on: set[str] = set()
        """Runs that were continued since the app was opened."""

    @property
    def entry(self) -> RunEntry | None:
        """The run under the cursor."""
        return self.h2q.board.entry(self.query_one("#runs", VirtualList).cursor_id)

    async def action_pause(self) -> None:
        entry = self.entry
        if entry is None:
            return
        view = self.h2q.board.view(entry.run_id)
        paused = (view.status if view is not None else entry.status) is RunStatus.PAUSED
        self._command(entry, "resume" if paused else "pause")

    def may_go_on(self) -> bool:
        """Whether the run under the cursor is a training that ended before it was done, not yet continued from here."""
        entry = self.entry
        if entry is None or entry.run_id in self._gone_on:
            return False
        return can_resume(RunKind(entry.kind), entry.status)

    def action_resume(self) -> None:
        entry = self.entry
        if entry is not None and self.may_go_on():
            self._gone_on.add(entry.run_id)  # a second press would queue a second run behind the first
            self.h2q.refresh_footer()
            self._go_on(entry)

    @work(thread=True, group="train:resume", exit_on_error=False)
    def _go_on(self, entry: RunEntry) -> None:
        """The launcher forks and waits for the lock: a thread, so that the screen stays alive."""
        try:
            run = launch_uninterrupted(self.workspace, resume_spec(entry.run_dir, language()))
        except (H2QError, OSError) as problem:
            self._gone_on.discard(entry.run_id)
            self.app.call_from_thread(self.show_message, error_text(problem), "error")
            return
        told = _("run {run} goes on with {earlier}").format(run=run.run_id[:9], earlier=entry.run_id[:9])
        self.app.call_from_thread(self._gone_on_with, told)

    def _gone_on_with(self, told: str) -> None:
        self.show_message(told, "success")
        self.run_worker(self.h2q.board.refresh(), group="runs:look", exclusive=True)

    def action_checkpoint(self) -> None:
        if self.entry is not None:
            self._command(self.entry, "checkpoint")

    @work(group="ask", exclusive=True)
    async def action_stop(self) -> None:
        entry = self.entry
        if entry is None:
            return
        question = _("Checkpoint and stop run {run}?").format(run=entry.run_id[:9])
        if await self.app.push_screen_wait(Confirm(question)):
            self._command(entry, "stop")

    @work(group="ask", exclusive=True)
    async def action_kill(self) -> None:
        entry = self.entry
        view = self.h2q.board.view(entry.run_id) if entry is not None else None
        if entry is None or view is None or not view.pid:
            return
        short = entry.run_id[:9]
        question = _("End run {run} at once, without a checkpoint? Type its id").format(run=short)
        typed = await self.app.push_screen_wait(
            LinePrompt(question, check=lambda text: "" if text in (short, entry.run_id) else _("not its id"))
        )
        if typed is None or not entry.run_dir.alive():
            return
        try:
            os.kill(view.pid, signal.SIGKILL)
        except OSError as problem:
            self.show_message(
                _("run {run} cannot be ended: {why}").format(run=short, why=problem.strerror or ""), "error"
            )
        else:
            self.show_message(_("run {run} was ended; its checkpoints stay").format(run=short), "warning")

    @work(group="ask", exclusive=True)
    async def action_rate(self) -> None:
        entry = self.entry
        view = self.h2q.board.view(entry.run_id) if entry is not None else None
        if entry is None or view is None:
            return
        now = "" if view.lr is None else f"{view.lr:.4g}"
        typed = await self.app.push_screen_wait(
            LinePrompt(_("Learning rate (now {lr})").format(lr=now or "–"), now, check=_rate_problem)
        )
        if typed:
            self._command(entry, "set", f"lr={typed}")

    @work(group="command")
    async def _command(self, entry: RunEntry, name: str, value: str = "") -> None:
        """Sends a command to a run and says what it answered."""
        try:
            reply = await control.send(entry.run_dir, name, value)
        except H2QError as error:
            self.show_message(str(error), "error")
            return
        words = f"{name} {value}".strip()
        text = reply.text or (_("accepted") if reply.accepted else _("refused"))
        self.show_message(
            f"{entry.run_id[:9]} {colon(words, text)}", "success" if reply.accepted else "warning"
        )
        await self.h2q.board.refresh()


def _rate_problem(text: str) -> str:
    try:
        rate = float(text)
    except ValueError:
        return _("a number, such as 0.01")
    return "" if 0 < rate < 10 else _("above 0 and below 10")
