"""The hive's server as its clients see it: HiveMind's own requests, uploads in parts, rounds, versions, downloads."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.numpy import load

from engine.hive.archives import stream_zip
from engine.hive.hivemind_import import take_over
from engine.hive.intake import HiveLimits, Intake
from engine.hive.registry import Registry
from engine.hive.store import AdapterStore
from engine.hive.tokens import create_token, list_tokens, revoke_token
from tests.hive_server import (
    FINGERPRINT,
    adapter_zip,
    announce,
    config,
    send,
    serving_hive,
    stored_files,
    weights,
    zipped,
)

STAMP = r"\d{8}_\d{6}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workspace" / "hive"


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with serving_hive(folder) as url:
        yield url


def get(url: str, path: str, **options: Any) -> httpx.Response:
    return httpx.get(f"{url}/api/v1{path}", timeout=60, trust_env=False, **options)


def post(url: str, path: str, **options: Any) -> httpx.Response:
    return httpx.post(f"{url}/api/v1{path}", timeout=60, trust_env=False, **options)


def put(url: str, upload: str, offset: int, data: bytes) -> httpx.Response:
    path = f"{url}/api/v1/uploads/{upload}?offset={offset}"
    return httpx.put(path, content=data, timeout=60, trust_env=False)


def test_the_requests_of_hiveminds_own_client_scripts_are_answered_as_it_reads_them(
    url: str, folder: Path, tmp_path: Path
) -> None:
    # `scripts/serve.py` answers these; `scripts/upload.py` sends them and prints these fields.
    assert httpx.get(f"{url}/", trust_env=False).json() == {
        "message": "HiveMind Server is running",
        "version": "0.1.0",
    }
    first = get(url, "/status").json()
    assert first.items() >= {
        ("total_adapters", 0), ("total_users", 0), ("latest_aggregated_version", None), ("pending_for_aggregation", 0)
    }  # fmt: skip
    assert get(url, "/adapter/download/latest").json()["detail"] == "No aggregated adapter available"
    alone = post(url, "/aggregate")
    assert alone.status_code == 400
    assert alone.json()["detail"] == "Need at least 2 adapters, but only 0 available"

    for seed, user in enumerate(("alice", "小明")):
        sent = send(url, user, adapter_zip(seed))
        assert sent.status_code == 200, sent.text
        answer = sent.json()
        assert answer["success"] is True and answer["message"] == "Adapter uploaded successfully"
        assert re.fullmatch(f"{user}_{STAMP}", answer["adapter_id"])

    listed = get(url, "/adapter/list", params={"user_id": "alice"}).json()["adapters"]
    assert [entry["user_id"] for entry in listed] == ["alice"] and listed[0].keys() == {
        "id", "user_id", "path", "metadata"
    }  # fmt: skip
    assert listed[0]["metadata"].keys() == {
        "user_id", "base_model", "version", "uploaded_at", "training_samples", "epochs"
    }  # fmt: skip
    assert len(get(url, "/adapter/list").json()["adapters"]) == 2

    joined = post(url, "/aggregate", params={"version": "v20260119_110000"})
    assert joined.status_code == 200, joined.text
    assert joined.json().items() >= {
        "success": True, "version": "v20260119_110000", "num_adapters": 2,
        "message": "Aggregation completed successfully",
    }.items()  # fmt: skip
    status = get(url, "/status").json()
    assert status["latest_aggregated_version"] == "v20260119_110000"
    assert (status["total_adapters"], status["total_users"], status["pending_for_aggregation"]) == (2, 2, 0)

    with httpx.stream("GET", f"{url}/api/v1/adapter/download/latest", trust_env=False) as reply:
        name = reply.headers["content-disposition"].split("filename=")[1].strip('"')
        file = tmp_path / name
        file.write_bytes(b"".join(reply.iter_bytes()))
    assert name == "hivemind_v20260119_110000.safetensors"
    assert len(load(file.read_bytes())) == 8
    again = get(url, "/adapter/download/v20260119_110000")
    assert again.content == file.read_bytes()
    assert get(url, "/adapter/download/v1").json()["detail"] == "Adapter file not found"


def test_the_files_have_hiveminds_layout(url: str, folder: Path) -> None:
    for seed, user in enumerate(("alice", "bob")):
        send(url, user, adapter_zip(seed))
    post(url, "/aggregate", params={"version": "v1"})
    found = {re.sub(STAMP, "TIME", name) for name in stored_files(folder)}
    adapter = {"adapter_config.json", "adapter_model.safetensors"}
    wanted = {f"{user}/TIME/{name}" for user in ("alice", "bob") for name in adapter | {"metadata.json"}}
    assert found == wanted | {f"aggregated/v1/{name}" for name in adapter | {"aggregation_info.json"}}
    registry = json.loads((folder / "registry.json").read_text())
    assert {entry["user_id"] for entry in registry["adapters"].values()} == {"alice", "bob"}
    assert [entry["version"] for entry in registry["aggregated_versions"]] == ["v1"]
    for entry in [*registry["adapters"].values(), *registry["aggregated_versions"]]:
        assert (Path(entry["path"]) / "adapter_model.safetensors").is_file()
    info = json.loads((folder / "aggregated/v1/aggregation_info.json").read_text())
    assert info.keys() >= {
        "version", "aggregated_at", "source_adapters", "num_adapters", "algorithm", "memory_optimized"
    }  # fmt: skip


def test_weights_alone_are_taken_when_they_may_be_those_of_hiveminds_training(url: str) -> None:
    four = send(url, "alice", weights(0), base_model="Tiny-Base")
    assert four.status_code == 422 and "adapter_config.json" in four.json()["detail"]
    sixteen = send(url, "alice", weights(0, rank=16), base_model="Tiny-Base")
    assert sixteen.status_code == 200, sixteen.text
    told = send(url, "bob", weights(1), adapter_config=json.dumps(config()))
    assert told.status_code == 200, told.text


@pytest.mark.parametrize("field", ["file", "user_id"])
def test_a_form_without_a_field_gets_fastapis_answer(url: str, field: str) -> None:
    files = {} if field == "file" else {"file": ("x", b"x")}
    data = {} if field == "user_id" else {"user_id": "alice"}
    files = files or {"other": (None, b"x")}  # type: ignore[dict-item]
    reply = post(url, "/adapter/upload", data=data, files=files)
    assert reply.status_code == 422
    assert reply.json()["detail"] == [{"type": "missing", "loc": ["body", field], "msg": "Field required"}]


def test_the_client_chooses_no_name_on_the_servers_disk(url: str, folder: Path) -> None:
    for name in ("../../evil.zip", "/tmp/evil", "..\\evil", "registry.db", "a\u202eb"):
        files = {"file": (name, adapter_zip(), "application/zip")}
        assert post(url, "/adapter/upload", data={"user_id": "alice"}, files=files).status_code == 200
    assert {re.sub(STAMP, "TIME", name) for name in stored_files(folder)} == {
        f"alice/TIME/{name}" for name in ("adapter_config.json", "adapter_model.safetensors", "metadata.json")
    }


def test_an_upload_arrives_in_parts_and_goes_on_after_a_cut(url: str, folder: Path) -> None:
    data = weights(3)
    opened = announce(url, data, user_id="carol", training_samples=30)
    assert opened.status_code == 201
    upload = opened.json()["upload_id"]
    assert put(url, upload, 0, data[:700]).json()["offset"] == 700
    # A part that is sent again, or too early, is answered with where to go on.
    for offset in (0, 900):
        wrong = put(url, upload, offset, data[offset:])
        assert (wrong.status_code, wrong.json()["offset"]) == (409, 700)
    early = post(url, f"/uploads/{upload}/finish")
    assert (early.status_code, early.json()["offset"]) == (409, 700)
    assert get(url, f"/uploads/{upload}").json()["offset"] == 700
    assert put(url, upload, 700, data[700:]).json()["offset"] == len(data)
    first, second = (post(url, f"/uploads/{upload}/finish") for _time in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["adapter_id"] == second.json()["adapter_id"]
    assert first.json()["sha256"] == sha256(data).hexdigest()
    stored = folder / "carol" / first.json()["adapter_id"].removeprefix("carol_")
    assert (stored / "adapter_model.safetensors").read_bytes() == data
    assert [
        one["norm"] > 0 for one in get(url, "/adapters", params={"user": "carol"}).json()["adapters"]
    ] == [True]


def test_an_upload_outlives_the_server(folder: Path) -> None:
    data = weights(3)
    with serving_hive(folder) as url:
        upload = announce(url, data).json()["upload_id"]
        put(url, upload, 0, data[:700])
    with serving_hive(folder) as url:
        assert get(url, f"/uploads/{upload}").json()["offset"] == 700
        put(url, upload, 700, data[700:])
        assert post(url, f"/uploads/{upload}/finish").status_code == 201


def test_other_bytes_than_announced_are_refused_and_forgotten(url: str, folder: Path) -> None:
    upload = announce(url, weights(1)).json()["upload_id"]
    put(url, upload, 0, weights(2))
    refused = post(url, f"/uploads/{upload}/finish")
    assert (refused.status_code, refused.json()["rule"]) == (422, "hash")
    assert get(url, f"/uploads/{upload}").status_code == 404
    assert stored_files(folder) == set()


def test_more_bytes_than_announced_are_not_taken(url: str) -> None:
    data = weights(1)
    upload = announce(url, data).json()["upload_id"]
    assert put(url, upload, 0, data + b"x").status_code == 413
    assert httpx.delete(f"{url}/api/v1/uploads/{upload}", trust_env=False).status_code == 204


def test_a_user_has_one_vote_in_a_round_until_it_is_withdrawn(url: str) -> None:
    first = send(url, "alice", adapter_zip(1))
    assert send(url, "alice", adapter_zip(1)).json()["adapter_id"] == first.json()["adapter_id"]
    for user, seed in (("alice", 2), ("bob", 1)):
        second = send(url, user, adapter_zip(seed))
        assert (second.status_code, second.json()["rule"]) == (409, "vote")
    assert get(url, "/status").json()["pending_for_aggregation"] == 1
    withdrawn = httpx.delete(f"{url}/api/v1/adapters/{first.json()['adapter_id']}", trust_env=False)
    assert withdrawn.status_code == 204
    assert send(url, "alice", adapter_zip(2)).status_code == 200
    assert get(url, "/status").json()["pending_for_aggregation"] == 1


def test_an_adapter_is_compared_with_those_of_the_others(url: str) -> None:
    for seed, user in enumerate(("a", "b", "c")):
        assert send(url, user, adapter_zip(seed)).status_code == 200
    for alpha in (8 * 1000, 8 / 10000):
        loud = send(url, "d", adapter_zip(9, lora_alpha=alpha))
        assert (loud.status_code, loud.json()["rule"]) == (422, "norm")
    assert send(url, "d", adapter_zip(9, lora_alpha=16)).status_code == 200


def test_claims_of_samples_are_capped(folder: Path) -> None:
    with serving_hive(folder, limits=HiveLimits(max_samples=50)) as url:
        assert send(url, "a", adapter_zip(1), training_samples="1000000").json()["samples_counted"] == 50
        assert send(url, "b", adapter_zip(2), training_samples="5").status_code == 200
        parents = post(url, "/aggregate").json()["detail"]["parents"]
        # At most three times the median claim, 27.5.
        assert {one["user_id"]: round(one["weight"], 3) for one in parents} == {"a": 0.909, "b": 0.091}


def test_the_first_adapter_sets_the_base_where_none_was_opened(folder: Path) -> None:
    with serving_hive(folder, with_base=False) as url:
        assert send(url, "a", adapter_zip(1)).status_code == 200
        assert get(url, "/server").json()["base_model"] == "Tiny-Base"
        other = send(url, "b", adapter_zip(2, base_model_name_or_path="x/Other"))
        assert other.json()["rule"] == "base"
        fits = send(url, "b", adapter_zip(2, base_model_name_or_path="hub/tiny-base"))
        assert fits.status_code == 200, fits.text


def test_rounds_versions_and_the_way_back(url: str) -> None:
    for number in (1, 2):
        for seed, user in enumerate(("a", "b")):
            assert send(url, user, adapter_zip(10 * number + seed)).status_code == 200
        joined = post(url, "/aggregate", json={"version": f"v{number}", "method": "svd", "rank": 3})
        assert joined.status_code == 200, joined.text
        assert (joined.json()["detail"]["method"], joined.json()["detail"]["rank"]) == ("svd", 3)
    rounds = get(url, "/rounds").json()["rounds"]
    assert [(one["number"], one["adapters"], one["version"]) for one in rounds] == [
        (3, 0, ""), (2, 2, "v2"), (1, 2, "v1")
    ]  # fmt: skip
    versions = get(url, "/versions").json()["versions"]
    assert [(one["version"], one["state"], one["previous"]) for one in versions] == [
        ("v2", "current", "v1"), ("v1", "published", "")
    ]  # fmt: skip
    assert {one["user_id"] for one in versions[0]["parents"]} == {"a", "b"}
    newest = get(url, "/adapter/download/latest").content
    assert post(url, "/rollback", json={}).json()["version"] == "v1"
    assert get(url, "/adapter/download/latest").content != newest
    assert post(url, "/rollback", json={}).status_code == 400
    assert post(url, "/rollback", json={"version": "v2"}).json()["state"] == "current"
    assert get(url, "/adapter/download/latest").content == newest
    taken = post(url, "/aggregate", json={"version": "V1"})
    assert taken.status_code == 400 and "v1" in taken.text.lower()


@pytest.mark.parametrize("version", ["..", "a/b", "latest", "x" * 65, ".x", "a b", "é"])
def test_what_is_no_name_of_a_version_is_refused(url: str, version: str) -> None:
    for seed, user in enumerate(("a", "b")):
        send(url, user, adapter_zip(seed))
    assert post(url, "/aggregate", params={"version": version}).status_code == 400


def test_an_archive_is_a_folder_that_peft_loads(url: str, tmp_path: Path) -> None:
    for seed, user in enumerate(("a", "b")):
        send(url, user, adapter_zip(seed))
    post(url, "/aggregate", params={"version": "v1"})
    reply = get(url, "/versions/latest/archive")
    assert reply.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
    weights_file = tmp_path / "out" / "adapter_model.safetensors"
    assert sha256(weights_file.read_bytes()).hexdigest() == reply.headers["x-adapter-sha256"]
    from peft import PeftConfig

    loaded = PeftConfig.from_pretrained(str(tmp_path / "out"))
    assert loaded.peft_type == "LORA" and loaded.r == 4
    rest = get(url, "/versions/v1/archive", headers={"range": "bytes=100-"})
    assert rest.status_code == 206 and rest.content == reply.content[100:]
    assert get(url, "/versions/v1/archive", headers={"range": "bytes=99999999-"}).status_code == 416


def test_a_streamed_archive_is_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 700_000)
    once, again = (b"".join(stream_zip([("a", tmp_path / "a")])) for _time in range(2))
    assert once == again and zipfile.ZipFile(io.BytesIO(once)).read("a") == b"x" * 700_000


def test_the_description_names_every_route_and_asks_nobody_else(url: str) -> None:
    document = httpx.get(f"{url}/openapi.json", trust_env=False).json()
    assert {"/api/v1/adapter/upload", "/api/v1/uploads/{upload_id}", "/api/v1/rollback"} <= document[
        "paths"
    ].keys()
    used = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert used <= document["components"]["schemas"].keys()
    page = httpx.get(f"{url}/docs", trust_env=False)
    assert "<script" not in page.text and not re.search(r"(src|href)='?\"?(https?:)?//", page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in document["paths"]:
        assert path in page.text


def test_members_that_are_no_business_of_the_server_are_not_unpacked(url: str, folder: Path) -> None:
    bomb = zipped(
        {
            "adapter_config.json": json.dumps(config()).encode(),
            "adapter_model.safetensors": weights(1),
            "checkpoint/optimizer.pt": b"\0" * (32 << 20),
        }
    )
    assert send(url, "a", bomb).status_code == 200
    assert {Path(name).name for name in stored_files(folder)} == {
        "adapter_config.json", "adapter_model.safetensors", "metadata.json"
    }  # fmt: skip


def test_the_stored_configuration_names_no_folder_of_the_clients_machine(url: str, folder: Path) -> None:
    send(url, "a", adapter_zip(1))
    text = next(folder.glob("a/*/adapter_config.json")).read_text()
    assert "someone" not in text and json.loads(text)["base_model_name_or_path"] == "Tiny-Base"


def test_a_fingerprint_counts_more_than_a_name(url: str) -> None:
    renamed = announce(
        url, weights(1), base_fingerprint=FINGERPRINT, config=config(base_model_name_or_path="mine")
    )
    assert renamed.status_code == 201
    other = announce(url, weights(1), base_fingerprint="cd" * 32)
    assert (other.status_code, other.json()["rule"]) == (422, "base")


def test_what_was_taken_by_its_fingerprint_joins_whatever_its_base_is_called(url: str) -> None:
    for seed, (user, name) in enumerate(
        {"ann": "Tiny-Base", "bob": "org/TINY-base", "eve": "mine:tag"}.items()
    ):
        changes: dict[str, Any] = {
            "config": config(base_model_name_or_path=name),
            "base_fingerprint": FINGERPRINT,
        }
        upload = announce(url, weights(seed), user_id=user, **changes).json()["upload_id"]
        put(url, upload, 0, weights(seed))
        assert post(url, f"/uploads/{upload}/finish").status_code == 201
    joined = post(url, "/aggregate").json()
    assert {one["user_id"] for one in joined["detail"]["parents"]} == {"ann", "bob", "eve"}


def test_a_round_is_not_joined_from_fewer_adapters_than_it_needs(url: str, folder: Path) -> None:
    for seed, user in enumerate(("ann", "bob")):
        send(url, user, adapter_zip(seed))
    next(folder.glob("bob/*/adapter_model.safetensors")).write_bytes(b"the disk was damaged")
    refused = post(url, "/aggregate")
    assert (refused.status_code, get(url, "/versions").json()["versions"]) == (400, [])
    assert get(url, "/status").json()["round"] == 1


def test_tokens_are_stored_as_hashes_and_end_with_what_waits(folder: Path) -> None:
    with serving_hive(folder) as url:
        registry = Registry(folder)
        token = create_token(registry, "alice")
        admin = create_token(registry, "root", may_aggregate=True)
        for file in (folder / "registry.db", folder / "registry.db-wal"):
            assert token.encode() not in file.read_bytes()
        assert send(url, "alice", adapter_zip(1)).status_code == 401
        assert send(url, "alice", adapter_zip(1), token[:-1]).status_code == 401
        wrong = send(url, "bob", adapter_zip(1), token)
        assert (wrong.status_code, wrong.json()["rule"]) == (422, "user")
        assert send(url, "alice", adapter_zip(1), token).status_code == 200
        # HiveMind's client has no setting for a token, but takes an address with a password.
        named = url.replace("//", f"//alice:{token}@")
        assert httpx.get(f"{named}/api/v1/status", trust_env=False).json()["total_adapters"] == 1
        assert get(url, "/server", headers={"authorization": f"Bearer {token}"}).json()["user"] == "alice"
        for action in ("/aggregate", "/rollback"):
            refused = post(url, action, json={}, headers={"authorization": f"Bearer {token}"})
            assert refused.status_code == 403
        assert post(url, "/aggregate", headers={"authorization": f"Bearer {admin}"}).status_code == 400
        assert revoke_token(registry, "alice") == 1
        assert send(url, "alice", adapter_zip(2), token).status_code == 401
        status = get(url, "/status", headers={"authorization": f"Bearer {admin}"}).json()
        assert status["pending_for_aggregation"] == 0
        assert [one.name for one in list_tokens(registry) if one.revoked_at is not None] == ["alice"]
        registry.close()


def test_an_upload_belongs_to_its_token(folder: Path) -> None:
    with serving_hive(folder) as url:
        registry = Registry(folder)
        alice, eve = create_token(registry, "alice"), create_token(registry, "eve")
        upload = announce(url, weights(1), alice).json()["upload_id"]
        for method, rest in (("GET", ""), ("DELETE", ""), ("POST", "/finish"), ("PUT", "?offset=0")):
            address = f"{url}/api/v1/uploads/{upload}{rest}"
            stolen = httpx.request(
                method, address, headers={"authorization": f"Bearer {eve}"}, trust_env=False
            )
            assert stolen.status_code == 404
        registry.close()


def test_the_folder_of_a_hivemind_server_is_taken_over_by_the_rules(folder: Path) -> None:
    entries: dict[str, Any] = {}
    for user, stamp, data in (
        ("alice", "20260118_110000", weights(1)),
        ("alice", "20260119_110000", weights(2)),
        ("bob", "20260119_110001", weights(3)),
        ("eve", "20260119_110002", b"no weights"),
        ("../eve", "20260119_110003", weights(4)),
    ):
        place = folder / user.replace("../", "") / stamp
        place.mkdir(parents=True)
        (place / "adapter_config.json").write_text(json.dumps(config()))
        (place / "adapter_model.safetensors").write_bytes(data)
        (place / "metadata.json").write_text(json.dumps({"user_id": user}))
        metadata = {"base_model": "Qwen/Qwen2-7B", "training_samples": 7, "epochs": 3}
        entries[f"{user}_{stamp}"] = {
            "user_id": user,
            "path": f"/old/place/{user}/{stamp}",
            "metadata": metadata,
        }
    before = stored_files(folder)
    (folder / "registry.json").write_text(json.dumps({"adapters": entries, "aggregated_versions": []}))
    intake = Intake(AdapterStore(folder), HiveLimits())
    found = take_over(intake)
    assert found.adapters == 2 and [one.partition(":")[0] for one in found.refused] == ["eve_20260119_110002"]
    assert {(one.user_id, one.sha256) for one in intake.store.pending()} == {
        ("alice", sha256(weights(2)).hexdigest()), ("bob", sha256(weights(3)).hexdigest())
    }  # fmt: skip
    intake.store.sweep(0.0)
    assert before <= stored_files(folder)
    assert take_over(intake).adapters == 0
    intake.store.close()
