"""The built-in server for tests: in a thread of this process, over an inference service of its own."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.core.paths import Workspace
from engine.http.gate import AccessRules
from engine.inference.client import InferenceClient
from engine.serving.server import make_server


@contextmanager
def short_workspace() -> Iterator[Workspace]:
    """A workspace whose path is short enough for its sockets; its inference service ends with it."""
    root = Path(tempfile.mkdtemp(prefix="h2q-srv-"))
    ws = Workspace(root)
    ws.models.mkdir(parents=True)
    try:
        yield ws
    finally:
        asyncio.run(InferenceClient(ws).shutdown())
        shutil.rmtree(ws.runtime, ignore_errors=True)
        shutil.rmtree(root)


@contextmanager
def serving(ws: Workspace, rules: AccessRules | None = None) -> Iterator[str]:
    """The URL of a server of `ws`."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen(128)
        server = make_server(ws, rules or AccessRules())
        thread = threading.Thread(target=server.run, args=[[bound]], daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
