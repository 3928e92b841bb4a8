"""The GGUF file behind an Ollama tag: in a store on disk, or from the answer of a running Ollama."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import BadInput, ServiceUnreachable
from engine.models.ollama.store import find_in_ollama, installed_tags
from tests.ollama_server import ollama_server

IMAGE = "application/vnd.ollama.image."


class Store:
    """Ollama's folder as Ollama writes it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs").mkdir(parents=True)

    def blob(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        (self.root / "blobs" / f"sha256-{digest}").write_bytes(content)
        return f"sha256:{digest}"

    def manifest(self, place: str, layers: list[tuple[str, str]] | Any) -> Path:
        path = self.root / "manifests" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"mediaType": IMAGE + kind, "digest": digest, "size": 1} for kind, digest in layers]
        path.write_text(json.dumps({"schemaVersion": 2, "layers": rows}))
        return path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    return Store(tmp_path / "models")


def test_a_tag_is_its_blob_with_system_text_parameters_and_adapters(store: Store) -> None:
    model, adapter = store.blob(b"GGUF model"), store.blob(b"GGUF adapter")
    layers = [
        ("model", model), ("template", store.blob(b"{{ .Prompt }}")), ("system", store.blob("你是小Q".encode())),
        ("params", store.blob(b'{"num_ctx": 2048, "stop": ["<|im_end|>"]}')), ("adapter", adapter),
    ]  # fmt: skip
    store.manifest("registry.ollama.ai/library/qwen3/0.6b", layers)
    found = find_in_ollama("qwen3:0.6b")
    assert found.gguf.read_bytes() == b"GGUF model"
    assert found.digest == model
    assert found.system == "你是小Q"
    assert found.parameters == {"num_ctx": 2048, "stop": ["<|im_end|>"]}
    assert [path.read_bytes() for path in found.adapters] == [b"GGUF adapter"]
    found.verify()
    found.gguf.write_bytes(b"GGUF modeL")
    with pytest.raises(BadInput, match="damaged") as problem:
        found.verify()
    assert problem.value.hint == "ollama pull qwen3:0.6b"


def test_every_way_to_write_a_name_finds_its_manifest(store: Store) -> None:
    digest = store.blob(b"GGUF")
    for place in (
        "registry.ollama.ai/library/a/latest",
        "registry.ollama.ai/me/b/v1",
        "hf.co/me/c-GGUF/Q4_K_M",
    ):
        store.manifest(place, [("model", digest)])
    for tag in ("a", "a:latest", "me/b:v1", "hf.co/me/c-GGUF:Q4_K_M"):
        assert find_in_ollama(tag, ask=False).gguf.is_file()
    assert installed_tags() == ["a:latest", "hf.co/me/c-GGUF:Q4_K_M", "me/b:v1"]


@pytest.mark.parametrize(
    "tag", ["", "../../etc/passwd", "a/../b", "你好", "a:b:c", "/a", "a b", "-a", "a" * 90]
)
def test_what_is_no_name_leads_nowhere(store: Store, tag: str) -> None:
    with pytest.raises(BadInput, match="not a valid"):
        find_in_ollama(tag)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"layers": 3}', '{"layers": [{"mediaType": "x"}]}', '{"layers": []}',
     '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../../etc/passwd"}]}'],
)  # fmt: skip
def test_a_broken_manifest_is_told_in_a_sentence(store: Store, text: str) -> None:
    store.manifest("registry.ollama.ai/library/a/latest", []).write_text(text)
    with pytest.raises(BadInput):
        find_in_ollama("a")


def test_weights_that_are_no_single_file_of_text_are_refused(store: Store) -> None:
    digest = store.blob(b"GGUF")
    store.manifest("registry.ollama.ai/library/seeing/latest", [("model", digest), ("projector", digest)])
    store.manifest("registry.ollama.ai/library/parts/latest", [("tensor", digest)])
    for tag in ("seeing", "parts"):
        with pytest.raises(BadInput, match="not a single GGUF file"):
            find_in_ollama(tag)


def test_a_missing_blob_and_a_closed_store_name_what_mends_them(store: Store) -> None:
    digest = store.blob(b"GGUF")
    store.manifest("registry.ollama.ai/library/a/latest", [("model", digest)])
    blob = store.root / "blobs" / digest.replace(":", "-")
    if os.geteuid() != 0:
        blob.chmod(0)
        with pytest.raises(BadInput, match="no permission") as closed:
            find_in_ollama("a")
        assert closed.value.hint.startswith("sudo chmod")
    blob.unlink()
    with pytest.raises(BadInput, match="missing") as problem:
        find_in_ollama("a")
    assert problem.value.hint == "ollama pull a"


def test_nobody_there_is_exit_code_four(store: Store) -> None:
    with pytest.raises(ServiceUnreachable) as problem:
        find_in_ollama("nothing")
    assert problem.value.exit_code == 4
    with pytest.raises(BadInput):
        find_in_ollama("nothing", ask=False)


def test_a_running_ollama_says_where_the_file_lies(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with ollama_server(elsewhere) as (address, state):
        monkeypatch.setenv("OLLAMA_HOST", address)
        digest = f"sha256:{hashlib.sha256(b'GGUF there').hexdigest()}"
        state.blob(digest).write_bytes(b"GGUF there")
        state.models["there"] = {"files": {"x.gguf": digest}, "system": "s"}
        found = find_in_ollama("there")
        assert (found.gguf.read_bytes(), found.digest, found.system) == (b"GGUF there", digest, "s")
        found.verify()
        with pytest.raises(BadInput, match="has no model"):
            find_in_ollama("not-there")
