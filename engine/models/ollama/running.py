"""Whether an Ollama answers on this machine, which models it has, and which of them take memory now."""

from __future__ import annotations

import http.client
import json
import os
import time
from dataclasses import dataclass
from typing import Any
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


@dataclass(frozen=True)
class RunningModel:
    """A model that Ollama holds in memory; `mb` on the processor and the GPU together."""

    name: str
    mb: float


def installed_models(timeout: float = 0.5) -> list[str]:
    """Tags of the models that a loopback Ollama has; empty when none answers within `timeout` seconds.

    Never raises, never asks another machine, uses no proxy.
    """
    return [name for model in _models("/api/tags", timeout) if (name := _name(model))]


def running_models(timeout: float = 0.5) -> list[RunningModel]:
    """The models that a loopback Ollama holds in memory; as `installed_models`."""
    found = []
    for model in _models("/api/ps", timeout):
        size = model.get("size")
        if _name(model):
            found.append(RunningModel(_name(model), size / 2**20 if isinstance(size, int | float) else 0.0))
    return found


def unload_models(models: list[RunningModel], *, wait_s: float = 10.0) -> list[RunningModel]:
    """Asks Ollama to give back the memory of `models` and waits for it; gives those that it still holds.

    Never raises; Ollama loads a model again when it is next asked.
    """
    for model in models:
        _ask("POST", "/api/generate", wait_s, {"model": model.name, "keep_alive": 0})
    names, deadline = {model.name for model in models}, time.monotonic() + wait_s
    while left := [model for model in running_models() if model.name in names]:
        if time.monotonic() >= deadline:
            return left
        time.sleep(0.1)
    return []


def _models(path: str, timeout: float) -> list[dict[str, Any]]:
    found = _ask("GET", path, timeout)
    models = found.get("models") if isinstance(found, dict) else None
    return [model for model in models or [] if isinstance(model, dict)]


def _name(model: dict[str, Any]) -> str:
    name = model.get("name")
    return name if isinstance(name, str) else ""


def _ask(method: str, path: str, timeout: float, body: dict[str, Any] | None = None) -> Any:
    """The JSON that Ollama answers; None when it does not, or is not on this machine."""
    try:
        host, port = address()
        if host not in LOOPBACK:
            return None
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            data = answer.read(LARGEST)
            return json.loads(data) if answer.status == 200 else None
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException):
        return None
