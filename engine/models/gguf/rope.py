"""The rotary embedding of a GGUF file as transformers' `rope_parameters`."""

from __future__ import annotations

import math
from typing import Any

import torch

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.models.gguf.architectures import LONG_FACTORS, ROPE_FACTORS, SHORT_FACTORS
from engine.models.gguf.file import GgufFile

LLAMA3_ORIGINAL = 8192
"""Context that all Llama 3.1 and 3.2 models were scaled from; GGUF files do not store it."""


def rope_of(file: GgufFile, arch: str, head_dim: int, *, theta: float = 10_000.0) -> dict[str, Any]:
    """The parameters; `theta` where the file has none. Raises BadInput for a scaling that is not supported."""
    theta = frequency_base(file, arch, theta)
    scaling = file.text(f"{arch}.rope.scaling.type", "none")
    if ROPE_FACTORS in file.tensors:
        return _llama3_rope(file, theta, head_dim)
    if SHORT_FACTORS in file.tensors or LONG_FACTORS in file.tensors:
        return _long_rope(file, arch, theta)
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


def frequency_base(file: GgufFile, arch: str, default: float, key: str = "rope.freq_base") -> float:
    """Theta of the rotary embedding under `key`. Raises BadInput when it is not above 0."""
    theta = file.number(f"{arch}.{key}", default)
    if theta <= 0:
        raise file.invalid(f"{arch}.{key}")
    return theta


def rotated(file: GgufFile, arch: str, head_dim: int) -> float:
    """Share of each head that is rotated. Raises BadInput when it is not a share of `head_dim`."""
    count = file.integer(f"{arch}.rope.dimension_count", head_dim)
    if not 0 < count <= head_dim or count % 2:
        raise file.invalid(f"{arch}.rope.dimension_count")
    return count / head_dim


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


def _long_rope(file: GgufFile, arch: str, theta: float) -> dict[str, Any]:
    """LongRoPE (Phi-3, Phi-4-mini; arXiv 2402.13753): other factors beyond the original context."""
    missing = next((name for name in (SHORT_FACTORS, LONG_FACTORS) if name not in file.tensors), None)
    if missing is not None:
        raise file.invalid(missing)
    return {
        "rope_type": "longrope",
        "rope_theta": theta,
        "short_factor": [float(value) for value in file.read(file.tensors[SHORT_FACTORS])],
        "long_factor": [float(value) for value in file.read(file.tensors[LONG_FACTORS])],
        "original_max_position_embeddings": file.integer(f"{arch}.rope.scaling.original_context_length"),
        "attention_factor": file.number(f"{arch}.rope.scaling.attn_factor", 1.0),
    }
