"""Models that Ollama holds in memory are told, and freed when the person agreed, against a real HTTP server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from engine.health.ollama import Held, free_models, held_models
from engine.runs.events import Log
from engine.runs.spec import TrainParams
from engine.training.phase import memory_budget
from tests.unit.training_run import events, new_run, tiny

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
    """The two calls of Ollama that free memory."""

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


@pytest.fixture
def ollama(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Ollama]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ollama)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.server_port}")
    Ollama.loaded, Ollama.stubborn = {"qwen3:0.6b": PS, "b": {**PS, "name": "b", "size": 52428800}}, False
    yield Ollama
    server.shutdown()
    server.server_close()


def test_what_is_held_is_told_with_its_size_and_freed(ollama: type[Ollama]) -> None:
    held = held_models()
    assert held == [Held("qwen3:0.6b", 1024.0), Held("b", 50.0)]
    assert free_models(held) == []
    assert held_models() == []


def test_what_is_not_given_back_is_named(ollama: type[Ollama]) -> None:
    ollama.stubborn = True
    assert free_models(held_models(), wait_s=0.3) == [Held("qwen3:0.6b", 1024.0), Held("b", 50.0)]


def test_another_machine_is_never_asked_and_nobody_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("192.0.2.7:11434", "127.0.0.1:9", "127.0.0.1:port"):
        monkeypatch.setenv("OLLAMA_HOST", host)
        assert held_models() == []
        assert free_models([Held("a", 1.0)], wait_s=0.2) == []


@pytest.mark.parametrize("agreed", [False, True])
def test_a_run_frees_them_only_when_the_person_agreed(
    tmp_path: Path, ollama: type[Ollama], agreed: bool
) -> None:
    ctx = new_run(tmp_path, TrainParams(settings={"unload_ollama": agreed}))
    memory_budget(ctx, tiny())
    said = [event.text for event in events(ctx, Log) if "qwen3:0.6b" in event.text]
    assert len(said) == 1 and "1074" in said[0]
    assert ("--unload-ollama" in said[0]) is not agreed
    assert bool(ollama.loaded) is not agreed
