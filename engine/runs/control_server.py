"""Commands to a running run: the side of the run, in a thread of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

import msgspec

from engine.core.errors import UsageProblem
from engine.core.i18n import _
from engine.runs import runtime_dirs
from engine.runs.control import MAX_LINE, NAMES, Reply, Request, make_private_dir, socket_path
from engine.runs.rundir import RunDir

_IDLE_S = 30.0
_MOST = 16


class ControlServer:
    """Answers on the run's socket until it is closed. `handle` may take long: each asker has a thread."""

    def __init__(self, run: RunDir, handle: Callable[[Request], Reply]) -> None:
        """Takes over the socket; the caller holds the run's lock, so one that is there is stale.

        Raises OSError or UsageProblem when there can be no socket; the run is then steered by signals only.
        """
        self._handle = handle
        self._path = socket_path(run)
        make_private_dir(self._path.parent)
        runtime_dirs.remove_stale_dirs(self._path.parent)
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(str(self._path))
            self._path.chmod(0o600)
            self._socket.listen(_MOST)
        except OSError:
            self._socket.close()
            raise
        self._closing = False
        self._room = threading.BoundedSemaphore(_MOST)
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Removes the socket; who still waits for an answer is cut off."""
        self._closing = True
        # A connection of our own wakes `accept` on every system; closing the socket under it does not.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wake:
            wake.connect(str(self._path))
        self._thread.join(timeout=1.0)
        self._path.unlink(missing_ok=True)
        self._socket.close()
        runtime_dirs.remove_if_empty(self._path.parent)

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self._socket.accept()
            except OSError:
                return
            if self._closing:
                connection.close()
                return
            if not self._room.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(
                target=self._answer, args=(connection,), name="control answer", daemon=True
            ).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_IDLE_S)
                line = b""
                while not line.endswith(b"\n"):
                    data = connection.recv(MAX_LINE)
                    if not data or len(line) > MAX_LINE:
                        return
                    line += data
                connection.sendall(msgspec.json.encode(self._reply(line)) + b"\n")
        finally:
            self._room.release()

    def _reply(self, line: bytes) -> Reply:
        try:
            request = msgspec.json.decode(line, type=Request)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return Reply(False, _("the command cannot be read"))
        if request.name not in NAMES:
            return Reply(False, _("a run does not know the command {name}").format(name=request.name))
        try:
            return self._handle(request)
        except UsageProblem as problem:
            return Reply(False, str(problem))
