"""The hive that the app serves: a process of its own that outlives the app, found again by the lock that it holds.

Every function blocks: call it in a thread.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import Busy, RunFailed
from engine.core.files import make_dirs, write_json
from engine.core.i18n import _, language
from engine.core.paths import Workspace
from engine.hive.protocol import DEFAULT_PORT
from engine.runs import lock
from engine.runs.own_process import engine_environment
from tui.host.shutdown import uninterruptible

HOST = "127.0.0.1"
START_S, END_S = 30.0, 10.0
_POLL_S = 0.1
_PORTS = 20


@dataclass(frozen=True)
class ServedHive:
    """A server that runs."""

    pid: int
    url: str


def served_here(ws: Workspace) -> ServedHive | None:
    """The hive that the app started on this workspace; None when it does not run."""
    if not lock.is_locked(_lock_file(ws)):
        return None
    try:
        known = json.loads(_record(ws).read_text(encoding="utf-8"))
        return ServedHive(int(known["pid"]), str(known["url"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def free_port() -> int:
    """The port of a hive, or the next free one."""
    for port in range(DEFAULT_PORT, DEFAULT_PORT + _PORTS):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    return 0


def serve_url(port: int) -> str:
    return f"http://{HOST}:{port}"


def start_hive(ws: Workspace, port: int) -> ServedHive:
    """Starts `h2q-tui hive serve` and returns when it accepts connections.

    Raises Busy when one runs, RunFailed with its last line when it ends, OSError.
    """
    with uninterruptible():
        make_dirs(_lock_file(ws).parent)
        fd = lock.acquire(_lock_file(ws))
        if fd is None:
            raise Busy(_("a hive is served from this workspace already"))
        log = _log(ws)
        try:
            # Whoever finds the lock taken reads whom to end there: never the number of an earlier server.
            _record(ws).unlink(missing_ok=True)
            with log.open("wb") as out:
                process = subprocess.Popen(
                    [
                        sys.executable, "-P", "-m", "tui.cli.main", "--lang", language(), "hive", "serve",
                        "--host", HOST, "--port", str(port), "--data-dir", str(ws.root),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                    pass_fds=(fd,),
                    env=engine_environment(),
                )  # fmt: skip
            try:
                write_json(_record(ws), {"pid": process.pid, "url": serve_url(port)}, mode=0o600)
            except OSError:
                process.terminate()  # without its record nobody could end it here
                raise
        finally:
            os.close(fd)
        _wait_until_listening(process, port, log)
        return ServedHive(process.pid, serve_url(port))


def stop_hive(ws: Workspace) -> None:
    """Ends the hive of this workspace and waits for it. Raises RunFailed when it does not end."""
    served = served_here(ws)
    if served is None:
        return
    with uninterruptible():
        with suppress(ProcessLookupError):
            os.kill(served.pid, signal.SIGTERM)
        deadline = time.monotonic() + END_S
        while lock.is_locked(_lock_file(ws)):
            with suppress(ChildProcessError):
                os.waitpid(served.pid, os.WNOHANG)
            if time.monotonic() > deadline:
                raise RunFailed(_("the hive does not stop (process {pid})").format(pid=served.pid))
            time.sleep(_POLL_S)


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            if process.poll() is None and probe.connect_ex((HOST, port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = lines[-1] if lines else str(process.returncode)
            raise RunFailed(_("the hive did not start: {reason}").format(reason=reason))
        time.sleep(_POLL_S)


def _lock_file(ws: Workspace) -> Path:
    return ws.root / "hive" / ".serve.lock"


def _record(ws: Workspace) -> Path:
    return ws.root / "hive" / ".serve.json"


def _log(ws: Workspace) -> Path:
    return ws.root / "hive" / ".serve.log"
