"""LibreChat: the JSON of one conversation, flat (`messages`) or recursive (`messagesTree` with `children`), or its CSV.

Messages name their parent; `isCreatedByUser` names the speaker. Text may stand in typed parts of `content`
while `text` is empty. Shape as written by LibreChat's source (`useExportConversation.ts`, read in a fork); the id of
the root is not verified. `exportAt` is a time of day without a date.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    build_conversation,
    parse_role,
    parse_time,
    skip_attached,
    skip_reason,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.message_tree import MessageNode, NodesById, current_branch
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.turns import text_turn, tree_node
from engine.memory.records import Conversation, Skipped

NAME = "librechat"

_NO_PARENT = "00000000-0000-0000-0000-000000000000"


_ROW = frozenset(("sender", "text", "isCreatedByUser", "messageId", "parentMessageId"))
"""Columns of a message in a CSV file."""


def detect(path: Path, value: Any) -> bool:
    if _is_row(value):
        return True
    if not isinstance(value, dict) or not isinstance(value.get("messages", value.get("messagesTree")), list):
        return False
    messages = value.get("messages") or value.get("messagesTree") or []
    return ("conversationId" in value and ("exportAt" in value or "messagesTree" in value)) or any(
        isinstance(message, dict) and "isCreatedByUser" in message for message in messages[:50]
    )


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per document, along its newest branch; the rows of a table are one. Raises BadInput."""
    rows: list[Any] = []
    for _line, value in json_values(path, on_bytes):
        if _is_row(value):
            rows.append(value)
        elif detect(path, value):
            yield from _conversation(value, options)
        else:
            yield Skipped(reason="entry of another shape", is_conversation=True)
    if rows:
        yield from _conversation({"messages": rows}, options)


def _is_row(value: object) -> bool:
    return isinstance(value, dict) and value.keys() >= _ROW


def _conversation(value: dict[str, Any], options: ImportOptions) -> Iterator[Conversation | Skipped]:
    nodes = NodesById()
    for parent, message in _flat(value):
        id_ = text_or_empty(message.get("messageId")) if isinstance(message, dict) else ""
        nodes.add(id_, _node(message, parent, options))
    return build_conversation(
        current_branch(nodes.nodes),
        source=NAME,
        external_id=text_or_empty(value.get("conversationId")),
        title=text_or_empty(value.get("title")),
    )


def _flat(value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The messages, each with the id of the message that holds it; "" where none does."""
    listed = value.get("messagesTree")
    waiting = [
        ("", message) for message in reversed(listed if isinstance(listed, list) else value["messages"])
    ]
    while waiting:
        parent, message = waiting.pop()
        yield parent, message
        children = message.get("children") if isinstance(message, dict) else None
        if isinstance(children, list):
            waiting += [(text_or_empty(message.get("messageId")), child) for child in reversed(children)]


def _node(message: object, holder: str, options: ImportOptions) -> MessageNode:
    if not isinstance(message, dict):
        return MessageNode(parent=holder or None, skipped=(Skipped(reason="message of another shape"),))
    named = text_or_empty(message.get("parentMessageId"))
    parent = "" if named == _NO_PARENT else holder or named or None
    time = parse_time(message.get("createdAt"))
    by_user = _flag(message.get("isCreatedByUser"))
    sender = message.get("sender")
    role = (
        (Role.USER if by_user else Role.ASSISTANT)
        if isinstance(by_user, bool)
        else parse_role(sender, options.roles)
    )
    if role is None:
        return MessageNode(parent=parent, skipped=(unknown_role(sender),), time=time or 0.0)
    text, skipped = _text(message)
    skipped += skip_attached(message.get("files"))
    id_ = text_or_empty(message.get("messageId"))
    if _flag(message.get("error")):
        return MessageNode(
            parent=parent, role=role, skipped=(Skipped(reason="failed answer"),), time=time or 0.0
        )
    items = text_turn(role, text, time=time, external_id=id_, skipped=skipped)
    return tree_node(items, role, parent, time=time)


def _flag(value: object) -> object:
    """A field that is true or false, which a table writes as a word."""
    return (
        {"true": True, "false": False, "": None}.get(value.lower(), value)
        if isinstance(value, str)
        else value
    )


def _text(message: dict[str, Any]) -> tuple[str, list[Skipped]]:
    """The text of the parts, without any that of the message, and the parts that are no text."""
    texts, skipped = [], []
    parts = message.get("content")
    for part in parts if isinstance(parts, list) else []:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) else part
        text = text.get("value") if isinstance(text, dict) else text
        if kind in ("text", None) and isinstance(text, str):
            texts.append(text)
        elif kind == "think":
            skipped.append(Skipped(reason="reasoning"))
        elif kind == "error":
            skipped.append(Skipped(reason="failed answer"))
        else:
            skipped.append(Skipped(reason=skip_reason(kind)))
    plain = message.get("text")
    return "\n".join(text for text in texts if text) or (plain if isinstance(plain, str) else ""), skipped
