"""The metadata of an architecture in a GGUF file, from a transformers configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from gguf import GGUFWriter, RopeScalingType
from torch import Tensor

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.models.gguf.architectures import (
    LONG_FACTORS,
    ROPE_FACTORS,
    SHORT_FACTORS,
    Architecture,
    architecture_for,
)
from engine.models.gguf.rope import llama3_factors
from engine.models.hf import context_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from transformers import PretrainedConfig

_ROPE_SPECIAL = {"beta_fast", "beta_slow", "mscale", "attention_factor"}


def check_supported(config: PretrainedConfig, names: Collection[str]) -> Architecture:
    """The architecture of a model with the state dict `names`.

    Raises BadInput for an architecture or a setting that llama.cpp does not support.
    """
    arch = architecture_for(config.model_type)
    if arch.name == "qwen3" and any(name.endswith(".bias") for name in names):
        raise BadInput(_("llama.cpp does not support Qwen3 with biases"))
    if getattr(config, "use_sliding_window", False) and "sliding_attention" in (
        getattr(config, "layer_types", None) or []
    ):
        raise BadInput(
            _("llama.cpp does not support a sliding window for {name}").format(name=config.model_type)
        )
    activation = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", "silu")
    if activation != ("gelu_pytorch_tanh" if arch.name == "gemma3" else "silu"):
        raise _unsupported(str(activation))
    if arch.name == "smollm3" and config.no_rope_layers != [
        int((layer + 1) % 4 != 0) for layer in range(config.num_hidden_layers)
    ]:
        raise _unsupported("no_rope_layers")
    if arch.name == "gemma3":
        _check_gemma3(config)
    if arch.name == "qwen35" and config.attention_bias:
        raise _unsupported("attention_bias")
    return arch


def _check_gemma3(config: PretrainedConfig) -> None:
    pattern = [
        "sliding_attention" if (n + 1) % 6 else "full_attention" for n in range(config.num_hidden_layers)
    ]
    per_head = config.hidden_size // config.num_attention_heads
    scale = per_head if config.num_hidden_layers == 62 else config.head_dim
    rope = config.rope_parameters["sliding_attention"]
    for name, same in {
        "layer_types": config.layer_types == pattern,
        "query_pre_attn_scalar": config.query_pre_attn_scalar == scale,
        "attn_logit_softcapping": not config.attn_logit_softcapping,
        "final_logit_softcapping": not config.final_logit_softcapping,
        "use_bidirectional_attention": not config.use_bidirectional_attention,
        "attention_bias": not config.attention_bias,
        "rope": rope.get("rope_type", "default") == "default",
    }.items():
        if not same:
            raise _unsupported(name)


def write_config(writer: GGUFWriter, config: PretrainedConfig) -> dict[str, Tensor]:
    """Writes the metadata of the architecture; returns the tensors that belong to it, by GGUF name.

    Raises BadInput for a rotary embedding that llama.cpp does not support.
    """
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    # llama.cpp knows no window in the models that transformers loads with one for all layers.
    window = config.sliding_window if config.model_type in ("mistral", "phi3") else None
    writer.add_context_length(min(context_of(config), window or context_of(config)))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    match config.model_type:
        case "granite":
            writer.add_embedding_scale(config.embedding_multiplier)
            writer.add_residual_scale(config.residual_multiplier)
            writer.add_attention_scale(config.attention_multiplier)
            writer.add_logit_scale(config.logits_scaling)
        case "gemma3_text":
            writer.add_sliding_window(config.sliding_window)
            writer.add_float32(
                "gemma3.rope.freq_base_swa", config.rope_parameters["sliding_attention"]["rope_theta"]
            )
            writer.add_rope_dimension_count(head_dim)
            return _write_rope(writer, dict(config.rope_parameters["full_attention"]), head_dim)
        case "qwen3_5_text":
            _write_linear_attention(writer, config)
    rope = dict(config.rope_parameters)
    share = float(rope.pop("partial_rotary_factor", None) or 1.0)
    if share != 1.0 and config.model_type not in ("phi3", "qwen3_5_text"):
        raise _unsupported("partial_rotary_factor")
    writer.add_rope_dimension_count(int(head_dim * share))
    if rope.get("rope_type") == "longrope" and config.model_type == "phi3":
        return _write_long_rope(writer, config, rope)
    return _write_rope(writer, rope, head_dim)


def _write_linear_attention(writer: GGUFWriter, config: PretrainedConfig) -> None:
    interval = next((n + 1 for n, kind in enumerate(config.layer_types) if kind == "full_attention"), 0)
    expected = [
        "full_attention" if interval and (n + 1) % interval == 0 else "linear_attention"
        for n in range(config.num_hidden_layers)
    ]
    if config.layer_types != expected or not interval:
        raise _unsupported("layer_types")
    writer.add_uint32("qwen35.full_attention_interval", interval)
    writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
    writer.add_ssm_state_size(config.linear_key_head_dim)
    writer.add_ssm_group_count(config.linear_num_key_heads)
    writer.add_ssm_time_step_rank(config.linear_num_value_heads)
    writer.add_ssm_inner_size(config.linear_num_value_heads * config.linear_value_head_dim)
    sections = list(config.rope_parameters.get("mrope_section") or [11, 11, 10])
    writer.add_rope_dimension_sections([*sections, 0])


def _write_rope(writer: GGUFWriter, rope: dict[str, Any], head_dim: int) -> dict[str, Tensor]:
    theta, kind = float(rope["rope_theta"]), rope.get("rope_type", "default")
    writer.add_rope_freq_base(theta)
    if kind == "default":
        return {}
    if kind == "llama3":
        factors = llama3_factors(
            theta,
            head_dim,
            float(rope["factor"]),
            original=int(rope["original_max_position_embeddings"]),
            low=float(rope["low_freq_factor"]),
            high=float(rope["high_freq_factor"]),
        )
        return {ROPE_FACTORS: factors.float()}
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        return {}
    if kind == "yarn" and not _ROPE_SPECIAL & {key for key, value in rope.items() if value is not None}:
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
        return {}
    raise _unsupported(f"rope {kind}")


def _write_long_rope(writer: GGUFWriter, config: PretrainedConfig, rope: dict[str, Any]) -> dict[str, Tensor]:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    writer.add_rope_freq_base(float(rope["rope_theta"]))
    writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
    writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
    _frequencies, attention = ROPE_INIT_FUNCTIONS["longrope"](config, None)
    writer.add_rope_scaling_attn_factors(float(attention))
    return {
        SHORT_FACTORS: torch.tensor(rope["short_factor"], dtype=torch.float32),
        LONG_FACTORS: torch.tensor(rope["long_factor"], dtype=torch.float32),
    }


def _unsupported(setting: str) -> BadInput:
    return BadInput(_("llama.cpp does not support {name} in this architecture").format(name=setting))
