"""Base models, described before they are loaded: a Hugging Face directory, a GGUF file or an Ollama tag.

Only headers are read. Weights are safetensors or GGUF; pickle files are never opened.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, first_line
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.models.card import ADAPTER_CONFIG, WEIGHTS_INDEX, ModelCard, load_card, read_card
from engine.models.hf_directory import (
    CONFIG_FILE,
    TEXT_PART_LOADS,
    config_problem,
    no_attention,
    no_weights,
    not_causal,
    other_senses,
    read_config,
    tokenizer_problem,
    unindexed_weights,
    unreadable,
    vocabulary_problem,
)
from engine.models.ollama.client import MODEL_PREFIX
from engine.models.registry import GGUF_SUFFIX
from engine.models.resolve import ModelKind, ModelOrigin, find_place, kind_of

FOUR_BIT = "4bit"
_HEADER_LIMIT = 100 << 20
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}  # fmt: skip
_SAMPLES, _SAMPLE = 64, 1 << 16


@dataclass(frozen=True)
class ModelDimensions:
    """The dimensions of a model that determine its memory."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    """Context length in tokens."""


@dataclass(frozen=True)
class BaseModel:
    """A base model whose headers have been read and checked."""

    source: str
    """Its name in cards and adapter_config.json: a directory, a GGUF file or `ollama:TAG`."""
    path: Path
    """Directory or GGUF file."""
    name: str
    dimensions: ModelDimensions
    parameters: int
    weight_format: str
    """Format of the weights: "F32", "BF16", "F16" or "GGUF"."""
    sha256: str
    """Fingerprint: hash of the configuration and of samples of the weights."""
    adapter: Path | None = None
    """The adapter on it, if the name was that of an adapter."""
    manifest: Path | None = None
    """The manifest of an Ollama tag, which is more than its GGUF file; None for a model from elsewhere."""
    lora: Path | None = None
    """The adapter in GGUF that belongs to an Ollama tag; it is merged into the weights when they are loaded."""
    system: str = ""
    """The system prompt that belongs to an Ollama tag: what a conversation without one of its own begins with."""
    messages: tuple[ChatMessage, ...] = ()
    """The turns that belong to an Ollama tag: every conversation continues them."""
    served_context: int = 0
    """Tokens of prompt and answer together that an Ollama tag asks for (`num_ctx`); 0: as many as fit."""

    @property
    def is_gguf(self) -> bool:
        return self.weight_format == "GGUF"

    @property
    def place(self) -> Path:
        """What finds it again as a path."""
        return self.manifest or self.path

    @property
    def ollama_tag(self) -> str:
        """The Ollama tag; "" for a model from elsewhere."""
        return self.source.removeprefix(MODEL_PREFIX) if self.source.startswith(MODEL_PREFIX) else ""


def find_base(ws: Workspace, name: str) -> BaseModel:
    """The base model that `name` stands for (`resolve.find_place`); of an adapter its base.

    Raises BadInput when nothing is found, weights are not safetensors, or the model is of a kind that is not trained;
    ServiceUnreachable for a tag outside the local stores while Ollama does not answer.
    """
    place = find_place(ws, name)
    if place.tag:
        return _of_ollama(ws, place.tag)
    path = place.path
    source = place.reference if place.origin is ModelOrigin.HUB else str(path)
    if place.kind is ModelKind.ADAPTER:
        return base_of_adapter(ws, path)
    if place.kind is ModelKind.SERVED:
        return replace(_of_ollama(ws, load_card(path).served), name=path.name)
    if place.kind is ModelKind.GGUF:
        return _of_gguf(path, source, path.stem if path.suffix == GGUF_SUFFIX else path.name)
    return _of_directory(path, source, _name_of(path))


def base_config(base: BaseModel) -> Any:
    """The transformers configuration of a base model. Raises BadInput."""
    if base.is_gguf:
        from engine.models.gguf.model import open_gguf

        return open_gguf(base.path).config
    return _config(base.path)


def model_path(ws: Workspace, name: str) -> Path:
    """The folder or file that `name` stands for; of an Ollama tag its manifest. Raises as `find_base`."""
    place = find_place(ws, name)
    return place.folder or _of_ollama(ws, place.tag).place


def base_of_adapter(ws: Workspace, folder: Path) -> BaseModel:
    """The base model of the adapter in `folder`. Raises BadInput, also when the base has changed since training."""
    source = adapter_source(folder)
    try:
        base = find_base(ws, source)
    except BadInput as problem:
        raise BadInput(
            _("the base model of this adapter was not found: {reason}").format(reason=problem.message),
            path=folder,
        ) from problem
    card = adapter_card(folder)
    if card is not None and card.base_sha256 and card.base_sha256 != base.sha256:
        if base.manifest is not None and card.base_sha256 == _fingerprint(b"", [base.path]):
            # Trained on the GGUF file alone.
            return replace(base, lora=None, system="", messages=(), sha256=card.base_sha256, adapter=folder)
        raise BadInput(
            _("the base model {base} has changed since this adapter was trained on it").format(base=source),
            path=folder,
            hint="h2q-tui models list",
        )
    return replace(base, adapter=folder)


def adapter_source(folder: Path) -> str:
    """The base model that the card or adapter_config.json names. Raises BadInput."""
    file = folder / ADAPTER_CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        kind, source = config.get("peft_type"), config.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as problem:
        raise BadInput(_("the adapter's configuration is broken"), path=file) from problem
    if kind != "LORA" or not isinstance(source, str) or not source:
        raise BadInput(_("this is not a LoRA adapter with a base model in its configuration"), path=file)
    card = adapter_card(folder)
    return card.base_path if card is not None and card.base_path else source


def adapter_card(folder: Path) -> ModelCard | None:
    """The card of an adapter; None for an adapter without a readable card."""
    try:
        return read_card(folder)
    except (OSError, msgspec.DecodeError):
        return None


def _name_of(folder: Path) -> str:
    """The name of a directory; of a snapshot in the hub cache, which is named by its commit, that of the repository."""
    repository = folder.parent.parent.name if folder.parent.name == "snapshots" else ""
    return repository.rpartition("--")[2] or folder.name


def _of_ollama(ws: Workspace, tag: str) -> BaseModel:
    from engine.models.ollama.store import find_layers, find_manifest

    layers = find_layers(ws, tag)
    base = replace(
        _of_gguf(layers.model, MODEL_PREFIX + tag, tag),
        manifest=find_manifest(ws, tag),
        served_context=layers.context,
    )
    if layers.adapter is None and not layers.system and not layers.messages:
        return base
    turns = "".join(f"\0{message.role}\0{message.content}" for message in layers.messages)
    more = _fingerprint(
        f"{base.sha256} {layers.system}{turns}".encode("utf-8", "surrogatepass"),
        list(filter(None, [layers.adapter])),
    )
    return replace(base, lora=layers.adapter, system=layers.system, messages=layers.messages, sha256=more)


def _of_gguf(path: Path, source: str, name: str) -> BaseModel:
    from engine.models.gguf.model import open_gguf

    model = open_gguf(path)
    return BaseModel(
        source=source,
        path=path,
        name=name,
        dimensions=_dimensions(model.config, path),
        parameters=model.parameters,
        weight_format="GGUF",
        sha256=_fingerprint(b"", [path]),
    )


def _of_directory(folder: Path, source: str, name: str) -> BaseModel:
    config = _config(folder)
    dimensions = _dimensions(config, folder)
    files = weight_files(folder)
    if kind_of(folder) is not ModelKind.NATIVE:
        problem = tokenizer_problem(folder) or vocabulary_problem(folder, dimensions.vocab)
        if problem:
            raise BadInput(problem, path=folder)
    tensors = [tensor for file in files for tensor in _header(file)]
    kinds: dict[str, int] = {}
    for kind, count in tensors:
        kinds[kind] = kinds.get(kind, 0) + count
    return BaseModel(
        source=source,
        path=folder,
        name=name,
        dimensions=dimensions,
        parameters=sum(kinds.values()),
        weight_format=max(kinds, key=lambda kind: kinds[kind]),
        sha256=_fingerprint((folder / "config.json").read_bytes(), files),
    )


def _config(folder: Path) -> Any:
    """The transformers configuration of a causal language model of text. Raises BadInput."""
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise BadInput(_("there is no model in this directory"), path=folder, hint="h2q-tui models list")
    stored = read_config(folder)
    unfit = unreadable() if stored is None else config_problem(stored)
    if unfit:
        raise BadInput(unfit, path=file)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as problem:  # broken files make transformers raise anything
        raise BadInput(
            _("the model's configuration is not usable: {reason}").format(reason=first_line(problem)),
            path=file,
        ) from problem
    reason = _not_supported(config)
    if reason:
        raise BadInput(reason, path=file)
    return config


def _not_supported(config: Any) -> str:
    """Why transformers' classes for `config` are no causal language model of text, as one sentence; "" if they are."""
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoModelForMaskedLM,
        AutoModelForSeq2SeqLM,
    )

    kind = config.model_type or "?"
    causal: Any = AutoModelForCausalLM
    if type(config) not in causal._model_mapping:
        return _("{kind} is not a causal language model").format(kind=kind)
    pictures, masked, pairs = (
        type(config) in auto._model_mapping
        for auto in (AutoModelForImageTextToText, AutoModelForMaskedLM, AutoModelForSeq2SeqLM)
    )
    if pictures and kind not in TEXT_PART_LOADS:
        return other_senses(kind)
    if (masked or pairs) and not getattr(config, "is_decoder", False):
        return not_causal(kind, str(causal._model_mapping[type(config)].__name__))
    return ""


def _dimensions(config: Any, path: Path) -> ModelDimensions:
    """The dimensions in a transformers configuration. Raises BadInput for a model without attention."""
    text = config.get_text_config()
    heads, hidden = _figure(text, "num_attention_heads"), _figure(text, "hidden_size")
    if not heads or not hidden:
        raise BadInput(no_attention(config.model_type or "?"), path=path)
    return ModelDimensions(
        hidden=hidden,
        layers=text.num_hidden_layers,
        heads=heads,
        kv_heads=_figure(text, "num_key_value_heads") or heads,
        head_dim=_figure(text, "head_dim") or hidden // heads,
        ffn=_figure(text, "intermediate_size") or 4 * hidden,
        vocab=text.vocab_size,
        context=_figure(text, "max_position_embeddings") or 2048,
    )


def _figure(config: Any, name: str) -> int:
    """A whole number of a transformers configuration, the largest where layers differ; 0 when it has none."""
    try:
        value = getattr(config, name, None)
    except Exception:  # transformers refuses to name one value for layers that differ
        value = config.to_dict().get(name)
    values = value if isinstance(value, list) else [value]
    return max((one for one in values if isinstance(one, int)), default=0)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model. Raises BadInput when there are none or one of the index is missing."""
    index = folder / WEIGHTS_INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as problem:
            raise BadInput(_("the index of the weights is broken"), path=index) from problem
        # File names only: the index must not point outside the folder.
        files = [folder / Path(str(name)).name for name in names]
    else:
        files = unindexed_weights(folder)
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise BadInput(_("a weights file is missing"), path=missing)
    if not files:
        text, path = no_weights(folder)
        raise BadInput(text, path=path, hint="h2q-tui models list")
    return files


def _header(file: Path) -> list[tuple[str, int]]:
    """(dtype, number of elements) of each tensor. Raises BadInput for a broken or truncated file."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _HEADER_LIMIT:
                raise ValueError
            header = json.loads(stream.read(length))
        tensors = [value for key, value in header.items() if key != "__metadata__"]
        end = max((value["data_offsets"][1] for value in tensors), default=0)
        if file.stat().st_size != 8 + length + end:
            raise ValueError
        return [
            (value["dtype"], (value["data_offsets"][1] - value["data_offsets"][0]) // _SIZES[value["dtype"]])
            for value in tensors
        ]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error) as problem:
        raise BadInput(_("the weights are broken or truncated"), path=file) from problem


def _fingerprint(config: bytes, files: list[Path]) -> str:
    """sha256 over the configuration and, for each file, its size and evenly spaced samples."""
    digest = sha256(config)
    for file in files:
        size = file.stat().st_size
        digest.update(struct.pack("<Q", size))
        with file.open("rb") as stream:
            for number in range(_SAMPLES):
                stream.seek(number * max(0, size - _SAMPLE) // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()
