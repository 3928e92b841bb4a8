"""Where the web server listens: 127.0.0.1, on the wanted port or one of the ten after it."""

from __future__ import annotations

import errno
import secrets
import socket
import sys
from dataclasses import dataclass
from urllib.parse import urlencode

from engine.core.errors import ServiceUnreachable
from engine.core.i18n import _

HOST = "127.0.0.1"
DEFAULT_PORT = 5000
"""As in the earlier monitor. Port 5000 is AirPlay's on a Mac, so that the next ones are tried too."""
MORE_PORTS = 10
TOKEN_BYTES = 32
_TAKEN = (errno.EADDRINUSE, errno.EACCES)


@dataclass(frozen=True)
class WebAddress:
    """A bound socket, and the token that a request needs."""

    socket: socket.socket
    token: str

    @property
    def port(self) -> int:
        port: int = self.socket.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """The address to open, with the token."""
        return f"http://{HOST}:{self.port}/?{urlencode({'token': self.token})}"


def bind(port: int = DEFAULT_PORT) -> WebAddress:
    """Binds `port`, or the next free one of the ten after it; 0 takes any. Each call makes a new token.

    Raises ServiceUnreachable when all are taken.
    """
    last = min(65535, port + MORE_PORTS) if port else 0
    for candidate in range(port, last + 1):
        bound = _try_bind(candidate)
        if bound is not None:
            return WebAddress(bound, secrets.token_urlsafe(TOKEN_BYTES))
    raise ServiceUnreachable(
        _("The ports {first} to {last} of this machine are taken").format(first=port, last=last),
        hint="h2q-tui web --port 0",
    )


def _try_bind(port: int) -> socket.socket | None:
    """A listening socket, None when the port is taken."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform == "linux":
        # Elsewhere it would share a port with a program that listens on all addresses.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
        sock.listen(128)
    except OSError as problem:
        sock.close()
        if problem.errno in _TAKEN:
            return None
        raise
    return sock
