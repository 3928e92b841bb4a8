"""Mistral's Le Chat: `chat-<id>.json` of its export, a list of messages in no order.

A message has `chatId`, `role`, `createdAt`, and its text in `content` or in the `text` chunks of `contentChunks`.
There are no links: messages are read by time, and answers one after the other answer the same question.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    build_conversation,
    message_turn,
    parse_content,
    parse_role,
    parse_time,
    skip_attached,
    skip_reason,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.message_tree import MessageNode, current_branch, reading_order
from engine.memory.importers.programs.artifacts import as_document
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.records import Conversation, Skipped

NAME = "lechat"

_OWN_KEYS = frozenset(("version", "contentChunks", "reaction", "canvas", "quotes", "preference"))


def detect(path: Path, value: Any) -> bool:
    return _is_message(value)


def _is_message(value: object) -> bool:
    return (
        isinstance(value, dict) and "chatId" in value and "role" in value and not _OWN_KEYS.isdisjoint(value)
    )


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per chat id. Raises BadInput."""
    chats: dict[str, list[dict[str, Any]]] = {}
    for _line, message in json_values(path, on_bytes):
        if isinstance(message, dict) and "role" in message:
            chats.setdefault(text_or_empty(message.get("chatId")), []).append(message)
        else:
            yield Skipped(reason="message of another shape")
    for id_, messages in chats.items():
        yield from build_conversation(
            current_branch(_linked([_node(message, options.roles) for message in messages])),
            source=NAME,
            external_id=id_,
        )


def _linked(messages: list[MessageNode]) -> dict[str, MessageNode]:
    """The messages by time, each linked to the one before; answers in a row to the question before all of them."""
    nodes = {str(place): node for place, node in enumerate(messages)}
    linked: dict[str, MessageNode] = {}
    parent = before = ""
    for key in reading_order(nodes):
        node = nodes[key]
        is_next_version = (
            before
            and node.turn is not None
            and node.speaker is Role.ASSISTANT
            and linked[before].speaker is Role.ASSISTANT
        )
        parent = parent if is_next_version else before
        linked[key] = replace(node, parent=parent)
        before = key
    return linked


def _node(message: dict[str, Any], role_map: RoleMap) -> MessageNode:
    time = parse_time(message.get("createdAt"))
    node = MessageNode(time=time or 0.0)
    role = parse_role(message.get("role"), role_map)
    if role is None:
        return replace(node, skipped=(unknown_role(message.get("role")),))
    if role is Role.TOOL:
        return replace(node, role=role, skipped=(Skipped(reason="tool message"),))
    text, skipped = parse_content(message.get("content"))
    in_chunks, others = _chunks(message.get("contentChunks"))
    documents, unread = _canvas(message.get("canvas"))
    turn, left_out = message_turn(
        role,
        "\n\n".join(part for part in (text if text.strip() else in_chunks, *documents) if part.strip()),
        [*skipped, *others, *unread, *skip_attached(message.get("files"))],
        time=time,
        external_id=text_or_empty(message.get("id")),
    )
    return replace(node, role=role, turn=turn, skipped=tuple(left_out))


def _chunks(chunks: object) -> tuple[str, list[Skipped]]:
    texts: list[str] = []
    skipped: list[Skipped] = []
    for chunk in chunks if isinstance(chunks, list) else []:
        kind = chunk.get("type") if isinstance(chunk, dict) else None
        if isinstance(chunk, dict) and kind == "text" and isinstance(chunk.get("text"), str):
            texts.append(chunk["text"])
        elif kind == "reference":
            skipped.append(Skipped(reason="citation"))
        else:
            skipped.append(Skipped(reason=skip_reason(kind)))
    # References stand between the pieces of one sentence.
    return "".join(texts), skipped


def _canvas(canvas: object) -> tuple[list[str], list[Skipped]]:
    """The documents beside the chat, as far as the export holds their text."""
    documents = []
    others = 0
    for item in canvas if isinstance(canvas, list) else []:
        content = item.get("content") if isinstance(item, dict) else None
        if isinstance(content, str) and content.strip():
            documents.append(as_document(content, text_or_empty(item.get("type"))))
        else:
            others += 1
    return documents, [Skipped(reason="attachment", count=others)] if others else []
