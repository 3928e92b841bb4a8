"""Who may use the web server: the token in the address, from this machine, from a page of its own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from engine.core.host_header import names_loopback
from tests.web_server import serving
from tui.web.address import WebAddress
from tui.web.guard import is_own_origin
from tui.web.server import STATIC_FILES, _WithoutToken

PATHS = ["/", "/ws", "/api/latest-data", *(f"/static/{name}" for name in STATIC_FILES), "/download/x", "/no"]
SOCKET = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
SOCKET_KEY = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}


@pytest_asyncio.fixture
async def address(tmp_path: Path) -> AsyncIterator[WebAddress]:
    async with serving(tmp_path) as found:
        yield found


async def status(address: WebAddress, path: str, token: str | None = None, **headers: str) -> int:
    query = {} if token is None else {"token": token}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{address.port}{path}", params=query, headers=sent) as answer,
    ):
        return answer.status


@pytest.mark.parametrize("path", PATHS)
async def test_nothing_is_answered_without_the_token(address: WebAddress, path: str) -> None:
    wrong = address.token[:-1] + ("A" if address.token[-1] != "A" else "B")
    for token in (None, "", "x", wrong, address.token + "x", address.token[:-1], "é😀"):
        assert await status(address, path, token) == 401, token
    assert await status(address, path, address.token, Authorization="Bearer wrong") == 401


@pytest.mark.parametrize("path", [path for path in PATHS if path not in ("/no", "/download/x", "/ws")])
async def test_the_token_opens_what_the_page_needs(address: WebAddress, path: str) -> None:
    assert await status(address, path, address.token) == 200
    assert await status(address, path, Authorization=f"Bearer {address.token}") == 200


@pytest.mark.parametrize(
    "path", ["/no", "/download/x", "/static/server.py", "/static/..%2fserver.py", "/static/%2e%2e/app.log"]
)
async def test_the_token_opens_nothing_else(address: WebAddress, path: str) -> None:
    async with aiohttp.ClientSession() as client:
        url = f"http://127.0.0.1:{address.port}{path}?token={address.token}"
        async with client.get(URL(url, encoded=True)) as answer:
            assert answer.status == 404


FOREIGN = [
    "http://evil.example",
    "https://127.0.0.1:{port}",
    "http://127.0.0.1:{other}",
    "http://127.0.0.1",
    "http://localhost:{port}",
    "http://127.0.0.1:{port}.evil.example",
    "http://127.0.0.1:{port}/",
    "null",
    "file://",
    "",
]


@pytest.mark.parametrize("path", ["/", "/ws", "/api/latest-data", "/static/textual.js"])
@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_foreign_page_is_refused_also_with_the_token(
    address: WebAddress, path: str, origin: str
) -> None:
    origin = origin.format(port=address.port, other=address.port + 1)
    assert await status(address, path, address.token, Origin=origin) == 403
    upgrade = {**SOCKET, **SOCKET_KEY, "Origin": origin}
    assert await status(address, path, address.token, **upgrade) == 403


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:{port}"}, None),
        ({"Origin": "http://localhost:{port}"}, 403),
        ({"Host": "localhost:{port}", "Origin": "http://localhost:{port}"}, None),
        ({"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"}, 403),
    ],
)
@pytest.mark.parametrize("place", ["/ws/{token}", "/ws?token={token}"])
async def test_a_websocket_needs_the_origin_of_the_page(
    address: WebAddress, place: str, headers: dict[str, str], refused: int | None
) -> None:
    sent = {name: value.format(port=address.port) for name, value in headers.items()}
    url = f"ws://127.0.0.1:{address.port}{place.format(token=address.token)}"
    async with aiohttp.ClientSession() as client:
        if refused is None:
            async with client.ws_connect(url, headers=sent) as socket:
                assert (await socket.receive()).data.startswith(b"pid ")
        else:
            with pytest.raises(aiohttp.WSServerHandshakeError) as problem:
                await client.ws_connect(url, headers=sent)
            assert problem.value.status == refused


@pytest.mark.parametrize("place", ["/ws", "/ws/", "/ws/wrong", "/ws?token=wrong", "/ws/wrong?token={token}"])
async def test_a_websocket_needs_the_token(address: WebAddress, place: str) -> None:
    url = f"ws://127.0.0.1:{address.port}{place.format(token=address.token)}"
    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as problem:
            await client.ws_connect(url, headers={"Origin": f"http://127.0.0.1:{address.port}"})
        assert problem.value.status == 401


HOSTS = {
    "127.0.0.1": True,
    "127.0.0.1:5000": True,
    "127.8.9.1:1": True,
    "localhost": True,
    "LocalHost:80": True,
    "localhost.:80": True,
    "a.localhost": True,
    "[::1]:5000": True,
    "": False,
    "evil.example": False,
    "evil.example:5000": False,
    "127.0.0.1.nip.io": False,
    "localhost.evil.example": False,
    "localhost@evil.example": False,
    "evil@localhost": False,
    "10.0.0.1": False,
    "0.0.0.0:5000": False,
    "[::]": False,
    "[::ffff:10.0.0.1]": False,
    "localhost:port": False,
    "localhost:99999": False,
    "localhost/evil.example": False,
    "localhost?x": False,
    "localhost evil": False,
    "[::1%evil]": False,
    "127.1": False,
    "2130706433": False,
}


@pytest.mark.parametrize("host", HOSTS)
def test_only_names_of_loopback_are_hosts(host: str) -> None:
    assert names_loopback(host) is HOSTS[host]


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:5000", "10.0.0.1"])
@pytest.mark.parametrize("path", ["/", "/ws", "/api/latest-data", "/static/textual.js", "/no"])
async def test_a_foreign_name_that_leads_here_is_refused(address: WebAddress, path: str, host: str) -> None:
    assert await status(address, path, address.token, Host=host) == 403


def test_an_origin_is_compared_whole_and_in_any_case() -> None:
    assert is_own_origin("http://LOCALHOST:5000", "localhost:5000")
    assert not is_own_origin("http://localhost:50001", "localhost:5000")


@pytest.mark.parametrize(
    ("path", "token"), [("/", True), ("/", False), ("/static/textual.js", True), ("/no", True)]
)
async def test_every_answer_forbids_to_store_embed_and_refer(
    address: WebAddress, path: str, token: bool
) -> None:
    url = f"http://127.0.0.1:{address.port}{path}"
    query = {"token": address.token} if token else {}
    async with aiohttp.ClientSession() as client, client.get(url, params=query) as answer:
        headers = answer.headers
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert f"ws://127.0.0.1:{address.port}" in policy
    assert not any(word.startswith(("http", "*")) for word in policy.replace(";", " ").split())
    assert "Set-Cookie" not in headers and "Access-Control-Allow-Origin" not in headers


async def test_the_page_loads_nothing_from_elsewhere(address: WebAddress) -> None:
    async with aiohttp.ClientSession() as client, client.get(address.url) as answer:
        page = await answer.text()
    assert address.token in page
    assert "//" not in page.replace(f"ws://127.0.0.1:{address.port}/ws/", "")


def test_a_log_line_never_holds_the_token() -> None:
    logger = logging.getLogger("a logger of the test")
    for arguments, exception in [(("GET /?token=%s", "SECRET"), None), (("SECRET",), ValueError("SECRET"))]:
        record = logger.makeRecord(
            "web",
            logging.ERROR,
            "file.py",
            1,
            arguments[0],
            arguments[1:],
            (type(exception), exception, None) if exception else None,
        )
        line = _WithoutToken("SECRET").format(record)
        assert "SECRET" not in line and "\n" not in line
