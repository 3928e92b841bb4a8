"""Writes a model, an adapter merged into its base, as a Hugging Face directory that transformers loads offline."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import torch

from engine.core.errors import BadInput
from engine.core.files import check_free_space, write_bytes, write_json
from engine.core.i18n import _
from engine.core.outputs import MODEL_FOLDER, new_folder
from engine.export.older_config import rope_keys_of_version_4
from engine.export.source import ExportSource
from engine.models.card import CARD_FILE, WEIGHTS_FILE, ModelCard, encode_card
from engine.models.gguf.file import CHUNK
from engine.models.weights import Weights

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
Progress = Callable[[int, int], None]
"""Called with (bytes written, all bytes); may raise to stop."""


def write_hf_model(
    folder: Path, source: ExportSource, weights: Weights, dtype: torch.dtype, *, step: Progress | None = None
) -> str:
    """Writes the directory and returns the sha256 of its weights.

    `weights` are the source's, pruned or not. Raises BadInput for values outside the range of `dtype`, RunFailed when
    the disk is too full, OSError; no partial directory remains.
    """
    size = sum(torch.Size(shape).numel() for shape in weights.shapes.values()) * dtype.itemsize
    check_free_space(folder.parent, size)
    with new_folder(folder, MODEL_FOLDER) as new:
        digest = _write_weights(new / WEIGHTS_FILE, weights, dtype, step)
        config: dict[str, Any] = source.config.to_dict()
        config["dtype"] = str(dtype).removeprefix("torch.")
        config["transformers_version"] = _transformers_version()
        rope = rope_keys_of_version_4(
            source.config.model_type,
            dict(source.config.rope_parameters or {}),
            source.config.max_position_embeddings,
        )
        write_json(new / "config.json", {**config, **rope})
        more = {"eos_token_id": list(source.eos_ids)} if source.eos_ids else {}
        write_json(new / "generation_config.json", {**source.generation, **more})
        source.copy_tokenizer(new)
        _set_tokenizer_class(new / "tokenizer_config.json")
        if source.card is not None:
            write_bytes(new / CARD_FILE, encode_card(_card(source, source.card, weights, digest)))
    return digest


def _card(source: ExportSource, card: ModelCard, weights: Weights, digest: str) -> ModelCard:
    """The source's card for the exported, complete model: same lineage, other weights."""
    count = sum(torch.Size(shape).numel() for shape in weights.shapes.values())
    return msgspec.structs.replace(
        card, name=source.name, parameters=count, base_path="", base_sha256="", weights_sha256=digest
    )


def _write_weights(file: Path, weights: Weights, dtype: torch.dtype, step: Progress | None) -> str:
    """Writes a safetensors file a few rows at a time: header length, JSON header, values. Returns its sha256."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in weights.shapes.items():
        size = torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest, done = sha256(), 0
    with file.open("wb") as stream:
        header_bytes = len(text).to_bytes(8, "little") + text
        stream.write(header_bytes)
        digest.update(header_bytes)
        for name, shape in weights.shapes.items():
            rows = max(1, CHUNK // shape[1]) if len(shape) > 1 else shape[0]
            for start in range(0, shape[0], rows):
                values = weights.rows(name, start, min(start + rows, shape[0])).to(dtype).contiguous()
                if not bool(torch.isfinite(values).all()):
                    raise BadInput(
                        _("{tensor} has values outside the range of {dtype}").format(
                            tensor=name, dtype=_NAMES[dtype]
                        )
                    )
                data = values.view(torch.uint8).numpy().data
                stream.write(data)
                digest.update(data)
                done += data.nbytes
                if step is not None:
                    step(done, offset)
    return digest.hexdigest()


def _set_tokenizer_class(file: Path) -> None:
    """Sets the tokenizer class: AutoTokenizer would choose the architecture's, which may split and normalise differently."""
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if config.get("tokenizer_class") in (None, "TokenizersBackend"):
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        write_json(file, config)


def _transformers_version() -> str:
    import transformers

    return str(transformers.__version__)
