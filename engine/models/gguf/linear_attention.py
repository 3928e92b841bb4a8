"""Storage of the gated delta layers of Qwen3.5 in GGUF.

llama.cpp repeats the key heads over the value heads as whole blocks (1 2 3 1 2 3), transformers each of them in turn
(1 1 2 2 3 3), so everything with an axis of value heads is stored in another order. Source: `convert_hf_to_gguf.py`,
`_LinearAttentionVReorderBase`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.models.gguf.layout import AS_STORED, Order, TensorLayout, plus_one

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def linear_attention_layout(name: str, config: PretrainedConfig) -> TensorLayout:
    """The layout of a tensor by its GGUF name without `blk.N.`."""
    size = config.linear_value_head_dim
    key_rows = 2 * config.linear_num_key_heads * config.linear_key_head_dim
    match name:
        case "ssm_norm.weight":
            return AS_STORED
        case "ssm_a":
            return TensorLayout(
                rows=_values(config, 1),
                to_gguf=lambda block: -block.exp(),
                to_transformers=lambda block: (-block).log(),
            )
        case "ssm_dt.bias" | "ssm_alpha.weight" | "ssm_beta.weight":
            return TensorLayout(rows=_values(config, 1))
        case "attn_gate.weight":
            return TensorLayout(rows=_values(config, size))
        case "attn_qkv.weight":
            return TensorLayout(rows=_after(key_rows, _values(config, size)))
        case "ssm_conv1d.weight":
            return TensorLayout(rows=_after(key_rows, _values(config, size)), squeezed=True)
        case "ssm_out.weight":
            return TensorLayout(columns=_values(config, size))
        case _:
            return plus_one() if name.endswith("_norm.weight") else AS_STORED


def _values(config: PretrainedConfig, size: int) -> Order:
    """Order of the rows of value heads with `size` rows each."""
    keys, values = config.linear_num_key_heads, config.linear_num_value_heads

    def order(rows: int) -> Tensor:
        return torch.arange(rows).view(keys, values // keys, size).transpose(0, 1).reshape(-1)

    return order


def _after(first: int, order: Order) -> Order:
    """`order` behind `first` rows that stay."""
    return lambda rows: torch.cat([torch.arange(first), first + order(rows - first)])
