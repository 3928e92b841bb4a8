"""What a model name or path stands for, decided once for every command. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _, bracketed
from engine.core.paths import Workspace, resolve_path
from engine.models.card import ADAPTER_CONFIG, CARD_FILE, read_card
from engine.models.fetch import FETCHABLE
from engine.models.hf_directory import CONFIG_FILE
from engine.models.hub_cache import find_in_hub, list_hub
from engine.models.ollama.client import MODEL_PREFIX
from engine.models.registry import GGUF_SUFFIX, NAME, list_models

ON_BASE = " + "
"""Separates a base from the adapter in a name such as `qwen3 + mine`."""


class ModelKind(StrEnum):
    """How a model on disk is loaded."""

    NATIVE = "native"
    """The built-in byte-level model (`native_format`)."""
    ADAPTER = "adapter"
    """A PEFT directory; its base is loaded first."""
    HF = "hf"
    """A Hugging Face directory."""
    GGUF = "gguf"
    """A GGUF file."""
    SERVED = "served"
    """A card whose model is in the workspace's own store: a base with conversations before every chat."""


def kind_of(path: Path) -> ModelKind:
    """The kind of the model at `path`, from its card and file names alone; a broken file still has a kind."""
    if not path.is_dir():
        return ModelKind.GGUF
    if (path / ADAPTER_CONFIG).is_file():
        return ModelKind.ADAPTER
    try:
        card = read_card(path)
    except FileNotFoundError:
        return ModelKind.HF
    except (OSError, msgspec.DecodeError):
        # Loading the native model reports what is wrong with the card.
        return ModelKind.NATIVE
    if card.served:
        return ModelKind.SERVED
    # An exported merge of an adapter keeps the adapter's card with its mode and no base path.
    return ModelKind.HF if card.base_path or card.mode == "lora" else ModelKind.NATIVE


def adapter_on(adapter: str, base: str) -> str:
    """The name that asks for `adapter` on a base of the user's choice."""
    return f"{base}{ON_BASE}{adapter}"


def split_adapter(name: str) -> tuple[str, str]:
    """(model or adapter, the base named with it or "")."""
    base, plus, adapter = name.rpartition(ON_BASE)
    return (adapter, base) if plus else (name, "")


class ModelOrigin(StrEnum):
    """Where a model was found."""

    WORKSPACE = "workspace"
    PATH = "path"
    HUB = "hub"
    """The local cache of the Hugging Face hub."""
    SERVER = "server"
    """The workspace's own store, from which the built-in server answers."""
    OLLAMA = "ollama"


@dataclass(frozen=True)
class ModelPlace:
    """A model that a name stands for."""

    reference: str
    """A name for `--model` that means the same in every folder and process."""
    kind: ModelKind
    origin: ModelOrigin
    folder: Path | None
    """Directory or GGUF file; None for a tag, whose files the stores know."""

    @property
    def path(self) -> Path:
        """Directory or GGUF file of a model that is no tag."""
        assert self.folder is not None, self.reference
        return self.folder

    @property
    def tag(self) -> str:
        """The tag in a store; "" for a model from elsewhere."""
        tagged = self.origin in (ModelOrigin.SERVER, ModelOrigin.OLLAMA)
        return self.reference.removeprefix(MODEL_PREFIX) if tagged else ""

    @property
    def name(self) -> str:
        """A short name for people."""
        return self.tag or (Path(self.reference).name if self.origin is ModelOrigin.PATH else self.reference)


def find_place(ws: Workspace, name: str, relative_to: Path | None = None) -> ModelPlace:
    """The model that `name` stands for, for every command alike.

    Looked at in this order: the workspace, the path (relative to `relative_to`, else to the current folder), the cache
    of the Hugging Face hub, Ollama. The prefix `ollama:` skips the others. Of BASE + ADAPTER, the adapter.

    Raises BadInput for an unknown name, with the nearest ones there are.
    """
    name = split_adapter(name)[0]
    if name.startswith(MODEL_PREFIX):
        return _tagged(ws, name.removeprefix(MODEL_PREFIX))
    path = Path(name).expanduser()
    if not path.is_absolute():
        path = (relative_to or Path.cwd()) / path
    return (
        _in_workspace(ws, name)
        or _at_path(ws, path)
        or _in_hub(name)
        or _in_ollama(ws, name)
        or _raise_unknown(ws, name, path)
    )


def known_names(ws: Workspace) -> list[str]:
    """The names that `find_place` finds without a path: the workspace's, the hub cache's, Ollama's tags."""
    from engine.models.ollama.store import installed_tags

    return list(
        dict.fromkeys(
            [
                *(card.name for card in list_models(ws)),
                *(place.reference for place in workspace_bases(ws)),
                *(name for name, _path in list_hub()),
                *installed_tags(ws),
            ]
        )
    )


def workspace_bases(ws: Workspace) -> list[ModelPlace]:
    """The models in the workspace's `models/` that it has not trained, by name: GGUF files, Hugging Face directories."""
    try:
        entries = sorted(ws.models.iterdir())
    except OSError:
        return []
    places = (
        _in_workspace(ws, entry.stem if entry.suffix == GGUF_SUFFIX else entry.name)
        for entry in entries
        if not entry.name.startswith(".")
    )
    found = [place for place in places if place is not None and place.kind in (ModelKind.HF, ModelKind.GGUF)]
    return list(dict.fromkeys(found))


def _in_workspace(ws: Workspace, name: str) -> ModelPlace | None:
    if not NAME.fullmatch(name):
        return None
    for folder in (ws.models / name, ws.adapters / name):
        if any((folder / file).is_file() for file in (CARD_FILE, ADAPTER_CONFIG, CONFIG_FILE)):
            return ModelPlace(name, kind_of(folder), ModelOrigin.WORKSPACE, _in_resolved_folder(folder))
    for file in (ws.models / f"{name}{GGUF_SUFFIX}", ws.models / name):
        if file.suffix == GGUF_SUFFIX and file.is_file():
            return ModelPlace(file.stem, ModelKind.GGUF, ModelOrigin.WORKSPACE, _in_resolved_folder(file))
    return None


def _at_path(ws: Workspace, path: Path) -> ModelPlace | None:
    """A directory with a model, or any file: reading it says what is wrong with it."""
    from engine.models.ollama.store import tag_of_manifest

    path = _in_resolved_folder(path)
    if path.is_file():
        tag = tag_of_manifest(ws, path)
        if tag:
            return _tagged(ws, tag)
        return ModelPlace(str(path), ModelKind.GGUF, ModelOrigin.PATH, path)
    if any((path / file).is_file() for file in (CARD_FILE, ADAPTER_CONFIG, CONFIG_FILE)):
        return ModelPlace(str(path), kind_of(path), ModelOrigin.PATH, path)
    return None


def _in_resolved_folder(path: Path) -> Path:
    """`path` absolute, its folders without links; a link at its end keeps its name, which its target may lack."""
    return resolve_path(path.parent) / path.name if path.name not in ("", "..") else resolve_path(path)


def _in_hub(name: str) -> ModelPlace | None:
    path = find_in_hub(name)
    if path is None:
        return None
    kind = ModelKind.GGUF if path.suffix == GGUF_SUFFIX else kind_of(path)
    return ModelPlace(name, kind, ModelOrigin.HUB, path)


def _in_ollama(ws: Workspace, name: str) -> ModelPlace | None:
    """A tag of a local store, or of an Ollama that answers and keeps its store elsewhere."""
    from engine.models.ollama.layout import TAG
    from engine.models.ollama.running import installed_models
    from engine.models.ollama.store import find_manifest

    if TAG.fullmatch(name) is None:
        return None
    if find_manifest(ws, name) is not None or {name, f"{name}:latest"} & set(installed_models()):
        return _tagged(ws, name)
    return None


def _tagged(ws: Workspace, tag: str) -> ModelPlace:
    from engine.models.ollama.store import is_own

    origin = ModelOrigin.SERVER if is_own(ws, tag) else ModelOrigin.OLLAMA
    return ModelPlace(MODEL_PREFIX + tag, ModelKind.GGUF, origin, None)


def _raise_unknown(ws: Workspace, name: str, path: Path) -> NoReturn:
    """Raises BadInput: what is at the path, else where was looked and what there is instead."""
    if path.is_dir() and ("/" in name or name in (".", "..")):
        raise BadInput(_("there is no model in this directory"), path=path, hint="h2q-tui models list")
    if name.startswith(("/", ".", "~")):
        raise BadInput(_("the file does not exist"), path=path, hint="h2q-tui models list")
    fetchable = next((model for model in FETCHABLE if name.lower() in model.aliases), None)
    if fetchable is not None:
        raise BadInput(
            _("{name} is not fetched yet").format(name=name), hint=f"h2q-tui models fetch {fetchable.name}"
        )
    names = known_names(ws)
    near = get_close_matches(name, names, n=3, cutoff=0.5) or names[:5]
    text = _("there is no model named {name} in the workspace, the Hugging Face cache or Ollama").format(
        name=name
    )
    raise BadInput(bracketed(text, _(", ").join(near)) if near else text, hint="h2q-tui models list")


def find_adapter(ws: Workspace, name: str) -> Path:
    """The folder of an adapter, by name or path. Raises BadInput."""
    folder = Path(name).expanduser()
    if "/" not in name and kind_of(ws.adapters / name) is ModelKind.ADAPTER:
        return ws.adapters / name
    if kind_of(folder) is not ModelKind.ADAPTER:
        raise BadInput(_("there is no adapter in this directory"), path=folder, hint="h2q-tui models list")
    return folder.resolve()
