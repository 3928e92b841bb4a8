"""What leaves when an adapter is shared, and folders of signed adapters."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save_file

from engine.core.errors import BadInput, UsageProblem
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.hive.address import hive_address
from engine.hive.fetch import find_version
from engine.hive.incoming import check_adapter
from engine.hive.lora_file import BadAdapter, plain_config, read_lora
from engine.hive.outgoing import base_name, outgoing_adapter
from engine.hive.protocol import VersionInfo, VersionState
from engine.hive.shared_folder import (
    MANIFEST,
    SIGNATURE,
    find_entry,
    folder_entries,
    make_key,
    put_adapter,
    read_key,
)
from engine.hive.shares import read_shares
from engine.models.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from engine.workspace.open import open_workspace
from tests.cli import run_cli
from tests.hive_adapters import FINGERPRINT, add_adapter


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return open_workspace(Workspace(tmp_path / "ws"))


def test_two_files_leave_and_nothing_in_them_names_a_folder_of_this_machine(ws: Workspace) -> None:
    folder = add_adapter(ws, "mine", metadata={"format": "pt", "note": "trained for somebody"})
    (folder / "optimizer.pt").write_bytes(b"somebody")
    sent = outgoing_adapter(ws, "mine")
    weights = b"".join(sent.chunks())
    assert [file.name for file in sent.files] == [ADAPTER_WEIGHTS, ADAPTER_CONFIG]
    assert b"somebody" not in weights + sent.config_bytes
    assert (len(weights), sha256(weights).hexdigest()) == (sent.size, sent.sha256)
    assert (sent.base_model, sent.base_fingerprint, sent.samples) == ("tiny", FINGERPRINT, 3)
    original = load((folder / ADAPTER_WEIGHTS).read_bytes())
    assert all(np.array_equal(original[name], values) for name, values in load(weights).items())


@pytest.mark.parametrize("start", [0, 3, 200, 700, 5000])
def test_any_part_of_the_weights_is_that_part_of_the_whole(ws: Workspace, start: int) -> None:
    add_adapter(ws, "mine", metadata={"a": "b"})
    sent = outgoing_adapter(ws, "mine")
    whole = b"".join(sent.chunks())
    assert b"".join(sent.chunks(start, 1000)) == whole[start : start + 1000]


def test_weights_that_are_not_those_of_the_card_are_not_shared(ws: Workspace) -> None:
    folder = add_adapter(ws, "mine")
    data = bytearray((folder / ADAPTER_WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / ADAPTER_WEIGHTS).write_bytes(data)
    with pytest.raises(BadInput, match="changed"):
        outgoing_adapter(ws, "mine")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/home/ann/models/smollm2.gguf", "smollm2"),
        ("/home/ann/bases/Qwen2.5-0.5B", "Qwen2.5-0.5B"),
        ("~/models/x.gguf", "x"),
        ("./secret plan/base", "base"),
        ("C:\\Users\\ann\\base.gguf", "base"),
        ("/c/hub/models--Qwen--Qwen3-0.6B/snapshots/abc123", "Qwen/Qwen3-0.6B"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("ollama:qwen3:0.6b", "ollama:qwen3:0.6b"),
    ],
)
def test_the_base_is_named_without_its_folders(source: str, name: str) -> None:
    assert base_name(source) == name


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("localhost", "http://localhost:8000"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
        ("http://0.0.0.0:8000", "http://127.0.0.1:8000"),
        ("https://hive.example", "https://hive.example"),
        ("https://hive.example:8443/", "https://hive.example:8443"),
    ],
)
def test_addresses_that_are_spoken_to(server: str, url: str) -> None:
    assert hive_address(Settings(), server).url == url
    assert hive_address(Settings(hive_server=server)).url == url


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("", "no hive server is named"),
        ("http://hive.example:8000", "without TLS"),
        ("http://192.168.1.5:8000", "without TLS"),
        ("hive.example", "without TLS"),
        ("ftp://127.0.0.1", "not the address"),
        ("http://user:word@127.0.0.1:8000", "not the address"),
        ("http://127.0.0.1:99999", "not the address"),
        ("https://hive.example/path", "not the address"),
        ("https://", "not the address"),
        ("https://hive.example?x=1", "not the address"),
    ],
)
def test_addresses_that_are_refused(server: str, words: str) -> None:
    with pytest.raises(UsageProblem, match=words):
        hive_address(Settings(), server)


def test_another_machine_without_tls_has_to_be_allowed() -> None:
    assert not hive_address(Settings(hive_allow_http=True), "http://192.168.1.5:8000").local
    assert hive_address(Settings(), "http://192.168.1.5:8000", allow_http=True).url.endswith(":8000")


# A folder


@pytest.fixture
def shared(tmp_path: Path, ws: Workspace) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    add_adapter(ws, "mine")
    make_key(ws.config / "hive.key")
    put_adapter(ws, outgoing_adapter(ws, "mine"), folder, "ann", read_key(ws.config / "hive.key"))
    return folder


def entry_of(shared: Path) -> Path:
    return next((shared / "ann").iterdir())


def test_a_signed_adapter_verifies_and_sharing_it_again_changes_nothing(ws: Workspace, shared: Path) -> None:
    key = read_key(ws.config / "hive.key")
    again = put_adapter(ws, outgoing_adapter(ws, "mine"), shared, "ann", key)
    (entry,) = folder_entries(shared, key)
    assert (entry.id, entry.problem) == (again, "")
    assert entry.manifest is not None and entry.manifest.samples == 3
    assert len(read_shares(ws).shared) == 1 and find_entry(shared, key, "mine") == entry
    assert sorted(file.name for file in entry.path.iterdir()) == sorted(
        [ADAPTER_WEIGHTS, ADAPTER_CONFIG, MANIFEST, SIGNATURE]
    )


def change_a_weight(entry: Path) -> None:
    data = bytearray((entry / ADAPTER_WEIGHTS).read_bytes())
    data[-2] ^= 0x40
    (entry / ADAPTER_WEIGHTS).write_bytes(data)


def claim_more(entry: Path) -> None:
    text = (entry / MANIFEST).read_text()
    (entry / MANIFEST).write_text(text.replace('"samples": 3', '"samples": 9'))


def no_signature(entry: Path) -> None:
    (entry / SIGNATURE).unlink()


def link_the_weights(entry: Path) -> None:
    (entry / ADAPTER_WEIGHTS).rename(entry.parent / "w")
    (entry / ADAPTER_WEIGHTS).symlink_to(entry.parent / "w")


def a_fifo_for_a_manifest(entry: Path) -> None:
    (entry / MANIFEST).unlink()
    os.mkfifo(entry / MANIFEST)


def another_member(entry: Path) -> None:
    shutil.copytree(entry, entry.parents[1] / "bob" / entry.name)
    shutil.rmtree(entry)


def another_config(entry: Path) -> None:
    config = json.loads((entry / ADAPTER_CONFIG).read_text())
    (entry / ADAPTER_CONFIG).write_text(json.dumps({**config, "lora_alpha": 64}))


@pytest.mark.parametrize(
    "damage",
    [
        change_a_weight, claim_more, no_signature, link_the_weights, a_fifo_for_a_manifest, another_member,
        another_config,
    ],
)  # fmt: skip
def test_what_was_changed_is_refused_by_name(
    ws: Workspace, shared: Path, damage: Callable[[Path], None]
) -> None:
    name = entry_of(shared).name
    damage(entry_of(shared))
    key = read_key(ws.config / "hive.key")
    problems = [one for one in folder_entries(shared, key) if one.path.name == name]
    assert [one.problem != "" and one.manifest is None for one in problems] == [True]
    with pytest.raises(BadInput):
        find_entry(shared, key, name)


def test_another_key_verifies_nothing(ws: Workspace, shared: Path, tmp_path: Path) -> None:
    (entry,) = folder_entries(shared, make_key(tmp_path / "other.key"))
    assert "another key" in entry.problem


def test_the_key_is_not_in_the_folder_and_only_its_owner_reads_it(ws: Workspace, shared: Path) -> None:
    key = ws.config / "hive.key"
    words = key.read_bytes().strip()
    assert key.stat().st_mode & 0o077 == 0
    assert not any(words in file.read_bytes() for file in shared.rglob("*") if file.is_file())
    key.chmod(0o644)
    with pytest.raises(BadInput, match="others can read"):
        read_key(key)


def test_the_command_lists_what_it_refuses_by_name(ws: Workspace, shared: Path) -> None:
    claim_more(entry_of(shared))
    result = run_cli("hive", "list", "--folder", str(shared), "--data-dir", str(ws.root), "--json")
    document = json.loads(result.out)
    assert document["adapters"] == []
    assert [one["adapter"] for one in document["refused"]] == [f"ann/{entry_of(shared).name}"]


# What comes


def test_a_fetched_adapter_takes_no_pattern_and_no_option_of_a_stranger(ws: Workspace) -> None:
    folder = add_adapter(ws, "mine")
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    config |= {"target_modules": "(a+)+$", "auto_mapping": {"parent_library": "os"}}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config))
    own = json.loads(plain_config(read_lora(folder), "/here/base"))
    assert own["base_model_name_or_path"] == "/here/base" and "auto_mapping" not in own
    assert own["target_modules"] == [
        "model.layers.0.self_attn.o_proj", "model.layers.0.self_attn.q_proj",
    ]  # fmt: skip


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_weights_that_are_not_finite_or_change_nothing_are_refused(ws: Workspace, value: float) -> None:
    folder = add_adapter(ws, "mine")
    file = folder / ADAPTER_WEIGHTS
    tensors = load(file.read_bytes())
    save_file({name: np.full_like(one, value) for name, one in tensors.items()}, file)
    with pytest.raises(BadAdapter):
        check_adapter(folder, sha256(file.read_bytes()).hexdigest())


def test_other_weights_than_announced_are_refused(ws: Workspace) -> None:
    with pytest.raises(BadInput, match="hash"):
        check_adapter(add_adapter(ws, "mine"), "0" * 64)


def version(name: str, state: VersionState) -> VersionInfo:
    return VersionInfo(
        version=name, state=state, created_at=1.0, round=1, base_model="tiny", base_fingerprint=FINGERPRINT,
        previous="", parents=[], method="clip", rank=2, energy=0.9, error_vs_exact=0.1, epsilon=None,
        gate="", gain=None, reason="worse", sha256="0" * 64, bytes=1,
    )  # fmt: skip


def test_a_rejected_version_is_not_fetched() -> None:
    versions = [
        version("v3", VersionState.REJECTED),
        version("v2", VersionState.CURRENT),
        version("v1", VersionState.PUBLISHED),
    ]
    assert find_version(versions, "latest").version == "v2"
    assert find_version(versions, "v1").version == "v1"
    for wanted in ("v3", "v9"):
        with pytest.raises(BadInput):
            find_version(versions, wanted)
    with pytest.raises(BadInput, match="no version yet"):
        find_version(versions[:1], "latest")
