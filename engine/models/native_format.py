"""The native model on disk: a folder that transformers loads as `Qwen3ForCausalLM`, with a model card.

It is written atomically; the card has the sha256 of the weights, which is checked on every load.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from engine.core.errors import BadInput
from engine.core.files import write_bytes, write_json
from engine.core.i18n import _
from engine.core.outputs import MODEL_FOLDER, new_folder
from engine.models.card import CARD_FILE, WEIGHTS_FILE, ModelCard, encode_card, load_card, weights_changed
from engine.models.tokenizer import END_OF_TEXT, IM_END, hf_tokenizer, hf_tokenizer_config
from engine.models.transformer import NORM_EPS, ModelConfig, Transformer

MAX_WEIGHTS = 8 << 30


def hf_config(config: ModelConfig) -> dict[str, object]:
    """The content of `config.json`."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": config.vocab,
        "hidden_size": config.dim,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": NORM_EPS,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "dtype": "float32",
        "eos_token_id": IM_END,
        "pad_token_id": END_OF_TEXT,
        "bos_token_id": None,
        "trained_context": config.context,
    }


def read_config(folder: Path) -> ModelConfig:
    """The configuration of the model in `folder`. Raises BadInput."""
    file = folder / "config.json"
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored.get("model_type") != "qwen3":
            raise BadInput(
                _("the model's architecture is {name}, not qwen3").format(name=stored.get("model_type")),
                path=file,
            )
        return msgspec.convert(
            {
                "dim": stored["hidden_size"],
                "layers": stored["num_hidden_layers"],
                "heads": stored["num_attention_heads"],
                "kv_heads": stored["num_key_value_heads"],
                "head_dim": stored["head_dim"],
                "ffn": stored["intermediate_size"],
                "vocab": stored["vocab_size"],
                "context": stored.get("trained_context", stored["max_position_embeddings"]),
                "max_positions": stored["max_position_embeddings"],
                "rope_theta": float(stored["rope_theta"]),
            },
            ModelConfig,
        )
    except FileNotFoundError as problem:
        raise BadInput(_("there is no model here"), path=folder, hint="h2q-tui models list") from problem
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise BadInput(
            _("the model's config.json is broken"), path=file, hint="h2q-tui models list"
        ) from problem


def save_model(folder: Path, model: Transformer, card: ModelCard) -> ModelCard:
    """Writes the model to `folder`, replacing a model there; returns the card with the hash of the weights.

    Files are written to a temporary folder, synced and renamed in one step. Raises OSError when the disk is full; no
    partial folder remains.
    """
    with new_folder(folder, MODEL_FOLDER) as temporary:
        tensors = {
            name: tensor.detach().to("cpu", torch.float32).contiguous()
            for name, tensor in model.state_dict().items()
        }
        weights = save_tensors(tensors, metadata={"format": "pt"})
        card = msgspec.structs.replace(card, weights_sha256=sha256(weights).hexdigest())
        write_bytes(temporary / WEIGHTS_FILE, weights)
        write_json(temporary / "config.json", hf_config(model.config))
        write_json(
            temporary / "generation_config.json",
            {"eos_token_id": [IM_END, END_OF_TEXT], "pad_token_id": END_OF_TEXT},
        )
        write_json(temporary / "tokenizer.json", hf_tokenizer())
        write_json(temporary / "tokenizer_config.json", hf_tokenizer_config(model.config.max_positions))
        write_bytes(temporary / CARD_FILE, encode_card(card))
    return card


def load_model(
    folder: Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> tuple[Transformer, ModelCard]:
    """The model of `folder` in evaluation mode, its weights checked against the card.

    Raises BadInput when there is no model, a file is broken, or the weights have changed.
    """
    config = read_config(folder)
    card = load_card(folder)
    file = folder / WEIGHTS_FILE
    hint = "h2q-tui models list"
    try:
        if file.stat().st_size > MAX_WEIGHTS:
            raise BadInput(_("the weights are larger than a native model can be"), path=file, hint=hint)
        weights = file.read_bytes()
    except FileNotFoundError as problem:
        raise BadInput(_("the model has no weights"), path=file, hint=hint) from problem
    if sha256(weights).hexdigest() != card.weights_sha256:
        raise weights_changed(file)
    model = Transformer(config)
    try:
        model.load_state_dict(load_tensors(weights))
    except (SafetensorError, RuntimeError) as problem:
        raise BadInput(
            _("the weights do not match the model's config.json"), path=file, hint=hint
        ) from problem
    return model.to(device=device, dtype=dtype).eval(), card
