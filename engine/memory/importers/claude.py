"""The claude.ai export (2024 to 2026): `conversations.json` or its zip.

Each conversation has `chat_messages` with `sender` and, since 2025, typed `content` parts; `text`, which mixes
thinking into the answer, is the fallback. A message may name its `parent_message_uuid`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    build_conversation,
    parse_content,
    parse_role,
    parse_time,
    skip_attached,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.message_tree import MessageNode, current_branch
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.records import Conversation, Skipped, Turn

NAME = "claude"

_PLACEHOLDER = "```\nThis block is not supported on your current device yet.\n```"
"""Replaces a tool call in the text."""


def detect(path: Path, value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("chat_messages"), list)


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per entry, along the branch of the newest message. Raises BadInput."""
    for _line, entry in json_values(path, on_bytes):
        if not isinstance(entry, dict) or not isinstance(entry.get("chat_messages"), list):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        nodes = _nodes(entry["chat_messages"], options.roles)
        yield from build_conversation(
            current_branch(nodes, next(reversed(nodes), None)),
            source=NAME,
            external_id=text_or_empty(entry.get("uuid")),
            title=text_or_empty(entry.get("name")),
            started_at=parse_time(entry.get("created_at")),
            updated_at=parse_time(entry.get("updated_at")),
        )


def _nodes(messages: list[Any], role_map: RoleMap) -> dict[str, MessageNode]:
    """Messages by id; the parent defaults to the preceding message."""
    nodes: dict[str, MessageNode] = {}
    previous = ""
    for position, message in enumerate(messages):
        if not isinstance(message, dict):
            key, parent, node = (
                f"#{position}",
                previous,
                MessageNode(skipped=(Skipped(reason="message of another shape"),)),
            )
        else:
            key = text_or_empty(message.get("uuid")) or f"#{position}"
            parent = message.get("parent_message_uuid", previous)
            node = _node(message, role_map)
        nodes[key] = MessageNode(
            parent=parent if isinstance(parent, str) and parent in nodes else "",
            turn=node.turn,
            skipped=node.skipped,
            time=node.time,
        )
        previous = key
    return nodes


def _node(message: dict[str, Any], role_map: RoleMap) -> MessageNode:
    role = parse_role(message.get("sender"), role_map)
    if role is None:
        return MessageNode(skipped=(unknown_role(message.get("sender")),))
    content = message.get("content")
    text, skipped = parse_content(content if content else message.get("text"))
    text = text.replace(_PLACEHOLDER, "").strip("\n") if _PLACEHOLDER in text else text
    for name in ("attachments", "files"):
        skipped += skip_attached(message.get(name))
    time = parse_time(message.get("created_at"))
    if not text.strip():
        return MessageNode(skipped=tuple(skipped) or (Skipped(reason="empty message"),), time=time or 0)
    turn = Turn(role=role, text=text, time=time, external_id=text_or_empty(message.get("uuid")))
    return MessageNode(turn=turn, skipped=tuple(skipped), time=time or 0)
