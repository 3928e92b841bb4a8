"""The address of a hive server: the one that the person named, and no other.

Only this machine is spoken to without TLS, unless the person allows it: a token and an adapter would cross the
network for everyone to read. The app reads it, so it imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from engine.core.errors import UsageProblem
from engine.core.i18n import _
from engine.core.settings import Settings
from engine.hive.protocol import DEFAULT_PORT
from engine.runs.network_guard import is_loopback

LOCAL = f"http://127.0.0.1:{DEFAULT_PORT}"
_HINT = f"h2q-tui hive status --server {LOCAL}"


@dataclass(frozen=True)
class HiveAddress:
    """A server that may be spoken to."""

    url: str
    """`http(s)://host:port`, without a slash at its end."""
    local: bool
    """It is on this machine."""
    ca_file: str = ""
    """Certificates that vouch for it; "" for those of the system."""


def hive_address(settings: Settings, server: str = "", *, allow_http: bool = False) -> HiveAddress:
    """`server`, else the one of the settings. `allow_http`: without TLS beyond this machine, as `hive_allow_http`.

    Raises UsageProblem where none is named, it is no address, or it would be spoken to without TLS.
    """
    text = (server or settings.hive_server).strip()
    if not text:
        raise UsageProblem(_("no hive server is named; nothing was sent"), hint=_HINT)
    parts = urlsplit(text if "//" in text else f"http://{text}")
    try:
        port, name = parts.port, parts.hostname or ""
    except ValueError as problem:
        raise _no_address(text) from problem
    if (
        parts.scheme not in ("http", "https")
        or not name
        or parts.username is not None
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
        or not text.isprintable()
    ):
        raise _no_address(text)
    local = is_loopback(name)
    if parts.scheme == "http" and not local and not (allow_http or settings.hive_allow_http):
        raise UsageProblem(
            _(
                "{server} is another machine without TLS: others on the way could read the adapter and the token"
            ).format(server=text),
            hint=f"h2q-tui hive status --server https://{name}",
        )
    # A server listens on 0.0.0.0 and ::; a client connects to loopback.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104
    host = f"[{name}]" if ":" in name else name
    default = DEFAULT_PORT if "//" not in text else None
    number = port or default
    return HiveAddress(
        url=f"{parts.scheme}://{host}" + (f":{number}" if number else ""),
        local=local,
        ca_file=settings.hive_ca_file,
    )


def _no_address(text: str) -> UsageProblem:
    return UsageProblem(
        _("{server} is not the address of a server; it looks like {example}").format(
            server=text, example="https://hive.example:8000"
        ),
        hint=_HINT,
    )
