"""A fake Ollama over HTTP with its API for creating models: blobs by digest, create from files or a tag."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,79})?")


@dataclass
class OllamaState:
    """The requests to the server. `models` has the body of each create."""

    folder: Path
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    fail_with: str = ""
    """An error to put into the stream of the next create."""

    def blob(self, digest: str) -> Path:
        return self.folder / digest.replace(":", "-")


@contextmanager
def ollama_server(folder: Path) -> Iterator[tuple[str, OllamaState]]:
    """(address, state) of a server on a loopback port with its blobs in `folder`."""
    state = OllamaState(folder)
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: OllamaState

    def do_GET(self) -> None:
        self.state.requests.append(f"GET {self.path}")
        if self.path == "/api/version":
            self._json(200, {"version": "0.30.1"})
        elif self.path == "/api/tags":
            self._json(200, {"models": [{"name": name} for name in self.state.models]})
        else:
            self._json(404, {"error": "not found"})

    def do_HEAD(self) -> None:
        self.state.requests.append("HEAD")
        self.send_response(200 if self.state.blob(self.path.rpartition("/")[2]).is_file() else 404)
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.state.requests.append(f"POST {self.path.split('/sha256')[0]}")
        if self.path.startswith("/api/blobs/"):
            digest = self.path.rpartition("/")[2]
            found = f"sha256:{hashlib.sha256(body).hexdigest()}"
            if digest != found:
                return self._json(400, {"error": f'digest mismatch, expected "{digest}", got "{found}"'})
            self.state.blob(digest).write_bytes(body)
            self.send_response(201)
            self.end_headers()
        elif self.path == "/api/create":
            self._create(json.loads(body))
        elif self.path == "/api/show":
            self._show(json.loads(body)["model"])
        else:
            self._json(404, {"error": "not found"})

    def _create(self, asked: dict[str, Any]) -> None:
        if not _NAME.fullmatch(asked["model"]):
            return self._json(400, {"error": "invalid model name"})
        files = {**asked.get("files", {}), **asked.get("adapters", {})}
        if not files and "from" not in asked:
            return self._json(400, {"error": "neither 'from' or 'files' was specified"})
        if any("/" in name for name in files):
            return self._json(400, {"error": "file path must be relative"})
        for digest in files.values():
            blob = self.state.blob(digest)
            if not blob.is_file() or blob.read_bytes()[:4] != b"GGUF":
                return self._json(400, {"error": "supplied file was not in GGUF format"})
        self.send_response(200)
        self.end_headers()
        lines: list[dict[str, Any]] = [{"status": "parsing GGUF"}, {"status": "writing manifest"}]
        lines.append({"error": self.state.fail_with} if self.state.fail_with else {"status": "success"})
        for line in lines:
            self.wfile.write(json.dumps(line).encode() + b"\n")
        if not self.state.fail_with:
            self.state.models[asked["model"]] = asked

    def _show(self, name: str) -> None:
        made = self.state.models.get(name)
        if made is None:
            return self._json(404, {"error": f"model '{name}' not found"})
        base = self.state.models.get(made.get("from", ""), made)
        lines = [f"FROM {self.state.blob(next(iter(base['files'].values())))}"]
        lines += [f"ADAPTER {self.state.blob(digest)}" for digest in made.get("adapters", {}).values()]
        modelfile = "\n".join(["# Modelfile", *lines]) + "\n"
        self._json(200, {"modelfile": modelfile, "system": made.get("system") or "", "model_info": {}})

    def _json(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args: object) -> None:
        """Silence."""
