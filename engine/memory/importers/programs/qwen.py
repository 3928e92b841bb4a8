"""Qwen: the export of chat.qwen.ai (`chat-export-<time>.json`), and the message list of tongyi.com.

The export descends from Open WebUI's: a tree of messages, of which an answer stands in `content_list`, one item per
phase. Shape as one third-party reader describes it; the tree is taken over from Open WebUI and not verified. Tongyi
has no export; its list is what userscripts save, as one of them reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    build_conversation,
    parse_content,
    parse_role,
    parse_time,
    skip_attached,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.message_tree import MessageNode, child_ids, current_branch
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.turns import text_turn, tree_node
from engine.memory.records import Conversation, Skipped, Turn

NAME = "qwen"


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    listed = value.get("data")
    if isinstance(listed, list) and listed:
        return any(
            detect(path, entry) for entry in listed[:50] if isinstance(entry, dict) and "data" not in entry
        )
    if "senderType" in value and isinstance(value.get("contents"), list):
        return True
    return any(
        isinstance(message, dict) and "content_list" in message for message in _messages(value).values()
    )


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per entry, along its current branch; a list of messages is one. Raises BadInput."""
    bare: list[dict[str, Any]] = []
    for _line, value in json_values(path, on_bytes):
        listed = value.get("data") if isinstance(value, dict) else None
        for entry in listed if isinstance(listed, list) else [value]:
            if isinstance(entry, dict) and "senderType" in entry:
                bare.append(entry)
            elif isinstance(entry, dict) and isinstance(entry.get("chat"), dict):
                yield from _conversation(entry, options)
            else:
                yield Skipped(reason="entry of another shape", is_conversation=True)
    if bare:
        bare.sort(key=lambda message: parse_time(message.get("createTime")) or 0)
        yield from build_conversation((item for message in bare for item in _tongyi(message)), source=NAME)


def _messages(entry: dict[str, Any]) -> dict[str, Any]:
    """The messages of a chat by id."""
    chat = entry.get("chat")
    history = chat.get("history") if isinstance(chat, dict) else None
    for holder in (history, chat):
        messages = holder.get("messages") if isinstance(holder, dict) else None
        if isinstance(messages, dict) and messages:
            return messages
        if isinstance(messages, list) and messages:
            ids = [
                text_or_empty(message.get("id")) if isinstance(message, dict) else "" for message in messages
            ]
            return {
                id_ or f"#{n}": message for n, (id_, message) in enumerate(zip(ids, messages, strict=True))
            }
    return {}


def _conversation(entry: dict[str, Any], options: ImportOptions) -> Iterator[Conversation | Skipped]:
    history = entry["chat"].get("history")
    current = history.get("currentId") if isinstance(history, dict) else entry.get("currentId")
    nodes = {key: _node(message, options) for key, message in _messages(entry).items()}
    yield from build_conversation(
        current_branch(nodes, current),
        source=NAME,
        external_id=text_or_empty(entry.get("id")),
        title=text_or_empty(entry.get("title")),
        started_at=parse_time(entry.get("created_at")),
        updated_at=parse_time(entry.get("updated_at")),
    )


def _node(message: object, options: ImportOptions) -> MessageNode:
    if not isinstance(message, dict):
        return MessageNode(parent=None, skipped=(Skipped(reason="message of another shape"),))
    parent = text_or_empty(message["parentId"]) if "parentId" in message else None
    children = child_ids(message.get("childrenIds"))
    time = parse_time(message.get("timestamp"))
    role = parse_role(message.get("role"), options.roles)
    if role is None:
        return MessageNode(
            parent=parent, children=children, skipped=(unknown_role(message.get("role")),), time=time or 0.0
        )
    text, skipped = parse_content(message.get("content"))
    answer, phases = _phases(message.get("content_list"))
    skipped += [*phases, *skip_attached(message.get("files"))]
    items: list[Turn | Skipped] = [Skipped(reason="tool message")]
    if role is not Role.TOOL:
        reason = "failed answer" if message.get("error") else "empty message"
        id_ = text_or_empty(message.get("id"))
        items = text_turn(role, answer or text, time=time, external_id=id_, skipped=skipped, reason=reason)
    return tree_node(items, role, parent, children, time)


def _phases(listed: object) -> tuple[str, list[Skipped]]:
    texts, skipped = [], []
    for item in listed if isinstance(listed, list) else []:
        phase = item.get("phase") if isinstance(item, dict) else None
        content = item.get("content") if isinstance(item, dict) else None
        if phase in ("answer", None) and isinstance(content, str):
            texts.append(content)
        else:
            is_thought = isinstance(phase, str) and "think" in phase
            skipped.append(Skipped(reason="reasoning" if is_thought else "tool message"))
    return "\n".join(text for text in texts if text), skipped


def _tongyi(message: dict[str, Any]) -> list[Turn | Skipped]:
    role = Role.USER if str(message["senderType"]).upper() == "USER" else Role.ASSISTANT
    texts, skipped = [], []
    contents = message.get("contents")
    for part in contents if isinstance(contents, list) else []:
        text = part.get("content") if isinstance(part, dict) else None
        if isinstance(part, dict) and part.get("contentType") in ("text", None) and isinstance(text, str):
            texts.append(text)
        else:
            skipped.append(Skipped(reason="tool message"))
    return text_turn(role, "\n".join(texts), time=parse_time(message.get("createTime")), skipped=skipped)
