"""Serves the hive of a workspace until it is stopped."""

from __future__ import annotations

import fcntl
import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from engine.core.errors import BadInput, Busy, UsageProblem
from engine.core.filenames import path_to_text
from engine.core.files import make_dirs, try_lock
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.hive.base_layers import read_base_layers
from engine.hive.hivemind_import import TakenOver, take_over
from engine.hive.intake import HiveLimits
from engine.hive.protocol import DEFAULT_PORT
from engine.hive.registry import Registry
from engine.hive.rounds import GateSetup, RoundOptions
from engine.hive.server.access import RateLimit
from engine.hive.server.app import make_app
from engine.hive.server.hive import Hive
from engine.hive.store import AdapterStore
from engine.hive.tokens import TokenBook
from engine.http.connections import LimitedProtocol
from engine.http.gate import AccessRules
from engine.http.listening import bind, raise_file_limit, run_until_stopped, uvicorn_server
from engine.http.log import open_log
from engine.workspace.reset import HIVE_LOCK

DEFAULT_HOST = "127.0.0.1"
DEFAULT_RATE = 600.0
"""Requests a minute of one user or address, on a server that other machines reach."""
_TRIED_PORTS = 20
_REFERENCE = "base_reference"


@dataclass(frozen=True)
class ServeOptions:
    """How a hive is served."""

    host: str = DEFAULT_HOST
    port: int | None = None
    """None: the usual one, or the next that is free; 0: any."""
    base: str = ""
    """Model that adapters must fit; "" for the one of the hive, or for what the first adapter was made on."""
    certificate: Path | None = None
    certificate_key: Path | None = None
    rate: float | None = None
    """Requests a minute of one user or address; 0: no limit; None: `DEFAULT_RATE` off loopback, else no limit."""
    held_out: Path | None = None
    """Conversations that candidates are judged on; None: every version is published."""
    limits: HiveLimits = field(default_factory=HiveLimits)
    rounds: RoundOptions = field(default_factory=RoundOptions)


@dataclass(frozen=True)
class Announcement:
    """Where a hive is served."""

    address: str
    port: int
    needs_token: bool


def hive_folder(ws: Workspace) -> Path:
    """Everything of the hive that this workspace serves."""
    return ws.root / "hive"


def log_path(ws: Workspace) -> Path:
    """Tracebacks of faults."""
    return hive_folder(ws) / ".server.log"


def serve(
    ws: Workspace,
    options: ServeOptions,
    announce: Callable[[Announcement], None],
    ready: Callable[[str, TakenOver], None],
) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        announce: called with the bound address before anything else is done.
        ready: called before the first request, with the name of the base model, "" while it is unknown, and what came
            of the files of a HiveMind server.

    Raises UsageProblem for an address that other machines reach without a token, and for certificates that do not fit
    together; BadInput for an address that cannot be bound, a base that cannot be read and a damaged registry; Busy when
    another process serves this hive.
    """
    if (options.certificate is None) != (options.certificate_key is None):
        raise UsageProblem(
            _("--certificate and --certificate-key belong together"), hint="h2q-tui hive serve --help"
        )
    ports = range(DEFAULT_PORT, DEFAULT_PORT + _TRIED_PORTS) if options.port is None else (options.port,)
    with only_server(hive_folder(ws)), bind(options.host, ports, hint="h2q-tui hive serve --port 0") as bound:
        outside = not ip_address(bound.getsockname()[0]).is_loopback
        store = AdapterStore(hive_folder(ws))
        store.sweep(time.time())
        book = TokenBook(Registry(hive_folder(ws)))
        if outside and book.is_empty:
            raise UsageProblem(
                _("other machines reach {host}: every user needs a token").format(host=options.host),
                hint="h2q-tui hive token create NAME",
            )
        reference = options.base or store.registry.fact(_REFERENCE)
        rounds = replace(options.rounds, gate=gate_setup(ws, options.held_out, reference))
        hive = Hive(store, options.limits, rounds)
        rate = options.rate if options.rate is not None else DEFAULT_RATE if outside else 0.0
        server = make_server(
            hive,
            book,
            needs_token=outside,
            any_host=outside,
            rate=rate,
            certificate=options.certificate,
            certificate_key=options.certificate_key,
        )
        port = bound.getsockname()[1]
        named = f"[{options.host}]" if ":" in options.host else options.host
        scheme = "https" if options.certificate else "http"
        announce(Announcement(f"{scheme}://{named}:{port}", port, needs_token=outside or not book.is_empty))
        # A client that comes meanwhile waits: the address is bound.
        if options.base:
            set_base(ws, hive, options.base)
        ready(hive.intake.base().name, take_over(hive.intake))
        raise_file_limit()
        open_log(log_path(ws))
        run_until_stopped(server, bound)


def make_server(
    hive: Hive,
    book: TokenBook,
    *,
    needs_token: bool = False,
    any_host: bool = False,
    rate: float = 0.0,
    certificate: Path | None = None,
    certificate_key: Path | None = None,
) -> uvicorn.Server:
    """The server without an address. Raises BadInput for a certificate that cannot be used."""
    app = make_app(hive, AccessRules(any_host=any_host), book, needs_token=needs_token, rate=RateLimit(rate))
    server = uvicorn_server(
        app, protocol=LimitedProtocol, certificate=certificate, certificate_key=certificate_key
    )
    try:
        server.config.load()
    except (OSError, ssl.SSLError) as problem:
        raise BadInput(
            _("the certificate and its key cannot be used ({reason})").format(
                reason=getattr(problem, "strerror", None) or getattr(problem, "reason", None) or problem
            ),
            path=certificate,
            hint="h2q-tui hive serve --certificate FILE --certificate-key FILE",
        ) from problem
    return server


def set_base(ws: Workspace, hive: Hive, model: str) -> None:
    """Makes `model` the base of the hive. Raises BadInput, UsageProblem when adapters of another base are stored."""
    known = hive.intake.base()
    found = read_base_layers(ws, model)
    has_adapters = hive.store.registry.number("SELECT count(*) FROM adapters") > 0
    if has_adapters and known.fingerprint not in ("", found.fingerprint):
        raise UsageProblem(
            _("this hive has adapters of another base model, {base}").format(base=known.name),
            hint="h2q-tui hive serve",
        )
    hive.intake.set_base(found.name, found.fingerprint, found.layers)
    hive.store.registry.set_facts(**{_REFERENCE: model})


def gate_setup(ws: Workspace, held_out: Path | None, base: str) -> GateSetup | None:
    """What candidates are judged with; None without held-out conversations. Raises UsageProblem, BadInput."""
    if held_out is None:
        return None
    if not base:
        raise UsageProblem(
            _("--held-out needs the base model: --base"),
            hint="h2q-tui hive serve --base MODEL --held-out FILE",
        )
    if not held_out.exists():
        raise BadInput(_("there is no such file or folder"), path=held_out, hint="h2q-tui hive serve --help")
    return GateSetup(workspace=path_to_text(ws.root), base=base, held_out=path_to_text(held_out))


@contextmanager
def only_server(folder: Path) -> Iterator[None]:
    """Held while a hive is served: its uploads are known to one process. Raises Busy, OSError."""
    make_dirs(folder)
    fd = os.open(folder / Path(HIVE_LOCK).name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not try_lock(fd):
            raise Busy(_("another process serves this hive"), hint="h2q-tui hive status")
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)
