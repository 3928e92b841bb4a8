"""The web server in the process of a test, with a small program in place of the app."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from engine.core.paths import Workspace
from tui.web.address import WebAddress, bind
from tui.web.latest_data import LatestData
from tui.web.server import WebServer

PROGRAM = """
import json, os, sys
def packet(kind, data): os.write(1, kind + len(data).to_bytes(4, "big") + data)
os.write(1, b"__GANGLION__\\n")
packet(b"D", b"pid %d %s x %s" % (os.getpid(), os.environ["COLUMNS"].encode(), os.environ["ROWS"].encode()))
while head := sys.stdin.buffer.read(5):
    data = sys.stdin.buffer.read(int.from_bytes(head[1:], "big"))
    if head[:1] == b"M" and json.loads(data)["type"] == "quit" and "deaf" not in sys.argv:
        packet(b"M", b'{"type": "exit"}')
        break
    packet(b"D", b"got " + data)
if "deaf" in sys.argv:
    import time; time.sleep(600)
"""
"""Speaks as Textual's web driver does: says its pid and size, then repeats what it gets, until it is asked to leave."""


def program(*words: str) -> list[str]:
    """The command of PROGRAM; with "deaf" it does not leave when it is asked to."""
    return [sys.executable, "-c", PROGRAM, *words]


@asynccontextmanager
async def serving(
    folder: Path, argv: Sequence[str] | None = None, *, sessions: int = 4
) -> AsyncIterator[WebAddress]:
    """A server on any free port, until the block is left."""
    address = bind(0)
    server = WebServer(address, argv or program(), LatestData(Workspace(folder)), sessions=sessions)
    runner = web.AppRunner(await server._make_app(), access_log=None, shutdown_timeout=20)
    await runner.setup()
    await web.SockSite(runner, address.socket).start()
    try:
        yield address
    finally:
        await runner.cleanup()
