"""Rewrites the models of the built-in server without erased conversations: their turns, Modelfiles and cards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput
from engine.core.files import fsync_dir, write_bytes, write_text
from engine.core.paths import Workspace
from engine.models.card import CARD_FILE, encode_card
from engine.models.ollama.create import modelfile
from engine.models.ollama.layout import MAX_BYTES
from engine.models.ollama.model_store import ModelStore, StoredModel
from engine.models.registry import card_of_tag, find_model
from engine.pipeline.erased_text import ErasedText


def erase_served(ws: Workspace, erased: ErasedText) -> tuple[list[Path], list[str]]:
    """Takes the conversations out of every served model; returns the rewritten files and the tags. Raises OSError.

    A model whose turns are all erased stays as its base. Unlike a trained model, one that has lost a conversation knows
    nothing of it: it leaves the lineage too.
    """
    files: list[Path] = []
    tags: list[str] = []
    store = ModelStore(ws)
    if ws.ollama.is_dir():
        with store.locked():
            for path in store.unused_blobs():
                if path.stat().st_size <= MAX_BYTES and erased.quotes(
                    path.read_bytes().decode("utf-8", "replace")
                ):
                    path.unlink()
                    files.append(path)
            for stored in store.tags():
                changed = _without(store, stored, erased)
                if changed is not None:
                    tags.append(stored.tag)
                    files += [changed.path, *_rewrite_card(ws, changed, erased)]
    for path in sorted(ws.training.glob("Modelfile_*")) if ws.training.is_dir() else ():
        if path.is_file() and erased.quotes(path.read_text(encoding="utf-8", errors="replace")):
            # One of a served model is written again from what is left; of another model none of it can stay.
            rest = _modelfile(store, path)
            if rest:
                write_text(path, rest, mode=0o600)
            else:
                path.unlink()
                fsync_dir(path.parent)
            files.append(path)
    return files, tags


def _without(store: ModelStore, stored: StoredModel, erased: ErasedText) -> StoredModel | None:
    """The tag without erased turns; None where it holds none. The caller holds the lock."""
    messages = stored.messages
    kept: list[ChatMessage] = []
    ids: list[tuple[str, int]] = []
    for id_, turns in _conversations(stored, messages):
        if id_ not in erased.ids and not any(erased.quotes(turn.content) for turn in turns):
            kept += turns
            ids.append((id_, len(turns)))
    system = "" if erased.quotes(stored.system) else stored.system
    if len(kept) == len(messages) and system == stored.system:
        return None
    layers = [layer for layer in stored.manifest.layers if layer.kind not in ("messages", "system")]
    if kept:
        rows = [{"role": turn.role, "content": turn.content} for turn in kept]
        layers.append(store.put_bytes("messages", json.dumps(rows, ensure_ascii=False).encode()))
    if system:
        layers.append(store.put_bytes("system", system.encode()))
    own = {**(stored.config.get("h2q") or {}), "conversations": [list(one) for one in ids if one[0]]}
    return store.write(stored.tag, layers, {**stored.config, "h2q": own}, replace=True)


def _conversations(
    stored: StoredModel, messages: Sequence[ChatMessage]
) -> Iterator[tuple[str, Sequence[ChatMessage]]]:
    """The turns by conversation, with its id; exchange by exchange, without one, where they are not known."""
    known = (stored.config.get("h2q") or {}).get("conversations") or []
    with suppress(TypeError, ValueError):
        sizes = [(str(id_), int(size)) for id_, size in known]
        if sizes and sum(size for _id, size in sizes) == len(messages):
            start = 0
            for id_, size in sizes:
                yield id_, messages[start : start + size]
                start += size
            return
    for start in range(0, len(messages), 2):
        yield "", messages[start : start + 2]


def _rewrite_card(ws: Workspace, stored: StoredModel, erased: ErasedText) -> list[Path]:
    card = card_of_tag(ws, stored.tag)
    if card is None:
        return []
    lineage = msgspec.structs.replace(
        card.lineage, conversations=[id_ for id_ in card.lineage.conversations if id_ not in erased.ids]
    )
    path = find_model(ws, card.name) / CARD_FILE
    write_bytes(
        path, encode_card(msgspec.structs.replace(card, weights_sha256=stored.digest, lineage=lineage))
    )
    return [path]


def _modelfile(store: ModelStore, path: Path) -> str:
    """The Modelfile of the served model that `path` is named after; "" without one."""
    try:
        stored = store.find(path.name.removeprefix("Modelfile_"))
    except BadInput:
        return ""
    if stored.model is None:
        return ""
    return modelfile(
        str(stored.model),
        adapter=stored.adapter,
        system=stored.system,
        parameters=stored.parameters,
        messages=stored.messages,
        note=stored.tag,
    )
