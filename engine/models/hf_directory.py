"""A Hugging Face directory by its file names and its config.json: what a list shows, and what cannot be trained on.

Imports nothing heavy; `base_models` asks transformers what is left to ask.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.core.i18n import _
from engine.models.card import WEIGHTS_FILE, WEIGHTS_INDEX

CONFIG_FILE = "config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
)
"""Files of which every tokenizer has one."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_CAUSAL = ("ForCausalLM", "LMHeadModel", "ModelWithLMHead")
TEXT_PART_LOADS = ("qwen3_5",)
"""Model types with pictures of which transformers loads the language model alone."""
SUPPORTED_TYPES = (
    "llama", "mistral", "ministral", "qwen2", "qwen3", "qwen3_5_text", "gemma", "gemma2", "gemma3_text", "phi", "phi3",
    "smollm3", "granite", "olmo", "olmo2", "olmo3", "lfm2", "stablelm", "glm", "glm4", "cohere", "cohere2", "exaone4",
    "ernie4_5", "seed_oss", "hunyuan_v1_dense", "starcoder2", "gpt_neox", "arcee", "helium", "nemotron",
)  # fmt: skip
"""Model types that the tests load, train, talk to and export, compared with transformers; others are refused."""
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_WITHOUT_ATTENTION = ("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm")
_SENSES = (
    "vision_config", "audio_config", "speech_config", "vq_config", "perceiver_config", "visual", "mm_vision_tower",
)  # fmt: skip
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")


@dataclass(frozen=True)
class DirectorySummary:
    """What a list shows of a Hugging Face directory. Unknown texts are "", unknown numbers 0."""

    architecture: str
    """The model type: `llama`, `gemma3_text`."""
    weight_format: str
    """As config.json names it, in upper case without "torch": BF16, F32."""
    context: int
    bytes: int
    """Of the safetensors files."""
    problem: str
    """Why it is no base for training; "" when nothing in the files speaks against it."""


def read_directory(folder: Path) -> DirectorySummary:
    """The summary of the model in `folder`; a broken or missing config.json becomes its problem."""
    config = read_config(folder)
    if config is None:
        return DirectorySummary("", "", 0, 0, unreadable())
    text = config.get("text_config")
    fields = {**config, **text} if isinstance(text, dict) else config
    context = next((fields[key] for key in _CONTEXT_KEYS if isinstance(fields.get(key), int)), 0)
    size = sum(file.stat().st_size for file in _listed_weights(folder) if file.is_file())
    return DirectorySummary(
        architecture=str(config.get("model_type") or ""),
        weight_format=_format(fields.get("dtype") or fields.get("torch_dtype")),
        context=context,
        bytes=size,
        problem=config_problem(config)
        or ("" if size else no_weights(folder)[0])
        or tokenizer_problem(folder),
    )


def unindexed_weights(folder: Path) -> list[Path]:
    """The safetensors files of a model without an index: the one that transformers loads, else all.

    Another one beside it, as the original's `consolidated.safetensors`, holds the same weights once more.
    """
    file = folder / WEIGHTS_FILE
    return [file] if file.is_file() else sorted(folder.glob("*.safetensors"))


def _listed_weights(folder: Path) -> list[Path]:
    """Those of the index where there is a readable one."""
    try:
        names = set(_json(folder / WEIGHTS_INDEX)["weight_map"].values())
        return [folder / Path(str(name)).name for name in names]
    except (KeyError, TypeError, AttributeError):
        return unindexed_weights(folder)


def read_config(folder: Path) -> dict[str, Any] | None:
    """config.json as a mapping; None when it is missing or broken."""
    return _json(folder / CONFIG_FILE) or None


def config_problem(config: Mapping[str, Any]) -> str:
    """Why a model with this config.json is no base for training, as one sentence; "" when it may be one."""
    kind = str(config.get("model_type") or "?")
    quantized = _quantization(config)
    if quantized:
        return _(
            "its weights are quantized ({method}); take the model with plain weights, or a GGUF file"
        ).format(method=quantized)
    classes = [str(name) for name in config.get("architectures") or []]
    if kind not in TEXT_PART_LOADS and (
        any(key in config for key in _SENSES) or any(name.endswith("ImageTextToText") for name in classes)
    ):
        return other_senses(kind)
    if config.get("is_encoder_decoder"):
        return _("{kind} is an encoder with a decoder, not a causal language model").format(kind=kind)
    if kind in _WITHOUT_ATTENTION:
        return no_attention(kind)
    if kind not in TEXT_PART_LOADS and classes and not classes[0].endswith(_CAUSAL):
        return not_causal(kind, classes[0])
    text = config.get("text_config")
    fields = {**config, **text} if isinstance(text, dict) else config
    if any(isinstance(fields.get(key), int) and fields[key] > 1 for key in _EXPERTS):
        return _("mixture-of-experts models are not supported")
    if kind not in (*SUPPORTED_TYPES, *TEXT_PART_LOADS):
        return _(
            "{kind} is not among the tested architectures; take a Llama, Qwen, Gemma, Mistral, Phi or Granite model"
        ).format(kind=kind)
    return ""


def unreadable() -> str:
    """The sentence for a config.json that is broken or no mapping."""
    return _("the model's configuration cannot be read")


def no_weights(folder: Path) -> tuple[str, Path]:
    """(the sentence for a directory without safetensors files, the path it is about)."""
    pickled = next((file for kind in _PICKLES for file in sorted(folder.glob(kind))), None)
    if pickled is None:
        return _("the model has no weights"), folder
    return (
        _("the weights are a pickle file, which can run code when loaded; only safetensors files are read"),
        pickled,
    )


def no_attention(kind: str) -> str:
    """The sentence for a recurrent model."""
    return _("{kind} has no attention layers; recurrent models are not supported").format(kind=kind)


def other_senses(kind: str) -> str:
    """The sentence for a multimodal model."""
    return _("{kind} reads pictures or sound as well as text; only text models are supported").format(
        kind=kind
    )


def not_causal(kind: str, name: str) -> str:
    """The sentence for an encoder or another model that does not continue a text; `name` is its class."""
    return _("{kind} is not a causal language model ({name})").format(kind=kind, name=name)


def tokenizer_problem(folder: Path) -> str:
    """Why the model has no usable tokenizer; "" when its files are there."""
    if any((folder / name).is_file() for name in TOKENIZER_FILES):
        return ""
    return _("the base model has no tokenizer (tokenizer.json)")


def vocabulary_problem(folder: Path, embeddings: int) -> str:
    """Why token ids of tokenizer.json would lie beyond the embedding, which has rows for `embeddings` tokens; "" if none.

    Control tokens beyond it are harmless as long as the chat template does not write them: Gemma 3 has one for pictures.
    """
    tokenizer = _json(folder / "tokenizer.json")
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        largest = max((id_ for id_ in vocabulary.values() if isinstance(id_, int)), default=-1)
    else:
        largest = len(vocabulary or ()) - 1
    settings = _json(folder / "tokenizer_config.json")
    written = f"{_template(folder, settings)} {settings.get('bos_token')} {settings.get('eos_token')}"
    for added in tokenizer.get("added_tokens") or []:
        if isinstance(added, dict) and (not added.get("special") or str(added.get("content")) in written):
            largest = max(largest, int(added.get("id") or 0))
    if largest < embeddings:
        return ""
    return _(
        "the tokenizer has {tokens} tokens and the model {rows}: it was extended without the model"
    ).format(tokens=largest + 1, rows=embeddings)


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return str(settings.get("chat_template") or "")


def _json(file: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty when it is missing or broken."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _quantization(config: Mapping[str, Any]) -> str:
    """The method that the weights are quantized with; "" for plain weights."""
    stored = config.get("quantization_config")
    if isinstance(stored, dict):
        return str(stored.get("quant_method") or "?")
    # MLX names no method: {"group_size": 64, "bits": 4}.
    stored = config.get("quantization")
    return "MLX" if isinstance(stored, dict) and "bits" in stored else ""


def _format(dtype: Any) -> str:
    name = str(dtype or "").removeprefix("torch.")
    return {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}.get(name, name.upper())
