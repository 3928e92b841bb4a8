"""What a `Host` header names. A page whose name was pointed at this machine (DNS rebinding) is known by it."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def host_name(header: str) -> str:
    """The name or address in `host[:port]`, in lower case; "" for anything else."""
    try:
        parts = urlsplit(f"//{header}")
        name, _port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    if "%" in name or parts.username is not None or parts.path or parts.query or parts.fragment:
        return ""
    return name.removesuffix(".")


def names_loopback(header: str) -> bool:
    """Whether it means this machine, whatever a name server says: localhost and names below it (RFC 6761), 127.0.0.0/8,
    `[::1]`."""
    name = host_name(header)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
