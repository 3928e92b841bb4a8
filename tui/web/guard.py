"""Who may ask the web server anything: the address with its token, from this machine, from a page of its own.

Loopback alone protects nobody who has a browser: any page may send requests to 127.0.0.1, a WebSocket from a foreign
page is connected like one of its own, and a foreign name can be made to point here (DNS rebinding). So every request
needs the token, a `Host` that names loopback, and an `Origin`, where there is one, that is the server's own.
"""

from __future__ import annotations

import hmac

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from engine.core.host_header import names_loopback
from engine.core.i18n import _
from tui.web.address import HOST

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer: nothing is stored, embedded, guessed at, or told to others. `content_policy` adds its own."""


def content_policy(host: str) -> str:
    """The Content-Security-Policy for a page at `host` (name and port): scripts, fonts and sockets of this server only.

    xterm.js writes its cell sizes into style elements, so that styles may be inline.
    """
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self' 'unsafe-inline'",
            "font-src 'self'",
            "img-src 'self' data:",
            f"connect-src 'self' ws://{host}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def is_own_origin(origin: str, host: str) -> bool:
    """Whether `origin` is that of the pages which this server sends under `host`."""
    return origin.lower() == f"http://{host}".lower()


def has_token(given: str | None, token: str) -> bool:
    """Whether the token is the right one; takes the same time for every wrong one of its length."""
    return given is not None and hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), token.encode("utf-8")
    )


def given_token(request: web.Request) -> str | None:
    """The token of a request: in the address, as a word of the path of the WebSocket, or as a bearer token."""
    scheme, _space, bearer = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return bearer.strip()
    return request.match_info.get("token") or request.query.get("token")


def refusal(request: web.Request, token: str) -> web.HTTPException | None:
    """Why a request is refused; None for one that is answered."""
    hosts, origins = request.headers.getall("Host", []), request.headers.getall("Origin", [])
    if len(hosts) != 1 or not names_loopback(hosts[0]):
        return web.HTTPForbidden(text=_("This server answers to localhost alone.") + "\n")
    if len(origins) > 1 or any(not is_own_origin(origin, hosts[0]) for origin in origins):
        return web.HTTPForbidden(text=_("Another page may not use this server.") + "\n")
    is_socket = request.headers.get("Upgrade", "").lower() == "websocket"
    if is_socket and not origins:
        return web.HTTPForbidden(text=_("A WebSocket needs the Origin of this server's own page.") + "\n")
    if not has_token(given_token(request), token):
        return web.HTTPUnauthorized(
            text=_("The address lacks the token, or has an old one: open the one that h2q-tui web printed.")
            + "\n",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return None


def make_guard(token: str) -> Middleware:
    """The middleware that answers `refusal`s, also for addresses that lead nowhere."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        refused = refusal(request, token)
        if refused is not None:
            raise refused
        return await handler(request)

    return guard


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Signal of aiohttp before every answer: the headers of `HEADERS` and the policy."""
    response.headers.update(HEADERS)
    response.headers["Content-Security-Policy"] = content_policy(
        request.host if names_loopback(request.host) else HOST
    )
