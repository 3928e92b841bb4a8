"""The export of claude.ai: `conversations.json` or its zip, as written in 2024 to 2026.

Each conversation has `chat_messages` with `sender` and, since 2025, typed `content` parts; `text`, which mixes
thinking into the answer, is read only where there are none. A message may name its `parent_message_uuid`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.memory.importers.fields import (
    RoleMap,
    build_conversation,
    parse_content,
    parse_role,
    parse_time,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.message_tree import Node, current_branch
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.records import Conversation, Skipped, Turn

NAME = "claude"

_NOT_SHOWN = "```\nThis block is not supported on your current device yet.\n```"
"""Stands in the text where a tool was used."""


def detect(path: Path, value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("chat_messages"), list)


def read(path: Path, role_map: RoleMap, on_bytes: OnBytes = ignore_bytes) -> Iterator[Conversation | Skipped]:
    """One conversation for each entry, along the branch with the newest message. Raises BadInput."""
    for _line, entry in json_values(path, on_bytes):
        if not isinstance(entry, dict) or not isinstance(entry.get("chat_messages"), list):
            yield Skipped(reason="entry of another shape", whole=True)
            continue
        nodes = _nodes(entry["chat_messages"], role_map)
        yield from build_conversation(
            current_branch(nodes, next(reversed(nodes), None)),
            source=NAME,
            external_id=text_or_empty(entry.get("uuid")),
            title=text_or_empty(entry.get("name")),
            started_at=parse_time(entry.get("created_at")),
            updated_at=parse_time(entry.get("updated_at")),
        )


def _nodes(messages: list[Any], role_map: RoleMap) -> dict[str, Node]:
    """Messages by id, each below its parent, or below the one before it in a file that names no parents."""
    nodes: dict[str, Node] = {}
    before = ""
    for position, message in enumerate(messages):
        if not isinstance(message, dict):
            key, parent, node = (
                f"#{position}",
                before,
                Node(skipped=(Skipped(reason="message of another shape"),)),
            )
        else:
            key = text_or_empty(message.get("uuid")) or f"#{position}"
            parent = message.get("parent_message_uuid", before)
            node = _node(message, role_map)
        nodes[key] = Node(
            parent=parent if isinstance(parent, str) and parent in nodes else "",
            turn=node.turn,
            skipped=node.skipped,
            time=node.time,
        )
        before = key
    return nodes


def _node(message: dict[str, Any], role_map: RoleMap) -> Node:
    role = parse_role(message.get("sender"), role_map)
    if role is None:
        return Node(skipped=(unknown_role(message.get("sender")),))
    content = message.get("content")
    text, skipped = parse_content(content if content else message.get("text"))
    text = text.replace(_NOT_SHOWN, "").strip("\n") if _NOT_SHOWN in text else text
    for name in ("attachments", "files"):
        attached = message.get(name)
        if isinstance(attached, list) and attached:
            skipped.append(Skipped(reason="attachment", count=len(attached)))
    time = parse_time(message.get("created_at"))
    if not text.strip():
        return Node(skipped=tuple(skipped) or (Skipped(reason="empty message"),), time=time or 0)
    turn = Turn(role=role, text=text, time=time, external_id=text_or_empty(message.get("uuid")))
    return Node(turn=turn, skipped=tuple(skipped), time=time or 0)
