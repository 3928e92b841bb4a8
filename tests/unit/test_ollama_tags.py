"""The models installed in a local Ollama, from a real server on a loopback port."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from engine.models.ollama.running import installed_models

BODY = {"value": b""}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/tags" else 404)
        self.end_headers()
        self.wfile.write(BODY["value"])

    def log_message(self, *_args: object) -> None:
        """Silence."""


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.server_port}")
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_tags_of_a_local_ollama_are_listed(port: int) -> None:
    BODY["value"] = json.dumps({"models": [{"name": "qwen3:0.6b"}, {"name": "[red]"}, {"x": 1}, 3]}).encode()
    assert installed_models() == ["qwen3:0.6b", "[red]"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"models": null}', b"\xff\xfe"])
def test_an_invalid_response_gives_no_models(port: int, body: bytes) -> None:
    BODY["value"] = body
    assert installed_models() == []


def test_another_machine_is_never_contacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://192.0.2.1:11434")
    assert installed_models(timeout=5) == []


def test_no_ollama_gives_no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    assert installed_models() == []
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:notaport")
    assert installed_models() == []
