"""Tensor names of GGUF and of transformers, in both directions.

For Llama, GGUF stores the rows of queries and keys in pairs for the rotary embedding, transformers in halves;
`paired_rows` converts between the orders.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from engine.core.errors import BadInput
from engine.core.i18n import _

ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
"""GGUF architecture, which is also transformers' `model_type`, to the model class."""
ROPE_FACTORS = "rope_freqs.weight"
"""Divisors of the rotary frequencies; transformers has them as parameters of the configuration."""
_GLOBAL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GLOBAL_TO_GGUF = {hf: gguf for gguf, hf in _GLOBAL.items()}
_LAYER_TO_GGUF = {hf: gguf for gguf, hf in _LAYER.items()}
_GGUF = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_HF = re.compile(r"model\.layers\.(\d+)\.([\w.]+)\.(weight|bias)")


def check_architecture(name: str, path: Path | None = None) -> None:
    """Raises BadInput for an unsupported architecture, with a list of those supported."""
    if name not in ARCHITECTURES:
        raise BadInput(
            _("the architecture {name} is not supported; supported: {supported}").format(
                name=name or "?", supported=_(", ").join(ARCHITECTURES)
            ),
            path=path,
        )


def to_transformers(name: str) -> str | None:
    """State dict name of the GGUF tensor `name`; None for an unknown tensor."""
    if name in _GLOBAL:
        return _GLOBAL[name]
    match = _GGUF.fullmatch(name)
    if match is None or match[2] not in _LAYER:
        return None
    return f"model.layers.{match[1]}.{_LAYER[match[2]]}.{match[3]}"


def to_gguf(name: str) -> str | None:
    """GGUF name of the state dict entry `name`; None for an unknown tensor."""
    if name in _GLOBAL_TO_GGUF:
        return _GLOBAL_TO_GGUF[name]
    match = _HF.fullmatch(name)
    if match is None or match[2] not in _LAYER_TO_GGUF:
        return None
    return f"blk.{match[1]}.{_LAYER_TO_GGUF[match[2]]}.{match[3]}"


def heads_to_pair(architecture: str, name: str, heads: int, kv_heads: int) -> int | None:
    """Number of heads of the GGUF tensor `name` if its rows are paired; None if they are not."""
    if architecture != "llama":
        return None
    kind = name.split(".")[2] if name.startswith("blk.") else ""
    return {"attn_q": heads, "attn_k": kv_heads}.get(kind)


def paired_rows(rows: int, heads: int) -> Tensor:
    """`(rows,)`: row `i` of the GGUF tensor is row `paired_rows[i]` of transformers' tensor."""
    return torch.arange(rows).view(heads, 2, rows // heads // 2).transpose(1, 2).reshape(-1)
