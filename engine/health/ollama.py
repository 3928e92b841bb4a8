"""Whether an Ollama answers on this machine, and which models it has."""

from __future__ import annotations

import http.client
import json
import os
from urllib.parse import urlsplit

DEFAULT = "127.0.0.1:11434"
LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # noqa: S104  an address to bind is one to reach here
LARGEST = 1 << 20
"""Bytes of an answer that are read."""


def address() -> tuple[str, int]:
    """Host and port from $OLLAMA_HOST, else Ollama's own. Raises ValueError for a port that is none."""
    given = os.environ.get("OLLAMA_HOST", "").strip() or DEFAULT
    parts = urlsplit(given if "//" in given else f"//{given}")
    host = parts.hostname or "127.0.0.1"
    return ("127.0.0.1" if host == "0.0.0.0" else host), parts.port or 11434  # noqa: S104


def installed_models(timeout: float = 0.5) -> list[str]:
    """Tags of the models that a loopback Ollama has; empty when none answers within `timeout` seconds.

    Never raises, never asks another machine, uses no proxy.
    """
    try:
        host, port = address()
        if host not in LOOPBACK:
            return []
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            connection.request("GET", "/api/tags")
            answer = connection.getresponse()
            if answer.status != 200:
                return []
            found = json.loads(answer.read(LARGEST))
        finally:
            connection.close()
        models = found.get("models") if isinstance(found, dict) else None
        names = [model.get("name") for model in models or [] if isinstance(model, dict)]
        return [name for name in names if isinstance(name, str) and name]
    except (OSError, ValueError, http.client.HTTPException):
        return []
