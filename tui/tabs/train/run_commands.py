"""Commands to a run: pause, checkpoint, stop, kill, learning rate, resume."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from engine.core.errors import H2QError, error_text
from engine.core.i18n import _, colon, language
from engine.runs import control
from engine.runs.events import RunStatus
from engine.runs.kinds import RunKind
from engine.runs.resume import can_resume, resume_spec
from tui.host.launch import launch_uninterrupted
from tui.host.run_follower import RunEntry
from tui.screens.ask import Confirm, LinePrompt

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

NEEDS_LIVE_RUN = frozenset({"checkpoint", "stop", "kill", "rate"})
"""Verbs that need a run that is not over."""

StartWorker = Callable[[str, Coroutine[Any, Any, None]], object]
"""Starts a worker of a group."""


class RunCommands:
    """Sends commands to runs and reports the answers; the questions are asked in workers."""

    def __init__(self, host: AppHost, start_worker: StartWorker) -> None:
        self.host = host
        self._start_worker = start_worker
        self._resumed: set[str] = set()
        """Runs that were resumed since the app was opened."""

    def toggle_pause(self, entry: RunEntry) -> None:
        """Pauses a run, or resumes it: also one that has died or was stopped, in a new run."""
        if entry.status.over:
            self.resume(entry)
        else:
            self._send(entry, "resume" if self.resumes(entry) else "pause")

    def resumes(self, entry: RunEntry | None) -> bool:
        """Whether a run would be resumed by the key that otherwise pauses it."""
        if entry is None:
            return False
        view = self.host.board.view(entry.run_id)
        paused = (view.status if view is not None else entry.status) is RunStatus.PAUSED
        return paused or self.can_resume(entry)

    def checkpoint(self, entry: RunEntry) -> None:
        self._send(entry, "checkpoint")

    def can_resume(self, entry: RunEntry | None) -> bool:
        """Whether it is a training that ended before it was done, and was not resumed from here yet."""
        if entry is None or entry.run_id in self._resumed:
            return False
        return can_resume(RunKind(entry.kind), entry.status)

    def resume(self, entry: RunEntry) -> None:
        if self.can_resume(entry):
            self._resumed.add(entry.run_id)  # a second press would queue a second run behind the first
            self.host.refresh_footer()
            self._start_worker("train:resume", self._resume(entry))

    async def _resume(self, entry: RunEntry) -> None:
        """The launcher forks and waits for the lock: in a thread, so that the screen stays responsive."""
        try:
            spec = await asyncio.to_thread(resume_spec, entry.run_dir, language())
            run = await asyncio.to_thread(launch_uninterrupted, self.host.workspace, spec)
        except (H2QError, OSError) as problem:
            self._resumed.discard(entry.run_id)
            self.host.show_message(error_text(problem), "error")
            return
        text = _("run {run} resumes {earlier}").format(run=run.run_id[:9], earlier=entry.run_id[:9])
        self.host.show_message(text, "success")
        await self.host.board.refresh()

    def ask_stop(self, entry: RunEntry) -> None:
        self._start_worker("ask", self._ask_stop(entry))

    async def _ask_stop(self, entry: RunEntry) -> None:
        question = _("Write a checkpoint and stop run {run}?").format(run=entry.run_id[:9])
        if await self.host.push_screen_wait(Confirm(question)):
            self._send(entry, "stop")

    def ask_kill(self, entry: RunEntry) -> None:
        view = self.host.board.view(entry.run_id)
        if view is not None and view.pid:
            self._start_worker("ask", self._ask_kill(entry, view.pid))

    async def _ask_kill(self, entry: RunEntry, pid: int) -> None:
        short = entry.run_id[:9]
        question = _("End run {run} immediately, without a checkpoint? Type its id").format(run=short)
        typed = await self.host.push_screen_wait(
            LinePrompt(question, check=lambda text: "" if text in (short, entry.run_id) else _("not its id"))
        )
        if typed is None or not entry.run_dir.alive():
            return
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError as problem:
            text = _("run {run} cannot be ended: {why}").format(run=short, why=problem.strerror or "")
            self.host.show_message(text, "error")
        else:
            text = _("run {run} was ended; its checkpoints stay").format(run=short)
            self.host.show_message(text, "warning")

    def ask_learning_rate(self, entry: RunEntry) -> None:
        view = self.host.board.view(entry.run_id)
        if view is not None:
            self._start_worker("ask", self._ask_learning_rate(entry, view.peak_lr, view.lr))

    async def _ask_learning_rate(self, entry: RunEntry, peak: float | None, lr: float | None) -> None:
        """Asks for the peak rate, which the schedule scales; what is typed replaces the present one."""
        old = "" if peak is None else f"{peak:.4g}"
        question = _("Peak learning rate (the schedule is at {lr})").format(
            lr="–" if lr is None else f"{lr:.3g}"
        )
        prompt = LinePrompt(question, old, check=learning_rate_problem, select=True)
        typed = await self.host.push_screen_wait(prompt)
        if typed and typed != old:
            self._send(entry, "set", f"lr={typed}")

    def _send(self, entry: RunEntry, name: str, value: str = "") -> None:
        self._start_worker("command", self._send_command(entry, name, value))

    async def _send_command(self, entry: RunEntry, name: str, value: str) -> None:
        try:
            reply = await control.send(entry.run_dir, name, value)
        except H2QError as error:
            self.host.show_message(str(error), "error")
            return
        text = reply.text or (_("accepted") if reply.accepted else _("refused"))
        text = f"{entry.run_id[:9]} {colon(f'{name} {value}'.strip(), text)}"
        self.host.show_message(text, "success" if reply.accepted else "warning")
        await self.host.board.refresh()


def learning_rate_problem(text: str) -> str:
    """Why `text` is no learning rate; "" when it is one."""
    try:
        rate = float(text)
    except ValueError:
        return _("a number, such as 0.01")
    return "" if 0 < rate <= 10 else _("above 0 and at most 10")
