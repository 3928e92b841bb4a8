"""Commands and signals inside a run: received by other threads, handled by the run's code between steps."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

from engine.core.errors import Interrupted
from engine.core.i18n import _
from engine.runs.control import Reply, Request
from engine.runs.events import CommandHandled, Event, RunStatus, StatusChanged

_WAKE_S = 0.5
ACKNOWLEDGE_S = 2.0
"""Seconds after which the sender of a setting is answered before the step ends: less than a client waits."""


class RunCommand:
    """A command for the run's code: "checkpoint", "stop", or "set" with a value such as "lr=0.01"."""

    def __init__(self, name: str, value: str = "", emit: Callable[[Event], object] | None = None) -> None:
        self.name = name
        self.value = value
        self._emit = emit
        self._reply: Reply | None = None
        self._answered = threading.Event()

    def accept(self, text: str = "") -> None:
        """Reports success to the sender and the journal. Only the first answer counts."""
        self._answer(Reply(True, text))

    def refuse(self, text: str) -> None:
        """Reports to the sender and the journal why the command was refused."""
        self._answer(Reply(False, text))

    def wait(self, seconds: float) -> Reply | None:
        """The answer; None without one within `seconds`."""
        self._answered.wait(seconds)
        return self._reply

    def _answer(self, reply: Reply) -> None:
        if self._reply is not None:
            return
        self._reply = reply
        if self._emit is not None:
            self._emit(
                CommandHandled(name=self.name, value=self.value, accepted=reply.accepted, reply=reply.text)
            )
        self._answered.set()


class CommandQueue:
    """Commands between senders and the run's code. `handle` is called by threads of the control server, `signal`
    by a signal handler, everything else by the run's thread."""

    def __init__(self, emit: Callable[[Event], object]) -> None:
        self._emit = emit
        # SimpleQueue is reentrant: a signal handler may put while its thread gets. None wakes a paused run.
        self._queue: queue.SimpleQueue[RunCommand | None] = queue.SimpleQueue()
        self._yielded: list[RunCommand] = []
        self._pausing = False
        self.closed = False
        self._signalled = False
        self.idle_status = StatusChanged(status=RunStatus.RUNNING)
        """Status while the run is not paused: running, or queued and why."""
        self.stop_requested = False
        self._polled = False

    @property
    def pausing(self) -> bool:
        """Whether the next `poll` blocks until the user resumes the run."""
        return self._pausing and not self.stop_requested

    def signal(self) -> None:
        """SIGTERM or SIGINT: like `stop` without a sender. Writes nothing, because a write may be in progress."""
        self.stop_requested = self._signalled = True
        self._queue.put(None)

    def handle(self, request: Request) -> Reply:
        """Answers a command. Pause, resume and stop are answered immediately and take effect at the next step; a
        setting is acknowledged after `ACKNOWLEDGE_S` when the step takes longer."""
        command = RunCommand(request.name, request.value, self._emit)
        if self.closed:
            command.refuse(_("the run has ended"))
        elif request.name == "pause":
            self._pausing = True
            command.accept(_("pausing after this step"))
        elif request.name == "resume":
            self._pausing = False
            command.accept(_("resumed"))
        elif request.name == "stop":
            self.stop_requested = True
            command.accept(
                _("saving a checkpoint, then stopping") if self._polled else _("stopping as soon as possible")
            )
        elif not self._polled:
            command.refuse(_("nothing is training right now"))
        else:
            self._queue.put(command)
        self._queue.put(None)
        deadline = time.monotonic() + ACKNOWLEDGE_S
        while (reply := command.wait(_WAKE_S)) is None:
            if self.closed:
                command.refuse(_("the run has ended"))
            elif request.name == "set" and time.monotonic() >= deadline:
                # The journal records what became of it.
                return Reply(True, _("received; it is applied when this step ends"))
        return reply

    def poll(self) -> Iterator[RunCommand]:
        """Yields waiting commands, and "stop" at every call once it is requested.

        Blocks while the run is paused, and still yields commands. A command may be answered until the next call,
        which refuses unanswered ones.
        """
        self._polled = True
        self._refuse(self._yielded, _("this stage does not support the command"))
        if self._queue.empty() and not self._pausing and not self.stop_requested:
            return
        paused = False
        try:
            while not self.stop_requested:
                if self._pausing and not paused:
                    paused = True
                    self._emit(StatusChanged(status=RunStatus.PAUSED))
                try:
                    command = self._queue.get(timeout=_WAKE_S) if self._pausing else self._queue.get_nowait()
                except queue.Empty:
                    if self._pausing:
                        continue
                    return
                if command is not None:
                    self._yielded.append(command)
                    yield command
            self._record_signal()
            yield RunCommand("stop")
        finally:
            if paused:
                self._emit(self.idle_status)

    def check_stop(self) -> None:
        """For stages without steps: blocks while paused. Raises Interrupted when a stop is requested."""
        if self._pausing and not self.stop_requested:
            polled = self._polled
            for command in self.poll():
                command.refuse(_("nothing is training right now"))
            self._polled = polled
        if self.stop_requested:
            self._record_signal()
            raise Interrupted(_("stopped on request"))

    def new_stage(self) -> None:
        """Refuses commands for the stage that ended."""
        self._polled = False
        self._refuse(self._drain(), _("the stage for this command has ended"))

    def close(self) -> None:
        """Refuses waiting and later commands."""
        self.closed = True
        self._refuse(self._drain(), _("the run has ended"))

    def _record_signal(self) -> None:
        """Records a stop by signal once, from the thread that may write."""
        if self._signalled:
            self._signalled = False
            text = _("a signal stops the run; a second one ends it immediately")
            self._emit(CommandHandled(name="stop", accepted=True, reply=text))

    def _drain(self) -> list[RunCommand]:
        waiting, self._yielded = self._yielded, []
        while not self._queue.empty():
            command = self._queue.get()
            if command is not None:
                waiting.append(command)
        return waiting

    @staticmethod
    def _refuse(commands: list[RunCommand], text: str) -> None:
        for command in commands:
            command.refuse(text)
        commands.clear()
