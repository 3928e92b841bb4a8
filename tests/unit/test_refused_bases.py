"""Models that no command can load: each command says so in one sentence, with exit code 2, and leaves nothing behind."""

from __future__ import annotations

import io
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.core.paths import Workspace
from engine.workspace.open import open_workspace
from tests.cli import run_cli
from tests.export_models import write_arch, write_gguf

Make = Callable[[Path, Path], Path]
"""Makes a model that is refused from a sound directory (or file) and the path to write to; returns its path."""

COMMANDS = {
    "add": ["models", "add", "{model}"],
    "link": ["models", "add", "{model}", "--link", "--name", "linked"],
    "train": ["train", "--run-once", "--mode", "lora", "--model", "{model}"],
    "chat": ["chat", "--model", "{model}", "--prompt", "Hi"],
    "validate": ["validate", "--base", "{sound}", "--new", "{model}"],
    "export": ["export", "{model}", "--to", "gguf"],
}


def config(**changes: object) -> Make:
    """The sound directory with other entries in config.json."""

    def make(sound: Path, target: Path) -> Path:
        target.mkdir()
        for file in sound.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        stored = json.loads((target / "config.json").read_text(encoding="utf-8"))
        (target / "config.json").write_text(json.dumps(stored | changes), encoding="utf-8")
        return target

    return make


def files(change: Callable[[Path], object]) -> Make:
    """The sound directory, changed by `change`."""

    def make(sound: Path, target: Path) -> Path:
        change(config()(sound, target))
        return target

    return make


def content(change: Callable[[bytes], bytes]) -> Make:
    """The sound GGUF file with other bytes."""

    def make(sound: Path, target: Path) -> Path:
        file = target.with_suffix(".gguf")
        file.write_bytes(change(sound.with_suffix(".gguf").read_bytes()))
        return file

    return make


def architecture(name: bytes) -> Make:
    """The sound GGUF file as one of another architecture."""

    def named(data: bytes) -> bytes:
        at = data.index(b"general.architecture") + len(b"general.architecture") + 4
        length = struct.unpack_from("<Q", data, at)[0]
        return data[:at] + struct.pack("<Q", len(name)) + name + data[at + 8 + length :]

    return content(named)


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")


def cut(file: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:3000])


def quantized(method: str) -> Make:
    return config(quantization_config={"quant_method": method, "bits": 4})


REFUSED: dict[str, tuple[Make, str]] = {
    "Mamba": (config(model_type="mamba", architectures=["MambaForCausalLM"]), "no attention"),
    "RWKV": (config(model_type="rwkv", architectures=["RwkvForCausalLM"]), "no attention"),
    "BERT": (config(model_type="bert", architectures=["BertForMaskedLM"]), "not a causal"),
    "an encoder without a head": (config(model_type="xlm-roberta", architectures=["XLMRobertaModel"]), "not a causal"),
    "BERT that names no class": (config(model_type="bert", architectures=None), "bert is not among the tested"),
    "T5": (config(model_type="t5", architectures=["T5ForConditionalGeneration"], is_encoder_decoder=True), "encoder with"),
    "Qwen2-VL": (config(model_type="qwen2_vl", architectures=["Qwen2VLForConditionalGeneration"], vision_config={}), "pictures"),
    "GPTQ": (quantized("gptq"), "quantized (gptq)"),
    "AWQ": (quantized("awq"), "quantized (awq)"),
    "bitsandbytes": (quantized("bitsandbytes"), "quantized (bitsandbytes)"),
    "compressed tensors": (quantized("compressed-tensors"), "quantized (compressed-tensors)"),
    "a kind of its own code": (config(model_type="mine", architectures=["MineForCausalLM"], auto_map={"AutoConfig": "c.C"}), "mine is not"),
    "GPT-2": (config(model_type="gpt2", architectures=["GPT2LMHeadModel"]), "gpt2 is not among the tested"),
    "a hybrid": (config(model_type="jamba", architectures=["JambaForCausalLM"]), "jamba is not among the tested"),
    "Mixtral": (config(model_type="mixtral", architectures=["MixtralForCausalLM"], num_local_experts=8), "experts"),
    "Qwen3 MoE": (config(model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], num_experts=8), "experts"),
    "DeepSeek": (config(model_type="deepseek_v3", architectures=["DeepseekV3ForCausalLM"], n_routed_experts=8), "experts"),
    "pickles": (files(as_pickle), "pickle"),
    "no weights": (files(lambda folder: (folder / "model.safetensors").unlink()), "no weights"),
    "cut weights": (files(cut("model.safetensors")), "broken or truncated"),
    "no tokenizer": (files(lambda folder: (folder / "tokenizer.json").unlink()), "no tokenizer"),
    "a cut config.json": (files(lambda folder: (folder / "config.json").write_text("{")), "cannot be read"),
    "a list as config.json": (files(lambda folder: (folder / "config.json").write_text("[]")), "cannot be read"),
    "another magic": (content(lambda data: b"GGML" + data[4:]), "not a GGUF file"),
    "an empty file": (content(lambda _data: b""), "not a GGUF file"),
    "half a file": (content(lambda data: data[: len(data) // 2]), "truncated"),
    "half a header": (content(lambda data: data[:900]), "truncated"),
    "too many values": (content(lambda data: data[:16] + struct.pack("<Q", 1 << 62) + data[24:]), "header"),
    "too many tensors": (content(lambda data: data[:8] + struct.pack("<Q", 1 << 62) + data[16:]), "header"),
    "a later version": (content(lambda data: data[:4] + struct.pack("<I", 9) + data[8:]), "version 9"),
    "big-endian": (content(lambda data: data[:4] + struct.pack(">I", 3) + data[8:]), "big-endian"),
    "Mamba in GGUF": (architecture(b"mamba"), "architecture mamba"),
    "an unknown architecture": (architecture(b"xyzzy"), "architecture xyzzy"),
    "pictures in GGUF": (architecture(b"clip"), "architecture clip"),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory and a GGUF file beside it that every command takes."""
    folder = write_arch(tmp_path_factory.mktemp("sound") / "sound", "llama")
    write_gguf(folder.with_suffix(".gguf"), folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    monkeypatch.setattr(sys, "stdin", io.StringIO())


BY_THE_SERVICE = ("cut weights", "half a file")
"""Chat refuses these when its service opens the model, which takes seconds."""


def held(root: Path) -> set[str]:
    """What lies below `root`, without the files of the service that chat asks."""
    names = {path.relative_to(root).as_posix() for path in root.rglob("*")}
    return {name for name in names if not name.startswith("runs/.service")}


@pytest.mark.parametrize("name", REFUSED)
def test_every_command_refuses_it_in_one_sentence_and_leaves_nothing(
    tmp_path: Path, sound: Path, name: str
) -> None:
    make, sentence = REFUSED[name]
    model = make(sound, tmp_path / "model")
    root = tmp_path / "ws"
    open_workspace(Workspace(root))
    before = held(root)
    for command, words in COMMANDS.items():
        if command == "chat" and name in BY_THE_SERVICE:
            continue
        filled = [word.format(model=model, sound=sound) for word in words]
        result = run_cli("--data-dir", str(root), *filled)
        said = f"{command}: {result}"
        assert (result.code, result.out) == (2, ""), said
        assert sentence in result.err and result.err.count("\n") == 1, said
        assert held(root) == before, said


def test_the_sound_model_is_taken(tmp_path: Path, sound: Path) -> None:
    root = tmp_path / "ws"
    for model in (sound, sound.with_suffix(".gguf")):
        added = run_cli(
            "--data-dir", str(root), "models", "add", str(model), "--name", model.name.replace(".", "-")
        )
        assert added.code == 0, added
