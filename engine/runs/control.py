"""Commands to a running run over its Unix socket, with acknowledgement: client and server.

One line of JSON goes each way. Only the user may open the socket: mode 0600 in a folder with mode 0700.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.core.errors import ServiceUnreachable, UsageProblem
from engine.core.i18n import _
from engine.core.private_socket import check_peer, check_private
from engine.runs import runtime_dirs
from engine.runs.rundir import RunDir

PATH_LIMIT = 103
"""Bytes of `sun_path` on macOS, without the terminating zero."""
MAX_LINE = 64 << 10
COMMANDS = ("pause", "resume", "checkpoint", "stop", "set")
_RETRY_S = 0.1
_IDLE_S = 30.0
_MAX_CONNECTIONS = 16


class Request(msgspec.Struct, frozen=True):
    """A command from the client."""

    name: str
    value: str = ""


class Reply(msgspec.Struct, frozen=True):
    """The answer of the run: whether it accepted the command, and a sentence."""

    accepted: bool
    text: str = ""


def socket_path(run: RunDir) -> Path:
    """Path of the control socket of `run`. Raises UsageProblem when it exceeds the system's limit."""
    path = run.workspace.runtime / f"{run.run_id}.sock"
    if len(os.fsencode(path)) > PATH_LIMIT:
        raise UsageProblem(
            _("the path of the control socket is too long: {path}").format(path=path),
            hint="export TMPDIR=/tmp",
        )
    return path


async def send(run: RunDir, name: str, value: str = "", timeout: float = 5.0) -> Reply:  # noqa: ASYNC109
    """Sends a command and waits for its acknowledgement.

    Waits for a run that is just starting. Raises ServiceUnreachable when it is not alive, or does not answer within
    `timeout` seconds; it may still execute the command then.
    """
    return await asyncio.to_thread(send_sync, run, name, value, timeout)


def send_sync(run: RunDir, name: str, value: str = "", timeout: float = 5.0) -> Reply:
    """`send` for callers without an event loop."""
    if name not in COMMANDS:
        raise UsageProblem(_("a run has no command {name}").format(name=name))
    path, deadline = socket_path(run), time.monotonic() + timeout
    line = msgspec.json.encode(Request(name, value)) + b"\n"
    while True:
        if not run.alive():
            raise ServiceUnreachable(
                _("run {run} is not running").format(run=run.run_id), hint=f"h2q-tui runs show {run.run_id}"
            )
        try:
            return _exchange(path, line, deadline)
        except (FileNotFoundError, ConnectionError) as problem:
            if time.monotonic() >= deadline:
                raise _no_answer(run) from problem
            time.sleep(_RETRY_S)
        except TimeoutError as problem:
            raise _no_answer(run) from problem


def _exchange(path: Path, line: bytes, deadline: float) -> Reply:
    """Sends a line and returns the answer. Raises TimeoutError, and ConnectionError on a close without an answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(max(0.05, deadline - time.monotonic()))
        check_private(path)
        connection.connect(str(path))
        check_peer(connection)
        connection.sendall(line)
        answer = b""
        while not answer.endswith(b"\n"):
            connection.settimeout(max(0.05, deadline - time.monotonic()))
            data = connection.recv(MAX_LINE)
            if not data or len(answer) > MAX_LINE:
                raise ConnectionResetError
            answer += data
    try:
        return msgspec.json.decode(answer, type=Reply)
    except msgspec.DecodeError as problem:
        raise ConnectionResetError from problem


def _no_answer(run: RunDir) -> ServiceUnreachable:
    return ServiceUnreachable(
        _("run {run} did not answer in time; it handles the command as soon as possible").format(
            run=run.run_id
        ),
        hint=f"h2q-tui runs show {run.run_id}",
    )


class ControlServer:
    """Serves the run's socket until it is closed. `handle` may block: each connection has a thread."""

    def __init__(self, run: RunDir, handle: Callable[[Request], Reply]) -> None:
        """Opens the socket. The caller holds the run's lock, so an existing socket is stale.

        Raises OSError, UsageProblem or ServiceUnreachable when the socket cannot be opened; the run then reacts to signals only.
        """
        self._handle = handle
        self._path = socket_path(run)
        runtime_dirs.make_socket_dir(self._path.parent)
        runtime_dirs.remove_stale_dirs(self._path.parent)
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(str(self._path))
            self._path.chmod(0o600)
            self._socket.listen(_MAX_CONNECTIONS)
        except OSError:
            self._socket.close()
            raise
        self._closing = False
        self._slots = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Removes the socket and drops waiting connections."""
        self._closing = True
        # A connection wakes `accept` on every system; closing the socket does not.
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
            if not self._slots.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(
                target=self._answer, args=(connection,), name="control answer", daemon=True
            ).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError, ServiceUnreachable):
                check_peer(connection)
                connection.settimeout(_IDLE_S)
                line = b""
                while not line.endswith(b"\n"):
                    data = connection.recv(MAX_LINE)
                    if not data or len(line) > MAX_LINE:
                        return
                    line += data
                connection.sendall(msgspec.json.encode(self._reply(line)) + b"\n")
        finally:
            self._slots.release()

    def _reply(self, line: bytes) -> Reply:
        try:
            request = msgspec.json.decode(line, type=Request)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return Reply(False, _("the command cannot be decoded"))
        if request.name not in COMMANDS:
            return Reply(False, _("a run has no command {name}").format(name=request.name))
        try:
            return self._handle(request)
        except UsageProblem as problem:
            return Reply(False, str(problem))
