"""Open WebUI 0.3 to 0.6: the JSON of "Export chats" (one or all), and its database `webui.db`.

Both hold the same `chat`: `history.messages` is a tree of messages with `parentId`, `history.currentId` its
current leaf; `messages`, the current branch as a list, is the fallback.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    build_conversation,
    parse_content,
    parse_role,
    parse_time,
    skip_attached,
    strip_reasoning,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.message_tree import MessageNode, current_branch
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.readers.sqlite import is_sqlite, query_rows, table_columns
from engine.memory.records import Conversation, Skipped, Turn

NAME = "openwebui"

_COLUMNS = ("id", "title", "chat", "created_at", "updated_at")
_CHATS = "SELECT id, title, chat, created_at, updated_at FROM chat ORDER BY created_at, id"


def detect(path: Path, value: Any) -> bool:
    if is_sqlite(path):
        return {"chat", "user", "auth"} <= set(table_columns(path))
    chat = value.get("chat") if isinstance(value, dict) else None
    return isinstance(chat, dict) and ("history" in chat or "messages" in chat)


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per chat. Raises BadInput, also for an unsupported schema version."""
    for entry in _from_database(path, on_bytes) if is_sqlite(path) else _from_json(path, on_bytes):
        chat = entry.get("chat") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(chat, dict):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        nodes, current = _nodes(chat, options.roles)
        yield from build_conversation(
            current_branch(nodes, current),
            source=NAME,
            external_id=text_or_empty(entry.get("id")) or text_or_empty(chat.get("id")),
            title=text_or_empty(entry.get("title")) or text_or_empty(chat.get("title")),
            started_at=parse_time(entry.get("created_at")) or parse_time(chat.get("timestamp")),
            updated_at=parse_time(entry.get("updated_at")),
        )


def _from_json(path: Path, on_bytes: OnBytes) -> Iterator[Any]:
    for _line, entry in json_values(path, on_bytes):
        yield entry


def _from_database(path: Path, on_bytes: OnBytes) -> Iterator[Any]:
    for row in query_rows(path, {"chat": _COLUMNS}, _CHATS):
        entry = dict(zip(_COLUMNS, row, strict=True))
        text = entry["chat"]
        on_bytes(len(text) if isinstance(text, str | bytes) else 0)
        try:
            entry["chat"] = json.loads(text) if isinstance(text, str | bytes) else None
        except (ValueError, RecursionError):
            entry["chat"] = None
        yield entry


def _nodes(chat: dict[str, Any], role_map: RoleMap) -> tuple[dict[str, MessageNode], object]:
    history = chat.get("history")
    messages = history.get("messages") if isinstance(history, dict) else None
    if isinstance(messages, dict) and messages:
        nodes = {key: _node(message, role_map) for key, message in messages.items()}
        return nodes, history.get("currentId") if isinstance(history, dict) else None
    listed = chat.get("messages")
    chain: dict[str, MessageNode] = {}
    for position, message in enumerate(listed if isinstance(listed, list) else []):
        node = _node(message, role_map)
        parent = str(position - 1) if position else ""
        chain[str(position)] = MessageNode(
            parent=parent, turn=node.turn, skipped=node.skipped, time=node.time
        )
    return chain, next(reversed(chain), None)


def _node(message: object, role_map: RoleMap) -> MessageNode:
    if not isinstance(message, dict):
        return MessageNode(skipped=(Skipped(reason="message of another shape"),))
    parent = text_or_empty(message.get("parentId"))
    time = parse_time(message.get("timestamp"))
    role = parse_role(message.get("role"), role_map)
    if role is None:
        return MessageNode(parent=parent, skipped=(unknown_role(message.get("role")),), time=time or 0)
    text, skipped_parts = parse_content(message.get("content"))
    text, stripped = strip_reasoning(text, role)
    skipped = [*skipped_parts, *stripped, *skip_attached(message.get("files"))]
    if role is Role.TOOL:
        return MessageNode(parent=parent, skipped=(Skipped(reason="tool message"),), time=time or 0)
    if not text.strip():
        reason = "failed answer" if message.get("error") else "empty message"
        return MessageNode(parent=parent, skipped=tuple(skipped) or (Skipped(reason=reason),), time=time or 0)
    turn = Turn(role=role, text=text, time=time, external_id=text_or_empty(message.get("id")))
    return MessageNode(parent=parent, turn=turn, skipped=tuple(skipped), time=time or 0)
