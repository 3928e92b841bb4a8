"""Which models can be a base: the architectures that must work, and those that are refused before anything is built."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, H2QError
from engine.core.paths import Workspace
from engine.export.hf_model import write_hf_model
from engine.export.source import find_export_source
from engine.inference.backends.hf import HFModel
from engine.inference.language_model import Sampling, generate_text
from engine.models.adapters import attach_adapter, new_adapter, save_adapter
from engine.models.base_models import find_base
from engine.models.card import ModelCard
from engine.models.catalog import check_base
from engine.models.hf import load_base
from engine.models.hf_directory import SUPPORTED_TYPES, read_directory
from engine.models.resolve import find_place
from engine.training.recipe import LoraSettings
from tests.export_models import LLAMA3_ROPE, write_arch, write_gguf
from tests.hf_models import write_hf

TALK = [
    ChatMessage(role="user", content="What is your name?"),
    ChatMessage(role="assistant", content="My name is Tom."),
]


def _directory(folder: Path, config: dict[str, Any]) -> Path:
    """A directory with a real tokenizer, weights of another model, and this config.json."""
    write_hf(folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _saved(kind: str, architecture: str | None) -> dict[str, Any]:
    """config.json as transformers saves the default configuration of a model type."""
    config: dict[str, Any] = CONFIG_MAPPING[kind]().to_diff_dict()
    return config | ({"architectures": [architecture]} if architecture else {})


PLAIN = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
REFUSED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "Mamba": (lambda: _saved("mamba", "MambaForCausalLM"), "no attention"),
    "Mamba 2": (lambda: _saved("mamba2", "Mamba2ForCausalLM"), "no attention"),
    "Falcon Mamba": (lambda: _saved("falcon_mamba", None), "no attention"),
    "RWKV": (lambda: _saved("rwkv", "RwkvForCausalLM"), "no attention"),
    "BERT": (lambda: _saved("bert", "BertForMaskedLM"), "not a causal"),
    "an embedder": (lambda: _saved("bert", "BertModel"), "not a causal"),
    "RoBERTa": (lambda: _saved("roberta", "RobertaForMaskedLM"), "not a causal"),
    "XLM-R as a classifier": (lambda: _saved("xlm-roberta", "XLMRobertaForSequenceClassification"), "not a causal"),
    "T5": (lambda: _saved("t5", "T5ForConditionalGeneration"), "encoder with a decoder"),
    "BART": (lambda: _saved("bart", "BartForConditionalGeneration"), "encoder with a decoder"),
    "Whisper": (lambda: _saved("whisper", "WhisperForConditionalGeneration"), "encoder with a decoder"),
    "Gemma 3 with pictures": (lambda: _saved("gemma3", "Gemma3ForConditionalGeneration"), "pictures"),
    "Llama 4": (lambda: _saved("llama4", "Llama4ForConditionalGeneration"), "pictures"),
    "Qwen2-VL": (lambda: _saved("qwen2_vl", "Qwen2VLForConditionalGeneration"), "pictures"),
    "LLaVA": (lambda: _saved("llava", "LlavaForConditionalGeneration"), "pictures"),
    "AWQ": (lambda: PLAIN | {"quantization_config": {"quant_method": "awq", "bits": 4}}, "quantized .awq"),
    "GPTQ": (lambda: PLAIN | {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized .gptq"),
    "bitsandbytes": (lambda: PLAIN | {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized"),
    "FP8": (lambda: PLAIN | {"quantization_config": {"quant_method": "fp8"}}, "quantized .fp8"),
    "MLX": (lambda: PLAIN | {"quantization": {"group_size": 64, "bits": 4}}, "quantized .MLX"),
    "a reward model": (lambda: PLAIN | {"architectures": ["Qwen2ForSequenceClassification"]}, "not a causal"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_of_another_kind_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    config, sentence = REFUSED[name]
    folder = _directory(tmp_path / "model", config())
    with pytest.raises(BadInput, match=sentence) as caught:
        find_base(Workspace(tmp_path / "ws"), str(folder))
    assert "\n" not in str(caught.value)
    # The list and the sheet say it without transformers.
    assert read_directory(folder).problem
    with pytest.raises(BadInput, match=sentence):
        check_base(find_place(Workspace(tmp_path / "ws"), str(folder)), "lora")


def _extended(folder: Path, *, special: bool, in_template: bool = False) -> None:
    """One more token than the embedding has rows."""
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    file = folder / "tokenizer.json"
    stored = json.loads(file.read_text(encoding="utf-8"))
    stored["added_tokens"].append(
        {"id": rows, "content": "<image>", "special": special, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    )  # fmt: skip
    file.write_text(json.dumps(stored), encoding="utf-8")
    if in_template:
        (folder / "chat_template.jinja").write_text("{{ '<image>' }}", encoding="utf-8")


@pytest.mark.parametrize(
    "case", ["a word", "a control token of the template", "an unused control token", "a smaller embedding"]
)
def test_a_tokenizer_beyond_the_embedding_is_refused(tmp_path: Path, case: str) -> None:
    folder = write_hf(tmp_path / "model")
    if case == "a smaller embedding":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] - 3}))
    else:
        _extended(folder, special=case != "a word", in_template=case == "a control token of the template")
    if case == "an unused control token":  # as in Gemma 3
        assert find_base(Workspace(tmp_path), str(folder)).parameters > 0
        return
    with pytest.raises(BadInput, match="extended without the model"):
        find_base(Workspace(tmp_path), str(folder))


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "model")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(BadInput, match="no tokenizer"):
        find_base(Workspace(tmp_path), str(folder))
    assert "no tokenizer" in read_directory(folder).problem


@pytest.mark.parametrize("mode, kind", [("native", "hf"), ("lora", "native")])
def test_a_base_of_another_mode_names_that_mode(tmp_path: Path, knowing: Path, mode: str, kind: str) -> None:
    folder = knowing if kind == "native" else write_hf(tmp_path / "model")
    with pytest.raises(H2QError) as caught:
        check_base(find_place(Workspace(tmp_path), str(folder)), mode)
    assert f"--mode {'lora' if mode == 'native' else 'native'}" in caught.value.hint


LINEAR = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "qwen3_5_text": LINEAR,
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 96},
    "cohere2": {"layer_types": ["sliding_attention", "full_attention"]},
}
"""Settings that a small model of a type needs."""
EVERY_TIME = ("llama", "llama with the rope of Llama 3", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3")


@pytest.mark.parametrize(
    "name",
    [
        *EVERY_TIME,
        *(pytest.param(kind, marks=pytest.mark.long) for kind in SUPPORTED_TYPES if kind not in EVERY_TIME),
    ],
)
def test_an_architecture_is_trained_talked_to_judged_and_exported(tmp_path: Path, name: str) -> None:
    kind = name.split()[0]
    folder = write_arch(
        tmp_path / "model", kind, rope=LLAMA3_ROPE if kind != name else None, **SETTINGS.get(kind, {})
    )
    ws = Workspace(tmp_path / "ws")
    base = find_base(ws, str(folder))
    plain = HFModel.load(base)
    assert _nats(plain) == pytest.approx(_nats_of_transformers(folder), rel=1e-4)

    peft = new_adapter(load_base(base, torch.float32), LoraSettings(rank=2, alpha=4), 0)
    window = plain.windows(TALK, 64)[0]
    ids = torch.tensor([window.ids])
    labels = ids.masked_fill(~torch.tensor([window.loss_mask]), -100)
    trained = [parameter for parameter in peft.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-3)
    for _step in range(2):  # the first moves B away from zero, the second A
        peft(input_ids=ids, labels=labels).loss.backward()
        assert all(parameter.grad is not None for parameter in trained)
        optimizer.step()
        optimizer.zero_grad()
    card = ModelCard(
        name="mine", mode="lora", base_path=base.source, base_sha256=base.sha256, base_format="float32",
        created_at=1.0, parameters=1, context=64,
    )  # fmt: skip
    save_adapter(ws.adapters / "mine", peft, card)
    adapted = HFModel.load(find_base(ws, "mine"))
    assert _nats(adapted) < _nats(plain)
    text, how = generate_text(adapted, TALK[:1], Sampling(temperature=0, max_bytes=12))
    assert how.bytes == len(text.encode())

    source = find_export_source(ws, "mine")
    write_hf_model(tmp_path / "merged", source, source.weights, torch.float32)
    assert _nats_of_transformers(tmp_path / "merged") == pytest.approx(_nats(adapted), rel=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("as_gguf", [False, True])
def test_weights_that_are_no_numbers_are_named_when_they_are_loaded(
    tmp_path: Path, value: float, as_gguf: bool
) -> None:
    folder = write_arch(tmp_path / "model", "llama")
    if as_gguf:
        path = write_gguf(tmp_path / "model.gguf", folder)
        content = bytearray(path.read_bytes())
        content[-4000:-3996] = struct.pack("<f", value)
        path.write_bytes(content)
    else:
        path = folder
        weights = load_file(folder / "model.safetensors")
        weights["model.layers.0.self_attn.q_proj.weight"][0, 0] = value
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    base = find_base(Workspace(tmp_path / "ws"), str(path))
    with pytest.raises(BadInput, match="weight holds NaN or infinite values"):
        load_base(base, torch.bfloat16)


def _nats(model: HFModel) -> float:
    return model.nll(model.windows(TALK, 64))[0].nats


@torch.inference_mode()
def _nats_of_transformers(folder: Path) -> float:
    """-log p of the answer and the end of its turn, by transformers alone."""
    auto: Any = AutoModelForCausalLM
    model, tokenizer = (
        auto.from_pretrained(folder, dtype=torch.float32),
        AutoTokenizer.from_pretrained(folder),
    )
    messages = [{"role": turn.role, "content": turn.content} for turn in TALK]
    prompt = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = [*tokenizer(TALK[1].content, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    logs = model(torch.tensor([ids + answer])).logits[0].double().log_softmax(-1)
    return -sum(float(logs[len(ids) + place - 1, token]) for place, token in enumerate(answer))


@pytest.mark.parametrize(
    "beside", ["consolidated.safetensors", "adapter_model.safetensors", "copy.safetensors"]
)
@pytest.mark.parametrize("sharded", [False, True])
def test_weights_are_counted_once_whatever_lies_beside_them(
    tmp_path: Path, beside: str, sharded: bool
) -> None:
    folder = write_hf(tmp_path / "model")
    alone, listed = find_base(Workspace(tmp_path), str(folder)), read_directory(folder)
    file = folder / "model.safetensors"
    copyfile(file, folder / beside)
    if sharded:
        with safe_open(file, framework="pt") as tensors:
            names = dict.fromkeys(tensors.keys(), "model-00001-of-00001.safetensors")
        file.rename(folder / "model-00001-of-00001.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    found = find_base(Workspace(tmp_path), str(folder))
    assert (found.parameters, found.sha256) == (alone.parameters, alone.sha256)
    assert read_directory(folder).bytes == listed.bytes


def adapter_of(folder: Path, root: Path, **settings: Any) -> Path:
    """An adapter on the model in `folder`."""
    base = find_base(Workspace(root), str(folder))
    peft = new_adapter(load_base(base, torch.float32), LoraSettings(rank=2, alpha=4, **settings), 0)
    card = ModelCard(
        name="mine", mode="lora", base_path=base.source, created_at=1.0, parameters=1, context=64
    )
    save_adapter(root / "mine", peft, card)
    return root / "mine"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"hidden": 64}, r"q_proj\.lora_A is 2 × 48 in the adapter and 2 × 64 on this base$"),
        ({"head": 32}, r"q_proj\.lora_B is 32 × 2 in the adapter and 64 × 2 on this base$"),
        ({"layers": 1}, r"layers\.1\.mlp\.down_proj\.lora_A\.weight has no place on this base$"),
        ({"layers": 3}, r"layers\.2\.self_attn\.q_proj\.lora_A\.weight is missing$"),
    ],
)
def test_an_adapter_that_does_not_fit_names_the_matrix(
    tmp_path: Path, other: dict[str, Any], reason: str
) -> None:
    # Without names PEFT stores those of the layers there are, and asks for no more.
    targets = ("q_proj",) if "missing" in reason else ()
    adapter = adapter_of(write_hf(tmp_path / "model"), tmp_path, targets=targets)
    base = find_base(Workspace(tmp_path), str(write_hf(tmp_path / "other", **other)))
    with pytest.raises(BadInput) as problem:
        attach_adapter(load_base(base, torch.float32), adapter)
    assert re.search(rf"^the adapter does not fit its base model: \S*{reason}", problem.value.reason)
    assert problem.value.hint == "h2q-tui models list"
