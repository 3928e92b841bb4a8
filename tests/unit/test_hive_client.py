"""The hive client against the real server: sharing and fetching over lines that break."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from engine.core.config import load_settings
from engine.core.credentials import HIVE, save_secrets
from engine.core.errors import H2QError, ServiceUnreachable, UsageProblem
from engine.core.files import file_sha256
from engine.core.paths import Workspace
from engine.hive.address import HiveAddress
from engine.hive.client import AdapterRefused, HiveClient, hive_token
from engine.hive.fetch import fetch_version
from engine.hive.outgoing import outgoing_adapter
from engine.hive.protocol import AggregateRequest
from engine.hive.registry import Registry
from engine.hive.shares import read_shares
from engine.hive.tokens import create_token
from engine.models.base_models import find_base
from engine.models.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_card
from engine.models.registry import list_models, promote
from engine.workspace.open import open_workspace
from tests.broken_line import BrokenLine
from tests.cli import run_cli
from tests.hive_adapters import add_adapter
from tests.hive_server import serving_hive

FAST = (0.01,) * 4
PART = 64 << 10


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, knowing_hf: Path) -> tuple[Path, str]:
    """A base model and its fingerprint."""
    return knowing_hf, find_base(Workspace(tmp_path_factory.mktemp("base")), str(knowing_hf)).sha256


@pytest.fixture
def ws(tmp_path: Path, base: tuple[Path, str]) -> Workspace:
    """Two adapters of some 160 KB on the same base."""
    workspace = open_workspace(Workspace(tmp_path / "ws"))
    for number, name in enumerate(("first", "second")):
        add_adapter(
            workspace, name, seed=number, rank=256, base_path=str(base[0]), base_sha256=base[1],
            conversations=(f"c{number}", "c9"),
        )  # fmt: skip
    return workspace


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with serving_hive(tmp_path / "hive", with_base=False) as address:
        yield address


def client_at(url: str, token: str = "", pauses: tuple[float, ...] = FAST) -> HiveClient:
    return HiveClient(HiveAddress(url, local=True), token, pauses=pauses, part=PART)


def share_both(ws: Workspace, url: str) -> None:
    with client_at(url) as client:
        for name in ("first", "second"):
            client.upload(ws, outgoing_adapter(ws, name), user=name)


def test_what_was_shared_by_two_comes_back_as_one_model_of_the_workspace(ws: Workspace, url: str) -> None:
    share_both(ws, url)
    with client_at(url) as client:
        joined = client.aggregate(AggregateRequest())
        name, version = fetch_version(ws, client)
        assert [one.user_id for one in client.contributors()] == ["first", "second"]
        assert client.status().latest_aggregated_version == version.version == joined.version
        assert fetch_version(ws, client)[0] == name
    folder = ws.adapters / name
    card = read_card(folder)
    assert card.weights_sha256 == file_sha256(folder / ADAPTER_WEIGHTS) == version.sha256
    assert find_base(ws, str(folder)).adapter == folder
    assert name in [one.name for one in list_models(ws)] and promote(ws, name).name == name
    assert sorted(card.lineage.conversations) == ["c0", "c1", "c9"]


def test_a_fetched_adapter_is_loaded_by_peft_and_changes_its_base(ws: Workspace, url: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from engine.models.adapters import attach_adapter

    share_both(ws, url)
    with client_at(url) as client:
        client.aggregate(AggregateRequest())
        folder = ws.adapters / fetch_version(ws, client)[0]
    source = read_card(folder).base_path
    plain = AutoModelForCausalLM.from_pretrained(source)
    ids = torch.tensor([[1, 2, 3, 4]])
    before = plain(ids).logits
    assert not torch.allclose(attach_adapter(plain, folder)(ids).logits, before, atol=1e-4)


@pytest.mark.parametrize("times", [1, 3])
def test_an_upload_over_a_line_that_breaks_arrives_whole(ws: Workspace, url: str, times: int) -> None:
    line = BrokenLine(url)
    line.cut(after=30_000, times=times)
    adapter = outgoing_adapter(ws, "first")
    with client_at(line.url) as client:
        admitted = client.upload(ws, adapter, user="ann")
        assert (admitted.sha256, line.cuts) == (adapter.sha256, times)
        assert [one.sha256 for one in client.adapters()] == [adapter.sha256]
    line.close()


def test_an_upload_that_was_given_up_continues_where_it_was(ws: Workspace, url: str) -> None:
    adapter = outgoing_adapter(ws, "first")

    def leave(done: int, _whole: int) -> None:
        if done >= 2 * PART:
            raise KeyboardInterrupt

    with client_at(url) as client, pytest.raises(KeyboardInterrupt):
        client.upload(ws, adapter, leave, user="ann")
    assert len(read_shares(ws).pending) == 1
    seen: list[int] = []
    with client_at(url) as client:
        client.upload(ws, adapter, lambda done, _whole: seen.append(done), user="ann")
    shares = read_shares(ws)
    assert seen[0] == 2 * PART
    assert not shares.pending and [one.name for one in shares.shared] == ["first"]


def test_an_upload_that_the_server_has_forgotten_begins_again(ws: Workspace, tmp_path: Path) -> None:
    adapter = outgoing_adapter(ws, "first")

    def leave(done: int, _whole: int) -> None:
        if done:
            raise KeyboardInterrupt

    with (
        serving_hive(tmp_path / "one", with_base=False) as url,
        client_at(url) as client,
        pytest.raises(KeyboardInterrupt),
    ):
        client.upload(ws, adapter, leave, user="ann")
    with serving_hive(tmp_path / "two", with_base=False) as url, client_at(url) as client:
        text = (ws.root / "hive" / "client.json").read_text()
        old = read_shares(ws).pending[0].place
        (ws.root / "hive" / "client.json").write_text(text.replace(old, url))
        assert client.upload(ws, adapter, user="ann").sha256 == adapter.sha256


def test_a_download_over_a_line_that_breaks_arrives_whole(ws: Workspace, url: str) -> None:
    share_both(ws, url)
    line = BrokenLine(url)
    with client_at(url) as client:
        client.aggregate(AggregateRequest())
    with client_at(line.url) as client:
        client.versions()
        line.cut(after=9_000, times=2)
        name, version = fetch_version(ws, client)
    assert line.cuts == 2 and read_card(ws.adapters / name).weights_sha256 == version.sha256
    line.close()


def test_what_the_server_refuses_is_said_with_its_rule_and_nothing_waits(ws: Workspace, url: str) -> None:
    adapter = outgoing_adapter(ws, "first")
    with client_at(url) as client:
        client.upload(ws, adapter, user="ann")
        with pytest.raises(AdapterRefused) as refused:
            client.upload(ws, adapter, user="bob")
    assert refused.value.rule == "vote" and not read_shares(ws).pending


def test_the_list_says_what_became_of_each_adapter(
    ws: Workspace, url: str, tmp_path: Path, base: tuple[Path, str]
) -> None:
    share_both(ws, url)
    for seed, name in enumerate(("third", "fourth", "fifth"), 7):
        add_adapter(ws, name, seed=seed, rank=256, base_path=str(base[0]), base_sha256=base[1])
    with client_at(url) as client:
        ann = client.upload(ws, outgoing_adapter(ws, "third"), user="ann")
        httpx.delete(f"{url}/api/v1/adapters/{ann.adapter_id}", trust_env=False).raise_for_status()
        left_out = next((tmp_path / "hive").glob("second/*/adapter_model.safetensors"))
        client.upload(ws, outgoing_adapter(ws, "fourth"), user="eve")
        left_out.write_bytes(b"damaged")
        version = client.aggregate(AggregateRequest()).version
        client.upload(ws, outgoing_adapter(ws, "fifth"), user="bob")
    text = run_cli("hive", "list", "--server", url, "--data-dir", str(ws.root)).out
    states = {line.split()[1]: line.split("KB  ")[1] for line in text.splitlines() if "KB  " in line}
    assert states == {
        "first": f"in {version}", "eve": f"in {version}", "second": "not used in round 1", "ann": "withdrawn", "bob": "waits",
    }  # fmt: skip


def test_a_token_is_asked_for_sent_and_never_written_down(ws: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "hive"
    folder.mkdir()
    token = create_token(Registry(folder), "ann", may_aggregate=False)
    with serving_hive(folder, needs_token=True, with_base=False) as url:
        for wrong in ("", "x" * 40):
            with client_at(url, wrong) as client, pytest.raises(UsageProblem, match="token"):
                client.server()
        save_secrets(ws, HIVE, {"token": token})
        with client_at(url, hive_token(ws)) as client:
            assert client.server().user == "ann"
            client.upload(ws, outgoing_adapter(ws, "first"))
            with pytest.raises(UsageProblem, match="--may-aggregate"):
                client.aggregate(AggregateRequest())
    holders = [file for file in ws.root.rglob("*") if file.is_file() and token.encode() in file.read_bytes()]
    assert [file.name for file in holders] == ["secrets.json"] and holders[0].stat().st_mode & 0o077 == 0


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """Some other program."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, b"<html>hello", {}),
        (200, b"[]", {}),
        (200, b"\xff\xfe", {}),
        (200, b"x" * (9 << 20), {}),
        (302, b"", {"Location": "http://127.0.0.1:1/"}),
        (500, b"", {}),
    ],
    ids=["a page", "other JSON", "no text", "without end", "sends elsewhere", "an error"],
)
def test_another_program_is_no_hive(status: int, body: bytes, headers: dict[str, str]) -> None:
    with (
        answering(status, body, **headers) as url,
        client_at(url) as client,
        pytest.raises(ServiceUnreachable, match="not a hive"),
    ):
        client.server()


def test_a_busy_server_is_asked_again_as_often_as_there_are_pauses(url: str) -> None:
    waits: list[float] = []
    with answering(503, b'{"detail": "busy", "rule": ""}') as busy:
        address = HiveAddress(busy, local=True)
        with (
            HiveClient(address, pauses=FAST, on_wait=lambda seconds, _why: waits.append(seconds)) as client,
            pytest.raises(ServiceUnreachable, match="busy"),
        ):
            client.server()
    assert waits == list(FAST)


def test_a_server_that_asks_for_an_hour_is_not_waited_for() -> None:
    with (
        answering(429, b'{"detail": "slow", "rule": ""}', **{"Retry-After": "3600"}) as url,
        client_at(url) as client,
        pytest.raises(ServiceUnreachable, match="3600"),
    ):
        client.server()


def test_a_token_that_cannot_be_a_header_is_refused_without_showing_it() -> None:
    with pytest.raises(UsageProblem) as refused:
        client_at("http://127.0.0.1:1", "secret\nx: y")
    assert "secret" not in str(refused.value)


def test_the_commands_share_and_fetch(ws: Workspace, url: str) -> None:
    """The first server that answers is kept in the settings; the others are not."""
    at = ("--data-dir", str(ws.root))
    asked = run_cli("hive", "upload", "first", "--server", url, "--user-id", "ann", *at)
    assert asked.code == 2 and ADAPTER_CONFIG in asked.out and not read_shares(ws).shared
    for name, user in (("first", "ann"), ("second", "bob")):
        done = run_cli("hive", "upload", name, "--server", url, "--user-id", user, "--yes", "--json", *at)
        assert done.code == 0, done.err
        assert [file["name"] for file in json.loads(done.out)["files"]] == [ADAPTER_WEIGHTS, ADAPTER_CONFIG]
    assert load_settings(ws).hive_server == url
    with client_at(url) as client:
        client.aggregate(AggregateRequest())
    document = json.loads(run_cli("hive", "download", "--json", *at).out)
    assert document["name"] == f"hive-{document['version']['version']}"
    listed = json.loads(run_cli("hive", "list", "--json", *at).out)
    assert [one["version"] for one in listed["versions"]] == [document["version"]["version"]]
    status = json.loads(run_cli("hive", "status", "--json", *at).out)
    assert [one["name"] for one in status["shared"]] == ["first", "second"]
    assert "conversations" not in status["shared"][0] and status["fetched"][0]["name"] == document["name"]


def test_a_round_without_a_server(ws: Workspace, tmp_path: Path) -> None:
    """What does not verify takes no part, nor what was joined already; the result is fetched like a version."""
    team, out = tmp_path / "team", tmp_path / "joined"
    team.mkdir()
    at = ("--data-dir", str(ws.root))
    for name, user in (("first", "ann"), ("second", "bob")):
        words = ("--folder", str(team), "--user-id", user, "--yes")
        assert run_cli("hive", "upload", name, *words, *at).code == 0
    spoilt = team / "eve"
    (spoilt / "x").mkdir(parents=True)
    join = ("hive", "aggregate", "--folder", str(team), "--output", str(out), *at)
    assert "eve/x is refused" in run_cli(*join).err
    assert (
        run_cli("hive", "upload", str(out), "--folder", str(team), "--user-id", "ann", "--yes", *at).code == 0
    )
    again = run_cli(*join, "--json")
    assert json.loads(again.out)["num_adapters"] == 2 and "is left out" in again.err
    fetched = run_cli("hive", "download", "joined", "--folder", str(team), "--name", "ours", "--json", *at)
    assert json.loads(fetched.out).get("name") == "ours", fetched.out
    assert sorted(read_card(ws.adapters / "ours").lineage.conversations) == ["c0", "c1", "c9"]
    refused = run_cli("hive", "download", "eve/x", "--folder", str(team), *at)
    assert refused.code == 2 and "not signed" in refused.err


def test_a_broken_record_of_what_was_shared_is_named(ws: Workspace) -> None:
    (ws.root / "hive").mkdir()
    (ws.root / "hive" / "client.json").write_text("{")
    with pytest.raises(H2QError, match=r"client\.json"):
        read_shares(ws)
    assert msgspec.json.decode(b"{}") == {}
