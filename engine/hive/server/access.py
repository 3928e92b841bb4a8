"""Who sends a request to the hive: its token, how often it may ask, and how many bytes go each way."""

from __future__ import annotations

import base64
import binascii
import time
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.core.i18n import _
from engine.hive.server.replies import refusal
from engine.hive.tokens import ANYONE, Caller, TokenBook
from engine.http.refused import RequestRefused

_BURST_S = 30.0
"""Seconds of requests that may come together."""
_REMEMBERED = 10_000
_CALLER = "caller"


@dataclass
class Traffic:
    """Bytes since the server was started."""

    received: int = 0
    sent: int = 0


@dataclass
class RateLimit:
    """A bucket of requests for each name or address, which fills by `per_minute`; 0: no limit."""

    per_minute: float
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Requests that are left, and when that was."""

    def wait_s(self, who: str, now: float) -> float:
        """0 when a request may come, and it is counted; else seconds until it may."""
        if self.per_minute <= 0:
            return 0.0
        per_s = self.per_minute / 60.0
        most = max(1.0, per_s * _BURST_S)
        left, then = self._buckets.pop(who, (most, now))
        left = min(most, left + (now - then) * per_s)
        allowed = left >= 1.0
        self._buckets[who] = (left - 1.0 if allowed else left, now)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.pop(next(iter(self._buckets)))
        return 0.0 if allowed else (1.0 - left) / per_s


class HiveAccess:
    """ASGI middleware: refuses requests without a valid token where one is needed, and those that come too often."""

    def __init__(
        self, app: ASGIApp, book: TokenBook, *, always: bool, rate: RateLimit, traffic: Traffic
    ) -> None:
        """`always`: a token is needed also while none was made, as on a server that other machines reach."""
        self._app = app
        self._book = book
        self._always = always
        self._rate = rate
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted_receive() -> Message:
            message = await receive()
            self._traffic.received += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            self._traffic.sent += len(message.get("body", b""))
            await send(message)

        try:
            scope.setdefault("state", {})[_CALLER] = self._checked(scope)
        except RequestRefused as problem:
            await refusal(scope["path"], problem)(scope, counted_receive, counted_send)
            return
        await self._app(scope, counted_receive, counted_send)

    def _checked(self, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        if "content-length" in headers and "transfer-encoding" in headers:
            # Programs before and behind this one may disagree on where the body ends.
            raise RequestRefused(400, _("a request has a Content-Length or a Transfer-Encoding, not both"))
        caller = self._caller(headers)
        peer = scope.get("client")
        who = (
            f"user {caller.name}"
            if caller is not None and caller.name
            else f"address {peer[0] if peer else ''}"
        )
        wait_s = self._rate.wait_s(who, time.monotonic())
        if wait_s:
            raise TooOften(wait_s)
        if caller is None:
            raise RequestRefused(401, _("this hive needs a token: Authorization: Bearer TOKEN"))
        return caller

    def _caller(self, headers: Headers) -> Caller | None:
        if not self._always and self._book.is_empty:
            return ANYONE
        return self._book.caller(given_token(headers))


class TooOften(RequestRefused):
    """Status 429; `wait_s` goes into `Retry-After`."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(429, _("too many requests; wait and try again"))
        self.wait_s = wait_s


def caller_of(request: Request) -> Caller:
    """Who sent a request."""
    caller: Caller = getattr(request.state, _CALLER)
    return caller


def given_token(headers: Headers) -> str:
    """The token of a request: as Bearer, or as the password of an address `http://NAME:TOKEN@HOST`, which is how programs
    without a setting for tokens send it; "" without one."""
    scheme, _space, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            text = base64.b64decode(value.strip(), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return ""
        return text.partition(":")[2]
    return value.strip() if scheme.lower() == "bearer" else ""
