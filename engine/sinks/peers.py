"""Other machines that the person named: what their `h2q-tui web` or `h2q-tui monitor --export-port` say of them.

Nothing is searched for and nothing is sent: each address of the setting `peers` is asked, without proxy and redirects.
Both servers listen on the loopback of their machine, so that an address is usually the local end of an ssh tunnel.
"""

from __future__ import annotations

import http.client
import json
import math
import re
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec

from engine.core.errors import UsageProblem
from engine.core.i18n import _

TIMEOUT_S = 3.0
MAX_BYTES = 1 << 20
"""More than any answer of our own servers has."""
DEFAULT_PATH = "/api/latest-data"


class PeerAddress(msgspec.Struct, frozen=True):
    """Where to ask."""

    name: str
    host: str
    port: int
    path: str
    secure: bool = False


class PeerReading(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine said at `t`, seconds since the epoch; shares in percent, None for what it did not say."""

    name: str
    t: float
    cpu_percent: float | None = None
    memory_percent: float | None = None
    training: bool | None = None
    loss: float | None = None
    error: str = ""
    """Why there is no answer: "silent", "refused" (401 or 403) or "unknown" for one that is not understood; "" with one."""


def parse_peer(text: str) -> PeerAddress:
    """A row of the setting: `[NAME=]ADDRESS`, where the address is `host:port` or a URL. Raises UsageProblem."""
    name, equals, address = text.strip().partition("=")
    if not equals or "://" in name or "?" in name:
        name, address = "", text.strip()
    if "://" not in address:
        address = f"http://{address}"
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if not host or parts.scheme not in ("http", "https") or parts.username is not None:
        raise UsageProblem(
            _("{peer} is no address of another machine: NAME=http://HOST:PORT").format(peer=text),
            hint="h2q-tui monitor --help",
        )
    path = parts.path if parts.path not in ("", "/") else DEFAULT_PATH
    return PeerAddress(
        name=name.strip() or f"{host}:{port or ''}".rstrip(":"),
        host=host,
        port=port or (443 if parts.scheme == "https" else 80),
        path=f"{path}?{parts.query}" if parts.query else path,
        secure=parts.scheme == "https",
    )


def read_peer(peer: PeerAddress, *, timeout_s: float = TIMEOUT_S) -> PeerReading:
    """Asks a machine. Never raises; takes `timeout_s` for a silent one."""
    try:
        status, text = _get(peer, timeout_s)
    except (OSError, http.client.HTTPException, ValueError):
        return PeerReading(name=peer.name, t=time.time(), error="silent")
    if status in (401, 403):
        return PeerReading(name=peer.name, t=time.time(), error="refused")
    try:
        values = parse_latest(text) if text.lstrip().startswith("{") else parse_metrics(text)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        values = {}
    if status != 200 or not values:
        return PeerReading(name=peer.name, t=time.time(), error="unknown")
    return PeerReading(name=peer.name, t=time.time(), **values)


def _get(peer: PeerAddress, timeout_s: float) -> tuple[int, str]:
    kind = http.client.HTTPSConnection if peer.secure else http.client.HTTPConnection
    connection = kind(peer.host, peer.port, timeout=timeout_s)
    try:
        connection.request("GET", peer.path, headers={"Connection": "close"})
        answer = connection.getresponse()
        deadline, parts = time.monotonic() + timeout_s, list[bytes]()
        while (part := answer.read1(65536)) and time.monotonic() < deadline:
            parts.append(part)
            if sum(map(len, parts)) > MAX_BYTES:
                raise ValueError("too long")
        return answer.status, b"".join(parts).decode("utf-8", "replace")
    finally:
        connection.close()


def parse_latest(text: str) -> dict[str, Any]:
    """The newest rows of `/api/latest-data`. Raises ValueError, TypeError, KeyError or AttributeError for another answer."""
    answer = json.loads(text)
    machine = (answer["performance"] or [{}])[0]
    reward = (answer["rewards"] or [{}])[0].get("reward")
    return {
        "cpu_percent": _figure(machine.get("cpu_usage")),
        "memory_percent": _figure(machine.get("memory_usage")),
        "training": bool(machine["training_active"]) if "training_active" in machine else None,
        "loss": None if _figure(reward) is None else -float(reward),
    }


_METRIC = re.compile(r'(h2q_[a-z0-9_]+)(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})? (\S+)')


def parse_metrics(text: str) -> dict[str, Any]:
    """The figures of `monitor --export-port`; empty for another text. Raises ValueError for a value that is no number."""
    found: dict[str, list[float]] = {}
    for line in text.splitlines():
        match = _METRIC.match(line)
        if match is not None:
            found.setdefault(match[1], []).append(float(match[2]))
    if not found:
        return {}
    cores = found.get("h2q_cpu_percent")
    used, total = found.get("h2q_memory_used_bytes"), found.get("h2q_memory_total_bytes")
    losses = found.get("h2q_run_loss")
    return {
        "cpu_percent": sum(cores) / len(cores) if cores else None,
        "memory_percent": 100 * used[0] / total[0] if used and total and total[0] else None,
        "training": any(found.get("h2q_run_alive", ())),
        "loss": losses[-1] if losses else None,
    }


def _figure(value: Any) -> float | None:
    is_figure = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_figure else None
