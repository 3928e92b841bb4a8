"""The line of a model: the models that it continues, back to the first one."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.core.errors import H2QError
from engine.core.paths import Workspace, resolve_path
from engine.models.base_models import base_of_adapter, find_base
from engine.models.card import CARD_FILE, ModelCard, read_card
from engine.models.registry import workspace_entry
from engine.models.resolve import ModelKind, kind_of


def first_of_line(ws: Workspace, place: Path) -> Path | None:
    """The first model that the one in `place` descends from: of an adapter and a served model the base it is on, of a native model the
    one from plain text; where that is gone, the oldest ancestor that is left. None for a model without ancestors.
    """
    kind = kind_of(place)
    if kind is ModelKind.ADAPTER:
        try:
            return base_of_adapter(ws, place).place
        except H2QError:
            return None
    if kind is ModelKind.SERVED:
        found = _card(place)
        try:
            return find_base(ws, found.base_path).place if found is not None and found.base_path else None
        except H2QError:
            return None
    if kind is not ModelKind.NATIVE:
        return None
    card = _card(place)
    if card is not None and card.first and (first := _ancestor(ws, place, card, card.first)):
        return first
    oldest, seen = None, {resolve_path(place)}
    while card is not None and (parent := _ancestor(ws, place, card, card.base)):
        if resolve_path(parent) in seen:
            break
        seen.add(resolve_path(parent))
        oldest, card = parent, _card(parent)
    return oldest


def _ancestor(ws: Workspace, place: Path, card: ModelCard, name: str) -> Path | None:
    """The native model `name`, in the workspace or beside `place`, where it is older than its descendant."""
    for folder in (workspace_entry(ws, name), place.parent / name if name else None):
        if folder is None or not (folder / CARD_FILE).is_file() or kind_of(folder) is not ModelKind.NATIVE:
            continue
        found = _card(folder)
        if found is not None and found.created_at <= card.created_at:
            return folder
    return None


def _card(folder: Path) -> ModelCard | None:
    try:
        return read_card(folder)
    except (OSError, msgspec.DecodeError):
        return None
