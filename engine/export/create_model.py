"""Creates a model in the workspace's own store, as Ollama's `/api/create` does: from a model or from uploaded files."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, UsageProblem
from engine.core.files import locked_folder
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.models.base_models import find_base
from engine.models.card import GGUF_ADAPTER
from engine.models.gguf.header import GgufSummary, read_summary
from engine.models.ollama.client import MODEL_PREFIX
from engine.models.ollama.layout import (
    BLOBS,
    MANIFEST_DEPTH,
    StoredLayer,
    blob_path,
    decode_manifest,
    full_tag,
)
from engine.models.ollama.model_store import ModelExists, ModelStore
from engine.models.ollama.store import find_manifest, read_layers
from engine.models.registry import card_of_tag
from engine.models.resolve import find_place

ROLES = ("system", "user", "assistant")
"""Roles of MESSAGE turns."""
QUANTIZATIONS = ("f32", "f16", "q8_0", "q4_0")
"""What a file can be rewritten as here."""
_INHERITED = ("model", "adapter", "system", "messages", "params", "license")
"""Layers that a model takes from the one it is made from. A Go template is none: the one in the file is rendered."""
_CONFIG_FILE = "config.json"
_Statuses = Generator[str, None, list[StoredLayer]]
"""Yields statuses and returns layers."""


@dataclass(frozen=True)
class CreateRequest:
    """What a model is made of. Files and adapters have been uploaded as blobs."""

    model: str
    """The new tag."""
    from_: str = ""
    """A tag of a local store, or a model of the workspace."""
    files: dict[str, str] = field(default_factory=dict)
    """GGUF files, or those of a Hugging Face directory: name to digest."""
    adapters: dict[str, str] = field(default_factory=dict)
    """One LoRA adapter in GGUF."""
    messages: Sequence[ChatMessage] = ()
    """Turns before every conversation; empty: those of `from_`."""
    system: str = ""
    template: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Added to those of `from_`."""
    license: Sequence[str] = ()
    quantize: str = ""
    replace: bool = True
    """Whether a model with this tag is replaced."""
    card: str = ""
    """The model of the workspace that is served by it, with lineage and verdict."""
    conversations: Sequence[tuple[str, int]] = ()
    """Of `messages` in order: the conversation they are from, and how many of its turns."""


def create_model(ws: Workspace, request: CreateRequest) -> Iterator[str]:
    """Creates the model and yields Ollama's statuses; the last is "success".

    Raises BadInput for parts that are missing, broken or do not fit together, UsageProblem (`ModelExists`) for a name
    that is taken, RunFailed or OSError when the disk is full. The store is then as before.
    """
    store = ModelStore(ws)
    store.check_free(request.model, replace=request.replace)
    _check(request)
    owner = card_of_tag(ws, request.model)
    if owner is not None:
        raise ModelExists(
            _("{name} is a model of this workspace and is not replaced").format(name=owner.name),
            hint="h2q-tui models list",
        )
    with store.locked():
        store.sweep()
        # Again: another process may have taken the name while this one waited.
        store.check_free(request.model, replace=request.replace)
        layers = yield from _origin(ws, store, request)
        layers = yield from _with_adapter(store, request, layers)
        if request.quantize:
            layers = yield from _quantized(ws, store, request, layers)
        layers = _with_texts(store, request, layers)
        summary = read_summary(_file(store, layers, "model"))
        _check_template(request, _file(store, layers, "model"))
        yield "writing manifest"
        store.write(request.model, layers, _config(request, layers, summary), replace=request.replace)
    yield "success"


def _check(request: CreateRequest) -> None:
    if not request.from_ and not request.files:
        raise BadInput(_("a model is made from another model or from files; neither is given"))
    if len(request.adapters) > 1:
        raise BadInput(_("a model takes one adapter"))
    for message in request.messages:
        if message.role not in ROLES:
            raise BadInput(
                _("the role {role} of a message is not known; {roles} are").format(
                    role=message.role, roles=_(", ").join(ROLES)
                )
            )
    if request.quantize and request.quantize.lower() not in QUANTIZATIONS:
        raise UsageProblem(
            _("{value} is not made here; {known} are, and Ollama itself makes the others").format(
                value=request.quantize, known=_(", ").join(QUANTIZATIONS)
            ),
            hint="ollama create NAME --quantize q4_K_M -f Modelfile",
        )
    context = request.parameters.get("num_ctx")
    if context is not None and (isinstance(context, bool) or not isinstance(context, int) or context < 1):
        raise BadInput(_("num_ctx is a number of tokens, from 1"))


def _check_template(request: CreateRequest, model: Path) -> None:
    """Another template than the file's would not be used: it is refused, not ignored."""
    from engine.models.gguf.header import read_metadata

    if request.template and request.template != read_metadata(model).get("tokenizer.chat_template"):
        raise UsageProblem(
            _("templates in Go are not rendered here; the chat template in the GGUF file is used")
        )


# Where the weights come from


def _origin(ws: Workspace, store: ModelStore, request: CreateRequest) -> _Statuses:
    """The layers that the model starts with. A generator of statuses that returns them."""
    if not request.from_:
        return (yield from _from_files(ws, store, request))
    place = find_place(ws, request.from_)
    manifest = find_manifest(ws, place.tag) if place.tag else None
    if manifest is not None:
        layers = _from_manifest(store, place.tag, manifest)
        for layer in layers:
            yield f"using existing layer {layer.digest}"
        return layers
    base = find_base(ws, request.from_)
    copy = base.adapter / GGUF_ADAPTER if base.adapter is not None else None
    if base.is_gguf and (copy is None or (copy.is_file() and base.lora is None)):
        layers = [store.link_file("model", base.path)]
        adapter = copy or base.lora
        if adapter is not None:
            layers.append(store.link_file("adapter", adapter))
        if base.system:
            layers.append(store.put_bytes("system", base.system.encode()))
        for layer in layers:
            yield f"using existing layer {layer.digest}"
        return layers
    yield "converting model"
    layer = _written(ws, store, request.from_, "f16")
    yield f"creating new layer {layer.digest}"
    return [layer]


def _from_manifest(store: ModelStore, tag: str, manifest: Path) -> list[StoredLayer]:
    """The layers of a tag of any local store, linked into this one. Raises BadInput when one is missing."""
    folder = manifest.parents[MANIFEST_DEPTH]
    read_layers(tag, folder, manifest)  # what is missing, unreadable or of another kind is said by name
    content = decode_manifest(manifest.read_bytes())
    return [
        store.link_file(layer.kind, blob_path(folder, layer.digest), layer.digest)
        for layer in content.layers
        if layer.kind in _INHERITED
    ]


def _from_files(ws: Workspace, store: ModelStore, request: CreateRequest) -> _Statuses:
    blobs = {name: _uploaded(store, name, digest) for name, digest in request.files.items()}
    if _CONFIG_FILE in blobs:
        yield "converting model"
        with _directory(store, blobs) as folder:
            layer = _written(ws, store, str(folder), "f16")
        yield f"creating new layer {layer.digest}"
        return [layer]
    yield "parsing GGUF"
    layers = []
    for name, path in blobs.items():
        summary = read_summary(path)
        layers.append(StoredLayer(summary.kind, request.files[name], path.stat().st_size))
        if summary.kind == "model":
            find_base(ws, str(path))  # raises for a truncated file, and for a model that cannot be read
    if [layer.kind for layer in layers].count("model") != 1 or len(layers) > 2:
        raise BadInput(_("the files are not one GGUF model"))
    yield from (f"using existing layer {layer.digest}" for layer in layers)
    model, adapter = (_kind_of(layers, kind) for kind in ("model", "adapter"))
    if adapter is not None and model is not None:
        _check_fits(store.blob(model.digest), store.blob(adapter.digest))
    return layers


def _uploaded(store: ModelStore, name: str, digest: str) -> Path:
    if "/" in name or name in ("", ".", ".."):
        raise BadInput(_("file names must be names alone, without folders: {name}").format(name=name))
    path = store.blob(digest)
    if not path.is_file():
        raise BadInput(_("the file {name} was not uploaded: {digest}").format(name=name, digest=digest))
    return path


@contextmanager
def _directory(store: ModelStore, blobs: dict[str, Path]) -> Iterator[Path]:
    """A folder in which the blobs have their names."""
    with locked_folder(store.folder, ".files.") as folder:
        for name, path in blobs.items():
            (folder / name).hardlink_to(path)
        yield folder


def _with_adapter(store: ModelStore, request: CreateRequest, layers: list[StoredLayer]) -> _Statuses:
    for name, digest in request.adapters.items():
        path = _uploaded(store, name, digest)
        yield "converting adapter"
        model = _file(store, layers, "model")
        if _kind_of(layers, "adapter") is not None:
            raise BadInput(
                _("{name} has an adapter already, and a model takes one").format(name=request.from_)
            )
        _check_fits(model, path)
        layers = [*layers, StoredLayer("adapter", digest, path.stat().st_size)]
        yield f"using existing layer {digest}"
    return layers


def _check_fits(model: Path, adapter: Path) -> None:
    """Raises BadInput for an adapter of another base."""
    from engine.models.gguf.model import open_gguf
    from engine.models.weights import GgufWeights, MergedWeights, read_gguf_adapter

    opened = open_gguf(model)
    MergedWeights(GgufWeights(opened), read_gguf_adapter(adapter, opened))


def _quantized(
    ws: Workspace, store: ModelStore, request: CreateRequest, layers: list[StoredLayer]
) -> _Statuses:
    summary = read_summary(_file(store, layers, "model"))
    wanted = request.quantize.lower()
    if summary.quantization.lower() == wanted:
        return layers
    yield f"quantizing {summary.quantization} model to {wanted.upper()}"
    layer = _written(ws, store, str(_file(store, layers, "model")), wanted)
    yield f"creating new layer {layer.digest}"
    return [layer if one.kind == "model" else one for one in layers]


def _written(ws: Workspace, store: ModelStore, source: str, quant: str) -> StoredLayer:
    """A GGUF file of the model as a blob of the store. Raises BadInput for broken weights, RunFailed, OSError."""
    from engine.export.gguf_writer import write_gguf_model
    from engine.export.quant import Quant
    from engine.export.source import find_export_source

    found = find_export_source(ws, source)
    with locked_folder(store.folder, ".written.") as folder:
        file = folder / "model.gguf"
        name = found.gguf.name if found.gguf is not None else found.name
        write_gguf_model(
            file, found.config, found.weights, found.vocabulary, Quant(quant), name=name or found.name
        )
        (store.folder / BLOBS).mkdir(exist_ok=True)
        return store.link_file("model", file)


# Texts and the description


def _with_texts(store: ModelStore, request: CreateRequest, layers: list[StoredLayer]) -> list[StoredLayer]:
    """The layers with system prompt, messages and parameters of the request in place of those it started with."""
    if request.system:
        layers = _replaced(layers, store.put_bytes("system", request.system.encode("utf-8", "replace")))
    if request.messages:
        rows = [{"role": one.role, "content": one.content} for one in request.messages]
        data = json.dumps(rows, ensure_ascii=False).encode("utf-8", "replace")
        layers = _replaced(layers, store.put_bytes("messages", data))
    if request.parameters:
        known = _kind_of(layers, "params")
        values = json.loads(store.blob(known.digest).read_bytes()) if known is not None else {}
        values = {**(values if isinstance(values, dict) else {}), **request.parameters}
        layers = _replaced(layers, store.put_bytes("params", json.dumps(values, ensure_ascii=False).encode()))
    return [
        *layers,
        *(store.put_bytes("license", text.encode("utf-8", "replace")) for text in request.license),
    ]


def _replaced(layers: Sequence[StoredLayer], new: StoredLayer) -> list[StoredLayer]:
    return [*(layer for layer in layers if layer.kind != new.kind), new]


def _kind_of(layers: Sequence[StoredLayer], kind: str) -> StoredLayer | None:
    return next((layer for layer in layers if layer.kind == kind), None)


def _file(store: ModelStore, layers: Sequence[StoredLayer], kind: str) -> Path:
    layer = _kind_of(layers, kind)
    if layer is None:
        raise BadInput(_("the files are not one GGUF model"))
    return store.blob(layer.digest)


def _config(request: CreateRequest, layers: Sequence[StoredLayer], summary: GgufSummary) -> dict[str, Any]:
    """What the store keeps about the model, in Ollama's words and, under "h2q", in ours."""
    own: dict[str, Any] = {}
    if request.from_:
        tag = request.from_.removeprefix(MODEL_PREFIX)
        own["parent"] = full_tag(tag) if request.from_ != tag else tag
    if request.card:
        own["card"] = request.card
    if request.conversations:
        own["conversations"] = [list(one) for one in request.conversations]
    return {
        "model_format": "gguf",
        "model_family": summary.architecture,
        "model_families": [summary.architecture],
        "model_type": human_number(summary.parameters),
        "file_type": summary.quantization or "unknown",
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        "h2q": own,
    }


def human_number(count: int) -> str:
    """Weights as Ollama writes them: 134.52M, 7B, 1.5B."""
    for unit, letter, places in ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0)):
        if count >= unit:
            value = count / unit
            return f"{value:.0f}{letter}" if value == math.floor(value) else f"{value:.{places}f}{letter}"
    return str(count)
