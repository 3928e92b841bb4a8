"""Commands to a running run, over a Unix socket, each acknowledged: the side of who asks.

One line of JSON goes each way. Only the person may open the socket: it is 0600 in a folder that is 0700.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import time
from pathlib import Path

import msgspec

from engine.core.errors import ServiceUnreachable, UsageProblem
from engine.core.i18n import _
from engine.runs.rundir import RunDir

PATH_LIMIT = 103
"""Bytes of `sun_path` on macOS, without its closing zero."""
MAX_LINE = 64 << 10
NAMES = ("pause", "resume", "checkpoint", "stop", "set")
_RETRY_S = 0.1


class Request(msgspec.Struct, frozen=True):
    """What the asking side sends."""

    name: str
    value: str = ""


class Reply(msgspec.Struct, frozen=True):
    """What the run answers: whether it took the command, and a sentence."""

    accepted: bool
    text: str = ""


def socket_path(run: RunDir) -> Path:
    """Where the control socket of `run` lies. Raises UsageProblem when the system allows no path so long."""
    path = run.workspace.runtime / f"{run.run_id}.sock"
    if len(os.fsencode(path)) > PATH_LIMIT:
        raise UsageProblem(
            _("the path of the control socket is too long: {path}").format(path=path),
            hint="export TMPDIR=/tmp",
        )
    return path


def make_private_dir(folder: Path) -> None:
    """Makes `folder` 0700 and ours. Raises UsageProblem when somebody else made it, or it is a link."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UsageProblem(_("the folder for sockets belongs to somebody else: {path}").format(path=folder))
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    # Whoever sweeps dead folders beside it leaves a young one alone.
    os.utime(folder)


async def send(run: RunDir, name: str, value: str = "", timeout: float = 5.0) -> Reply:  # noqa: ASYNC109
    """Sends a command and waits for its acknowledgement.

    A run that is only just starting is waited for. Raises ServiceUnreachable when it does not live, or does
    not answer within `timeout` seconds; the command may then still be carried out.
    """
    return await asyncio.to_thread(send_sync, run, name, value, timeout)


def send_sync(run: RunDir, name: str, value: str = "", timeout: float = 5.0) -> Reply:
    """`send` for callers without an event loop."""
    if name not in NAMES:
        raise UsageProblem(_("a run does not know the command {name}").format(name=name))
    path, deadline = socket_path(run), time.monotonic() + timeout
    line = msgspec.json.encode(Request(name, value)) + b"\n"
    while True:
        if not run.alive():
            raise ServiceUnreachable(
                _("run {run} is not running").format(run=run.run_id), hint=f"h2q-tui runs show {run.run_id}"
            )
        try:
            return _ask(path, line, deadline)
        except (FileNotFoundError, ConnectionError) as problem:
            if time.monotonic() >= deadline:
                raise _silent(run) from problem
            time.sleep(_RETRY_S)
        except TimeoutError as problem:
            raise _silent(run) from problem


def _ask(path: Path, line: bytes, deadline: float) -> Reply:
    """One exchange. Raises ConnectionError when the other side closes without an answer, TimeoutError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(max(0.05, deadline - time.monotonic()))
        connection.connect(str(path))
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


def _silent(run: RunDir) -> ServiceUnreachable:
    return ServiceUnreachable(
        _("run {run} did not answer in time; it acts on the command as soon as it can").format(
            run=run.run_id
        ),
        hint=f"h2q-tui runs show {run.run_id}",
    )
