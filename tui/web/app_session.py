"""One browser tab with one app: textual-serve's packets, in a process that always ends."""

from __future__ import annotations

import asyncio
import contextlib
import locale
import logging
import re
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeGuard

import msgspec
from textual_serve.app_service import AppService
from textual_serve.download_manager import DownloadManager

log = logging.getLogger("textual-serve")

PATIENCE_S = 5.0
"""Seconds between asking the app to leave, ending it, and killing it."""
FRAMES_PER_S = "30"
MAX_CELLS = 1000
"""Largest width and height that a browser may ask for."""
_ERRORS_KEPT = 8192
_HEADER = b"__GANGLION__\n"
"""The line with which Textual's web driver begins."""
_OF_A_TERMINAL = ("TMUX", "STY", "SSH_CONNECTION", "SSH_TTY", "TERM_PROGRAM_VERSION")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def browser_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of an app in a browser: that of textual-serve, without what describes the server's terminal."""
    found = {name: value for name, value in environment.items() if name not in _OF_A_TERMINAL}
    found |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "TEXTUAL_FPS": FRAMES_PER_S}
    if "utf" not in locale.getpreferredencoding(False).lower():
        # A browser draws every character, whatever the locale of the server is.
        found["PYTHONUTF8"] = "1"
    return found


class BrowserMessage(msgspec.Struct, frozen=True):
    """What a browser may say: keys, a size, focus, or a ping."""

    kind: str
    text: str = ""
    width: int = 0
    height: int = 0


def read_message(text: str) -> BrowserMessage | None:
    """A message of textual-serve's page; None for one that this server does not know."""
    try:
        envelope: Any = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if not isinstance(envelope, list) or not envelope or not isinstance(envelope[0], str):
        return None
    kind, value = envelope[0], envelope[1] if len(envelope) > 1 else None
    if kind in ("stdin", "ping") and isinstance(value, str):
        return BrowserMessage(kind, value)
    if kind == "resize" and isinstance(value, dict):
        width, height = value.get("width"), value.get("height")
        if _is_size(width) and _is_size(height):
            return BrowserMessage(kind, "", width, height)
    return BrowserMessage(kind) if kind in ("blur", "focus") else None


def _is_size(cells: object) -> TypeGuard[int]:
    return isinstance(cells, int) and 0 < cells <= MAX_CELLS


class AppSession(AppService):
    """The app of one browser tab. Its process ends with the tab, and with the server however that ends: its standard
    input is then closed, which the app takes for a hang-up."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        write_bytes: Callable[[bytes], Awaitable[None]],
        write_str: Callable[[str], Awaitable[None]],
        close: Callable[[], Awaitable[object]],
    ) -> None:
        """`argv` is the command of the app; the three functions write to the browser and close its WebSocket."""

        async def hang_up() -> None:
            await close()

        super().__init__(
            "",
            write_bytes=write_bytes,
            write_str=write_str,
            close=hang_up,
            download_manager=DownloadManager(),
        )
        self._argv = argv

    @property
    def pid(self) -> int | None:
        """The process id of the app; None before it starts."""
        return self._process.pid if self._process is not None else None

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        """Starts the app without a shell, in a session of its own: ctrl+c at the server reaches the server alone."""
        self._process = process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=browser_environment(self._build_environment(width=width, height=height)),
            start_new_session=True,
        )
        self._stdin = process.stdin
        return process

    async def run(self) -> None:
        """Hands the packets of the app to the browser until the app has ended, also after the browser has gone."""
        process = self._process
        assert process is not None and process.stdout is not None and process.stderr is not None
        errors = asyncio.create_task(_last_bytes(process.stderr))
        try:
            if await _begins(process.stdout):
                await self._read_packets(process.stdout)
            while await process.stdout.read(1 << 16):
                pass  # what is no packet is read away, so that the app can end
        finally:
            text = _CONTROL.sub("", (await errors).decode("utf-8", "replace")).strip()
            if text:
                log.warning("%s", text)
                with contextlib.suppress(ConnectionError, RuntimeError):
                    await self.remote_write_bytes(_as_screen(text))
            with contextlib.suppress(ConnectionError, RuntimeError):
                await self.remote_close()

    async def _read_packets(self, stdout: asyncio.StreamReader) -> None:
        handlers = {b"D": self.on_data, b"M": self.on_meta}
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await stdout.readexactly(5)
                payload = await stdout.readexactly(int.from_bytes(head[1:], "big"))
                handler = handlers.get(head[:1])
                if handler is not None:
                    # The browser may be gone; the app is still read until it has ended.
                    with contextlib.suppress(ConnectionError, RuntimeError):
                        await handler(payload)

    async def stop(self) -> None:
        """Asks the app to leave, and ends it when it does not. Returns when its process is gone."""
        process, task = self._process, self._task
        if process is None or task is None:
            return
        self._task = None
        for end in (self._ask_to_leave, _sender(process.terminate), _sender(process.kill)):
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await end()
                    await asyncio.shield(task)
                    await process.wait()
            except TimeoutError:
                continue
            break
        if not task.done():
            task.cancel()

    async def _ask_to_leave(self) -> None:
        await self.send_meta({"type": "quit"})


def _sender(signal: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def send() -> None:
        with contextlib.suppress(ProcessLookupError):
            signal()

    return send


async def _begins(stdout: asyncio.StreamReader) -> bool:
    """Reads what the app prints before it draws; False when it ends without drawing."""
    with contextlib.suppress(ValueError):  # a line without an end
        while line := await stdout.readline():
            if line == _HEADER:
                return True
    return False


async def _last_bytes(stream: asyncio.StreamReader) -> bytes:
    """The end of what a process writes, once it has ended."""
    kept = b""
    while piece := await stream.read(4096):
        kept = (kept + piece)[-_ERRORS_KEPT:]
    return kept


def _as_screen(text: str) -> bytes:
    """`text` alone on a cleared screen, below the line that says that the session has ended."""
    return ("\x1b[?1049l\x1b[2J\x1b[4;1H" + text.replace("\n", "\r\n") + "\r\n").encode()
