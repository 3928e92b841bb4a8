"""GGUF files for llama.cpp and Ollama: a model, or a LoRA adapter on one.

Tensors are written a few rows at a time into a temporary file, which takes its name when it is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gguf import (
    GGML_QUANT_SIZES,
    GGMLQuantizationType,
    GGUFType,
    GGUFValueType,
    GGUFWriter,
)
from torch import Tensor

from engine.core.errors import BadInput
from engine.core.files import atomic_file, check_free_space
from engine.core.i18n import _
from engine.export.gguf_metadata import check_supported, write_config
from engine.export.quant import FILE_TYPES, Quant, bytes_of, encode, type_for
from engine.export.vocabulary import Vocabulary, copy_vocabulary, write_vocabulary
from engine.models.card import GGUF_ADAPTER
from engine.models.gguf.architectures import Architecture, architecture_for
from engine.models.gguf.file import CHUNK, GgufFile
from engine.models.gguf.layout import TensorLayout
from engine.models.gguf.model import open_gguf
from engine.models.weights import LoraPair, Weights, read_adapter

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_ADAPTER_TYPES = {
    Quant.F32: GGMLQuantizationType.F32,
    Quant.F16: GGMLQuantizationType.F16,
    Quant.Q8_0: GGMLQuantizationType.Q8_0,
}
Progress = Callable[[int, int], None]
"""Called with (weights written, all weights); may raise to stop."""


def write_gguf_model(
    path: Path,
    config: PretrainedConfig,
    weights: Weights,
    vocabulary: Vocabulary | GgufFile,
    quant: Quant,
    *,
    name: str,
    metadata: Mapping[str, str | int | float] | None = None,
    step: Progress | None = None,
) -> None:
    """Writes a model to `path`.

    Args:
        config: transformers configuration of a model in `architectures`.
        vocabulary: of a tokenizer, or a GGUF file to copy it from.
        metadata: more metadata by full key, e.g. `general.finetune`.

    Raises BadInput for an architecture or a setting that GGUF or llama.cpp does not support, RunFailed when the disk
    is too full, OSError; no partial file remains.
    """
    arch = check_supported(config, weights.shapes)
    plan = _stored_tensors(arch, config, weights.shapes, quant)
    writer = GGUFWriter(None, arch.name, use_temp_file=False)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[quant])
    if quant in (Quant.Q8_0, Quant.Q4_0):
        writer.add_quantization_version(2)
    for key, value in (metadata or {}).items():
        writer.add_key_value(key, value, GGUFValueType.get_type(value))
    factors = write_config(writer, config)
    if isinstance(vocabulary, Vocabulary):
        write_vocabulary(writer, vocabulary)
    else:
        copy_vocabulary(writer, vocabulary)
    for factor_name, values in factors.items():
        writer.add_tensor_info(factor_name, tuple(values.shape), values.numpy().dtype, 4 * values.numel())
    for _hf, stored, shape, kind in plan:
        # gguf ignores the dtype of the array because the type is given.
        writer.add_tensor_info(stored, shape, torch.zeros(0).numpy().dtype, bytes_of(kind, shape), kind)
    size = sum(bytes_of(kind, shape) for _hf, _stored, shape, kind in plan)
    total, done = sum(_count(shape) for _hf, _stored, shape, _kind in plan), 0
    with _new_gguf(path, writer, size) as file:
        for values in factors.values():
            file.write(values.numpy().data)
            writer.write_padding(file, file.tell())
        for hf_name, stored, shape, kind in plan:
            for values in _blocks(weights, hf_name, shape, arch.layout(stored, config)):
                file.write(encode(values, kind, hf_name).data)
                done += values.numel()
                if step is not None:
                    step(done, total)
            writer.write_padding(file, file.tell())


def _stored_tensors(
    arch: Architecture, config: PretrainedConfig, shapes: Mapping[str, tuple[int, ...]], quant: Quant
) -> list[tuple[str, str, tuple[int, ...], GGMLQuantizationType]]:
    """(name in transformers, name, shape and type in the file) of each tensor. Raises BadInput."""
    tied = "lm_head.weight" not in shapes
    stored_tensors = []
    for hf_name, hf_shape in shapes.items():
        stored = arch.to_gguf(hf_name)
        if stored is None:
            raise BadInput(
                _("llama.cpp does not support this tensor of the model: {tensor}").format(tensor=hf_name)
            )
        shape = arch.layout(stored, config).gguf_shape(hf_shape)
        stored_tensors.append((hf_name, stored, shape, type_for(quant, stored, shape, tied=tied)))
    return stored_tensors


def check_gguf_model(config: PretrainedConfig, shapes: Mapping[str, tuple[int, ...]], quant: Quant) -> None:
    """Raises BadInput for a model that `write_gguf_model` would refuse, before anything is read or written."""
    arch = check_supported(config, shapes)
    _stored_tensors(arch, config, shapes, quant)
    write_config(GGUFWriter(None, arch.name, use_temp_file=False), config)


def check_gguf_adapter(config: PretrainedConfig, pairs: Mapping[str, LoraPair], quant: Quant) -> Architecture:
    """The architecture of the base. Raises BadInput for an adapter that `write_gguf_adapter` would refuse."""
    arch = architecture_for(config.model_type)
    if quant not in _ADAPTER_TYPES:
        raise BadInput(
            _("an adapter cannot be stored as {quant}; use {choices}").format(
                quant=quant, choices=_(", ").join(_ADAPTER_TYPES)
            )
        )
    if not pairs:
        raise BadInput(_("the adapter has no weights"))
    for name in pairs:
        stored = arch.to_gguf(name)
        if stored is None or (stored == "output.weight" and config.tie_word_embeddings):
            raise BadInput(
                _("llama.cpp does not support this tensor of the adapter: {tensor}").format(tensor=name)
            )
    return arch


def write_gguf_adapter(
    path: Path,
    config: PretrainedConfig,
    pairs: Mapping[str, LoraPair],
    quant: Quant = Quant.F16,
    *,
    name: str,
    metadata: Mapping[str, str | int | float] | None = None,
) -> None:
    """Writes an adapter on a base with `config`; `pairs` are those of `weights.read_adapter`.

    llama.cpp scales by alpha / rank with one alpha for all matrices; other scales (rank patterns, rsLoRA) are
    multiplied into `b`. Raises BadInput for an unsupported architecture, matrix or type, RunFailed when the disk is
    too full, OSError.
    """
    arch = check_gguf_adapter(config, pairs, quant)
    first = next(iter(pairs.values()))
    alpha = first.scale * first.a.shape[0]
    writer = GGUFWriter(None, arch.name, use_temp_file=False)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for key, value in (metadata or {}).items():
        writer.add_key_value(key, value, GGUFValueType.get_type(value))
    plan: list[tuple[str, Tensor, GGMLQuantizationType]] = []
    for hf_name, pair in pairs.items():
        stored = arch.to_gguf(hf_name)
        assert stored is not None
        b = pair.b * (pair.scale * pair.a.shape[0] / alpha) if alpha else pair.b * 0
        layout, a = arch.layout(stored, config), pair.a
        if layout.rows is not None:
            b = b[layout.rows(len(b))]
        if layout.columns is not None:
            a = a[:, layout.columns(a.shape[1])]
        for part, values in (("lora_a", a), ("lora_b", b)):
            kind = _ADAPTER_TYPES[quant]
            if values.shape[1] % GGML_QUANT_SIZES[kind][0]:
                kind = GGMLQuantizationType.F16
            plan.append((f"{stored}.{part}", values.contiguous(), kind))
    for tensor, values, kind in plan:
        shape = tuple(values.shape)
        writer.add_tensor_info(tensor, shape, torch.zeros(0).numpy().dtype, bytes_of(kind, shape), kind)
    with _new_gguf(
        path, writer, sum(bytes_of(kind, tuple(values.shape)) for _name, values, kind in plan)
    ) as file:
        for tensor, values, kind in plan:
            file.write(encode(values, kind, tensor).data)
            writer.write_padding(file, file.tell())


def write_gguf_copy(folder: Path, *, base: Path, name: str) -> None:
    """Adds `adapter.gguf`, for llama.cpp and Ollama, to the PEFT directory `folder`; `base` is a GGUF file."""
    write_gguf_adapter(folder / GGUF_ADAPTER, open_gguf(base).config, read_adapter(folder), name=name)


@contextmanager
def _new_gguf(path: Path, writer: GGUFWriter, size: int) -> Iterator[Any]:
    """The open file after its header; renamed to `path` and synced on success.

    Raises RunFailed when the disk has no space for `size` bytes of weights, and OSError.
    """
    check_free_space(path.parent, size)
    with atomic_file(path) as temporary:
        try:
            writer.write_header_to_file(temporary)
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            assert writer.fout is not None
            file = writer.fout[0]
            writer.write_padding(file, file.tell())
            yield file
            file.flush()
        finally:
            for opened in writer.fout or ():
                opened.close()


def _blocks(weights: Weights, name: str, shape: tuple[int, ...], layout: TensorLayout) -> Iterator[Tensor]:
    """The tensor as the file stores it, in blocks of at most `CHUNK` elements (reordered rows in one)."""
    if layout.rows is not None:
        yield layout.encode(weights.rows(name, 0, shape[0])[layout.rows(shape[0])]).contiguous()
        return
    rows = max(1, CHUNK // shape[1]) if len(shape) > 1 else shape[0]
    for start in range(0, shape[0], rows):
        yield layout.encode(weights.rows(name, start, min(start + rows, shape[0]))).contiguous()


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count
