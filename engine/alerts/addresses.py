"""Where a webhook may go: addresses of the public network only, unless its owner allows others.

The name is resolved once, every address that it has is checked, and the connection goes to the address that was checked: a name
that changes its mind in between (DNS rebinding) leads nowhere else.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from engine.core.errors import UsageProblem
from engine.core.i18n import _

_SIX_TO_FOUR, _NAT64 = ipaddress.ip_network("2002::/16"), ipaddress.ip_network("64:ff9b::/96")
_TEREDO = ipaddress.ip_network("2001::/32")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class WebTarget:
    """A checked address.

    Attributes:
        host: the name, for the header and the certificate.
        path: path and query.
        address: what to connect to.
    """

    scheme: str
    host: str
    port: int
    path: str
    address: str


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public network, also where it carries an IPv4 address within."""
    inner = carried(address)
    if inner is not None:
        return is_public(inner)
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def carried(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address within one of IPv6 that leads to it: mapped, compatible, 6to4, NAT64; None for others."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _SIX_TO_FOUR:
        return address.sixtofour
    if address in _TEREDO and address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or int(address) >> 32 == 0:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def check_target(url: str, *, allow_private: bool = False) -> WebTarget:
    """Resolves and checks `url`. Raises UsageProblem for one that is not allowed, OSError when it is unknown."""
    if any(char.isspace() or ord(char) < 32 or char == "\\" for char in url):
        raise UsageProblem(_("the address has characters that no address has"))
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise UsageProblem(_("the address must begin with https:// or http:// and a host"))
    if parts.username is not None or parts.password is not None:
        raise UsageProblem(_("the address must not carry a user name or a password"))
    port = port or (443 if parts.scheme == "https" else 80)
    found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses:
        raise OSError(f"{parts.hostname} has no address")
    if not allow_private:
        for one in addresses:
            if not is_public(ipaddress.ip_address(one.partition("%")[0])):
                raise UsageProblem(
                    _("{host} leads to {address}, which is not on the public network").format(
                        host=parts.hostname, address=one
                    )
                )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return WebTarget(parts.scheme, parts.hostname, port, path, addresses[0])


class _PinnedConnection(http.client.HTTPConnection):
    """Connects to the address that was checked, whatever the name says by now."""

    def __init__(self, target: WebTarget, timeout: float) -> None:
        super().__init__(target.host, target.port, timeout=timeout)
        self._target = target

    def connect(self) -> None:
        target = self._target
        self.sock = socket.create_connection((target.address, target.port), self.timeout)
        if target.scheme == "https":
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=target.host)


def post(target: WebTarget, body: bytes, headers: dict[str, str], *, timeout_s: float) -> int:
    """Sends `body`; returns the status. A redirection is not followed. Raises OSError, http.client.HTTPException."""
    connection = _PinnedConnection(target, timeout_s)
    try:
        connection.request("POST", target.path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()
