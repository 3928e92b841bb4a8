"""What a model name or path stands for, decided once for chat, validation and export. Imports nothing heavy."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.models.card import ADAPTER_CONFIG, read_card
from engine.models.registry import find_model

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
    # An exported merge of an adapter keeps the adapter's card with its mode and no base path.
    return ModelKind.HF if card.base_path or card.mode == "lora" else ModelKind.NATIVE


def adapter_on(adapter: str, base: str) -> str:
    """The name that asks for `adapter` on a base of the user's choice."""
    return f"{base}{ON_BASE}{adapter}"


def split_adapter(name: str) -> tuple[str, str]:
    """(model or adapter, the base named with it or "")."""
    base, plus, adapter = name.rpartition(ON_BASE)
    return (adapter, base) if plus else (name, "")


def resolve_model(ws: Workspace, name: str) -> Path:
    """The folder of a model, adapter or Hugging Face directory, by name or path. Raises BadInput."""
    model, _base = split_adapter(name)
    folder = Path(model).expanduser()
    try:
        return find_model(ws, model)
    except BadInput:
        if (folder / ADAPTER_CONFIG).is_file() or (folder / "config.json").is_file():
            return folder.resolve()
        raise


def find_adapter(ws: Workspace, name: str) -> Path:
    """The folder of an adapter, by name or path. Raises BadInput."""
    folder = Path(name).expanduser()
    if "/" not in name and kind_of(ws.adapters / name) is ModelKind.ADAPTER:
        return ws.adapters / name
    if kind_of(folder) is not ModelKind.ADAPTER:
        raise BadInput(_("there is no adapter in this directory"), path=folder, hint="h2q-tui models list")
    return folder.resolve()
