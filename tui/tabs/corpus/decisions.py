"""Decisions from the key to the database: shown immediately, written by a thread, undone and redone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from textual.content import Content
from textual.message import Message

from engine.core.i18n import n_
from engine.corpus.review.store import ReviewStore
from engine.corpus.review.types import ReviewDecision, ReviewItem
from tui.tabs.corpus.decision_text import DecisionStep
from tui.tabs.corpus.decision_writer import DecisionQueue, WriteJob
from tui.tabs.corpus.reader import CorpusReader
from tui.terminal.text import safe

UNDO_TIMEOUT_S = 1.0
"""Seconds that a key waits until an undo or redo is on the screen."""

Write = Callable[[ReviewStore], Sequence[ReviewDecision]]


class FollowUp(NamedTuple):
    """What happens on the screen after a write: the cursor goes to the conversation that changed."""

    done: asyncio.Event
    """Set when the cursor is there."""
    stay: bool
    """The user has pressed other keys meanwhile: the cursor stays where it is."""
    step: DecisionStep
    """DONE for a new decision, such as an edit."""


class _Pending(NamedTuple):
    done: asyncio.Event | None
    actions: int
    step: DecisionStep = DecisionStep.DONE


class DecisionRecorder:
    """Applies decisions to the rows in memory and queues their writes.

    The screen does not wait for the database: a decision over 50,000 conversations is written in seconds, and a
    database that another program holds is retried. `post` gets the messages below; it is called from the writer's
    thread too, as `post_message` allows.
    """

    class Written(Message):
        """A job is in the database."""

        def __init__(self, job: WriteJob, decisions: Sequence[ReviewDecision]) -> None:
            super().__init__()
            self.job = job
            self.decisions = decisions

    class Refused(Message):
        """A job can never be written, because of `reason`."""

        def __init__(self, job: WriteJob, reason: str) -> None:
            super().__init__()
            self.job = job
            self.reason = reason

    class QueueChanged(Message):
        """A job was added, or a problem appeared or went away."""

    def __init__(self, path: Path, reader: CorpusReader, post: Callable[[Message], object]) -> None:
        self._reader = reader
        self._post = post
        self.queue = DecisionQueue(
            path,
            lambda: self._post(self.QueueChanged()),
            lambda job, reason: self._post(self.Refused(job, reason)),
        )
        self._actions = 0
        """Actions of the user so far: a late write moves no cursor that has gone on."""
        self._pending: dict[WriteJob, _Pending] = {}

    def record(self, ids: Sequence[str], write: Write, **fields: object) -> list[ReviewItem]:
        """Applies `fields` to rows immediately and queues the write; returns the rows that changed."""
        self._actions += 1
        job = self._job(write, len(ids))
        changed = self._reader.apply_optimistic(job, ids, **fields)
        self._send(job)
        return changed

    def submit(self, write: Write, count: int) -> None:
        """Queues a write that changes no row before it is done."""
        self._send(self._job(write, count))

    def submit_and_follow(self, write: Write, step: DecisionStep = DecisionStep.DONE) -> asyncio.Event:
        """Queues a write; the cursor goes to what it changed. The event is set when it is there."""
        self._actions += 1
        done = asyncio.Event()
        self._send(self._job(write, 1, done, step))
        return done

    async def undo(self) -> None:
        await self._step(ReviewStore.undo, DecisionStep.UNDONE)

    async def redo(self) -> None:
        await self._step(ReviewStore.redo, DecisionStep.REDONE)

    async def _step(self, write: Write, step: DecisionStep) -> None:
        """The next key waits until the cursor stands on what changed, unless that takes long: it is meant for that
        conversation."""
        done = self.submit_and_follow(write, step)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), UNDO_TIMEOUT_S)

    def _job(
        self,
        write: Write,
        count: int,
        done: asyncio.Event | None = None,
        step: DecisionStep = DecisionStep.DONE,
    ) -> WriteJob:
        job = WriteJob(write, lambda decisions: self._post(self.Written(job, decisions)), count)
        self._pending[job] = _Pending(done, self._actions, step)
        return job

    def _send(self, job: WriteJob) -> None:
        self.queue.put(job)
        self._post(self.QueueChanged())

    def confirm(self, job: WriteJob) -> FollowUp | None:
        """A job is written or refused: its optimistic rows are dropped. Returns what follows on the screen."""
        self._reader.confirm(job)
        pending = self._pending.pop(job, None)
        if pending is None or pending.done is None:
            return None
        return FollowUp(pending.done, stay=pending.actions != self._actions, step=pending.step)

    def unsaved_question(self) -> str:
        """The question before leaving when decisions cannot be written, else ""."""
        if not self.queue.problem or not self.queue.unwritten:
            return ""
        return n_(
            "{n} decision is not written ({why}). Quit and lose it?",
            "{n} decisions are not written ({why}). Quit and lose them?",
            self.queue.unwritten,
        ).format(n=self.queue.unwritten, why=self.queue.problem)

    def notice(self) -> Content | None:
        """Decisions that are not in the database yet, when that takes longer than it should."""
        if not self.queue.late:
            return None
        count = self.queue.unwritten
        if self.queue.problem:
            text = n_(
                "{n} decision is not written yet ({why}); it is kept and retried",
                "{n} decisions are not written yet ({why}); they are kept and retried",
                count,
            )
            return safe(" " + text.format(n=count, why=self.queue.problem), "$text-error")
        text = n_("{n} decision is being written", "{n} decisions are being written", count)
        return safe(" " + text.format(n=count), "$text-warning")
