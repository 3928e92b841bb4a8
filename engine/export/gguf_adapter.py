"""A LoRA adapter as a GGUF file that llama.cpp and Ollama put on a base, a few megabytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFType, GGUFValueType, GGUFWriter
from torch import Tensor

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.export.gguf_model import written
from engine.export.quant import Quant, bytes_of, encode
from engine.models.gguf.model import open_gguf
from engine.models.gguf.tensor_names import ARCHITECTURES, heads_to_pair, paired_rows, to_gguf
from engine.models.weights import LoraPair, read_adapter

if TYPE_CHECKING:
    from transformers import PretrainedConfig

GGUF_ADAPTER = "adapter.gguf"
"""The GGUF copy that stands next to PEFT's own file."""
_TYPES = {
    Quant.F32: GGMLQuantizationType.F32,
    Quant.F16: GGMLQuantizationType.F16,
    Quant.Q8_0: GGMLQuantizationType.Q8_0,
}


def write_gguf_adapter(
    path: Path,
    config: PretrainedConfig,
    pairs: Mapping[str, LoraPair],
    quant: Quant = Quant.F16,
    *,
    name: str,
    about: Mapping[str, str | int | float] | None = None,
) -> None:
    """Writes the adapter for a base with `config`; `pairs` as `weights.read_adapter` gives them.

    llama.cpp scales by alpha / rank, one alpha for all; matrices that are scaled otherwise (rank patterns, rsLoRA)
    carry the rest in `b`. Raises BadInput for an architecture or a matrix that GGUF has no name for, or a type too
    coarse for an adapter; RunFailed, OSError as `gguf_model.written`.
    """
    arch = config.model_type
    if arch not in ARCHITECTURES:
        raise BadInput(
            _("models of the architecture {name} are not supported; {supported} are").format(
                name=arch, supported=", ".join(ARCHITECTURES)
            )
        )
    if quant not in _TYPES:
        raise BadInput(
            _("an adapter is too fine for {quant}; it takes {choices}").format(
                quant=quant, choices=", ".join(_TYPES)
            )
        )
    if not pairs:
        raise BadInput(_("the adapter has no weights"))
    first = next(iter(pairs.values()))
    alpha = first.scale * first.a.shape[0]
    writer = GGUFWriter(None, arch, use_temp_file=False)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for key, value in (about or {}).items():
        writer.add_key_value(key, value, GGUFValueType.get_type(value))
    plan: list[tuple[str, Tensor, GGMLQuantizationType]] = []
    for hf_name, pair in pairs.items():
        stored = to_gguf(hf_name)
        if stored is None or (stored == "output.weight" and config.tie_word_embeddings):
            raise BadInput(
                _("the adapter has a tensor that llama.cpp does not know: {tensor}").format(tensor=hf_name)
            )
        b = pair.b * (pair.scale * pair.a.shape[0] / alpha) if alpha else pair.b * 0
        heads = heads_to_pair(arch, stored, config.num_attention_heads, config.num_key_value_heads)
        if heads is not None:
            b = b[paired_rows(len(b), heads)]
        for part, values in (("lora_a", pair.a), ("lora_b", b)):
            kind = _TYPES[quant]
            if values.shape[1] % GGML_QUANT_SIZES[kind][0]:
                kind = GGMLQuantizationType.F16
            plan.append((f"{stored}.{part}", values.contiguous(), kind))
    for tensor, values, kind in plan:
        shape = tuple(values.shape)
        writer.add_tensor_info(tensor, shape, torch.zeros(0).numpy().dtype, bytes_of(kind, shape), kind)
    with written(
        path, writer, sum(bytes_of(kind, tuple(values.shape)) for _name, values, kind in plan)
    ) as file:
        for tensor, values, kind in plan:
            file.write(encode(values, kind, tensor).data)
            writer.write_padding(file, file.tell())


def write_gguf_copy(folder: Path, *, base: Path, name: str) -> None:
    """Writes the PEFT adapter in `folder` as `adapter.gguf` too, for llama.cpp and Ollama; `base` is a GGUF file."""
    write_gguf_adapter(folder / GGUF_ADAPTER, open_gguf(base).config, read_adapter(folder), name=name)
