"""The architectures that are read from and written to GGUF: their names in both worlds, and how tensors are stored.

Names are those of the gguf library (`gguf.constants`), storage follows llama.cpp's `convert_hf_to_gguf.py`. The tests
compare each architecture's logits in llama.cpp with transformers'.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.models.gguf.layout import AS_STORED, TensorLayout, paired, plus_one
from engine.models.gguf.linear_attention import linear_attention_layout

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ROPE_FACTORS = "rope_freqs.weight"
"""Divisors of the rotary frequencies; transformers has them as parameters of the configuration."""
LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
"""The same for long and short texts (LongRoPE)."""
CONFIG_TENSORS = frozenset({ROPE_FACTORS, LONG_FACTORS, SHORT_FACTORS})
"""Tensors that belong to the configuration in transformers."""
_ENCODERS = re.compile(r"(?:v|a|mm)\.")
"""Tensors of vision and audio encoders, which Ollama keeps in the same file."""
_GLOBAL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}
_MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_LAYER = {**_NORMS, **_ATTENTION, **_MLP}
_GEMMA = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    **_ATTENTION,
    **_MLP,
}
_PHI = {
    **_NORMS,
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}
_QWEN35 = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    **_ATTENTION,
    **_MLP,
    "attn_qkv": "linear_attn.in_proj_qkv",
    "attn_gate": "linear_attn.in_proj_z",
    "ssm_beta": "linear_attn.in_proj_b",
    "ssm_alpha": "linear_attn.in_proj_a",
    "ssm_conv1d": "linear_attn.conv1d",
    "ssm_norm": "linear_attn.norm",
    "ssm_out": "linear_attn.out_proj",
}
_QWEN35_NAMED = {"ssm_a": "linear_attn.A_log", "ssm_dt.bias": "linear_attn.dt_bias"}
_GGUF = re.compile(r"blk\.(\d+)\.(.+)")
_HF = re.compile(r"model\.layers\.(\d+)\.(.+)")
_SUFFIXES = (".weight", ".bias")

LayoutOf = Callable[[str, "PretrainedConfig"], TensorLayout]
"""The storage of a tensor by its GGUF name without `blk.N.`."""


def _plain(name: str, config: PretrainedConfig) -> TensorLayout:
    return AS_STORED


def _llama(name: str, config: PretrainedConfig) -> TensorLayout:
    """Queries and keys lie in pairs for the rotary embedding, transformers has them in halves."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    count = heads.get(name.rpartition(".")[0])
    return AS_STORED if count is None else paired(count)


def _gemma(name: str, config: PretrainedConfig) -> TensorLayout:
    """Norms of Gemma multiply by 1 + weight; GGUF stores the sum."""
    return plus_one() if name.endswith("_norm.weight") else AS_STORED


@dataclass(frozen=True)
class Architecture:
    """One model family."""

    name: str
    """`general.architecture` of a GGUF file."""
    model_type: str
    """`model_type` of transformers."""
    model_class: str
    layers: Mapping[str, str] = field(default_factory=lambda: _LAYER)
    """GGUF name of a layer's tensor to transformers' name, both without `.weight` and `.bias`."""
    named: Mapping[str, str] = field(default_factory=dict)
    """The same for tensors without such an ending in transformers, as whole names."""
    layout_of: LayoutOf = _plain

    def to_transformers(self, name: str) -> str | None:
        """State dict name of the GGUF tensor `name`; None for an unknown tensor."""
        if name in _GLOBAL:
            return _GLOBAL[name]
        match = _GGUF.fullmatch(name)
        found = None if match is None else _renamed(match[2], self.layers, self.named)
        return None if match is None or found is None else f"model.layers.{match[1]}.{found}"

    def to_gguf(self, name: str) -> str | None:
        """GGUF name of the state dict entry `name`; None for an unknown tensor."""
        known = next((gguf for gguf, hf in _GLOBAL.items() if hf == name), None)
        if known is not None:
            return known
        match = _HF.fullmatch(name)
        if match is None:
            return None
        layers = {hf: gguf for gguf, hf in self.layers.items()}
        named = {hf: gguf for gguf, hf in self.named.items()}
        found = _renamed(match[2], layers, named)
        return None if found is None else f"blk.{match[1]}.{found}"

    def layout(self, name: str, config: PretrainedConfig) -> TensorLayout:
        """How the GGUF tensor `name` stores transformers' tensor."""
        match = _GGUF.fullmatch(name)
        return self.layout_of(name if match is None else match[2], config)


def is_weight(name: str) -> bool:
    """Whether a GGUF tensor is a weight of the language model, not rotary factors or a vision or audio encoder."""
    return name not in CONFIG_TENSORS and _ENCODERS.match(name) is None


def _renamed(name: str, layers: Mapping[str, str], named: Mapping[str, str]) -> str | None:
    if name in named:
        return named[name]
    for suffix in _SUFFIXES:
        stem = name.removesuffix(suffix)
        if stem != name and stem in layers:
            return layers[stem] + suffix
    return None


_ALL = (
    Architecture("qwen2", "qwen2", "Qwen2ForCausalLM"),
    Architecture("qwen3", "qwen3", "Qwen3ForCausalLM"),
    Architecture("llama", "llama", "LlamaForCausalLM", layout_of=_llama),
    # GGUF files of Mistral models are Llama files.
    Architecture("llama", "mistral", "MistralForCausalLM", layout_of=_llama),
    Architecture("gemma3", "gemma3_text", "Gemma3ForCausalLM", layers=_GEMMA, layout_of=_gemma),
    Architecture("phi3", "phi3", "Phi3ForCausalLM", layers=_PHI),
    Architecture("smollm3", "smollm3", "SmolLM3ForCausalLM", layout_of=_llama),
    Architecture("granite", "granite", "GraniteForCausalLM", layout_of=_llama),
    Architecture(
        "qwen35",
        "qwen3_5_text",
        "Qwen3_5ForCausalLM",
        layers=_QWEN35,
        named=_QWEN35_NAMED,
        layout_of=linear_attention_layout,
    ),
)
# A Llama file opens as Llama, whose class computes the same as Mistral's.
_READ = {one.name: one for one in _ALL if one.model_type != "mistral"}
_WRITTEN = {one.model_type: one for one in _ALL}


def architecture_named(name: str, path: Path | None = None) -> Architecture:
    """The architecture of a GGUF file. Raises BadInput for an unsupported one, with a list of those supported."""
    return _known(_READ, name, path)


def architecture_for(model_type: str) -> Architecture:
    """The architecture of a transformers model. Raises BadInput for an unsupported one."""
    return _known(_WRITTEN, model_type, None)


def _known(table: Mapping[str, Architecture], name: str, path: Path | None) -> Architecture:
    if name not in table:
        raise BadInput(
            _("the architecture {name} is not supported; supported: {supported}").format(
                name=name or "?", supported=_(", ").join(table)
            ),
            path=path,
        )
    return table[name]
