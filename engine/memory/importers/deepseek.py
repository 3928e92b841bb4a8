"""The chat.deepseek.com export (since 2025): `conversations.json` or its zip.

A tree like ChatGPT's; a message has no role but `fragments` of the types REQUEST, RESPONSE, THINK and tool
types. Older messages have `role` and `content` instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    build_conversation,
    parse_role,
    parse_time,
    skip_attached,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.message_tree import MessageNode, current_branch
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.records import Conversation, Skipped, Turn

NAME = "deepseek"

_FRAGMENT_ROLES = {"REQUEST": Role.USER, "RESPONSE": Role.ASSISTANT}
_SKIPPED_FRAGMENTS = {
    "THINK": "reasoning",
    "SEARCH": "tool message",
    "READ_LINK": "tool message",
    "FILE": "attachment",
}


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("mapping"), dict):
        return False
    nodes = [node for node in value["mapping"].values() if isinstance(node, dict)]
    messages = [node["message"] for node in nodes if isinstance(node.get("message"), dict)]
    return any("fragments" in message for message in messages) or "inserted_at" in value


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per entry, along the branch of the newest message. Raises BadInput."""
    for _line, entry in json_values(path, on_bytes):
        if not isinstance(entry, dict) or not isinstance(entry.get("mapping"), dict):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        nodes = {
            key: _node(key, node, options.roles)
            for key, node in entry["mapping"].items()
            if isinstance(node, dict)
        }
        yield from build_conversation(
            current_branch(nodes, entry.get("current_node")),
            source=NAME,
            external_id=text_or_empty(entry.get("id")),
            title=text_or_empty(entry.get("title")),
            started_at=parse_time(entry.get("inserted_at")),
            updated_at=parse_time(entry.get("updated_at")),
        )


def _node(key: str, node: dict[str, Any], role_map: RoleMap) -> MessageNode:
    message = node.get("message")
    parent = text_or_empty(node.get("parent"))
    if not isinstance(message, dict):
        return MessageNode(parent=parent)
    time = parse_time(message.get("inserted_at"))
    role, text, skipped = _content(message, role_map)
    skipped += skip_attached(message.get("files"))
    if role is None or not text.strip():
        return MessageNode(
            parent=parent, skipped=tuple(skipped) or (Skipped(reason="empty message"),), time=time or 0
        )
    turn = Turn(role=role, text=text, time=time, external_id=key)
    return MessageNode(parent=parent, turn=turn, skipped=tuple(skipped), time=time or 0)


def _content(message: dict[str, Any], role_map: RoleMap) -> tuple[Role | None, str, list[Skipped]]:
    fragments = message.get("fragments")
    if not isinstance(fragments, list):
        role = parse_role(message.get("role"), role_map)
        content = message.get("content")
        if role is None:
            return None, "", [unknown_role(message.get("role"))]
        return (role, content, []) if isinstance(content, str) else (None, "", [])
    role = None
    texts = []
    skipped = []
    for fragment in fragments:
        kind = fragment.get("type") if isinstance(fragment, dict) else None
        content = fragment.get("content") if isinstance(fragment, dict) else None
        fragment_role = (
            (_FRAGMENT_ROLES.get(kind) or role_map.get(kind.lower())) if isinstance(kind, str) else None
        )
        if fragment_role is not None and isinstance(content, str):
            role = role or fragment_role
            texts.append(content)
        elif isinstance(kind, str) and (kind in _SKIPPED_FRAGMENTS or kind.startswith("TOOL")):
            skipped.append(Skipped(reason=_SKIPPED_FRAGMENTS.get(kind, "tool message")))
        else:
            skipped.append(unknown_role(kind))
    return role, "\n".join(text for text in texts if text), skipped
