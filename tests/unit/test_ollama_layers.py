"""A tag of Ollama with ADAPTER and SYSTEM is trained on, talked to, judged and exported as Ollama serves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, UsageProblem
from engine.core.paths import Workspace
from engine.export.gguf_writer import write_gguf_adapter
from engine.export.llama_cpp import LlamaCpp
from engine.export.plan import modelfile_of, plan_export
from engine.inference.backends.llama_cpp import LlamaCppModel
from engine.inference.loader import open_language_model, open_pair
from engine.models.adapters import new_adapter, save_adapter
from engine.models.base_models import find_base, model_path
from engine.models.card import ModelCard
from engine.models.gguf.model import open_gguf
from engine.models.hf import load_base, load_chat_template
from engine.models.ollama.store import find_layers
from engine.models.weights import LoraPair, read_gguf_adapter
from engine.runs.kinds import ExportParams
from engine.training.recipe import LoraSettings
from tests.export_models import TALK, difference, log_probabilities, write_arch, write_gguf
from tests.hf_models import write_hf
from tests.ollama_server import ollama_server
from tests.ollama_store import OllamaStore

SYSTEM = 'You are "Q".\n{{ not a template }} 你好'
MORE: dict[str, dict[str, Any]] = {"gemma3_text": {"query_pre_attn_scalar": 16, "tied": True}}
QUESTION = [ChatMessage(role="user", content="Hello")]

NO_WORKSPACE = Workspace(Path("/nonexistent"))


def _adapter(folder: Path, architecture: str) -> tuple[Path, Path, dict[str, LoraPair]]:
    """(GGUF base, GGUF adapter, its matrices) with an adapter on every linear layer."""
    base = write_gguf(
        folder / "base.gguf", write_arch(folder / "hf", architecture, **MORE.get(architecture, {}))
    )
    opened = open_gguf(base)
    torch.manual_seed(1)
    pairs = {
        str(opened.arch.to_transformers(name)): LoraPair(
            torch.randn(3, tensor.shape[1]) * 0.2, torch.randn(tensor.shape[0], 3) * 0.2, 2.0
        )
        for name, tensor in opened.file.tensors.items()
        if name.startswith("blk.") and len(tensor.shape) == 2
    }
    write_gguf_adapter(folder / "adapter.gguf", opened.config, pairs, name="a")
    return base, folder / "adapter.gguf", pairs


@pytest.fixture
def tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Llama, whose queries and keys GGUF stores in another order, with an adapter and a system prompt."""
    base, adapter, _pairs = _adapter(tmp_path, "llama")
    store = OllamaStore(tmp_path / "ollama")
    store.put("mine", "latest", base.read_bytes(), adapter=adapter.read_bytes(), system=SYSTEM.encode())
    store.put("bare", "latest", base.read_bytes())
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    return "mine"


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text", "phi3"])
def test_an_adapter_in_gguf_is_read_as_it_was_written(tmp_path: Path, architecture: str) -> None:
    base, adapter, pairs = _adapter(tmp_path, architecture)
    read = read_gguf_adapter(adapter, open_gguf(base))
    assert read.keys() == pairs.keys()
    for name, pair in pairs.items():
        expected = pair.scale * pair.b @ pair.a
        assert torch.allclose(read[name].scale * read[name].b @ read[name].a, expected, atol=5e-3), name


def test_the_merged_base_computes_what_llama_cpp_computes_with_the_adapter(tmp_path: Path, tag: str) -> None:
    ws = Workspace(tmp_path / "ws")
    model, bare = (load_base(find_base(ws, name), torch.float32) for name in (tag, "bare"))
    layers = find_layers(NO_WORKSPACE, tag)
    with LlamaCpp(layers.model, adapter=layers.adapter) as served:
        ids = served.tokenize(TALK)
        expected = log_probabilities(model, ids)
        assert difference(served, expected, ids) < 0.02
        assert difference(served, log_probabilities(bare, ids), ids) > 0.2


def test_every_command_reads_the_tag_with_its_adapter_and_system(tmp_path: Path, tag: str) -> None:
    ws = Workspace(tmp_path / "ws")
    base, bare = find_base(ws, tag), find_base(ws, "bare")
    assert base.lora is not None and base.system == SYSTEM and base.sha256 != bare.sha256
    talked = open_language_model(ws, tag, serving=True)
    judged, other = open_pair(ws, model_path(ws, tag), model_path(ws, "bare"))
    for model in (talked, judged):
        assert isinstance(model, LlamaCppModel)
        assert SYSTEM in model.chat.decode(model.chat.prompt(QUESTION))
        own = [ChatMessage(role="system", content="Mine."), *QUESTION]
        assert SYSTEM not in model.chat.decode(model.chat.prompt(own))
    assert isinstance(judged, LlamaCppModel)
    ids = judged.chat.encode("Hello you")
    assert judged.next_token_log_probs(ids) != pytest.approx(other.next_token_log_probs(ids), abs=0.1)


def test_an_adapter_that_was_trained_on_the_bare_file_of_a_tag_still_opens(tmp_path: Path, tag: str) -> None:
    ws = Workspace(tmp_path / "ws")
    bare = find_base(ws, "bare")
    peft = new_adapter(load_base(bare, torch.float32), LoraSettings(rank=2, alpha=4), 0)
    card = ModelCard(
        name="old", mode="lora", base_path=f"ollama:{tag}", base_sha256=bare.sha256, base_format="float32",
        created_at=1.0, parameters=1, context=64,
    )  # fmt: skip
    save_adapter(ws.adapters / "old", peft, card)
    assert find_base(ws, "old").lora is None
    newer = msgspec.structs.replace(card, name="new", base_sha256=find_base(ws, tag).sha256)
    save_adapter(ws.adapters / "new", peft, newer)
    assert find_base(ws, "new").lora is not None


def test_an_export_holds_both_adapters_and_the_system_prompt(tmp_path: Path, tag: str) -> None:
    ws = Workspace(tmp_path / "ws")
    plan = plan_export(ws, ExportParams(name=tag, to="gguf", output=str(tmp_path / "out")))
    name = "model.layers.0.self_attn.q_proj.weight"
    bare = plan_export(ws, ExportParams(name="bare", to="gguf", output=str(tmp_path / "out")))
    assert not torch.equal(plan.weights.rows(name, 0, 4), bare.weights.rows(name, 0, 4))
    assert "SYSTEM" in modelfile_of(plan)
    base = find_base(ws, tag)
    peft = new_adapter(load_base(base, torch.float32), LoraSettings(rank=2, alpha=4), 0)
    card = ModelCard(
        name="more", mode="lora", base_path=base.source, base_sha256=base.sha256, base_format="float32",
        created_at=1.0, parameters=1, context=64,
    )  # fmt: skip
    save_adapter(ws.adapters / "more", peft, card)
    assert not plan_export(ws, ExportParams(name="more", to="ollama")).only_adapter
    with pytest.raises(UsageProblem, match="has an adapter already"):
        plan_export(ws, ExportParams(name="more", to="gguf", adapter=True))


def test_a_template_without_system_turns_refuses_the_system_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = (
        "{%- for message in messages %}{%- if message['role'] == 'system' %}{{ raise_exception('no system') }}{%- endif %}"
        "{{- '<|im_start|>' + message['role'] + message['content'] + '<|im_end|>' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant' }}{%- endif %}"
    )
    file = write_gguf(tmp_path / "m.gguf", write_hf(tmp_path / "hf", template=template))
    OllamaStore(tmp_path / "ollama").put("mine", "latest", file.read_bytes(), system=b"Be kind.")
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    with pytest.raises(BadInput, match="does not fit its chat template"):
        load_chat_template(find_base(Workspace(tmp_path), "mine"))


def test_two_adapters_are_refused(tmp_path: Path, tag: str) -> None:
    manifest = tmp_path / "ollama/manifests/registry.ollama.ai/library/mine/latest"
    stored = json.loads(manifest.read_text())
    adapter = next(layer for layer in stored["layers"] if layer["mediaType"].endswith("adapter"))
    stored["layers"].append(adapter)
    manifest.write_text(json.dumps(stored))
    with pytest.raises(BadInput, match="several adapters"):
        find_base(Workspace(tmp_path / "ws"), tag)


def test_an_adapter_of_another_model_is_refused(
    tmp_path: Path, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    base, _adapter_of_base, _pairs = _adapter(tmp_path / "other", "qwen3")
    store = OllamaStore(tmp_path / "ollama")
    store.put("wrong", "latest", base.read_bytes(), adapter=b"GGUF nothing")
    with pytest.raises(BadInput):
        load_base(find_base(Workspace(tmp_path / "ws"), "wrong"), torch.float32)


def test_a_running_ollama_tells_of_adapter_and_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter, _pairs = _adapter(tmp_path, "llama")
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "nothing"))
    with ollama_server(tmp_path) as (address, state):
        monkeypatch.setenv("OLLAMA_HOST", address)
        for file in (base, adapter):
            state.blob(f"sha256:{file.stem}").write_bytes(file.read_bytes())
        state.models["base"] = {"files": {"m": "sha256:base"}}
        state.models["mine"] = {"from": "base", "adapters": {"a": "sha256:adapter"}, "system": "Be kind."}
        layers = find_layers(NO_WORKSPACE, "mine")
    assert layers.model.read_bytes() == base.read_bytes() and layers.system == "Be kind."
    assert layers.adapter is not None and layers.adapter.read_bytes() == adapter.read_bytes()
