"""Sessions of the web server: their number, their end, what a browser may say, and the port."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from engine.core.errors import ServiceUnreachable
from tests.web_server import program, serving
from tui.web import app_session, server
from tui.web.address import MORE_PORTS, WebAddress, bind
from tui.web.app_session import BrowserMessage, browser_environment, read_message


def connect(
    client: aiohttp.ClientSession, address: WebAddress, query: str = ""
) -> aiohttp.client._BaseRequestContextManager[Any]:
    origin = f"http://127.0.0.1:{address.port}"
    return client.ws_connect(f"{origin}/ws/{address.token}{query}", headers={"Origin": origin})


async def pid_of(websocket: aiohttp.ClientWebSocketResponse[Any]) -> int:
    """What PROGRAM says first."""
    said = (await websocket.receive(timeout=20)).data
    return int(said.split()[1])


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(30):
        while psutil.pid_exists(pid):  # noqa: ASYNC110  another process ends
            await asyncio.sleep(0.02)


async def test_a_session_is_drawn_resized_and_ended(tmp_path: Path) -> None:
    async with serving(tmp_path) as address, aiohttp.ClientSession() as client:
        async with connect(client, address, "?width=91&height=33") as websocket:
            said = (await websocket.receive()).data
            assert said.endswith(b"91 x 33")
            await websocket.send_json(["stdin", "jé"])
            assert (await websocket.receive()).data == "got jé".encode()
            await websocket.send_json(["resize", {"width": 120, "height": 40}])
            resized = json.loads((await websocket.receive()).data.removeprefix(b"got "))
            assert resized == {"type": "resize", "width": 120, "height": 40}
            await websocket.send_json(["ping", "7"])
            assert (await websocket.receive()).json() == ["pong", "7"]
        await until_gone(int(said.split()[1]))


async def test_a_closed_tab_makes_room_and_one_too_many_is_told_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SLOT_WAIT_S", 0.2)
    async with serving(tmp_path, sessions=2) as address, aiohttp.ClientSession() as client:
        async with connect(client, address) as one, connect(client, address) as two:
            pids = [await pid_of(one), await pid_of(two)]
            async with connect(client, address) as three:
                assert b"2 sessions are open" in (await three.receive()).data
                assert (await three.receive()).type is aiohttp.WSMsgType.CLOSE
                assert three.close_code == aiohttp.WSCloseCode.TRY_AGAIN_LATER
            assert all(map(psutil.pid_exists, pids))
        for pid in pids:
            await until_gone(pid)
        async with connect(client, address) as again:
            assert await pid_of(again) not in pids


async def test_a_page_that_is_loaded_again_waits_for_the_session_that_ends(tmp_path: Path) -> None:
    async with serving(tmp_path, sessions=1) as address, aiohttp.ClientSession() as client:
        for _time in range(3):
            async with connect(client, address) as websocket:
                assert await pid_of(websocket)


@pytest.mark.parametrize("word", ["", "deaf"])
async def test_every_app_ends_with_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setattr(app_session, "PATIENCE_S", 0.2)
    async with aiohttp.ClientSession() as client:
        async with serving(tmp_path, program(word)) as address:
            open_ones = [await connect(client, address) for _tab in range(2)]
            pids = [await pid_of(websocket) for websocket in open_ones]
        assert not any(map(psutil.pid_exists, pids))


async def test_what_an_app_prints_instead_of_starting_is_shown(tmp_path: Path) -> None:
    fails = "import sys; print('no\\x1b[31m workspace', file=sys.stderr); sys.exit(2)"
    async with (
        serving(tmp_path, [sys.executable, "-c", fails]) as address,
        aiohttp.ClientSession() as client,
        connect(client, address) as websocket,
    ):
        assert b"no[31m workspace" in (await websocket.receive()).data
        assert (await websocket.receive()).type is aiohttp.WSMsgType.CLOSE


MESSAGES: dict[str, BrowserMessage | None] = {
    '["stdin", "a"]': BrowserMessage("stdin", "a"),
    '["ping", "17"]': BrowserMessage("ping", "17"),
    '["blur"]': BrowserMessage("blur"),
    '["focus"]': BrowserMessage("focus"),
    '["resize", {"width": 80, "height": 24}]': BrowserMessage("resize", "", 80, 24),
    '["resize", {"width": 0, "height": 24}]': None,
    '["resize", {"width": 80}]': None,
    '["resize", {"width": "80", "height": 24}]': None,
    '["resize", {"width": 1000000, "height": 24}]': None,
    '["resize", 3]': None,
    '["stdin"]': None,
    '["stdin", 3]': None,
    '["open_url", "http://evil.example"]': None,
    "[]": None,
    "{}": None,
    "[[]]": None,
    '"stdin"': None,
    "not JSON": None,
    "": None,
    "[" * 100_000: None,
}


@pytest.mark.parametrize("text", MESSAGES, ids=lambda text: text[:40])
def test_a_message_of_unknown_form_is_dropped(text: str) -> None:
    assert read_message(text) == MESSAGES[text]


def test_the_app_of_a_browser_does_not_see_the_terminal_of_the_server() -> None:
    found = browser_environment({"TERM": "vt100", "TMUX": "/tmp/x", "SSH_TTY": "/dev/pts/1", "HOME": "/h"})
    assert found["TERM"] == "xterm-256color" and found["HOME"] == "/h"
    assert not {"TMUX", "SSH_TTY"} & found.keys()


@pytest.fixture
def taken() -> Callable[[int], list[socket.socket]]:
    """Listens on the ports after a free one."""
    listening: list[socket.socket] = []

    def take(count: int) -> list[socket.socket]:
        while len(listening) < count:
            if not listening:
                first = socket.create_server(("127.0.0.1", 0))
            try:
                port = first.getsockname()[1] + len(listening)
                listening.append(first if not listening else socket.create_server(("127.0.0.1", port)))
            except OSError:
                for one in listening:
                    one.close()
                listening.clear()
        return listening

    return take


def test_the_next_free_port_is_taken(taken: Callable[[int], list[socket.socket]]) -> None:
    busy = taken(2)
    first = busy[0].getsockname()[1]
    address = bind(first)
    assert first + 2 <= address.port <= first + MORE_PORTS
    assert address.socket.getsockname()[0] == "127.0.0.1"
    assert address.url == f"http://127.0.0.1:{address.port}/?token={address.token}"
    address.socket.close()


def test_ports_that_are_all_taken_are_named(taken: Callable[[int], list[socket.socket]]) -> None:
    busy = taken(MORE_PORTS + 1)
    first = busy[0].getsockname()[1]
    with pytest.raises(ServiceUnreachable, match=f"{first} to {first + MORE_PORTS}"):
        bind(first)
    for one in busy:
        one.close()


def test_each_start_has_its_own_token_of_256_bits() -> None:
    tokens = set()
    for _start in range(3):
        address = bind(0)
        tokens.add(address.token)
        address.socket.close()
    assert len(tokens) == 3 and all(len(token) == 43 for token in tokens)
