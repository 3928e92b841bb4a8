"""Serves a workspace over HTTP until it is interrupted: address, key, and the process's limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from engine.core.errors import UsageProblem
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.http.gate import AccessRules
from engine.http.listening import bind, raise_file_limit, run_until_stopped, uvicorn_server
from engine.http.log import open_log
from engine.serving.app import make_app

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 11434
_TRIED_PORTS = 20
KEY_VARIABLE = "H2Q_SERVER_KEY"
MIN_KEY = 16
"""Characters of a key for a server that other machines reach."""
_ORIGIN = re.compile(r"\*|null|[A-Za-z*][A-Za-z0-9+.*-]{0,62}://[!-.0-~]{1,255}/?")
"""`scheme://host:port`; `*` stands for any text."""


def log_path(ws: Workspace) -> Path:
    """Beside the log of the inference service."""
    return ws.runs / ".server.log"


def serve(
    ws: Workspace,
    *,
    host: str = DEFAULT_HOST,
    port: int | None = None,
    key: str = "",
    origins: Sequence[str] = (),
    announce: Callable[[str, int], None],
) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        port: None: Ollama's, or the next free one where that is taken.
        key: required in every request; "" for none, which is refused for a host that is not loopback.
        announce: called with the host and the port that were bound, before the first request.

    Raises UsageProblem for a host without a key and for an invalid origin, BadInput for an address that cannot be bound.
    """
    for origin in origins:
        if _ORIGIN.fullmatch(origin) is None:
            raise UsageProblem(
                _("{text} is no origin of a web page, like https://example.org").format(text=origin),
                hint="h2q-tui ollama serve --origins https://example.org",
            )
    ports = range(DEFAULT_PORT, DEFAULT_PORT + _TRIED_PORTS) if port is None else (port,)
    bound = bind(host, ports, hint="h2q-tui ollama serve --port 0")
    outside = not ip_address(bound.getsockname()[0]).is_loopback
    if outside and len(key) < MIN_KEY:
        bound.close()
        raise UsageProblem(
            _("other machines reach {host}: the server needs a key of at least {n} characters").format(
                host=host, n=MIN_KEY
            ),
            hint=f"h2q-tui ollama serve --host {host} --key-file FILE",
        )
    rules = AccessRules(key=key, origins=tuple(origins), any_host=outside)
    raise_file_limit()
    open_log(log_path(ws))
    announce(host, bound.getsockname()[1])
    run_until_stopped(make_server(ws, rules), bound)


def make_server(ws: Workspace, rules: AccessRules) -> uvicorn.Server:
    """The server without an address."""
    return uvicorn_server(make_app(ws, rules))
