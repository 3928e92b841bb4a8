"""The models that a local Ollama has installed and loaded, and unloading them.

It uses `http.client`: the app calls it, and the `ollama` package takes long to import.
"""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from engine.core.errors import UsageProblem
from engine.models.ollama.client import local_host

OWN_SERVER = "h2q-tui"
"""The Server header of this program's own server."""
MAX_BYTES = 1 << 20
"""Bytes of a response that are read at most."""


@dataclass(frozen=True)
class RunningModel:
    """A model loaded in Ollama; `mb` is its memory on CPU and GPU together."""

    name: str
    mb: float


def installed_models(timeout: float = 0.5) -> list[str]:
    """Tags of the installed models; empty when no local Ollama answers within `timeout` seconds.

    Never raises, never contacts another machine, uses no proxy.
    """
    return [name for model in _models("/api/tags", timeout) if (name := _name(model))]


def running_models(timeout: float = 0.5) -> list[RunningModel]:
    """The models loaded in the local Ollama; otherwise as `installed_models`."""
    running = []
    for model in _models("/api/ps", timeout):
        size = model.get("size")
        if _name(model):
            running.append(RunningModel(_name(model), size / 2**20 if isinstance(size, int | float) else 0.0))
    return running


def unload_models(models: list[RunningModel], *, wait_s: float = 10.0) -> list[RunningModel]:
    """Unloads `models` from Ollama and waits for that; returns those still loaded after `wait_s` seconds.

    Never raises; Ollama loads a model again on its next request.
    """
    for model in models:
        _request("POST", "/api/generate", wait_s, {"model": model.name, "keep_alive": 0})
    names, deadline = {model.name for model in models}, time.monotonic() + wait_s
    while left := [model for model in running_models() if model.name in names]:
        if time.monotonic() >= deadline:
            return left
        time.sleep(0.1)
    return []


def _models(path: str, timeout: float) -> list[dict[str, Any]]:
    reply = _request("GET", path, timeout)
    models = reply.get("models") if isinstance(reply, dict) else None
    return [model for model in models or [] if isinstance(model, dict)]


def _name(model: dict[str, Any]) -> str:
    name = model.get("name")
    return name if isinstance(name, str) else ""


def _request(method: str, path: str, timeout: float, body: dict[str, Any] | None = None) -> Any:
    """The JSON response of Ollama; None without one, or when `$OLLAMA_HOST` is another machine."""
    try:
        address = urlsplit(local_host())
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            data = answer.read(MAX_BYTES)
            # The server of this program speaks the same API; its models are known without it.
            ours = answer.getheader("Server") == OWN_SERVER
            return json.loads(data) if answer.status == 200 and not ours else None
        finally:
            connection.close()
    except (UsageProblem, OSError, ValueError, http.client.HTTPException):
        return None
