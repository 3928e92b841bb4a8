"""A fake Ollama with the two API calls that list and unload running models."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

PS = {
    "name": "qwen3:0.6b",
    "model": "qwen3:0.6b",
    "size": 1073741824,
    "digest": "7df6b6e09427a769808717c0a93cadc4ae99ed4eb8bf5ca557c90846becea435",
    "details": {"parent_model": "", "format": "gguf", "family": "qwen3", "quantization_level": "Q4_K_M"},
    "expires_at": "2026-11-21T09:03:12.000000Z",
    "size_vram": 0,
    "context_length": 4096,
}
"""A row of `/api/ps`, as Ollama's API documentation shows it."""


class Ollama(BaseHTTPRequestHandler):
    """The handler of `/api/ps` and of unloading through `/api/generate`."""

    loaded: ClassVar[dict[str, dict[str, Any]]] = {}
    stubborn: ClassVar[bool] = False

    def do_GET(self) -> None:
        self._answer({"models": list(self.loaded.values())} if self.path == "/api/ps" else {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/api/generate" and asked["keep_alive"] == 0 and "prompt" not in asked
        if not self.stubborn:
            self.loaded.pop(asked["model"], None)
        self._answer({"model": asked["model"], "response": "", "done": True, "done_reason": "unload"})

    def _answer(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_words: object) -> None: ...


@contextmanager
def ollama_with_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Ollama]]:
    """A loopback server with two running models, set as $OLLAMA_HOST."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ollama)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.server_port}")
    Ollama.loaded, Ollama.stubborn = {"qwen3:0.6b": PS, "b": {**PS, "name": "b", "size": 52428800}}, False
    yield Ollama
    server.shutdown()
    server.server_close()
