"""Enforced offline mode: while the guard is active, this process connects to loopback addresses only.

It patches Python's sockets; a native library with its own sockets is not covered. Proxies are removed from the
environment, because one on loopback would forward to the network. The Hugging Face libraries are set offline, so
that they fail immediately instead of retrying.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from engine.core.i18n import _

_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", ""})
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "socks_proxy"})
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_ADDRESS_AT: Final = {"connect": 0, "connect_ex": 0, "sendto": -1}


class NetworkBlocked(ConnectionRefusedError):
    """A run tried to connect to another machine."""


def is_loopback(host: object) -> bool:
    """Whether `host` (a name or an address) is this machine, decided without a name server."""
    if host is None:
        return True
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    name = name.rstrip(".").lower()
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name == socket.gethostname().lower()
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback or address.is_unspecified)


def _refuse(host: object) -> None:
    raise NetworkBlocked(_("runs work offline: the connection to {host} was blocked").format(host=host))


def _check(family: int, address: Any) -> None:
    if (
        family in (socket.AF_INET, socket.AF_INET6)
        and isinstance(address, tuple)
        and not is_loopback(address[0])
    ):
        _refuse(address[0])


@contextmanager
def loopback_only() -> Iterator[None]:
    """Blocks connections and name lookups beyond loopback with `NetworkBlocked` until the block ends."""
    saved_environment = dict(os.environ)
    for name in list(os.environ):
        if name.lower() in _PROXIES:
            del os.environ[name]
    os.environ.update(_OFFLINE)
    undo = [_patch_method(name, at) for name, at in _ADDRESS_AT.items()]
    undo += [_patch_lookup(name) for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex")]
    try:
        yield
    finally:
        for restore in undo:
            restore()
        for name in {*_PROXIES, *(p.upper() for p in _PROXIES), *_OFFLINE}:
            if name in saved_environment:
                os.environ[name] = saved_environment[name]
            else:
                os.environ.pop(name, None)


def _patch_method(name: str, at: int) -> Callable[[], None]:
    own = socket.socket.__dict__.get(name)
    inner = getattr(socket.socket, name)

    def guarded(self: socket.socket, *arguments: Any) -> Any:
        if arguments:
            _check(self.family, arguments[at])
        return inner(self, *arguments)

    setattr(socket.socket, name, guarded)
    return lambda: setattr(socket.socket, name, own) if own else delattr(socket.socket, name)


def _patch_lookup(name: str) -> Callable[[], None]:
    inner = getattr(socket, name)

    def guarded(host: Any, *arguments: Any, **named: Any) -> Any:
        if not is_loopback(host):
            _refuse(host)
        return inner(host, *arguments, **named)

    setattr(socket, name, guarded)
    return lambda: setattr(socket, name, inner)
