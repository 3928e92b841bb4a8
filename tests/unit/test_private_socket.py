"""Sockets are used by the processes of one user only."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.core.errors import ServiceUnreachable
from engine.core.paths import Workspace
from engine.core.private_socket import check_peer, check_private, make_private_dir, peer_user
from engine.inference.client import InferenceClient
from engine.inference.protocol import socket_path

FORGER = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
path = sys.argv[1]
os.makedirs(os.path.dirname(path), mode=0o777)
os.chmod(os.path.dirname(path), 0o777)
server = socket.socket(socket.AF_UNIX)
server.bind(path)
os.chmod(path, 0o777)
server.listen()
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    print(connection.recv(1 << 20), flush=True)
"""


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "sockets" / "a.sock"
    make_private_dir(path.parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield path


def test_the_own_socket_in_a_private_folder_is_accepted(listening: Path) -> None:
    check_private(listening)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(listening))
        assert peer_user(connection) == os.getuid()
        check_peer(connection)


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o701])
def test_a_folder_that_others_can_enter_is_refused(listening: Path, mode: int) -> None:
    listening.parent.chmod(mode)
    with pytest.raises(ServiceUnreachable, match="folder for sockets"):
        check_private(listening)


def test_a_link_to_a_folder_or_a_file_in_place_of_the_socket_is_refused(
    listening: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(listening.parent)
    with pytest.raises(ServiceUnreachable):
        check_private(tmp_path / "link" / listening.name)
    with pytest.raises(ServiceUnreachable):
        make_private_dir(tmp_path / "link")
    (listening.parent / "file.sock").touch()
    with pytest.raises(ServiceUnreachable):
        check_private(listening.parent / "file.sock")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
def test_no_prompt_reaches_a_service_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    ws = Workspace(Path("/nonexistent/h2q-forged"))
    path = socket_path(ws)
    forger = subprocess.Popen([sys.executable, "-c", FORGER, str(path)], stdout=subprocess.PIPE)
    assert forger.stdout is not None
    try:
        assert forger.stdout.readline() == b"ready\n"
        with pytest.raises(ServiceUnreachable, match="another user"):
            asyncio.run(InferenceClient(ws).status(start=True))
    finally:
        forger.kill()
        rest = forger.communicate()[0]
        path.unlink(missing_ok=True)
        path.parent.rmdir()
    assert rest == b""
