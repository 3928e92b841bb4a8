"""What hostile, slow, many and departing clients do to a hive: nothing; legitimate uploads go on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from engine.core.errors import Busy
from engine.hive.intake import HiveLimits
from engine.hive.registry import Registry
from engine.hive.server.serve import hive_folder, only_server
from engine.hive.tokens import create_token
from engine.http import bodies, connections
from engine.workspace.open import open_workspace
from engine.workspace.reset import plan_reset, reset
from tests.cli import run_cli
from tests.hive_server import adapter_zip, announce, send, serving_hive, stored_files, weights
from tests.hostile_uploads import ANNOUNCED, NUMBERS, RAW, USERS, HostileFile, hostile_files

FILES = list(hostile_files(7))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace") / "hive"


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving_hive(folder) as url:
        yield url


def port_of(url: str) -> int:
    return urlsplit(url).port or 0


def answer_to(url: str, request: bytes) -> bytes:
    """The first line that is answered to bytes on a connection; b"" when it was closed."""
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=20) as connection, suppress(OSError):
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(1000).partition(b"\r\n")[0]
    return b""


@pytest.mark.parametrize("hostile", FILES, ids=lambda hostile: hostile.why)
def test_a_hostile_file_is_refused_by_a_rule_and_leaves_nothing(
    url: str, folder: Path, hostile: HostileFile
) -> None:
    reply = send(url, "eve", hostile.data, base_model="Tiny-Base")
    assert 400 <= reply.status_code < 500, reply.text
    assert reply.json()["rule"], reply.text
    assert str(folder) not in reply.text and "Traceback" not in reply.text
    assert stored_files(folder) == set()


@pytest.mark.parametrize("why", RAW)
def test_a_hostile_request_is_refused_and_the_next_one_answered(url: str, folder: Path, why: str) -> None:
    line = answer_to(url, RAW[why])
    assert line == b"" or line.split(b" ")[1][:1] == b"4", line
    assert httpx.get(f"{url}/", trust_env=False).status_code == 200
    assert stored_files(folder) == set()


@pytest.mark.parametrize("why", ANNOUNCED)
def test_a_hostile_announcement_is_refused_before_a_byte_is_taken(url: str, folder: Path, why: str) -> None:
    data = weights(1)
    reply = announce(url, data, **ANNOUNCED[why](data))
    assert 400 <= reply.status_code < 500, reply.text
    assert stored_files(folder) == set()


@pytest.mark.parametrize("user", USERS)
def test_a_name_that_is_none_is_refused(url: str, folder: Path, user: str) -> None:
    reply = send(url, user, adapter_zip(1))
    assert reply.status_code == 422 and (not user or reply.json()["rule"] == "user"), reply.text
    assert stored_files(folder) == set()


@pytest.mark.parametrize("number", NUMBERS)
def test_a_count_that_is_none_is_refused(url: str, number: str) -> None:
    for field in ("training_samples", "epochs"):
        changed: dict[str, Any] = {field: number}
        reply = send(url, "eve", adapter_zip(1), **changed)
        assert (reply.status_code, reply.json()["rule"]) == (422, "samples")


def test_an_adapter_larger_than_the_hive_takes_is_not_read(tmp_path: Path) -> None:
    with serving_hive(tmp_path / "hive", limits=HiveLimits(max_bytes=4000)) as url:
        assert announce(url, b"x" * 4001).status_code == 413
        head = b"POST /api/v1/adapter/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16001\r\n"
        with socket.create_connection(("127.0.0.1", port_of(url)), timeout=20) as connection:
            connection.sendall(head + b"Expect: 100-continue\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
        assert send(url, "a", adapter_zip(1)).status_code == 200


def test_a_hundred_half_sent_heads_keep_nobody_out(tmp_path: Path) -> None:
    with serving_hive(tmp_path / "hive") as url, ExitStack() as open_:
        for number in range(100):
            connection = socket.create_connection(("127.0.0.1", port_of(url)), timeout=20)
            open_.enter_context(connection)
            with suppress(OSError):
                connection.sendall(b"POST /api/v1/adapter/upload HTTP/1.1\r\nHost: local"[: number % 50])
        for seed, user in enumerate(("a", "b", "c")):
            assert send(url, user, adapter_zip(seed)).status_code == 200
        assert (
            len(connections.LimitedProtocol._of_address["127.0.0.1"])
            <= connections.LimitedProtocol.MOST_SILENT + 4
        )


def test_connections_of_one_address_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections.LimitedProtocol, "MOST", 5)
    with serving_hive(tmp_path / "hive") as url, ExitStack() as open_:
        ends = []
        for _number in range(8):
            connection = socket.create_connection(("127.0.0.1", port_of(url)), timeout=20)
            open_.enter_context(connection)
            with suppress(OSError):
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                ends.append(connection.recv(12))
        assert ends.count(b"HTTP/1.1 200") == 5


def test_a_body_that_does_not_come_is_given_up_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "CHUNK_S", 0.1)
    with serving_hive(tmp_path / "hive") as url:
        head = (
            b"POST /api/v1/adapter/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
        with socket.create_connection(("127.0.0.1", port_of(url)), timeout=20) as connection:
            connection.sendall(head)
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        assert stored_files(tmp_path / "hive") == set()


def test_a_body_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SLOW_S", 0.2)
    monkeypatch.setattr(bodies, "SLOWEST", 1 << 20)
    with serving_hive(tmp_path / "hive") as url:
        upload = announce(url, weights(1)).json()["upload_id"]
        head = f"PUT /api/v1/uploads/{upload}?offset=0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port_of(url)), timeout=20) as connection:
            connection.sendall(head.encode())
            for _number in range(30):
                with suppress(OSError):
                    connection.sendall(b"x")
                time.sleep(0.02)
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_what_came_of_a_part_that_broke_off_is_kept(tmp_path: Path) -> None:
    data = weights(1)
    with serving_hive(tmp_path / "hive") as url:
        upload = announce(url, data).json()["upload_id"]
        head = f"PUT /api/v1/uploads/{upload}?offset=0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port_of(url)), timeout=20) as connection:
            connection.sendall(head.encode() + data[:1500])
            # uvicorn drops what it has not handed on when the client is gone.
            time.sleep(0.3)
        state: dict[str, Any] = {"offset": 0}
        deadline = time.monotonic() + 20
        while not state["offset"] and time.monotonic() < deadline:
            state = httpx.get(f"{url}/api/v1/uploads/{upload}", trust_env=False).json()
        assert state["offset"] == 1500


def test_requests_that_come_too_often_are_told_when_to_come_again(tmp_path: Path) -> None:
    with serving_hive(tmp_path / "hive", rate=6.0) as url:
        replies = [httpx.get(f"{url}/api/v1/status", trust_env=False) for _number in range(6)]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429, 429, 429]
        assert 0 < int(replies[-1].headers["retry-after"]) <= 10


def test_a_user_has_few_open_uploads(tmp_path: Path) -> None:
    with serving_hive(tmp_path / "hive", limits=HiveLimits(open_uploads=2)) as url:
        statuses = [announce(url, weights(seed)).status_code for seed in range(4)]
        assert statuses == [201, 201, 429, 429]


def test_an_upload_that_expired_is_swept_with_what_a_killed_server_left(tmp_path: Path) -> None:
    folder = tmp_path / "hive"
    with serving_hive(folder) as url:
        upload = announce(url, weights(1)).json()["upload_id"]
        registry = Registry(folder)
        with registry.transaction() as db:
            db.execute("UPDATE uploads SET expires_at = 1")
        registry.close()
        assert httpx.get(f"{url}/api/v1/uploads/{upload}", trust_env=False).status_code == 404
    for orphan in ("alice/20260101_000000", "aggregated/v1"):
        (folder / orphan).mkdir(parents=True)
        for name in ("adapter_config.json", ".unfinished"):
            (folder / orphan / name).touch()
    for left in (".incoming.x", "aggregated/.joined.x"):
        (folder / left).mkdir()
        (folder / left / "adapter_config.json").touch()
    with serving_hive(folder):
        assert stored_files(folder) == set()


def test_a_sweep_leaves_what_was_finished_and_what_a_person_put_there(tmp_path: Path) -> None:
    folder = tmp_path / "hive"
    with serving_hive(folder) as url:
        for seed, user in enumerate(("alice", "bob")):
            assert send(url, user, adapter_zip(seed)).status_code == 200
        joined = httpx.post(f"{url}/api/v1/aggregate", timeout=60, trust_env=False).json()
        assert joined["success"]
    for own in ("mine.txt", "aggregated/.notes/mine.txt", ".uploads/notes/mine.txt"):
        (folder / own).parent.mkdir(exist_ok=True)
        (folder / own).write_text("a file of the person")
    before = stored_files(folder)
    assert len(before) == 12
    with serving_hive(folder):
        assert stored_files(folder) == before
    for file in folder.glob("registry.db*"):
        file.unlink()
    with serving_hive(folder):
        assert stored_files(folder) == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "localhost.evil.example"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "localhost"}, 200),
    ],
)
def test_pages_of_other_sites_and_names_pointed_here_are_refused(
    url: str, headers: dict[str, str], status: int
) -> None:
    assert httpx.get(f"{url}/api/v1/status", headers=headers, trust_env=False).status_code == status


def test_twelve_uploads_together_are_all_taken(tmp_path: Path) -> None:
    files = [adapter_zip(seed) for seed in range(12)]
    with serving_hive(tmp_path / "hive") as url:
        statuses: list[int] = []
        threads = [
            threading.Thread(
                target=lambda n=number: statuses.append(send(url, f"u{n}", files[n]).status_code)
            )
            for number in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 12


def command(root: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from tui.cli.main import main; main()", "--data-dir", str(root), "hive", "serve", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def address_of(process: subprocess.Popen[str]) -> str:
    """What the command has printed first, as JSON."""
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    while lines[-1] not in ("}\n", ""):
        lines.append(process.stdout.readline())
    return str(json.loads("".join(lines))["address"])


def test_nothing_that_was_acknowledged_is_lost_with_a_killed_server(tmp_path: Path) -> None:
    data = weights(3)
    with command(tmp_path, "--port", "0", "--json") as process:
        url = address_of(process)
        stored = send(url, "alice", adapter_zip(1)).json()["adapter_id"]
        upload = announce(url, data).json()["upload_id"]
        path = f"{url}/api/v1/uploads/{upload}"
        assert httpx.put(f"{path}?offset=0", content=data[:900], trust_env=False).json()["offset"] == 900
        os.kill(process.pid, signal.SIGKILL)
    with command(tmp_path, "--port", "0", "--json") as process:
        url = address_of(process)
        # One server for one hive; a second says so in a sentence.
        with command(tmp_path, "--port", "0") as second:
            _out, error = second.communicate(timeout=30)
            assert second.returncode == 5 and error.count("\n") <= 2 and "Traceback" not in error
        adapters = httpx.get(f"{url}/api/v1/adapters", trust_env=False).json()["adapters"]
        assert [one["id"] for one in adapters] == [stored]
        path = f"{url}/api/v1/uploads/{upload}"
        assert httpx.get(path, trust_env=False).json()["offset"] == 900
        assert httpx.put(f"{path}?offset=900", content=data[900:], trust_env=False).status_code == 200
        assert httpx.post(f"{path}/finish", trust_env=False).status_code == 201
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_an_address_that_cannot_be_served_is_one_sentence(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("no key")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        for arguments in (
            ("--port", str(taken.getsockname()[1])),
            ("--port", "0", "--host", "0.0.0.0"),
            ("--port", "0", "--certificate", str(key)),
            ("--port", "0", "--certificate", str(key), "--certificate-key", str(key)),
            ("--port", "0", "--held-out", str(key)),
        ):
            result = run_cli("--data-dir", str(tmp_path / "ws"), "hive", "serve", *arguments)
            assert result.code == 2 and result.err.count("\n") <= 2 and "→" in result.err, result.err


def test_tls_and_tokens_serve_other_machines(tmp_path: Path) -> None:
    if subprocess.run(["which", "openssl"], stdout=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("openssl is not installed")
    made = [
        "-keyout",
        str(tmp_path / "key"),
        "-out",
        str(tmp_path / "cert"),
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=hive", *made],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    folder = tmp_path / "hive"
    options: dict[str, Any] = {"certificate": tmp_path / "cert", "certificate_key": tmp_path / "key"}
    with serving_hive(folder, needs_token=True, any_host=True, **options) as url:
        registry = Registry(folder)
        reply = httpx.get(f"{url}/", verify=False, trust_env=False)
        assert reply.status_code == 401 and reply.headers["www-authenticate"].startswith("Bearer")
        token = create_token(registry, "alice")
        registry.close()
        client = httpx.Client(verify=str(tmp_path / "cert"), trust_env=False)
        headers = {"authorization": f"Bearer {token}", "host": "hive.example"}
        assert client.get(f"{url}/api/v1/server", headers=headers).json()["user"] == "alice"
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http"), trust_env=False)


def test_the_hive_is_data_of_the_user_that_only_a_full_reset_deletes(tmp_path: Path) -> None:
    ws = open_workspace_at(tmp_path / "ws")
    registry = Registry(hive_folder(ws))
    create_token(registry, "alice")
    registry.close()
    assert "hive" not in plan_reset(ws, everything=False).names
    assert "hive" in plan_reset(ws, everything=True).names
    assert hive_folder(ws).stat().st_mode & 0o077 == 0
    with only_server(hive_folder(ws)), pytest.raises(Busy, match="being served"):
        reset(ws, everything=True)
    reset(ws, everything=True)
    assert not hive_folder(ws).exists()


def open_workspace_at(root: Path) -> Any:
    from engine.core.paths import Workspace

    return open_workspace(Workspace(root))
