"""Exports in the workspace and what they were made from. Read by light commands, so it imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.core.paths import Workspace
from engine.models.card import Lineage


class _Card(msgspec.Struct):
    lineage: Lineage = Lineage()


class ExportRecord(msgspec.Struct):
    """The part of an export's report that lasts."""

    name: str
    path: str
    card: _Card | None = None


def list_exports(ws: Workspace) -> list[ExportRecord]:
    """Those whose report lies beside them and whose files are still there; broken reports are left out."""
    found = []
    for file in sorted([*ws.exports.glob("*.json"), *ws.exports.glob("*/export.json")]):
        try:
            one = msgspec.json.decode(file.read_bytes(), type=ExportRecord)
        except (OSError, msgspec.DecodeError):
            continue
        if Path(one.path).exists():
            found.append(one)
    return found


def exports_of(ws: Workspace, conversations: list[str]) -> list[str]:
    """Paths of the exports whose model was trained on one of the conversations."""
    wanted = set(conversations)
    return [
        one.path
        for one in list_exports(ws)
        if one.card is not None and wanted.intersection(one.card.lineage.conversations)
    ]
