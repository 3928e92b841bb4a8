"""Which models there are and which one is in use. Read by the app, so it imports nothing heavy."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.models.card import CARD_FILE, ModelCard, read_card

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
"""Names that Ollama takes too."""


def list_models(ws: Workspace) -> list[ModelCard]:
    """Models and adapters of the workspace, newest first; a folder without a readable card is left out."""
    cards = []
    places = [folder for root in (ws.models, ws.adapters) if root.is_dir() for folder in root.iterdir()]
    for folder in places:
        if folder.name.startswith(".") or not (folder / CARD_FILE).is_file():
            continue
        try:
            cards.append(read_card(folder))
        except (OSError, msgspec.DecodeError):
            continue
    return sorted(cards, key=lambda card: card.created_at, reverse=True)


def find_model(ws: Workspace, name: str) -> Path:
    """The folder of a model or adapter, by its name in the registry or by its path. Raises BadInput."""
    if NAME.fullmatch(name):
        for place in (ws.models, ws.adapters):
            if (place / name / CARD_FILE).is_file():
                return place / name
    folder = Path(name).expanduser()
    if (folder / CARD_FILE).is_file():
        return folder.resolve()
    if folder.is_dir():
        raise BadInput(_("there is no model in this directory"), path=folder, hint="h2q-tui models list")
    raise BadInput(_("there is no model named {name}").format(name=name), hint="h2q-tui models list")


def in_use(ws: Workspace) -> str | None:
    """Name of the model in use, as `config/models.json` says; None when there is none.

    Raises BadInput when the file is broken.
    """
    try:
        found = json.loads(ws.models_json.read_text(encoding="utf-8"))
        brain = found.get("brain_models") or {}
        name = brain.get("leftbrain") or found.get("default_model")
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as problem:
        raise BadInput(
            _("the model configuration is not JSON"),
            path=ws.models_json,
            line=problem.lineno,
            hint="h2q-tui rollback",
        ) from problem
    except (AttributeError, UnicodeDecodeError) as problem:
        raise BadInput(
            _("the model configuration is broken"), path=ws.models_json, hint="h2q-tui rollback"
        ) from problem
    return name if isinstance(name, str) and name else None


def new_name(ws: Workspace, mode: str, now: float | None = None) -> str:
    """A free name: `native-YYYYMMDD`, then `native-YYYYMMDD-2` …"""
    stem = f"{mode}-{time.strftime('%Y%m%d', time.localtime(now))}"
    names = (stem if number == 1 else f"{stem}-{number}" for number in range(1, 10_000))
    return next(
        name for name in names if not any((root / name).exists() for root in (ws.models, ws.adapters))
    )
