"""Other machines of the settings: their addresses, and the answers of our own servers, of others, and of nobody."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from engine.core.errors import UsageProblem
from engine.core.paths import Workspace
from engine.sinks.peers import PeerAddress, parse_latest, parse_metrics, parse_peer, read_peer
from engine.sinks.prometheus import MetricsServer
from tests.tui.live_run import live_run

LATEST = "/api/latest-data"
ADDRESSES = {
    "mini=http://127.0.0.1:5001/?token=abc": PeerAddress("mini", "127.0.0.1", 5001, f"{LATEST}?token=abc"),
    "127.0.0.1:9108/metrics": PeerAddress("127.0.0.1:9108", "127.0.0.1", 9108, "/metrics"),
    "http://box:5000/api/latest-data?token=x=y": PeerAddress("box:5000", "box", 5000, f"{LATEST}?token=x=y"),
    " my pi = [::1]:9108/metrics": PeerAddress("my pi", "::1", 9108, "/metrics"),
    "https://box": PeerAddress("box", "box", 443, LATEST, True),
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_is_read(text: str) -> None:
    found = parse_peer(text.replace("= [", "=["))
    assert found == ADDRESSES[text]


@pytest.mark.parametrize(
    "text", ["", "mini=", "ftp://box", "http://", "http://me:secret@box", "box:99999", "http://[::1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem):
        parse_peer(text)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    """A web server on loopback with one answer; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()


def test_our_own_exporter_is_a_peer(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    with live_run(ws, done=5), closing(MetricsServer(ws, 0)) as server:
        peer = parse_peer(f"mini={server.url}")
        read_peer(peer)
        found = read_peer(peer)
    assert found.error == "" and found.name == "mini" and found.training is True
    assert found.memory_percent is not None and 0 < found.memory_percent < 100
    assert found.loss is not None and 1 < found.loss < 3


def test_the_rows_of_latest_data_are_read_newest_first() -> None:
    text = (
        '{"rewards": [{"reward": -1.25}, {"reward": -2.0}], "performance": '
        '[{"cpu_usage": 97.5, "memory_usage": 61, "training_active": true}, {"cpu_usage": 1}]}'
    )
    assert parse_latest(text) == {
        "cpu_percent": 97.5, "memory_percent": 61.0, "training": True, "loss": 1.25,
    }  # fmt: skip
    empty = parse_latest('{"rewards": [], "performance": []}')
    assert set(empty.values()) == {None}


def test_a_text_without_figures_of_ours_says_nothing() -> None:
    assert parse_metrics("# HELP x\nnode_load1 0.5\n<html>") == {}
    odd = 'h2q_run_loss{kind="train",phase="a \\"b\\" }",run="1"} 1.5\nh2q_cpu_percent{core="0"} 10.0\n'
    assert parse_metrics(odd)["loss"] == 1.5 and parse_metrics(odd)["cpu_percent"] == 10.0


def test_a_machine_that_is_off_is_silent() -> None:
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        found = read_peer(parse_peer(f"127.0.0.1:{held.getsockname()[1]}"))
    assert found.error == "silent"


def test_a_machine_that_never_answers_is_given_up() -> None:
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        found = read_peer(parse_peer(f"127.0.0.1:{held.getsockname()[1]}"), timeout_s=0.2)
    assert found.error == "silent"


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (403, b"no token", "refused"),
        (401, b"", "refused"),
        (302, b"", "unknown"),
        (200, b"<html>", "unknown"),
        (200, b"{}", "unknown"),
        (200, b'{"performance": 7, "rewards": []}', "unknown"),
        (200, b'{"performance": [7], "rewards": [8]}', "unknown"),
        (200, b"[" * 5000, "unknown"),
        (500, b'{"rewards": [], "performance": []}', "unknown"),
        (200, b"h2q_cpu_percent x\n", "unknown"),
    ],
)
def test_other_answers_are_named(status: int, body: bytes, error: str) -> None:
    with answering(status, body) as port:
        assert read_peer(parse_peer(f"127.0.0.1:{port}")).error == error
