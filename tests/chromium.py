"""A headless Chromium, told what to do through its DevTools protocol; no driver is installed."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "chrome")
START_S = 60.0


def find_chromium() -> str:
    """The program: $H2Q_TEST_CHROMIUM, else one of NAMES on the PATH; "" when there is none."""
    named = os.environ.get("H2Q_TEST_CHROMIUM", "")
    return named or next(filter(None, map(shutil.which, NAMES)), "")


class Page:
    """One page. `urls` are the addresses that it has asked for, `complaints` what its console says of errors."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[Any]) -> None:
        self._socket = socket
        self._number = 0
        self.urls: list[str] = []
        self.complaints: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a method of the protocol; events that come before it are kept."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        async with asyncio.timeout(START_S):
            while True:
                message: dict[str, Any] = await self._socket.receive_json()
                if message.get("id") == self._number:
                    assert "error" not in message, message
                    result: dict[str, Any] = message["result"]
                    return result
                self._keep(message)

    def _keep(self, message: dict[str, Any]) -> None:
        event, what = message.get("method"), message.get("params", {})
        if event == "Network.requestWillBeSent":
            self.urls.append(what["request"]["url"])
        elif event == "Network.webSocketCreated":
            self.urls.append(what["url"])
        elif event == "Log.entryAdded" and what["entry"]["level"] == "error":
            self.complaints.append(what["entry"]["text"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(what["exceptionDetails"]))

    async def open(self, url: str) -> None:
        """Goes to an address."""
        for domain in ("Network", "Log", "Runtime", "Page"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)

    async def value(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        return (await self.call("Runtime.evaluate", expression=script))["result"].get("value")

    async def until(self, script: str) -> None:
        """Waits until an expression is true."""
        async with asyncio.timeout(START_S):
            while not await self.value(script):  # noqa: ASYNC110  the browser tells nobody
                await asyncio.sleep(0.1)

    async def press(self, *keys: str) -> None:
        """Characters that are typed, one after the other."""
        for key in keys:
            await self.call("Input.dispatchKeyEvent", type="char", text=key)

    async def picture(self) -> bytes:
        """The page as a PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])


@asynccontextmanager
async def chromium(program: str, folder: Path, *, size: tuple[int, int] = (1280, 800)) -> AsyncIterator[Page]:
    """A page of a browser with a profile of its own, until the block is left."""
    process = await asyncio.create_subprocess_exec(
        program,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={size[0]},{size[1]}",
        "--remote-debugging-port=0",
        "about:blank",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(START_S):
            found = None
            while found is None:
                line = await process.stderr.readline()
                assert line, "the browser has ended"
                found = re.search(rb"listening on ws://([^/]+)/", line)
        reading = asyncio.create_task(process.stderr.read())
        async with aiohttp.ClientSession() as client:
            async with client.get(f"http://{found[1].decode()}/json/list") as answer:
                pages = await answer.json()
            url = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
            async with client.ws_connect(url, max_msg_size=0) as socket:
                yield Page(socket)
        process.terminate()
        await reading
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
