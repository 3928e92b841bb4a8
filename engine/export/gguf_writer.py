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
    RopeScalingType,
)
from torch import Tensor

from engine.core.errors import BadInput
from engine.core.files import atomic_file, check_free_space
from engine.core.i18n import _
from engine.export.quant import FILE_TYPES, Quant, bytes_of, encode, type_for
from engine.export.vocabulary import Vocabulary, copy_vocabulary, write_vocabulary
from engine.models.gguf.config import llama3_factors
from engine.models.gguf.file import CHUNK, GgufFile
from engine.models.gguf.model import open_gguf
from engine.models.gguf.tensor_names import (
    ROPE_FACTORS,
    check_architecture,
    heads_to_pair,
    paired_rows,
    to_gguf,
)
from engine.models.hf import context_of
from engine.models.weights import LoraPair, Weights, read_adapter

if TYPE_CHECKING:
    from transformers import PretrainedConfig

GGUF_ADAPTER = "adapter.gguf"
"""File name of the GGUF copy in a PEFT directory."""
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
        config: transformers configuration of a Qwen2, Qwen3 or Llama model.
        vocabulary: of a tokenizer, or a GGUF file to copy it from.
        metadata: more metadata by full key, e.g. `general.finetune`.

    Raises BadInput for an architecture or a setting that GGUF or llama.cpp does not support, RunFailed when the disk
    is too full, OSError; no partial file remains.
    """
    arch = config.model_type
    _check_supported(config, weights)
    tied = "lm_head.weight" not in weights.shapes
    plan: list[tuple[str, str, tuple[int, ...], GGMLQuantizationType]] = []
    for hf_name, shape in weights.shapes.items():
        stored = to_gguf(hf_name)
        if stored is None:
            raise BadInput(
                _("llama.cpp does not support this tensor of the model: {tensor}").format(tensor=hf_name)
            )
        plan.append((hf_name, stored, shape, type_for(quant, stored, shape, tied=tied)))
    writer = GGUFWriter(None, arch, use_temp_file=False)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[quant])
    if quant in (Quant.Q8_0, Quant.Q4_0):
        writer.add_quantization_version(2)
    for key, value in (metadata or {}).items():
        writer.add_key_value(key, value, GGUFValueType.get_type(value))
    factors = _write_config(writer, config)
    if isinstance(vocabulary, Vocabulary):
        write_vocabulary(writer, vocabulary)
    else:
        copy_vocabulary(writer, vocabulary)
    if factors is not None:
        writer.add_tensor_info(ROPE_FACTORS, tuple(factors.shape), factors.numpy().dtype, 4 * factors.numel())
    for _hf, stored, shape, kind in plan:
        # gguf ignores the dtype of the array because the type is given.
        writer.add_tensor_info(stored, shape, torch.zeros(0).numpy().dtype, bytes_of(kind, shape), kind)
    size = sum(bytes_of(kind, shape) for _hf, _stored, shape, kind in plan)
    total, done = sum(_count(shape) for _hf, _stored, shape, _kind in plan), 0
    with _new_gguf(path, writer, size) as file:
        if factors is not None:
            file.write(factors.numpy().data)
            writer.write_padding(file, file.tell())
        for hf_name, stored, shape, kind in plan:
            heads = heads_to_pair(arch, stored, config.num_attention_heads, config.num_key_value_heads)
            for values in _blocks(weights, hf_name, shape, heads):
                file.write(encode(values, kind, hf_name).data)
                done += values.numel()
                if step is not None:
                    step(done, total)
            writer.write_padding(file, file.tell())


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
    arch = config.model_type
    check_architecture(arch)
    if quant not in _ADAPTER_TYPES:
        raise BadInput(
            _("an adapter cannot be stored as {quant}; use {choices}").format(
                quant=quant, choices=_(", ").join(_ADAPTER_TYPES)
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
    for key, value in (metadata or {}).items():
        writer.add_key_value(key, value, GGUFValueType.get_type(value))
    plan: list[tuple[str, Tensor, GGMLQuantizationType]] = []
    for hf_name, pair in pairs.items():
        stored = to_gguf(hf_name)
        if stored is None or (stored == "output.weight" and config.tie_word_embeddings):
            raise BadInput(
                _("llama.cpp does not support this tensor of the adapter: {tensor}").format(tensor=hf_name)
            )
        b = pair.b * (pair.scale * pair.a.shape[0] / alpha) if alpha else pair.b * 0
        heads = heads_to_pair(arch, stored, config.num_attention_heads, config.num_key_value_heads)
        if heads is not None:
            b = b[paired_rows(len(b), heads)]
        for part, values in (("lora_a", pair.a), ("lora_b", b)):
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


def _blocks(weights: Weights, name: str, shape: tuple[int, ...], heads: int | None) -> Iterator[Tensor]:
    """The tensor in GGUF's row order, in blocks of at most `CHUNK` elements (queries and keys of Llama in one)."""
    if heads is not None:
        yield weights.rows(name, 0, shape[0])[paired_rows(shape[0], heads)]
        return
    rows = max(1, CHUNK // shape[1]) if len(shape) > 1 else shape[0]
    for start in range(0, shape[0], rows):
        yield weights.rows(name, start, min(start + rows, shape[0]))


def _check_supported(config: PretrainedConfig, weights: Weights) -> None:
    arch = config.model_type
    check_architecture(arch)
    if arch == "qwen3" and any(name.endswith(".bias") for name in weights.shapes):
        raise BadInput(_("llama.cpp does not support Qwen3 with biases"))
    if getattr(config, "use_sliding_window", False) and "sliding_attention" in (
        getattr(config, "layer_types", None) or []
    ):
        raise BadInput(_("llama.cpp does not support a sliding window for {name}").format(name=arch))
    if getattr(config, "hidden_act", "silu") != "silu":
        raise BadInput(
            _("llama.cpp does not support {name} in this architecture").format(name=config.hidden_act)
        )


def _write_config(writer: GGUFWriter, config: PretrainedConfig) -> Tensor | None:
    """Writes the metadata of the architecture; returns the rotary factors of a Llama 3 model, else None."""
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(context_of(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    rope = dict(config.rope_parameters)
    theta, kind = float(rope["rope_theta"]), rope.get("rope_type", "default")
    writer.add_rope_freq_base(theta)
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise BadInput(
            _("llama.cpp does not support {name} in this architecture").format(name="partial_rotary_factor")
        )
    if kind == "default":
        return None
    if kind == "llama3":
        original = int(rope["original_max_position_embeddings"])
        return llama3_factors(
            theta,
            head_dim,
            float(rope["factor"]),
            original=original,
            low=float(rope["low_freq_factor"]),
            high=float(rope["high_freq_factor"]),
        ).float()
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        return None
    if kind == "yarn" and not {"beta_fast", "beta_slow", "mscale", "attention_factor"} & {
        key for key, value in rope.items() if value is not None
    }:
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
        return None
    raise BadInput(_("llama.cpp does not support {name} in this architecture").format(name=f"rope {kind}"))


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count
