"""The transformers configuration of a GGUF file, from its metadata."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.models.gguf.file import GgufFile
from engine.models.gguf.tensor_names import ARCHITECTURES, ROPE_FACTORS, check_architecture, to_transformers

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_DTYPE = "bfloat16"
LLAMA3_ORIGINAL = 8192
"""Context that all Llama 3.1 and 3.2 models were scaled from; GGUF files do not store it."""


def architecture_of(file: GgufFile) -> str:
    """The architecture in the metadata. Raises BadInput for an unsupported one, with a list of those supported."""
    arch = file.text("general.architecture")
    kind = file.text("general.type", "model")
    if kind != "model":
        raise BadInput(_("this GGUF file is not a complete model ({kind})").format(kind=kind), path=file.path)
    check_architecture(arch, file.path)
    if file.integer(f"{arch}.expert_count", 0):
        raise BadInput(_("mixture-of-experts models are not supported"), path=file.path)
    return arch


def config_of(file: GgufFile) -> PretrainedConfig:
    """The configuration, checked against the tensors in the file.

    Raises BadInput for an unsupported architecture, missing or contradictory values, or missing tensors.
    """
    from transformers import AutoConfig

    arch = architecture_of(file)
    layers = file.integer(f"{arch}.block_count")
    blocks = {name.split(".")[1] for name in file.tensors if name.startswith("blk.")}
    if not 0 < layers == len(blocks):
        raise file.invalid(f"{arch}.block_count")
    if "token_embd.weight" not in file.tensors or len(file.tensors["token_embd.weight"].shape) != 2:
        raise file.invalid("token_embd.weight")
    vocab, dim = file.tensors["token_embd.weight"].shape
    heads = file.integer(f"{arch}.attention.head_count")
    if dim != file.integer(f"{arch}.embedding_length") or not 0 < heads <= dim:
        raise file.invalid(f"{arch}.embedding_length")
    head_dim = file.integer(f"{arch}.attention.key_length", dim // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if file.integer(f"{arch}.{key}", head_dim) != head_dim:
            raise file.invalid(f"{arch}.{key}")
    figures = {
        "vocab_size": vocab,
        "hidden_size": dim,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": file.integer(f"{arch}.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "intermediate_size": file.integer(f"{arch}.feed_forward_length"),
        "max_position_embeddings": file.integer(f"{arch}.context_length"),
    }
    if min(figures.values()) <= 0 or heads % figures["num_key_value_heads"] or head_dim % 2:
        raise file.invalid(f"{arch}.attention.head_count_kv")
    extra: dict[str, Any] = {}
    if arch == "llama":
        extra["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
        extra["mlp_bias"] = "blk.0.ffn_up.bias" in file.tensors
    if arch == "qwen3":
        extra["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
    unknown = [name for name in file.tensors if to_transformers(name) is None and name != ROPE_FACTORS]
    if unknown:
        raise BadInput(
            _("the GGUF file has a tensor that {name} models do not have: {tensor}").format(
                name=arch, tensor=unknown[0]
            ),
            path=file.path,
        )
    return AutoConfig.for_model(
        arch,
        **figures,
        **extra,
        architectures=[ARCHITECTURES[arch]],
        rms_norm_eps=file.number(f"{arch}.attention.layer_norm_rms_epsilon"),
        rope_parameters=_rope(file, arch, head_dim),
        tie_word_embeddings="output.weight" not in file.tensors,
        dtype=_DTYPE,
    )


def _rope(file: GgufFile, arch: str, head_dim: int) -> dict[str, Any]:
    theta = file.number(f"{arch}.rope.freq_base", 10_000.0)
    scaling = file.text(f"{arch}.rope.scaling.type", "none")
    if theta <= 0:
        raise file.invalid(f"{arch}.rope.freq_base")
    if ROPE_FACTORS in file.tensors:
        return _llama3_rope(file, theta, head_dim)
    if scaling == "none":
        return {"rope_type": "default", "rope_theta": theta}
    factor = file.number(f"{arch}.rope.scaling.factor")
    if scaling == "linear":
        return {"rope_type": "linear", "rope_theta": theta, "factor": factor}
    if scaling == "yarn":
        original = file.integer(f"{arch}.rope.scaling.original_context_length")
        return {
            "rope_type": "yarn",
            "rope_theta": theta,
            "factor": factor,
            "original_max_position_embeddings": original,
        }
    raise file.invalid(f"{arch}.rope.scaling.type")


def llama3_factors(
    theta: float, head_dim: int, factor: float, *, original: int, low: float = 1.0, high: float = 4.0
) -> torch.Tensor:
    """`(head_dim / 2,)`: divisors of the rotary frequencies in Llama 3.1 (transformers' `rope_type` "llama3")."""
    wavelengths = 2 * math.pi * theta ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    smooth = (original / wavelengths - low) / (high - low)
    return 1 / ((1 - smooth) / factor + smooth).clamp(1 / factor, 1.0)


def _llama3_rope(file: GgufFile, theta: float, head_dim: int) -> dict[str, Any]:
    """The scaling parameters, recovered from the factors: a GGUF file stores only those."""
    factors = file.read(file.tensors[ROPE_FACTORS]).double()
    factor = round(float(factors.max()), 4)
    if len(factors) == head_dim // 2 and factor >= 1:
        expected = llama3_factors(theta, head_dim, factor, original=LLAMA3_ORIGINAL)
        if torch.allclose(factors, expected, rtol=1e-3):
            return {
                "rope_type": "llama3",
                "rope_theta": theta,
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": LLAMA3_ORIGINAL,
            }
    raise BadInput(_("the RoPE scaling factors of the GGUF file are not those of Llama 3"), path=file.path)
