"""What can answer in a chat, by name: models of the registry, Hugging Face directories, adapters. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.models.card import read_card
from engine.models.registry import find_model

ON = " + "
"""Between a base and an adapter that is to stand on it."""


def adapter_on(adapter: str, base: str) -> str:
    """How the service is asked for an adapter on a base of the person's choice."""
    return f"{base}{ON}{adapter}"


def split_adapter(name: str) -> tuple[str, str]:
    """(model or adapter, the base named with it or "")."""
    base, plus, adapter = name.rpartition(ON)
    return (adapter, base) if plus else (name, "")


def find_answering(ws: Workspace, name: str) -> Path:
    """The folder of what is to answer. Raises BadInput when there is nothing of the kind."""
    wanted, _base = split_adapter(name)
    folder = Path(wanted).expanduser()
    try:
        return find_model(ws, wanted)
    except BadInput:
        if (folder / "adapter_config.json").is_file() or (folder / "config.json").is_file():
            return folder.resolve()
        raise


def find_adapter(ws: Workspace, name: str) -> Path:
    """The folder of an adapter, by name or path. Raises BadInput when it is none."""
    folder = Path(name).expanduser()
    if (ws.adapters / name / "adapter_config.json").is_file() and "/" not in name:
        return ws.adapters / name
    if not (folder / "adapter_config.json").is_file():
        raise BadInput(_("there is no adapter in this directory"), path=folder, hint="h2q-tui models list")
    return folder.resolve()


def is_native(folder: Path) -> bool:
    """Whether our own card says that this is a whole model of ours. A file (GGUF) is none."""
    if not folder.is_dir():
        return False
    try:
        return not read_card(folder).base_path
    except FileNotFoundError:
        return False
    except (OSError, msgspec.DecodeError):
        return not (folder / "adapter_config.json").is_file()
