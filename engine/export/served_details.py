"""What `/api/show` says of a model of the workspace's own store, with the lineage and the verdict of what it serves."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from engine.core.errors import BadInput, H2QError
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.models.card import ModelCard, load_card
from engine.models.gguf.header import read_metadata
from engine.models.ollama.create import modelfile
from engine.models.ollama.model_store import StoredModel
from engine.models.registry import find_model, in_use
from engine.models.tool_calls import capabilities
from engine.validation.report import Verdict, list_reports, load_report

_TEMPLATE = "tokenizer.chat_template"


def show_model(ws: Workspace, stored: StoredModel) -> dict[str, Any]:
    """The answer of `/api/show`; arrays of the file are left out. Raises BadInput for a broken or missing file."""
    if stored.model is None:
        raise BadInput(_("the files are not one GGUF model"), path=stored.path)
    values = read_metadata(stored.model)
    parameters = stored.parameters
    return {
        "license": "\n".join(stored.licenses),
        "modelfile": modelfile(
            str(stored.model),
            adapter=stored.adapter,
            system=stored.system,
            parameters=parameters,
            messages=stored.messages,
        ),
        "parameters": "\n".join(
            f"{name:<30} {one}"
            for name, value in parameters.items()
            for one in (value if isinstance(value, list) else [value])
        ),
        "template": str(values.get(_TEMPLATE) or ""),
        "system": stored.system,
        "messages": [{"role": one.role, "content": one.content} for one in stored.messages],
        "details": stored.details,
        "model_info": {name: value for name, value in values.items() if name != _TEMPLATE},
        "capabilities": capabilities(str(values.get(_TEMPLATE) or "")),
        "modified_at": datetime.fromtimestamp(stored.modified_at, UTC).isoformat(),
        "h2q": origin_of(ws, stored),
    }


def origin_of(ws: Workspace, stored: StoredModel) -> dict[str, Any]:
    """What it serves: name, mode and base of the model, its lineage in figures, its newest verdict; {} for another."""
    card = card_of(ws, stored)
    if card is None:
        return {}
    verdict = newest_verdict(ws, card.name)
    used = None
    with suppress(H2QError):
        used = in_use(ws)
    return {
        "name": card.name,
        "mode": card.mode,
        "base": card.base,
        "run_id": card.run_id,
        "created_at": card.created_at,
        "conversations": len(card.lineage.conversations),
        "dataset_sha256": card.lineage.dataset_sha256,
        "in_use": used == card.name,
        "verdict": None if verdict is None else msgspec.to_builtins(verdict),
    }


def card_of(ws: Workspace, stored: StoredModel) -> ModelCard | None:
    """The card of the model of the workspace that it serves; None for another, and where that is gone."""
    if not stored.card_name:
        return None
    try:
        return load_card(find_model(ws, stored.card_name))
    except BadInput:
        return None


def newest_verdict(ws: Workspace, name: str) -> Verdict | None:
    """The newest verdict on the model `name` as the new one; None without one. Broken reports are skipped."""
    for file in list_reports(ws):
        try:
            report = load_report(file)
        except BadInput:
            continue
        if report is not None and report.verdict.new.name == name:
            return report.verdict
    return None
