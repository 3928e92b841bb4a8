"""LobeChat: the JSON of its export (`exportType`), or the dump of its database in newer versions.

A conversation is a topic of a session; messages without a topic are the session's own. Of several answers to one
message (`parentId`), the newest is shown. Shape as written by LobeChat's source, in an older version
(`types/importer.ts`); the dump, `reasoning` and `systemRole` are not verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    build_conversation,
    parse_role,
    parse_time,
    skip_attached,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.turns import text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "lobechat"

_WORD_START = re.compile(r"(?<=[a-z0-9])_([a-z])")


def detect(path: Path, value: Any) -> bool:
    return _tables(value) is not None


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per topic of each session. Raises BadInput."""
    for _line, value in json_values(path, on_bytes):
        tables = _tables(value)
        if tables is None:
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        sessions, topics = _by_id(tables.get("sessions")), _by_id(tables.get("topics"))
        conversations: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for message in tables["messages"]:
            if isinstance(message, dict):
                message = _camel_case(message)
                key = (text_or_empty(message.get("sessionId")), text_or_empty(message.get("topicId")))
                conversations.setdefault(key, []).append(message)
            else:
                yield Skipped(reason="message of another shape")
        for (session, topic), messages in conversations.items():
            messages.sort(key=lambda message: parse_time(message.get("createdAt")) or 0)
            yield from build_conversation(
                [*_system(sessions.get(session)), *_turns(messages, options)],
                source=NAME,
                external_id=topic or session,
                title=_title(topics.get(topic)) or _title(sessions.get(session)),
            )


def _tables(value: object) -> dict[str, Any] | None:
    if isinstance(value, dict):
        for name, mark in (("state", "exportType"), ("data", "schemaHash"), ("data", "mode")):
            tables = value.get(name)
            if mark in value and isinstance(tables, dict) and isinstance(tables.get("messages"), list):
                return tables
    return None


def _by_id(rows: object) -> dict[str, dict[str, Any]]:
    listed = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {text_or_empty(row.get("id")): row for row in listed}


def _camel_case(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the names of the older form: `topicId` for `topic_id`, as the database has it."""
    return {_WORD_START.sub(lambda found: found[1].upper(), name): value for name, value in row.items()}


def _title(row: dict[str, Any] | None) -> str:
    meta = row.get("meta") if row else None
    named = (row or {}).get("title") or (meta.get("title") if isinstance(meta, dict) else "")
    return text_or_empty(named)


def _system(session: dict[str, Any] | None) -> list[Turn | Skipped]:
    config = session.get("config") if session else None
    text = config.get("systemRole") if isinstance(config, dict) else None
    return text_turn(Role.SYSTEM, text) if isinstance(text, str) and text.strip() else []


def _turns(messages: list[dict[str, Any]], options: ImportOptions) -> list[Turn | Skipped]:
    items: list[Turn | Skipped] = []
    answered: dict[str, int] = {}
    """Place among the items of the answer to each message."""
    for message in messages:
        found = _message(message, options)
        turn = next((item for item in found if isinstance(item, Turn)), None)
        parent = text_or_empty(message.get("parentId"))
        items += [item for item in found if item is not turn]
        if turn is None:
            continue
        if turn.role is not Role.ASSISTANT or not parent:
            items.append(turn)
            continue
        place = answered.get(parent)
        asked_since = place is not None and any(
            isinstance(item, Turn) and item.external_id == parent for item in items[place:]
        )
        if place is None or asked_since:
            answered[parent] = len(items)
            items.append(turn)
            continue
        earlier = items[place]
        if isinstance(earlier, Turn):
            texts = tuple(text for text in (*earlier.alternatives, earlier.text) if text != turn.text)
            items[place] = msgspec.structs.replace(turn, alternatives=tuple(dict.fromkeys(texts)))
    return items


def _message(message: dict[str, Any], options: ImportOptions) -> list[Turn | Skipped]:
    role = parse_role(message.get("role"), options.roles)
    if role is None:
        return [unknown_role(message.get("role"))]
    if role is Role.TOOL:
        return [Skipped(reason="tool message")]
    skipped = skip_attached(message.get("files")) + skip_attached(message.get("imageList"), "image")
    skipped += skip_attached(message.get("tools"), "tool message")
    if message.get("reasoning"):
        skipped.append(Skipped(reason="reasoning"))
    return text_turn(
        role,
        message.get("content"),
        time=parse_time(message.get("createdAt")),
        external_id=text_or_empty(message.get("id")),
        skipped=skipped,
        reason="failed answer" if message.get("error") else "empty message",
    )
