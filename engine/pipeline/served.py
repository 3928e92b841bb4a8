"""Models for the built-in server: their names, and the same models in an Ollama that answers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import H2QError
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.export.create_model import CreateRequest, create_model
from engine.export.created import CreatedCheck, check_created, created_sentences
from engine.export.plan import OLLAMA_CONTEXT
from engine.models.base_models import BaseModel
from engine.models.ollama.create import create_model as create_there
from engine.models.ollama.layout import MANIFESTS
from engine.models.ollama.model_store import ModelStore
from engine.models.ollama.running import installed_models
from engine.models.ollama.store import is_own
from engine.models.registry import workspace_entry
from engine.pipeline.stages import StagePlan
from engine.runs.context import RunContext

_LONGEST = 48
"""Characters of the base in a name."""


def personal_name(ws: Workspace, base: BaseModel, now: float | None = None) -> str:
    """A free name: `BASE-personal-YYYYMMDD-HHMM`, then with `-2` …"""
    text = base.adapter.name if base.adapter is not None else base.name
    kept = "".join(one if one.isascii() and (one.isalnum() or one in "._-") else "-" for one in text.lower())
    stem = kept.strip("-._")[:_LONGEST].rstrip("-._") or "model"
    stem = f"{stem}-personal-{time.strftime('%Y%m%d-%H%M', time.localtime(now))}"
    store = ModelStore(ws)
    names = (stem if number == 1 else f"{stem}-{number}" for number in range(1, 10_000))
    return next(name for name in names if workspace_entry(ws, name) is None and not store.has(name))


def remove_unfinished(ws: Workspace) -> None:
    """Removes served models whose run ended before they got their card; the caller holds the training lock."""
    store = ModelStore(ws)
    if not (ws.ollama / MANIFESTS).is_dir():
        return
    for stored in store.tags():
        name = stored.tag.removesuffix(":latest")
        if stored.card_name == name and workspace_entry(ws, name) is None:
            store.delete(stored.tag)


class ServedTag(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a training created for the built-in server."""

    tag: str
    check: CreatedCheck
    ollama: str = ""
    """Its name in an Ollama that answered; "" where it was not created there."""


def serve_adapter(ctx: RunContext, plan: StagePlan, base: BaseModel, folder: Path) -> ServedTag | None:
    """The stage `serve`: the adapter in `folder` on its GGUF base as a tag of the built-in server, checked there.

    The blob of the base is a link to its file. A tag that does not answer as it was judged is removed again; None then,
    and where it cannot be created: the adapter itself is whole.
    """
    ws, name = ctx.workspace, personal_name(ctx.workspace, replace(base, adapter=None))
    with plan.open(ctx, "serve") as stage:
        try:
            statuses = create_model(
                ws,
                CreateRequest(
                    name, from_=str(folder), parameters=_context_of(base), replace=False, card=folder.name
                ),
            )
            for _status in statuses:
                ctx.check_stop()
        except H2QError as problem:
            stage.skip(_("not created: {reason}").format(reason=problem.message))
            return None
        check = report_check(ctx, name, replace(base, adapter=None))
        if check.faults:
            ModelStore(ws).delete(name)
            stage.skip(_("not created: {reason}").format(reason=_("; ").join(created_sentences(check))))
            return None
        stage.detail = _("{name} for chat and the built-in server").format(name=name)
        return ServedTag(tag=name, check=check)


def report_check(ctx: RunContext, tag: str, base: BaseModel) -> CreatedCheck:
    """The check of a created model, told in the log."""
    check = check_created(ctx.workspace, tag, base, ctx.check_stop)
    for sentence in created_sentences(check):
        ctx.log(sentence, "warning" if check.faults else "info")
    return check


def _context_of(base: BaseModel) -> dict[str, Any]:
    return {"num_ctx": min(base.dimensions.context, OLLAMA_CONTEXT)}


def create_in_ollama(
    ctx: RunContext,
    base: BaseModel,
    name: str,
    *,
    messages: Sequence[ChatMessage],
    parameters: Mapping[str, Any],
) -> str:
    """The same model in an Ollama that answers and has the base as a tag; its name there, "" where there is none.

    What goes wrong there is logged: the model in the built-in server is whole without it.
    """
    tag = base.ollama_tag
    if not tag or base.adapter is not None or is_own(ctx.workspace, tag):
        return ""
    if not {tag, f"{tag}:latest"} & set(installed_models()):
        return ""
    try:
        create_there(
            name,
            {},
            {},
            from_=tag,
            messages=messages,
            parameters=parameters,
            step=lambda _status: ctx.check_stop(),
        )
    except H2QError as problem:
        ctx.log(_("not created in Ollama: {reason}").format(reason=problem.message), "warning")
        return ""
    ctx.log(_("created in Ollama as well: {command}").format(command=f"ollama run {name}"))
    return name
