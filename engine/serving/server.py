"""Serves a workspace over HTTP until it is interrupted: address, key, and the process's limits."""

from __future__ import annotations

import logging
import os
import re
import resource
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from engine.core.errors import BadInput, UsageProblem
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.serving.app import make_app
from engine.serving.connections import TimedProtocol
from engine.serving.log import open_log
from engine.serving.security import AccessRules

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 11434
_TRIED_PORTS = 20
KEY_VARIABLE = "H2Q_SERVER_KEY"
MIN_KEY = 16
"""Characters of a key for a server that other machines reach."""
KEEP_ALIVE_S = 75
_ORIGIN = re.compile(r"\*|null|[A-Za-z*][A-Za-z0-9+.*-]{0,62}://[!-.0-~]{1,255}/?")
"""`scheme://host:port`; `*` stands for any text."""
STOP_S = 5
_BACKLOG = 2048


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
    bound = _bind(host, port)
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
    _raise_file_limit()
    open_log(ws)
    # What it logs names addresses and paths of requests.
    logging.getLogger("uvicorn").disabled = True
    logging.getLogger("uvicorn.error").disabled = True
    announce(host, bound.getsockname()[1])
    with suppress(KeyboardInterrupt):
        make_server(ws, rules).run([bound])


def make_server(ws: Workspace, rules: AccessRules) -> uvicorn.Server:
    """The server without an address."""
    config = uvicorn.Config(
        make_app(ws, rules),
        http=TimedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
        backlog=_BACKLOG,
    )
    return uvicorn.Server(config)


def read_key(file: Path | None) -> str:
    """The key in a file that nobody else reads, else in `$H2Q_SERVER_KEY`; "" for none. Raises BadInput."""
    if file is None:
        return os.environ.get(KEY_VARIABLE, "").strip()
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(_("the key cannot be read"), path=file) from problem
    if stat.S_IMODE(mode) & 0o077:
        raise BadInput(_("other users can read the key"), path=file, hint=f"chmod 600 {file}")
    if not text or len(text.split()) != 1:
        raise BadInput(_("the file holds no key: one line without blanks is expected"), path=file)
    return text


def _bind(host: str, port: int | None) -> socket.socket:
    """A listening address. Raises BadInput."""
    ports = range(DEFAULT_PORT, DEFAULT_PORT + _TRIED_PORTS) if port is None else (port,)
    reason = ""
    for candidate in ports:
        try:
            family, kind, protocol, _name, address = socket.getaddrinfo(
                host, candidate, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            bound = socket.socket(family, kind, protocol)
        except OSError as problem:
            reason = problem.strerror or str(problem)
            break
        except UnicodeError:  # a host that no name server can be asked for
            reason = _("it is no host name")
            break
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(address)
            # With SO_REUSEADDR only this shows that another program listens there.
            bound.listen(_BACKLOG)
        except OSError as problem:
            bound.close()
            reason = problem.strerror or str(problem)
            continue
        bound.set_inheritable(False)
        return bound
    raise BadInput(
        _("{host} port {port} cannot be used: {reason}").format(host=host, port=ports[0], reason=reason),
        hint="h2q-tui ollama serve --port 0",
    )


def _raise_file_limit() -> None:
    """Every connection is an open file."""
    with suppress(ValueError, OSError):
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = hard if hard != resource.RLIM_INFINITY else 1 << 16
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, 1 << 16), hard))
