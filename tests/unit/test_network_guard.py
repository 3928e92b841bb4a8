"""A run connects to this machine and nowhere else."""

from __future__ import annotations

import os
import socket
import urllib.request

import pytest

from engine.runs import network_guard


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "a.localhost",
        b"localhost",
        None,
        "",
    ],
)
def test_addresses_of_this_machine_are_loopback(host: object) -> None:
    assert network_guard.is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "8.8.8.8",
        "10.0.0.1",
        "192.168.1.2",
        "169.254.169.254",
        "::ffff:8.8.8.8",
        "fe80::1%eth0",
        "localhost.example.org",
    ],
)
def test_addresses_of_other_machines_are_not_loopback(host: str) -> None:
    assert not network_guard.is_loopback(host)


def test_connections_and_lookups_beyond_loopback_are_blocked() -> None:
    with (
        network_guard.loopback_only(),
        socket.socket() as stream,
        socket.socket(type=socket.SOCK_DGRAM) as datagram,
    ):
        with pytest.raises(network_guard.NetworkBlocked):
            stream.connect(("192.0.2.1", 80))
        with pytest.raises(network_guard.NetworkBlocked):
            stream.connect_ex(("192.0.2.1", 80))
        with pytest.raises(network_guard.NetworkBlocked):
            datagram.sendto(b"x", ("192.0.2.1", 53))
        with pytest.raises(network_guard.NetworkBlocked):
            datagram.sendto(b"x", 0, ("192.0.2.1", 53))
        with pytest.raises(network_guard.NetworkBlocked, match=r"example\.org"):
            socket.getaddrinfo("example.org", 443)
        with pytest.raises(OSError, match="work offline"):
            urllib.request.urlopen("http://192.0.2.1/", timeout=1)


def test_loopback_and_unix_sockets_work() -> None:
    with network_guard.loopback_only(), socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("localhost", port), timeout=2) as client:
            client.sendall(b"hello")
        one, other = socket.socketpair()
        with one, other:
            one.sendall(b"x")


def test_proxies_are_removed_and_the_environment_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:7890")
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:7890")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    before = (socket.socket.connect, socket.socket.sendto, socket.getaddrinfo, dict(os.environ))
    with network_guard.loopback_only():
        assert "HTTPS_PROXY" not in os.environ
        assert "all_proxy" not in os.environ
        assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert (socket.socket.connect, socket.socket.sendto, socket.getaddrinfo, dict(os.environ)) == before
