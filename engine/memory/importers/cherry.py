"""Cherry Studio: the backup zip or its `data.json`, versions 2 to 5 of it (Cherry Studio 0.9 to 1.7).

`indexedDB.topics` holds the messages; since version 4 their texts are in `indexedDB.message_blocks`. Names of
topics and the instructions of assistants are in `localStorage`, as JSON inside JSON. Answers of several models
to one question share its `askId`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from engine.memory.importers.files import OnBytes, ignore_bytes, json_members
from engine.memory.importers.parts import reason_of
from engine.memory.importers.roles import RoleMap, finished, role_of, text_or_empty, time_of, unknown_role
from engine.memory.importers.thinking import spoken
from engine.memory.points import Conversation, Skipped, Turn

NAME = "cherry"

_SAID = ("main_text", "code")
_SILENT = ("unknown", "citation", "translation")


def recognise(path: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    stored, local = value.get("indexedDB"), value.get("localStorage")
    return (isinstance(stored, dict) and "topics" in stored) or (
        isinstance(local, dict) and "persist:cherry-studio" in local
    )


def read(path: Path, role_map: RoleMap, on_bytes: OnBytes = ignore_bytes) -> Iterator[Conversation | Skipped]:
    """One conversation for each topic. Raises BadInput."""
    names: dict[str, str] = {}
    stored: Any = None
    for key, value in json_members(path, on_bytes):
        if key == "localStorage":
            names = _names(value)
        elif key == "indexedDB":
            stored = value
    topics = stored.get("topics") if isinstance(stored, dict) else None
    blocks = {
        block["id"]: block
        for block in _list(stored.get("message_blocks") if isinstance(stored, dict) else None)
        if isinstance(block, dict) and isinstance(block.get("id"), str)
    }
    for topic in _list(topics):
        if not isinstance(topic, dict) or not isinstance(topic.get("messages"), list):
            yield Skipped(reason="entry of another shape", whole=True)
            continue
        id_ = text_or_empty(topic.get("id"))
        yield from finished(
            _turns(topic["messages"], blocks, role_map),
            source=NAME,
            external_id=id_,
            title=text_or_empty(topic.get("name")) or names.get(id_, ""),
        )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _names(local: object) -> dict[str, str]:
    """Names of topics by id, from what the app's state says."""
    try:
        state = json.loads(local["persist:cherry-studio"]) if isinstance(local, dict) else {}
        state = json.loads(state["assistants"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    assistants = (
        [*_list(state.get("assistants")), state.get("defaultAssistant")] if isinstance(state, dict) else []
    )
    topics = [topic for one in assistants if isinstance(one, dict) for topic in _list(one.get("topics"))]
    return {
        text_or_empty(topic.get("id")): text_or_empty(topic.get("name"))
        for topic in topics
        if isinstance(topic, dict)
    }


def _turns(messages: list[Any], blocks: dict[str, Any], role_map: RoleMap) -> Iterator[Turn | Skipped]:
    for ask, group in groupby(messages, key=_asked):
        answers = []
        for message in group:
            turn, skipped = _turn(message, blocks, role_map)
            yield from skipped
            if turn is not None and ask:
                answers.append((bool(message.get("foldSelected")), bool(message.get("useful")), turn))
            elif turn is not None:
                yield turn
        if answers:
            kept = max(answers, key=lambda answer: answer[:2])[2]
            others = dict.fromkeys(turn.text for *_marks, turn in answers if turn.text != kept.text)
            yield msgspec.structs.replace(kept, alternatives=tuple(others))


def _asked(message: object) -> str:
    """The question that a message answers; "" for one that answers none."""
    if not isinstance(message, dict) or message.get("role") != "assistant":
        return ""
    return text_or_empty(message.get("askId"))


def _turn(
    message: object, blocks: dict[str, Any], role_map: RoleMap
) -> tuple[Turn | None, tuple[Skipped, ...]]:
    if not isinstance(message, dict):
        return None, (Skipped(reason="message of another shape"),)
    if message.get("type") == "clear":
        return None, ()
    role = role_of(message.get("role"), role_map)
    if role is None:
        return None, (unknown_role(message.get("role")),)
    skipped = []
    texts = []
    for id_ in _list(message.get("blocks")):
        block = blocks.get(id_) if isinstance(id_, str) else None
        if not isinstance(block, dict):
            skipped.append(Skipped(reason="attachment"))
            continue
        kind, content = block.get("type"), block.get("content")
        if kind in _SAID and isinstance(content, str):
            texts.append(
                f"```{text_or_empty(block.get('language'))}\n{content}\n```" if kind == "code" else content
            )
        elif kind == "error":
            skipped.append(Skipped(reason="failed answer"))
        elif kind not in _SILENT:
            skipped.append(Skipped(reason=reason_of(kind)))
    if not texts and isinstance(message.get("content"), str):
        texts.append(message["content"])
    if message.get("reasoning_content"):
        skipped.append(Skipped(reason="reasoning"))
    text, thought = spoken("\n\n".join(text for text in texts if text), role)
    skipped += thought
    if not text.strip():
        return None, tuple(skipped) or (Skipped(reason="empty message"),)
    time = time_of(message.get("createdAt"))
    turn = Turn(role=role, text=text, time=time, external_id=text_or_empty(message.get("id")))
    return turn, tuple(skipped)
