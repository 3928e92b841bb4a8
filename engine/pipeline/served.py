"""Models for the built-in server: their names, and the same models in an Ollama that answers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from engine.core.chat import ChatMessage
from engine.core.errors import H2QError
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.models.base_models import BaseModel
from engine.models.hf import load_chat_template
from engine.models.ollama.create import create_model
from engine.models.ollama.layout import MANIFESTS
from engine.models.ollama.model_store import ModelStore
from engine.models.ollama.running import installed_models
from engine.models.ollama.store import is_own
from engine.models.registry import workspace_entry
from engine.runs.context import RunContext

_LONGEST = 48
"""Characters of the base in a name."""
_JOINER = "\u2060"
"""Breaks a control token that a text merely spells: Ollama reads the rendered text."""


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
    controls = [token.content for token in load_chat_template(base).tokenizer.added_tokens_decoder.values()]
    try:
        create_model(
            name,
            {},
            {},
            from_=tag,
            messages=[
                ChatMessage(role=one.role, content=_broken(one.content, controls), train=False)
                for one in messages
            ],
            parameters=parameters,
            step=lambda _status: ctx.check_stop(),
        )
    except H2QError as problem:
        ctx.log(_("not created in Ollama: {reason}").format(reason=problem.message), "warning")
        return ""
    ctx.log(_("created in Ollama as well: {command}").format(command=f"ollama run {name}"))
    return name


def _broken(text: str, controls: Sequence[str]) -> str:
    """`text` in which no control token stands whole."""
    for token in controls:
        if token.strip() and len(token) > 1:
            text = text.replace(token, f"{token[0]}{_JOINER}{token[1:]}")
    return text
