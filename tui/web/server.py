"""The app in a browser: textual-serve's server with a guard, our own page, and an end for every process it starts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import urlencode

import aiohttp_jinja2
import jinja2
import textual_serve
from aiohttp import WSCloseCode, WSMsgType, web
from textual_serve.app_service import AppService
from textual_serve.server import Server

from engine.core.i18n import _, language, n_
from engine.core.paths import shipped
from tui.web.address import HOST, WebAddress
from tui.web.app_session import MAX_CELLS, PATIENCE_S, AppSession, read_message
from tui.web.guard import add_headers, make_guard
from tui.web.latest_data import LatestData

DEFAULT_SESSIONS = 4
SLOT_WAIT_S = PATIENCE_S
"""Seconds that a new session waits for one that is ending: a page that is loaded again."""
HEARTBEAT_S = 15.0
MAX_MESSAGE = 1 << 20
"""Bytes of one message of a browser; a paste is one message."""
SHUTDOWN_S = 3 * PATIENCE_S + 1
_STATIC = Path(textual_serve.__file__).parent / "static"
STATIC_FILES = {
    "xterm.css": _STATIC / "css" / "xterm.css",
    "textual.js": _STATIC / "js" / "textual.js",
    "page.js": shipped("data") / "web" / "page.js",
    "mono.ttf": _STATIC / "fonts" / "RobotoMono-VariableFont_wght.ttf",
}
"""Everything that the page loads, by its name in the address."""


class WebServer(Server):
    """Serves the app of one workspace on a bound address.

    Answers the page, its static files, its WebSocket, and `/api/latest-data` of the earlier monitor.
    """

    def __init__(
        self, address: WebAddress, argv: Sequence[str], data: LatestData, *, sessions: int = DEFAULT_SESSIONS
    ) -> None:
        """`argv` is the command of the app; `sessions` of it run at the same time at most."""
        super().__init__(
            "h2q-tui",
            host=HOST,
            port=address.port,
            title="h2q-tui",
            templates_path=shipped("data") / "web",
        )
        self.address = address
        self.argv = tuple(argv)
        self.data = data
        self.sessions = sessions
        self._slots = asyncio.Semaphore(sessions)
        self._sockets: set[web.WebSocketResponse] = set()

    def initialize_logging(self) -> None:
        """Problems go to stderr in one line each. Requests are not logged: their addresses hold the token."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_WithoutToken(self.address.token))
        for name in ("textual-serve", "aiohttp", "asyncio"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(logging.WARNING)

    def serve(self, debug: bool = False) -> None:
        """Serves until SIGINT or SIGTERM; the sessions have ended then. `debug` has no effect: it logs what is typed."""
        self.initialize_logging()
        web.run_app(
            self._make_app(),
            sock=self.address.socket,
            print=None,
            access_log=None,
            shutdown_timeout=SHUTDOWN_S,
        )

    async def _make_app(self) -> web.Application:
        app = web.Application(middlewares=[make_guard(self.address.token)])
        aiohttp_jinja2.setup(app, loader=jinja2.FileSystemLoader(self.templates_path))
        app.on_response_prepare.append(add_headers)
        app.add_routes(
            [
                web.get("/", self.handle_index),
                web.get("/ws", self.handle_websocket),
                web.get("/ws/{token}", self.handle_websocket),
                web.get("/static/{name}", self.handle_static),
                web.get("/api/latest-data", self.handle_latest_data),
            ]
        )
        app.cleanup_ctx.append(self._sampling)
        app.on_shutdown.append(self.on_shutdown)
        return app

    async def _sampling(self, _app: web.Application) -> AsyncIterator[None]:
        """Takes readings of the machine while the server runs."""
        task = asyncio.create_task(self.data.keep_sampling())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def on_shutdown(self, app: web.Application) -> None:
        """Closes the WebSockets; their handlers end the apps."""
        closing = [socket.close(code=WSCloseCode.GOING_AWAY) for socket in self._sockets]
        await asyncio.gather(*closing, return_exceptions=True)

    async def handle_index(self, request: web.Request) -> web.Response:
        """The page. Its addresses are relative, so that it works behind a tunnel with another port."""
        query = urlencode({"token": self.address.token})
        context = {
            "language": language(),
            "title": self.title,
            "font_size": _within(request.query.get("fontsize"), 16, 6, 72),
            "socket": f"ws://{request.host}/ws/{self.address.token}",
            "static": {name: f"/static/{name}?{query}" for name in STATIC_FILES},
            "again": f"/?{query}",
            "starting": _("The app is starting …"),
            "ended": _("The session has ended; runs continue."),
            "start_again": _("Start again"),
            "needs_script": _("This page needs JavaScript."),
        }
        return aiohttp_jinja2.render_template("index.html", request, context)

    async def handle_static(self, request: web.Request) -> web.StreamResponse:
        """One of STATIC_FILES."""
        file = STATIC_FILES.get(request.match_info["name"])
        if file is None:
            raise web.HTTPNotFound
        return web.FileResponse(file)

    async def handle_latest_data(self, _request: web.Request) -> web.Response:
        """What the earlier monitor answers, from readings."""
        return web.json_response(await self.data.read())

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """One session, from its WebSocket to the end of its process; refused in words when there are enough."""
        websocket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE)
        await websocket.prepare(request)
        try:
            await asyncio.wait_for(self._slots.acquire(), SLOT_WAIT_S)
        except TimeoutError:
            await self._refuse(websocket)
            return websocket
        self._sockets.add(websocket)
        session = AppSession(
            self.argv,
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=websocket.close,
        )
        try:
            await session.start(
                _within(request.query.get("width"), 80, 1, MAX_CELLS),
                _within(request.query.get("height"), 24, 1, MAX_CELLS),
            )
            await self._process_messages(websocket, session)
        finally:
            try:
                await session.stop()
            finally:
                self._sockets.discard(websocket)
                self._slots.release()
        return websocket

    async def _refuse(self, websocket: web.WebSocketResponse) -> None:
        text = n_(
            "{n} session is open, which is the limit. Close it, or start h2q-tui web with --sessions.",
            "{n} sessions are open, which is the limit. Close one, or start h2q-tui web with --sessions.",
            self.sessions,
        ).format(n=self.sessions)
        with contextlib.suppress(ConnectionError, RuntimeError):
            await websocket.send_bytes(f"\x1b[4;1H{text}\r\n".encode())
            await websocket.close(code=WSCloseCode.TRY_AGAIN_LATER)

    async def _process_messages(self, websocket: web.WebSocketResponse, app_service: AppService) -> None:
        """Hands what the browser says to the app until either has gone. Messages of unknown form are dropped."""
        async for message in websocket:
            said = read_message(message.data) if message.type is WSMsgType.TEXT else None
            if said is None:
                continue
            if said.kind == "stdin":
                await app_service.send_bytes(said.text.encode("utf-8", "replace"))
            elif said.kind == "resize":
                await app_service.set_terminal_size(said.width, said.height)
            elif said.kind == "ping":
                await websocket.send_json(["pong", said.text])
            elif said.kind == "blur":
                await app_service.blur()
            elif said.kind == "focus":
                await app_service.focus()


class _WithoutToken(logging.Formatter):
    """One line for each record, without the token wherever it stood, and without the values of variables."""

    def __init__(self, token: str) -> None:
        super().__init__("%(levelname)s %(message)s")
        self._token = token

    def format(self, record: logging.LogRecord) -> str:
        text = self.formatMessage(_with_message(record))
        if record.exc_info and record.exc_info[0] is not None:
            text += f" ({record.exc_info[0].__name__})"
        return text.replace(self._token, "…")


def _with_message(record: logging.LogRecord) -> logging.LogRecord:
    record.message = record.getMessage()
    return record


def _within(text: str | None, default: int, least: int, most: int) -> int:
    """A number of an address within its bounds; `default` for what is none."""
    try:
        return max(least, min(most, int(text or default)))
    except ValueError:
        return default
