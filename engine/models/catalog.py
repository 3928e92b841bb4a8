"""Every model that a name finds, with what a list shows of it: trained here, added, in the hub cache, in Ollama.

The app reads it, so it imports nothing heavy: headers and file names only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from engine.core.errors import BadInput, H2QError, UsageProblem, error_text
from engine.core.filenames import shell_command
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.models.card import ADAPTER_WEIGHTS, WEIGHTS_FILE, ModelCard
from engine.models.gguf.header import GgufSummary, read_summary
from engine.models.hf_directory import read_directory
from engine.models.hub_cache import list_hub
from engine.models.ollama.layout import full_tag
from engine.models.ollama.model_store import ModelStore
from engine.models.ollama.running import installed_models
from engine.models.ollama.store import find_gguf, installed_tags, is_own
from engine.models.registry import find_model, list_models
from engine.models.resolve import ModelKind, ModelOrigin, ModelPlace, kind_of, workspace_bases


@dataclass(frozen=True)
class ListedModel:
    """A row of the list. Unknown texts are "", unknown numbers 0."""

    name: str
    """What `--model` takes."""
    kind: ModelKind
    origin: ModelOrigin
    path: str
    """Directory or file; "" for an Ollama tag whose store cannot be read."""
    bytes: int
    """Of the weights, on disk."""
    architecture: str
    weight_format: str
    """Quantization or number format of the weights: Q4_K_M, BF16."""
    context: int
    """Bytes for a native model, tokens for others."""
    problem: str
    """Why it cannot be trained on; "" if it can, as far as its headers show."""
    card: ModelCard | None = None
    """Of a model that was trained here."""
    parameters: int = 0
    """Number of weights, as far as headers and sizes of files tell it."""


def list_all(ws: Workspace) -> list[ListedModel]:
    """Each model once: the workspace's own, newest first, then the bases: in its `models/`, the hub cache, Ollama."""
    trained = trained_models(ws)
    return [*trained, *beside(trained, list_bases(ws))]


def beside(trained: Sequence[ListedModel], bases: Sequence[ListedModel]) -> list[ListedModel]:
    """The bases that do not stand among the trained models; an adapter merged into its base and added here is both."""
    names = {model.name for model in trained}
    return [base for base in bases if base.origin is not ModelOrigin.WORKSPACE or base.name not in names]


def trained_models(ws: Workspace) -> list[ListedModel]:
    """The models and adapters that were trained here, newest first."""
    return [_trained(ws, card) for card in list_models(ws)]


def list_bases(ws: Workspace) -> list[ListedModel]:
    """The models that an adapter can be trained on, as far as this machine has them; an adapter merged into its base and
    added here is one of them."""
    hub = [
        ModelPlace(name, ModelKind.GGUF if path.suffix == ".gguf" else kind_of(path), ModelOrigin.HUB, path)
        for name, path in list_hub()
    ]
    stored = installed_tags(ws)
    own = {full_tag(card.served) for card in list_models(ws) if card.served}
    tags = [tag for tag in dict.fromkeys([*stored, *installed_models()]) if tag not in own]
    return [
        *(_described(place) for place in (*workspace_bases(ws), *hub)),
        *(_of_ollama(ws, tag, readable=tag in stored) for tag in tags),
    ]


def describe_model(ws: Workspace, place: ModelPlace) -> ListedModel:
    """The row of a model that was not trained here."""
    if place.folder is not None:
        return _described(place)
    return _of_ollama(ws, place.tag, readable=True)


def check_base(place: ModelPlace, mode: str) -> None:
    """Raises what speaks against training on the model in `mode` ("native", "lora", "auto" …), before a run begins.

    BadInput as `check_usable`, UsageProblem for a model that another mode trains.
    """
    if mode == "message" and place.kind in (ModelKind.NATIVE, ModelKind.HF):
        raise not_served(place.name, place.reference)
    if place.kind is ModelKind.NATIVE:
        if mode == "lora":
            raise UsageProblem(
                _("{name} is the built-in model; lora adapts other models").format(name=place.name),
                hint=shell_command("h2q-tui", "train", "--mode", "native", "--model", place.reference),
            )
        return
    if place.kind is ModelKind.SERVED and mode in ("lora", "auto"):
        raise UsageProblem(
            _(
                "{name} is a model with conversations before every chat; an adapter is trained on its base"
            ).format(name=place.name),
            hint="h2q-tui models list",
        )
    if mode in ("native", "scratch"):
        raise UsageProblem(
            _("{mode} trains the built-in model, and {name} is another").format(mode=mode, name=place.name),
            hint=shell_command("h2q-tui", "train", "--mode", "lora", "--model", place.reference),
        )
    check_usable(place)


def not_served(name: str, reference: str) -> UsageProblem:
    """The error for a base of `message` that is no GGUF file."""
    return UsageProblem(
        _("message needs a GGUF file or a tag, and {name} is another kind of model").format(name=name),
        hint=shell_command("h2q-tui", "export", reference, "--to", "gguf"),
    )


def check_usable(place: ModelPlace) -> None:
    """Raises BadInput for a base on disk that no command can load, as far as a list shows: another kind, broken files."""
    if place.folder is None or place.kind not in (ModelKind.HF, ModelKind.GGUF):
        return
    if problem := _described(place).problem:
        raise BadInput(problem, path=place.folder, hint="h2q-tui models list")


def _trained(ws: Workspace, card: ModelCard) -> ListedModel:
    folder = find_model(ws, card.name)
    if card.served:
        return _served(ws, card, folder)
    if kind_of(folder) is ModelKind.HF:
        return replace(
            _described(ModelPlace(card.name, ModelKind.HF, ModelOrigin.WORKSPACE, folder)), card=card
        )
    weights = folder / (ADAPTER_WEIGHTS if card.base_path else WEIGHTS_FILE)
    return ListedModel(
        name=card.name,
        kind=ModelKind.ADAPTER if card.base_path else kind_of(folder),
        origin=ModelOrigin.WORKSPACE,
        path=str(folder),
        bytes=_size(weights),
        architecture="",
        weight_format="",
        context=card.context,
        problem="",
        card=card,
    )


def _served(ws: Workspace, card: ModelCard, folder: Path) -> ListedModel:
    """A model that is a tag of the workspace's own store."""
    row = _of_ollama(ws, card.served, readable=True)
    try:
        layers = ModelStore(ws).find(card.served).manifest.layers
    except BadInput:
        layers = ()
    return replace(
        row,
        # As of an adapter: what stands beside the weights of the base.
        bytes=sum(layer.size for layer in layers if layer.kind != "model"),
        parameters=0,
        name=card.name,
        kind=ModelKind.SERVED,
        origin=ModelOrigin.WORKSPACE,
        path=str(folder),
        context=card.context,
        card=card,
    )


def _described(place: ModelPlace) -> ListedModel:
    assert place.folder is not None
    if place.kind is ModelKind.GGUF:
        return _gguf(place.reference, place.origin, place.folder)
    summary = read_directory(place.folder)
    return ListedModel(
        name=place.reference,
        kind=place.kind,
        origin=place.origin,
        path=str(place.folder),
        bytes=summary.bytes,
        architecture=summary.architecture,
        weight_format=summary.weight_format,
        context=summary.context,
        problem=summary.problem,
        parameters=summary.bytes // (4 if summary.weight_format == "F32" else 2),
    )


def _of_ollama(ws: Workspace, tag: str, *, readable: bool) -> ListedModel:
    """A tag. One that only a running Ollama has is not asked for its file, which takes a request each."""
    if not readable:
        return ListedModel(tag, ModelKind.GGUF, ModelOrigin.OLLAMA, "", 0, "", "", 0, "")
    origin = ModelOrigin.SERVER if is_own(ws, tag) else ModelOrigin.OLLAMA
    try:
        return _gguf(tag, origin, find_gguf(ws, tag))
    except H2QError as problem:
        return ListedModel(tag, ModelKind.GGUF, origin, "", 0, "", "", 0, problem.message)


def _gguf(name: str, origin: ModelOrigin, file: Path) -> ListedModel:
    try:
        stat = file.stat()
        summary = _summary(file, stat.st_size, stat.st_mtime_ns)
    except OSError as problem:
        return ListedModel(name, ModelKind.GGUF, origin, str(file), 0, "", "", 0, error_text(problem))
    except BadInput as problem:
        return ListedModel(name, ModelKind.GGUF, origin, str(file), _size(file), "", "", 0, problem.reason)
    return ListedModel(
        name=name,
        kind=ModelKind.GGUF,
        origin=origin,
        path=str(file),
        bytes=_size(file),
        architecture=summary.architecture,
        weight_format=summary.quantization,
        context=summary.context,
        problem=summary.problem,
        parameters=summary.parameters,
    )


@lru_cache(maxsize=256)
def _summary(file: Path, _size: int, _changed_ns: int) -> GgufSummary:
    """The summary of a file that has not changed is read once: its vocabulary takes a tenth of a second to pass over."""
    return read_summary(file)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def origin_label(origin: ModelOrigin) -> str:
    """Where a model is, in a word."""
    return {
        ModelOrigin.WORKSPACE: _("workspace"),
        ModelOrigin.PATH: _("folder"),
        ModelOrigin.HUB: _("Hugging Face cache"),
        ModelOrigin.SERVER: _("built-in server"),
        ModelOrigin.OLLAMA: "Ollama",
    }[origin]
