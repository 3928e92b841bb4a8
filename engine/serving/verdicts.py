"""What a served model says of itself: where it comes from, what it was trained on, and how it was judged.

Counts, hashes and figures only: a client learns nothing that was said.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.paths import Workspace
from engine.export.served_details import newest_verdict
from engine.models.card import ModelCard

_VERDICT = ("decision", "n_cases", "n_groups", "delta", "p_value", "alpha", "look", "ci95", "sentence")


def provenance(ws: Workspace, card: ModelCard | None, *, in_use: bool) -> dict[str, Any]:
    """Lineage and verdict of a model that was trained here; {"in_use": False} of another one."""
    if card is None:
        return {"in_use": in_use}
    lineage = card.lineage
    return {
        "in_use": in_use,
        "mode": card.mode,
        "base": card.base or card.base_path,
        "first": card.first or card.name,
        "run_id": card.run_id,
        "created_at": card.created_at,
        "weights_sha256": card.weights_sha256,
        "lineage": {
            "conversations": len(lineage.conversations),
            "clusters": len(lineage.clusters),
            "texts": len(lineage.texts),
            "dataset_sha256": lineage.dataset_sha256,
            "settings_sha256": lineage.settings_sha256,
            "newest_conversation": lineage.newest_conversation,
        },
        "verdict": _verdict(ws, card.name),
    }


def _verdict(ws: Workspace, name: str) -> dict[str, Any] | None:
    """The newest verdict on a model; None for one that was not judged."""
    verdict = newest_verdict(ws, name)
    if verdict is None:
        return None
    figures = msgspec.to_builtins(verdict)
    return {field: figures[field] for field in _VERDICT}
