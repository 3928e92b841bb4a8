"""Tensor types of exported weights: which tensor gets which type, and encoding."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType
from gguf.quants import quantize
from torch import Tensor

from engine.core.errors import BadInput
from engine.core.i18n import _


class Quant(StrEnum):
    """Values of `--quant`."""

    F32 = "f32"
    F16 = "f16"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"


FILE_TYPES = {
    Quant.F32: LlamaFileType.ALL_F32,
    Quant.F16: LlamaFileType.MOSTLY_F16,
    Quant.Q8_0: LlamaFileType.MOSTLY_Q8_0,
    Quant.Q4_0: LlamaFileType.MOSTLY_Q4_0,
}
_F16_MAX = float(np.finfo(np.float16).max)


def type_for(quant: Quant, name: str, shape: tuple[int, ...], *, tied: bool) -> GGMLQuantizationType:
    """The type of the GGUF tensor `name`: vectors are F32, the output matrix has at least 8 bits.

    Rows that are not a multiple of the block size stay F16, as in llama.cpp's quantizer.
    """
    if len(shape) < 2 or quant is Quant.F32:
        return GGMLQuantizationType.F32
    if quant is Quant.F16:
        return GGMLQuantizationType.F16
    is_output = name == "output.weight" or (tied and name == "token_embd.weight")
    kind = GGMLQuantizationType.Q8_0 if quant is Quant.Q8_0 or is_output else GGMLQuantizationType.Q4_0
    return kind if shape[-1] % GGML_QUANT_SIZES[kind][0] == 0 else GGMLQuantizationType.F16


def bytes_of(kind: GGMLQuantizationType, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of `shape` in the file."""
    block, size = GGML_QUANT_SIZES[kind]
    return int(np.prod(shape, dtype=np.int64)) // block * size


def encode(
    values: Tensor, kind: GGMLQuantizationType, name: str
) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """float32 rows encoded for the file. Raises BadInput for values that are not finite or too large for f16."""
    largest = float(values.abs().max())
    if not np.isfinite(largest):
        raise BadInput(
            _("{tensor} holds NaN or infinite values").format(tensor=name), hint="h2q-tui models list"
        )
    if kind is GGMLQuantizationType.F16 and largest > _F16_MAX:
        raise BadInput(
            _("{tensor} holds values too large for f16").format(tensor=name),
            hint="h2q-tui export --quant f32 …",
        )
    data: np.ndarray[tuple[int, ...], np.dtype[np.generic]] = quantize(values.to(torch.float32).numpy(), kind)
    return data
