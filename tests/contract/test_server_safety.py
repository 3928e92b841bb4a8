"""Who may use the built-in server, and what slow, hostile and departing clients do to it: nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from engine.core.errors import UsageProblem
from engine.core.paths import Workspace
from engine.http import bodies, connections
from engine.http.gate import AccessRules
from engine.inference.client import InferenceClient
from engine.serving.front import Front
from engine.serving.server import log_path, serve
from tests.models import TINY, copy_model, talk, write_tiny
from tests.serving import serving, short_workspace

ASKED = [{"role": "user", "content": "数到三"}]
CHAT: dict[str, Any] = {"model": "good", "messages": ASKED, "stream": False, "options": {"temperature": 0}}
KEY = "a-key-of-twenty-four-xyz"


@pytest.fixture(scope="module")
def ws(knowing: Path) -> Iterator[Workspace]:
    with short_workspace() as ws:
        copy_model(knowing, ws.models / "good")
        wide = msgspec.structs.replace(TINY, context=2048, max_positions=4096)
        write_tiny(ws.models / "endless", [talk("a", "b")], steps=0, config=wide)
        yield ws


@pytest.fixture(scope="module")
def url(ws: Workspace) -> Iterator[str]:
    with serving(ws) as url:
        yield url


def send(url: str, path: str = "/api/tags", method: str = "GET", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps(CHAT) if method == "POST" else None
    return httpx.request(method, url + path, content=body, headers=named, timeout=60, trust_env=False)


FOREIGN = [
    "https://evil.example",
    "http://localhost.evil.example",
    "null",
    "http://192.168.1.5",
    "file://",
    "app://x",
]
LOCAL = [
    "http://localhost",
    "http://localhost:3000",
    "https://127.0.0.1:8080",
    "http://[::1]:5",
    "http://a.localhost",
]


@pytest.mark.parametrize("origin", FOREIGN)
def test_pages_of_other_sites_are_refused_whatever_they_send(url: str, origin: str) -> None:
    for method, path in (("GET", "/"), ("GET", "/api/tags"), ("OPTIONS", "/api/chat"), ("POST", "/api/chat")):
        reply = send(url, path, method, origin=origin, content_type="text/plain")
        assert reply.status_code == 403 and "access-control-allow-origin" not in reply.headers
        assert reply.json() == {"error": "this origin is not allowed"}


@pytest.mark.parametrize("origin", LOCAL)
def test_pages_of_this_machine_are_answered(url: str, origin: str) -> None:
    reply = send(url, origin=origin)
    assert reply.status_code == 200 and reply.headers["access-control-allow-origin"] == origin
    preflight = send(url, "/api/chat", "OPTIONS", origin=origin, access_control_request_method="POST")
    assert preflight.status_code == 204 and "POST" in preflight.headers["access-control-allow-methods"]


def test_origins_that_were_allowed_are_answered(ws: Workspace) -> None:
    with serving(ws, AccessRules(origins=("app://obsidian.md", "https://*.home.example"))) as url:
        for origin in ("app://obsidian.md", "https://chat.home.example"):
            assert send(url, origin=origin).status_code == 200
        for origin in ("app://obsidian.md.evil", "https://home.example.evil", "https://evil.example"):
            assert send(url, origin=origin).status_code == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:11434", 200), ("127.0.0.1:11434", 200), ("[::1]:11434", 200), ("127.9.9.9", 200),
        ("evil.example", 403), ("evil.example:11434", 403), ("localhost.evil.example", 403), ("192.168.1.5", 403),
        ("127.0.0.1.nip.io", 403), ("169.254.169.254", 403),
    ],
)  # fmt: skip
def test_a_name_that_a_site_has_pointed_here_is_refused(url: str, host: str, status: int) -> None:
    assert send(url, host=host).status_code == status


def test_a_key_is_asked_for_in_every_request(ws: Workspace) -> None:
    with serving(ws, AccessRules(key=KEY)) as url:
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": KEY},
            {"x_api_key": KEY[:-1]},
        ):
            for path in ("/", "/api/tags", "/v1/models", "/nothing"):
                reply = send(url, path, **headers)
                assert reply.status_code == 401 and KEY not in reply.text
        for headers in ({"authorization": f"Bearer {KEY}"}, {"x_api_key": KEY}):
            assert send(url, **headers).status_code == 200
        assert (
            send(url, "/api/tags", origin="https://evil.example", authorization=f"Bearer {KEY}").status_code
            == 403
        )
    assert KEY not in (log_path(ws).read_text() if log_path(ws).exists() else "")


@pytest.fixture
def raw(url: str) -> Iterator[socket.socket]:
    """A connection to the server."""
    with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=20) as connection:
        yield connection


def head(length: int | None, *lines: str) -> bytes:
    sized = [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join(["POST /api/chat HTTP/1.1", "Host: localhost", *sized, *lines, "", ""]).encode()


@pytest.mark.parametrize("lines", [(), ("Expect: 100-continue",)], ids=["plain", "expect"])
def test_a_body_that_says_it_is_too_large_is_not_read(
    raw: socket.socket, url: str, lines: tuple[str, ...]
) -> None:
    raw.sendall(head(bodies.MAX_BODY + 1, *lines))
    assert raw.recv(100).startswith(b"HTTP/1.1 413 ")
    assert send(url).status_code == 200


def test_a_body_without_a_length_is_counted(raw: socket.socket) -> None:
    raw.sendall(head(None, "Transfer-Encoding: chunked"))
    part = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    try:
        for _number in range(9):
            raw.sendall(part)
    except ConnectionError:
        return
    assert raw.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come_is_given_up(raw: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "CHUNK_S", 0.1)
    raw.sendall(head(50) + b"{")
    assert raw.recv(100).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: local"])
def test_a_head_that_does_not_come_is_given_up(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "HEADERS_S", 0.1)
    with serving(ws) as url:
        port = urlsplit(url).port or 0
        with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
            slow.sendall(sent)
            with suppress(ConnectionResetError):
                assert slow.recv(100) == b""
        assert send(url).status_code == 200


@pytest.mark.parametrize(
    "request_",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", head(-5), b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"],
    ids=["no http", "two hosts", "negative length", "long header", "tls"],
)  # fmt: skip
def test_what_is_no_request_is_refused(raw: socket.socket, url: str, request_: bytes) -> None:
    reply = b""
    # A server that has refused it may have closed already.
    with suppress(OSError):
        raw.sendall(request_)
        raw.shutdown(socket.SHUT_WR)
        reply = raw.recv(1000)
    assert reply == b"" or b" 400 " in reply.partition(b"\r\n")[0]
    assert send(url).status_code == 200


async def generating(ws: Workspace, wanted: str, waiting: int = 0) -> None:
    """Waits until the service generates with `wanted` while `waiting` requests are queued."""
    deadline = time.monotonic() + 20
    while True:
        status = await InferenceClient(ws).status()
        if status is not None and (status.generating, status.waiting) == (wanted, waiting):
            return
        assert time.monotonic() < deadline, status
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_place(ws: Workspace, url: str, stream: bool) -> None:
    body = {"model": "endless", "messages": ASKED, "stream": stream, "options": {"num_predict": 1900}}
    port = urlsplit(url).port or 0
    clients = []
    for place in range(3):
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        data = json.dumps(body).encode()
        writer.write(head(len(data)) + data)
        clients.append(writer)
        await generating(ws, "endless", place)
    for waiting in (1, 0):
        clients.pop().close()
        await generating(ws, "endless", waiting)
    clients.pop().close()
    await generating(ws, "")


async def test_two_hundred_requests_are_all_answered(ws: Workspace, url: str) -> None:
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(trust_env=False, timeout=120, limits=limits) as client:
        replies = await asyncio.gather(*(client.post(f"{url}/api/chat", json=CHAT) for _number in range(200)))
    assert {reply.status_code for reply in replies} == {200}
    assert {reply.json()["message"]["content"] for reply in replies} == {"一二三。"}


def test_a_full_queue_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.serving.front.MAX_QUEUE", 0)
    reply = send(url, "/api/chat", "POST")
    assert reply.status_code == 503 and "maximum pending requests exceeded" in reply.json()["error"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_fault_of_the_server_shows_no_traceback(
    ws: Workspace, url: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Front, request: object) -> AsyncIterator[object]:
        yield 1 / 0

    monkeypatch.setattr(Front, "answer", broken)
    reply = httpx.post(f"{url}/api/chat", json=CHAT | {"stream": stream}, timeout=60, trust_env=False)
    assert (reply.status_code, reply.json()) == (500, {"error": "internal error"})


def test_the_answer_of_a_service_that_dies_ends_with_a_sentence(ws: Workspace, url: str) -> None:
    body = {"model": "endless", "messages": ASKED, "options": {"num_predict": 1900}}
    send(url, "/api/chat", "POST")
    # Asked for before, so that the answer has not ended by then.
    status = asyncio.run(InferenceClient(ws).status())
    assert status is not None
    with httpx.stream("POST", f"{url}/api/chat", json=body, timeout=60, trust_env=False) as reply:
        lines = reply.iter_lines()
        next(lines)
        os.kill(status.pid, signal.SIGKILL)
        last = json.loads(list(lines)[-1])
    assert "does not answer" in last["error"] and "\n" not in last["error"]
    assert send(url, "/api/chat", "POST").json()["message"]["content"] == "一二三。"


def command(ws: Workspace, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from tui.cli.main import main; main()", "--data-dir", str(ws.root), "ollama", "serve", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def test_the_command_says_where_it_serves_and_ends_on_ctrl_c(ws: Workspace) -> None:
    with command(ws, "--port", "0", "--json") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while lines[-1] not in ("}\n", ""):
            lines.append(process.stdout.readline())
        said = json.loads("".join(lines))
        assert send(said["address"], "/").text == "Ollama is running"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_other_machines_need_a_key_that_only_the_user_reads(ws: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o644)
    for arguments in (
        ("--host", "0.0.0.0"),
        ("--host", "::"),
        ("--key-file", str(file)),
        ("--key-file", "/dev/null/x"),
    ):
        with command(ws, "--port", "0", *arguments) as process:
            _out, error = process.communicate(timeout=30)
            assert process.returncode == 2 and error.count("\n") <= 2 and "Traceback" not in error, error


@pytest.mark.parametrize(
    "origin", ["example.org", "https://", "https://a b", "https://a/b", "\udce9", "https://é.org"]
)
def test_what_is_no_origin_is_refused_before_anything_is_served(ws: Workspace, origin: str) -> None:
    with pytest.raises(UsageProblem, match="is no origin"):
        serve(
            ws,
            port=0,
            origins=["app://obsidian.md", origin],
            announce=lambda *_address: pytest.fail("serves"),
        )
