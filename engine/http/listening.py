"""An address to listen on, a key from a file, and uvicorn without what it logs and without its open ends."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.http.connections import TimedProtocol

KEEP_ALIVE_S = 75
STOP_S = 5
_BACKLOG = 2048


def bind(host: str, ports: Sequence[int], *, hint: str) -> socket.socket:
    """A listening address: the first of `ports` that is free. Raises BadInput with `hint`."""
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
        hint=hint,
    )


def read_key(file: Path | None, variable: str) -> str:
    """The key in a file that nobody else reads, else in the environment variable; "" for none. Raises BadInput."""
    if file is None:
        return os.environ.get(variable, "").strip()
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


def uvicorn_server(
    app: ASGIApp,
    *,
    protocol: type[TimedProtocol] = TimedProtocol,
    certificate: Path | None = None,
    certificate_key: Path | None = None,
) -> uvicorn.Server:
    """The server of an application without an address; with a certificate it speaks TLS only.

    It logs nothing: what uvicorn logs names addresses and paths. Raises OSError, ssl.SSLError for a certificate.
    """
    logging.getLogger("uvicorn").disabled = True
    logging.getLogger("uvicorn.error").disabled = True
    config = uvicorn.Config(
        app,
        http=protocol,
        ssl_certfile=certificate,
        ssl_keyfile=certificate_key,
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


def run_until_stopped(server: uvicorn.Server, bound: socket.socket) -> None:
    """Serves until SIGINT or SIGTERM, both of which are an ordinary end. In the main thread only."""
    # uvicorn raises the signal again when it has closed.
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    try:
        with suppress(KeyboardInterrupt):
            server.run([bound])
    finally:
        signal.signal(signal.SIGTERM, before)


def raise_file_limit() -> None:
    """Every connection is an open file."""
    with suppress(ValueError, OSError):
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = hard if hard != resource.RLIM_INFINITY else 1 << 16
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, 1 << 16), hard))
