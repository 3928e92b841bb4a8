"""Commands and signals inside a run: taken in by other threads, handled by the code of the kind between steps."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from engine.core.errors import Interrupted
from engine.core.i18n import _
from engine.runs.control import Reply, Request
from engine.runs.events import CommandHandled, Event, RunStatus, StatusChanged

_WAKE_S = 0.5


class RunCommand:
    """One command for the code of the kind: "checkpoint", "stop", or "set" with a value such as "lr=0.01"."""

    def __init__(self, name: str, value: str = "", emit: Callable[[Event], object] | None = None) -> None:
        self.name = name
        self.value = value
        self._emit = emit
        self._reply: Reply | None = None
        self._answered = threading.Event()

    def accept(self, text: str = "") -> None:
        """Tells the sender, and the journal, that it was done. Only the first answer counts."""
        self._answer(Reply(True, text))

    def refuse(self, text: str) -> None:
        """Tells the sender, and the journal, why it was not done."""
        self._answer(Reply(False, text))

    def wait(self, seconds: float) -> Reply | None:
        """The answer, None when there is none within `seconds`."""
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
    """The queue between who asks and who trains. `handle` is called by the control server's threads, `signal`
    by a signal handler, everything else by the thread of the kind."""

    def __init__(self, emit: Callable[[Event], object]) -> None:
        self._emit = emit
        # SimpleQueue is the one queue that a signal handler may put into while its thread is getting.
        # None wakes a paused run without a command.
        self._queue: queue.SimpleQueue[RunCommand | None] = queue.SimpleQueue()
        self._yielded: list[RunCommand] = []
        self._pausing = False
        self.closed = False
        self._signalled = False
        self.resting = StatusChanged(status=RunStatus.RUNNING)
        """What the run is when it is not paused: running, or queued and why."""
        self.stop_requested = False
        self._polled = False

    @property
    def pausing(self) -> bool:
        """Whether the next `poll` blocks until the person lets the run go on."""
        return self._pausing and not self.stop_requested

    def signal(self) -> None:
        """SIGTERM or SIGINT: the same as `stop`, without a sender. Writes nothing: a write may be under way."""
        self.stop_requested = self._signalled = True
        self._queue.put(None)

    def handle(self, request: Request) -> Reply:
        """Answers a command. Pause, resume and stop are answered at once and take effect at the next step."""
        command = RunCommand(request.name, request.value, self._emit)
        if self.closed:
            command.refuse(_("the run is over"))
        elif request.name == "pause":
            self._pausing = True
            command.accept(_("pauses after this step"))
        elif request.name == "resume":
            self._pausing = False
            command.accept(_("goes on"))
        elif request.name == "stop":
            self.stop_requested = True
            command.accept(
                _("writes a checkpoint and stops") if self._polled else _("stops as soon as it can")
            )
        elif not self._polled:
            command.refuse(_("nothing is being trained at this moment"))
        else:
            self._queue.put(command)
        self._queue.put(None)
        while (reply := command.wait(_WAKE_S)) is None:
            if self.closed:
                command.refuse(_("the run is over"))
        return reply

    def poll(self) -> Iterator[RunCommand]:
        """The commands that have come, and "stop" at every call once that is asked for.

        While the run is paused this blocks, and still yields them. A command may be answered until the next
        call, which refuses what was not.
        """
        self._polled = True
        self._refuse(self._yielded, _("this stage does not know the command"))
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
            self._own_up_to_signal()
            yield RunCommand("stop")
        finally:
            if paused:
                self._emit(self.resting)

    def check_stop(self) -> None:
        """For stages without steps: waits while paused. Raises Interrupted when the run is to stop."""
        if self._pausing and not self.stop_requested:
            polled = self._polled
            for command in self.poll():
                command.refuse(_("nothing is being trained at this moment"))
            self._polled = polled
        if self.stop_requested:
            self._own_up_to_signal()
            raise Interrupted(_("stopped as asked"))

    def new_stage(self) -> None:
        """Commands for the stage that ended mean nothing in the next one."""
        self._polled = False
        self._refuse(self._drain(), _("the stage that could do this is over"))

    def close(self) -> None:
        """Refuses what waits and what still comes."""
        self.closed = True
        self._refuse(self._drain(), _("the run is over"))

    def _own_up_to_signal(self) -> None:
        """Journals a stop that came as a signal, once, from the thread that may write."""
        if self._signalled:
            self._signalled = False
            text = _("a signal asked the run to stop; a second one ends it at once")
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
