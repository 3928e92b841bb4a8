"""The transformers configuration of a GGUF file, from its metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.models.gguf.architectures import Architecture, architecture_named, is_weight
from engine.models.gguf.file import GgufFile
from engine.models.gguf.rope import frequency_base, rope_of, rotated

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_DTYPE = "bfloat16"
_GEMMA_PATTERN = 6
"""One layer in this many of Gemma 3 sees the whole text; files of before this key have no other."""


def architecture_of(file: GgufFile) -> Architecture:
    """The architecture in the metadata. Raises BadInput for an unsupported one, with a list of those supported."""
    name = file.text("general.architecture")
    kind = file.text("general.type", "model")
    if kind != "model":
        raise BadInput(_("this GGUF file is not a complete model ({kind})").format(kind=kind), path=file.path)
    arch = architecture_named(name, file.path)
    if file.integer(f"{name}.expert_count", 0):
        raise BadInput(_("mixture-of-experts models are not supported"), path=file.path)
    return arch


def config_of(file: GgufFile) -> PretrainedConfig:
    """The configuration, checked against the tensors in the file.

    Raises BadInput for an unsupported architecture, missing or contradictory values, or missing tensors.
    """
    from transformers import AutoConfig

    arch = architecture_of(file)
    name = arch.name
    layers = file.integer(f"{name}.block_count")
    blocks = {tensor.split(".")[1] for tensor in file.tensors if tensor.startswith("blk.")}
    if not 0 < layers == len(blocks):
        raise file.invalid(f"{name}.block_count")
    if "token_embd.weight" not in file.tensors or len(file.tensors["token_embd.weight"].shape) != 2:
        raise file.invalid("token_embd.weight")
    vocab, dim = file.tensors["token_embd.weight"].shape
    heads = file.integer(f"{name}.attention.head_count")
    if dim != file.integer(f"{name}.embedding_length") or not 0 < heads <= dim:
        raise file.invalid(f"{name}.embedding_length")
    head_dim = file.integer(f"{name}.attention.key_length", dim // heads)
    if file.integer(f"{name}.attention.value_length", head_dim) != head_dim:
        raise file.invalid(f"{name}.attention.value_length")
    figures = {
        "vocab_size": vocab,
        "hidden_size": dim,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": _kv_heads(file, name, heads),
        "head_dim": head_dim,
        "intermediate_size": file.integer(f"{name}.feed_forward_length"),
        "max_position_embeddings": file.integer(f"{name}.context_length"),
    }
    if min(figures.values()) <= 0 or heads % figures["num_key_value_heads"] or head_dim % 2:
        raise file.invalid(f"{name}.attention.head_count_kv")
    unknown = [tensor for tensor in file.tensors if is_weight(tensor) and not arch.to_transformers(tensor)]
    if unknown:
        raise BadInput(
            _("the GGUF file has a tensor that {name} models do not have: {tensor}").format(
                name=name, tensor=unknown[0]
            ),
            path=file.path,
        )
    settings = _SETTINGS.get(name, _ordinary)(file, head_dim)
    return AutoConfig.for_model(
        arch.model_type,
        **figures,
        **settings,
        architectures=[arch.model_class],
        rms_norm_eps=file.number(f"{name}.attention.layer_norm_rms_epsilon"),
        tie_word_embeddings="output.weight" not in file.tensors,
        # Defaults of the class may lie beyond a smaller vocabulary; `open_gguf` sets those of the file.
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        dtype=_DTYPE,
    )


def _kv_heads(file: GgufFile, arch: str, heads: int) -> int:
    """The number of key heads. A list by layer, with 0 for layers without attention, must hold one number."""
    key = f"{arch}.attention.head_count_kv"
    stored = file.metadata.get(key, heads)
    if isinstance(stored, list):
        counts = {count for count in stored if count}
        stored = counts.pop() if len(counts) == 1 else None
    if isinstance(stored, bool) or not isinstance(stored, int):
        raise file.invalid(key)
    return stored


def _ordinary(file: GgufFile, head_dim: int) -> dict[str, Any]:
    """Biases and the rotary embedding of Llama, Mistral, Qwen2, Qwen3 and SmolLM3."""
    arch = file.text("general.architecture")
    if rotated(file, arch, head_dim) != 1:
        raise file.invalid(f"{arch}.rope.dimension_count")
    found: dict[str, Any] = {"rope_parameters": rope_of(file, arch, head_dim)}
    if arch != "qwen2":
        found["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
    if arch in ("llama", "smollm3", "granite"):
        found["mlp_bias"] = "blk.0.ffn_up.bias" in file.tensors
    return found


def _granite(file: GgufFile, head_dim: int) -> dict[str, Any]:
    return {
        **_ordinary(file, head_dim),
        "embedding_multiplier": file.number("granite.embedding_scale"),
        "residual_multiplier": file.number("granite.residual_scale"),
        "attention_multiplier": file.number("granite.attention.scale"),
        "logits_scaling": file.number("granite.logit_scale"),
    }


def _phi3(file: GgufFile, head_dim: int) -> dict[str, Any]:
    """Without a sliding window: llama.cpp ignores that of Phi-3."""
    rope = rope_of(file, "phi3", head_dim)
    if rope["rope_type"] not in ("default", "longrope"):
        raise file.invalid("phi3.rope.scaling.type")
    rope["partial_rotary_factor"] = rotated(file, "phi3", head_dim)
    original = rope.get("original_max_position_embeddings", file.integer("phi3.context_length"))
    return {
        "rope_parameters": rope,
        "original_max_position_embeddings": original,
        "sliding_window": None,
    }


def _gemma3(file: GgufFile, head_dim: int) -> dict[str, Any]:
    """Ollama's own files have other keys for the two bases of the rotary embedding."""
    theta = frequency_base(file, "gemma3", 1_000_000.0, "rope.global.freq_base")
    local = frequency_base(file, "gemma3", 10_000.0, "rope.local.freq_base")
    layers = file.integer("gemma3.block_count")
    pattern = file.integer("gemma3.attention.sliding_window_pattern", _GEMMA_PATTERN)
    if pattern < 1:
        raise file.invalid("gemma3.attention.sliding_window_pattern")
    softcap = file.number("gemma3.final_logit_softcapping", 0.0)
    return {
        "rope_parameters": {
            "full_attention": rope_of(file, "gemma3", head_dim, theta=theta),
            "sliding_attention": {
                "rope_type": "default",
                "rope_theta": frequency_base(file, "gemma3", local, "rope.freq_base_swa"),
            },
        },
        "sliding_window": file.integer("gemma3.attention.sliding_window"),
        "layer_types": [
            "sliding_attention" if (layer + 1) % pattern else "full_attention" for layer in range(layers)
        ],
        "query_pre_attn_scalar": _gemma3_scale(file, head_dim),
        "final_logit_softcapping": softcap or None,
    }


def _gemma3_scale(file: GgufFile, head_dim: int) -> int:
    """As llama.cpp: the 27 B model alone scales queries by its width per head."""
    heads, dim = file.integer("gemma3.attention.head_count"), file.integer("gemma3.embedding_length")
    return dim // heads if file.integer("gemma3.block_count") == _GEMMA_27B_LAYERS else head_dim


_GEMMA_27B_LAYERS = 62


def _qwen35(file: GgufFile, head_dim: int) -> dict[str, Any]:
    layers = file.integer("qwen35.block_count")
    interval = file.integer("qwen35.full_attention_interval", 4)
    heads = file.integer("qwen35.ssm.time_step_rank")
    if interval < 1 or heads < 1:
        raise file.invalid("qwen35.full_attention_interval")
    rope = rope_of(file, "qwen35", head_dim)
    if rope["rope_type"] != "default":
        raise file.invalid("qwen35.rope.scaling.type")
    sections = [one for one in file.items("qwen35.rope.dimension_sections") if one]
    if sections:
        rope |= {"mrope_section": sections, "mrope_interleaved": True}
    return {
        "rope_parameters": {**rope, "partial_rotary_factor": rotated(file, "qwen35", head_dim)},
        "layer_types": [
            "linear_attention" if (layer + 1) % interval else "full_attention" for layer in range(layers)
        ],
        "linear_conv_kernel_dim": file.integer("qwen35.ssm.conv_kernel"),
        "linear_key_head_dim": file.integer("qwen35.ssm.state_size"),
        "linear_value_head_dim": file.integer("qwen35.ssm.inner_size") // heads,
        "linear_num_key_heads": file.integer("qwen35.ssm.group_count"),
        "linear_num_value_heads": heads,
    }


_SETTINGS: dict[str, Callable[[GgufFile, int], dict[str, Any]]] = {
    "granite": _granite,
    "phi3": _phi3,
    "gemma3": _gemma3,
    "qwen35": _qwen35,
}
