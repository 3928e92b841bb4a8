"""Offline, enforced: while the guard is on, this process connects to this machine and nowhere else.

It guards Python's sockets, which everything here uses; a native library with sockets of its own is not caught.
Proxies are taken out of the environment, because one on loopback would lead out, and the Hugging Face
libraries are told to stay offline, so that they fail at once and not after their retries.
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
    """Something in a run tried to reach another machine."""


def is_loopback(host: object) -> bool:
    """Whether `host` (a name or an address) is this machine, told without asking a name server."""
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
    raise NetworkBlocked(_("a run works offline: the connection to {host} was refused").format(host=host))


def _check(family: int, address: Any) -> None:
    if (
        family in (socket.AF_INET, socket.AF_INET6)
        and isinstance(address, tuple)
        and not is_loopback(address[0])
    ):
        _refuse(address[0])


@contextmanager
def loopback_only() -> Iterator[None]:
    """Refuses connections and name look-ups beyond loopback with `Offline` until the block ends."""
    kept_environment = dict(os.environ)
    for name in list(os.environ):
        if name.lower() in _PROXIES:
            del os.environ[name]
    os.environ.update(_OFFLINE)
    undo = [_guard_method(name, at) for name, at in _ADDRESS_AT.items()]
    undo += [_guard_lookup(name) for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex")]
    try:
        yield
    finally:
        for put_back in undo:
            put_back()
        for name in {*_PROXIES, *(p.upper() for p in _PROXIES), *_OFFLINE}:
            if name in kept_environment:
                os.environ[name] = kept_environment[name]
            else:
                os.environ.pop(name, None)


def _guard_method(name: str, at: int) -> Callable[[], None]:
    own = socket.socket.__dict__.get(name)
    inner = getattr(socket.socket, name)

    def guarded(self: socket.socket, *arguments: Any) -> Any:
        if arguments:
            _check(self.family, arguments[at])
        return inner(self, *arguments)

    setattr(socket.socket, name, guarded)
    return lambda: setattr(socket.socket, name, own) if own else delattr(socket.socket, name)


def _guard_lookup(name: str) -> Callable[[], None]:
    inner = getattr(socket, name)

    def guarded(host: Any, *arguments: Any, **named: Any) -> Any:
        if not is_loopback(host):
            _refuse(host)
        return inner(host, *arguments, **named)

    setattr(socket, name, guarded)
    return lambda: setattr(socket, name, inner)
