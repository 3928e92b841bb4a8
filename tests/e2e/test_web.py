"""`h2q-tui web` as a program: the real app through a WebSocket, and its end with every end of the server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pyte
import pytest

from engine.core.paths import Workspace
from engine.workspace.open import open_workspace
from tests.tui.terminal import CLEAN, ROOT

SIZE = (100, 30)
SECONDS = 60.0


@contextmanager
def web_server(workspace: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The program, and what it prints with `--json`."""
    environment = {name: value for name, value in os.environ.items() if name not in CLEAN}
    words = ["--lang", "en", "--data-dir", str(workspace), "--json", "web", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tui.cli.main", *words, *options],
        cwd=ROOT,
        env=environment | {"PYTHONASYNCIODEBUG": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        while not lines or lines[-1] != "}\n":
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            lines.append(line)
        yield process, json.loads("".join(lines))
    finally:
        process.kill()
        process.communicate()


async def screen_until(websocket: aiohttp.ClientWebSocketResponse[Any], text: str) -> str:
    """What is drawn once `text` is on it."""
    screen = pyte.Screen(*SIZE)
    stream = pyte.ByteStream(screen)
    async with asyncio.timeout(SECONDS):
        async for message in websocket:
            stream.feed(message.data)
            shown = "\n".join(screen.display)
            if text in shown:
                return shown
    raise AssertionError(f"the session ended; it showed:\n{shown}")


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
async def test_the_app_of_a_browser_ends_with_the_server(tmp_path: Path, way: signal.Signals) -> None:
    folder = tmp_path / 'it\'s "$HOME" `x`; 你 好'
    ws = open_workspace(Workspace(folder))
    (ws.config / "h2q.toml").write_text("first_start_done = true\n", encoding="utf-8")
    with web_server(folder, "--read-only") as (server, said):
        base, _query, token = said["url"].partition("/?token=")
        assert said == {"url": said["url"], "port": said["port"], "read_only": True, "sessions": 4}
        async with aiohttp.ClientSession() as client:
            url = f"{base}/ws/{token}?width={SIZE[0]}&height={SIZE[1]}"
            websocket = await client.ws_connect(url, headers={"Origin": base})
            assert "Train" in await screen_until(websocket, "No run yet")
            (app,) = psutil.Process(server.pid).children()
            assert token not in " ".join(app.cmdline()) + str(app.environ())
            await websocket.send_json(["stdin", "n"])
            await screen_until(websocket, "read-only: new")
            server.send_signal(way)
            await asyncio.to_thread(server.wait, SECONDS)
            await asyncio.to_thread(psutil.wait_procs, [app], SECONDS)
            assert not app.is_running()
        out, err = server.communicate()
        assert token not in out + err
