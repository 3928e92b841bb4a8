"""The GGUF file behind an Ollama tag, from a store on disk or from a running Ollama."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import BadInput, ServiceUnreachable
from engine.core.paths import Workspace
from engine.models.ollama.store import find_gguf, installed_tags
from tests.ollama_server import ollama_server

IMAGE = "application/vnd.ollama.image."

NO_WORKSPACE = Workspace(Path("/nonexistent"))


class Store:
    """A model store in Ollama's layout."""

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


def test_a_tag_names_the_model_layer_of_its_manifest(store: Store) -> None:
    layers = [
        ("model", store.blob(b"GGUF model")), ("template", store.blob(b"{{ .Prompt }}")),
        ("system", store.blob("你是小Q".encode())), ("adapter", store.blob(b"GGUF adapter")),
    ]  # fmt: skip
    store.manifest("registry.ollama.ai/library/qwen3/0.6b", layers)
    assert find_gguf(NO_WORKSPACE, "qwen3:0.6b").read_bytes() == b"GGUF model"


def test_all_forms_of_a_model_name_find_the_manifest(store: Store) -> None:
    digest = store.blob(b"GGUF")
    for place in (
        "registry.ollama.ai/library/a/latest",
        "registry.ollama.ai/me/b/v1",
        "hf.co/me/c-GGUF/Q4_K_M",
    ):
        store.manifest(place, [("model", digest)])
    for tag in ("a", "a:latest", "me/b:v1", "hf.co/me/c-GGUF:Q4_K_M"):
        assert find_gguf(NO_WORKSPACE, tag).is_file()
    assert installed_tags(NO_WORKSPACE) == ["a:latest", "hf.co/me/c-GGUF:Q4_K_M", "me/b:v1"]


@pytest.mark.parametrize(
    "tag", ["", "../../etc/passwd", "a/../b", "你好", "a:b:c", "/a", "a b", "-a", "a" * 90]
)
def test_an_invalid_model_name_is_rejected(store: Store, tag: str) -> None:
    with pytest.raises(BadInput, match="not a valid"):
        find_gguf(NO_WORKSPACE, tag)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"layers": 3}', '{"layers": [{"mediaType": "x"}]}', '{"layers": []}',
     '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../../etc/passwd"}]}'],
)  # fmt: skip
def test_a_broken_manifest_is_bad_input(store: Store, text: str) -> None:
    store.manifest("registry.ollama.ai/library/a/latest", []).write_text(text)
    with pytest.raises(BadInput):
        find_gguf(NO_WORKSPACE, "a")


def test_multimodal_and_split_models_are_rejected(store: Store) -> None:
    digest = store.blob(b"GGUF")
    store.manifest("registry.ollama.ai/library/seeing/latest", [("model", digest), ("projector", digest)])
    store.manifest("registry.ollama.ai/library/parts/latest", [("tensor", digest)])
    for tag in ("seeing", "parts"):
        with pytest.raises(BadInput, match="not a single GGUF file"):
            find_gguf(NO_WORKSPACE, tag)


def test_errors_about_missing_or_unreadable_blobs_hint_at_the_fix(store: Store) -> None:
    digest = store.blob(b"GGUF")
    store.manifest("registry.ollama.ai/library/a/latest", [("model", digest)])
    blob = store.root / "blobs" / digest.replace(":", "-")
    if os.geteuid() != 0:
        blob.chmod(0)
        with pytest.raises(BadInput, match="no permission") as closed:
            find_gguf(NO_WORKSPACE, "a")
        assert closed.value.hint.startswith("sudo chmod")
    blob.unlink()
    with pytest.raises(BadInput, match="missing") as problem:
        find_gguf(NO_WORKSPACE, "a")
    assert problem.value.hint == "ollama pull a"


def test_an_unknown_tag_without_a_running_ollama_is_exit_code_4(store: Store) -> None:
    with pytest.raises(ServiceUnreachable) as problem:
        find_gguf(NO_WORKSPACE, "nothing")
    assert problem.value.exit_code == 4


def test_a_running_ollama_reports_the_path_of_a_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with ollama_server(elsewhere) as (address, state):
        monkeypatch.setenv("OLLAMA_HOST", address)
        digest = f"sha256:{hashlib.sha256(b'GGUF there').hexdigest()}"
        state.blob(digest).write_bytes(b"GGUF there")
        state.models["there"] = {"files": {"x.gguf": digest}}
        assert find_gguf(NO_WORKSPACE, "there").read_bytes() == b"GGUF there"
        with pytest.raises(BadInput, match="has no model"):
            find_gguf(NO_WORKSPACE, "not-there")
