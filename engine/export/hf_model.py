"""A whole model as a Hugging Face directory that transformers loads offline, an adapter merged into its base."""

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
from engine.export.source import ExportSource
from engine.models.card import CARD_FILE, WEIGHTS_FILE, ModelCard, encode_card
from engine.models.gguf.file import CHUNK
from engine.models.weights import Weights

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
Step = Callable[[int, int], None]


def write_hf_model(
    folder: Path, source: ExportSource, weights: Weights, dtype: torch.dtype, *, step: Step | None = None
) -> str:
    """Writes the directory and returns the sha256 of its weights.

    `weights` are the source's or what was made of them. Raises BadInput for values that `dtype` cannot hold,
    RunFailed when the disk has no room, OSError; nothing is left behind then.
    """
    size = sum(torch.Size(shape).numel() for shape in weights.shapes.values()) * dtype.itemsize
    check_free_space(folder.parent, size)
    with new_folder(folder, MODEL_FOLDER) as new:
        digest = _write_weights(new / WEIGHTS_FILE, weights, dtype, step)
        config: dict[str, Any] = source.config.to_dict()
        config["dtype"] = str(dtype).removeprefix("torch.")
        config["transformers_version"] = _transformers()
        # Programs older than transformers 5 look for it at the top.
        config.setdefault("rope_theta", dict(source.config.rope_parameters or {}).get("rope_theta"))
        write_json(
            new / "config.json",
            {key: value for key, value in config.items() if value is not None or key != "rope_theta"},
        )
        more = {"eos_token_id": list(source.eos_ids)} if source.eos_ids else {}
        write_json(new / "generation_config.json", {**source.generation, **more})
        source.copy_tokenizer(new)
        _name_tokenizer(new / "tokenizer_config.json")
        if source.card is not None:
            write_bytes(new / CARD_FILE, encode_card(_card(source, source.card, weights, digest)))
    return digest


def _card(source: ExportSource, card: ModelCard, weights: Weights, digest: str) -> ModelCard:
    """The source's card for what is now a model of its own: same lineage, other weights."""
    count = sum(torch.Size(shape).numel() for shape in weights.shapes.values())
    return msgspec.structs.replace(
        card, name=source.name, parameters=count, base_path="", base_sha256="", weights_sha256=digest
    )


def _write_weights(file: Path, weights: Weights, dtype: torch.dtype, step: Step | None) -> str:
    """The safetensors format, written a few rows at a time: length of the head, head as JSON, values."""
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, shape in weights.shapes.items():
        size = torch.Size(shape).numel() * dtype.itemsize
        head[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest, done = sha256(), 0
    with file.open("wb") as stream:
        head_bytes = len(text).to_bytes(8, "little") + text
        stream.write(head_bytes)
        digest.update(head_bytes)
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
                    step(done, place)
    return digest.hexdigest()


def _name_tokenizer(file: Path) -> None:
    """AutoTokenizer would choose the architecture's own class, which may cut and normalise otherwise."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if found.get("tokenizer_class") in (None, "TokenizersBackend"):
        found["tokenizer_class"] = "PreTrainedTokenizerFast"
        write_json(file, found)


def _transformers() -> str:
    import transformers

    return str(transformers.__version__)
