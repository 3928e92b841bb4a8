"""Who may talk to a server: the Host and Origin headers, and the key.

A page in a browser can reach every port of this machine. What protects it: a page of another site is refused by its
Origin, whatever Content-Type it sends, and a site whose name resolves to this machine (DNS rebinding) by the Host. A
server that other machines reach has a key.
"""

from __future__ import annotations

import hmac
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.core.host_header import host_name, names_loopback
from engine.http.log import log
from engine.http.refused import INTERNAL, RequestRefused

_METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
_HEADERS = "authorization, content-type, accept, x-api-key, x-requested-with, openai-beta, anthropic-version, user-agent"


@dataclass(frozen=True)
class AccessRules:
    """Who may talk to the server."""

    key: str = ""
    """Required in every request; "" for a server on loopback without one."""
    origins: Sequence[str] = ()
    """Origins beside those of this machine; `*` stands for any text, alone for every origin."""
    any_host: bool = False
    """Whether requests may name any host: the server is reached from other machines, by whatever name it has there."""

    def check(self, headers: Headers) -> None:
        """Raises RequestRefused."""
        # No browser leaves it out.
        host = headers.get("host", "")
        if host and not self.any_host and not is_local_name(host):
            raise RequestRefused(403, "this host name is not one of this machine")
        origin = headers.get("origin")
        if origin is not None and not self.allows_origin(origin):
            raise RequestRefused(403, "this origin is not allowed")

    def check_key(self, headers: Headers) -> None:
        """Raises RequestRefused for a missing or wrong key. The comparison takes the same time for every key."""
        if not self.key:
            return
        scheme, _blank, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = headers.get("x-api-key", "")
        if not hmac.compare_digest(_digest(given.strip()), _digest(self.key)):
            raise RequestRefused(401, "unauthorized")

    def allows_origin(self, origin: str) -> bool:
        """Whether a page of this origin may use the server."""
        parts = urlsplit(origin)
        if parts.scheme in ("http", "https") and parts.netloc and is_local_name(parts.netloc):
            return True
        return any(
            re.fullmatch(".*".join(map(re.escape, allowed.split("*"))), origin, re.IGNORECASE)
            for allowed in self.origins
        )


def is_local_name(netloc: str) -> bool:
    """Whether `host[:port]` means this machine; clients of Ollama also call it by the address that it listens on."""
    return names_loopback(netloc) or host_name(netloc) in ("0.0.0.0", "::")  # noqa: S104


class Gate:
    """ASGI middleware: checks every request, answers preflights, names the server, and lets no traceback out."""

    def __init__(
        self, app: ASGIApp, rules: AccessRules, refusal: Callable[[str, RequestRefused], Response], name: str
    ) -> None:
        """`refusal` makes the answer to a path and why it is refused; `name` is the value of the `server` header."""
        self._app = app
        self._rules = rules
        self._refusal = refusal
        self._name = name.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                more = [(b"server", self._name)]
                if origin is not None and self._rules.allows_origin(origin):
                    more += [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        try:
            self._rules.check(headers)
            if scope["method"] == "OPTIONS":
                await _preflight()(scope, receive, send_marked)
                return
            self._rules.check_key(headers)
            await self._app(scope, receive, send_marked)
        except RequestRefused as problem:
            await self._refusal(scope["path"], problem)(scope, receive, send_marked)
        except Exception as problem:
            log("".join(traceback.format_exception(problem)))
            if not started:
                refused = RequestRefused(500, INTERNAL)
                await self._refusal(scope["path"], refused)(scope, receive, send_marked)


def _preflight() -> Response:
    return Response(
        status_code=204,
        headers={
            "access-control-allow-methods": _METHODS,
            "access-control-allow-headers": _HEADERS,
            "access-control-max-age": "600",
        },
    )


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogateescape")).digest()
