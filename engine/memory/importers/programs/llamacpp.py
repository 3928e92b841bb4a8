"""llama.cpp's web UI: the JSON of its export, and since 2026 JSONL.

JSON is one `{conv, messages}` or a list of them. In JSONL a line of the type "session" holds the conversation, lines of
the type "message" the messages; a file may hold several. Messages are a tree (`parent`, `children`) below an empty
message of the type "root"; `currNode` is its current leaf. Times are in milliseconds.
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
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.message_tree import MessageNode, NodesById, child_ids, current_branch
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.records import Conversation, Skipped

NAME = "llamacpp"

_FOLDED = (
    ("<<<reasoning_content_start>>>", "<<<reasoning_content_end>>>", "reasoning"),
    ("<<<AGENTIC_TOOL_CALL_START>>>", "<<<AGENTIC_TOOL_CALL_END>>>", "tool message"),
)
"""Marks around reasoning and tool calls in the answers of early 2026."""

_NOT_TYPED = ("image", "audio", "video", "mcp_resource")
"""Kinds of attachments whose content is not the person's words."""


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("conv"), dict) and isinstance(value.get("messages"), list):
        return True
    message = value.get("message")
    return (_kind(value) == "session" and "harness" in value) or (
        _kind(value) == "message" and isinstance(message, dict) and "convId" in message
    )


def _kind(line: dict[str, Any]) -> str:
    kind = line.get("type")
    return kind.strip("<>").lower() if isinstance(kind, str) else ""


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per session, along its current branch. Raises BadInput.

    Messages belong to the session before them; without one, to the conversation that they name.
    """
    session: dict[str, Any] | None = None
    messages: list[Any] = []
    headless: dict[str, list[Any]] = {}
    for _line, value in json_values(path, on_bytes):
        conversation = value.get("conv") if isinstance(value, dict) else None
        if isinstance(conversation, dict) and isinstance(value.get("messages"), list):
            yield from _conversation(conversation, value["messages"], options.roles)
        elif isinstance(value, dict) and _kind(value) == "session":
            if session is not None:
                yield from _conversation(session, messages, options.roles)
            session, messages = value, []
        elif isinstance(value, dict) and _kind(value) == "message":
            message = value.get("message")
            if session is None and isinstance(message, dict):
                headless.setdefault(text_or_empty(message.get("convId")), []).append(message)
            else:
                messages.append(message)
        elif not isinstance(value, dict) or not _kind(value):
            # Lines of other types are settings.
            yield Skipped(reason="entry of another shape", is_conversation=True)
    if session is not None:
        yield from _conversation(session, messages, options.roles)
    for id_, group in headless.items():
        yield from _conversation({"id": id_}, group, options.roles)


def _conversation(
    conversation: dict[str, Any], messages: list[Any], role_map: RoleMap
) -> Iterator[Conversation | Skipped]:
    nodes = NodesById()
    for message in messages:
        id_ = text_or_empty(message.get("id")) if isinstance(message, dict) else ""
        nodes.add(id_, _node(message, role_map))
    return build_conversation(
        current_branch(nodes.nodes, nodes.key_of(conversation.get("currNode"))),
        source=NAME,
        external_id=text_or_empty(conversation.get("id")),
        title=text_or_empty(conversation.get("name")),
        updated_at=parse_time(conversation.get("lastModified")),
    )


def _node(message: object, role_map: RoleMap) -> MessageNode:
    if not isinstance(message, dict):
        return MessageNode(parent=None, skipped=(Skipped(reason="message of another shape"),))
    time = parse_time(message.get("timestamp"))
    node = MessageNode(
        parent=text_or_empty(message["parent"]) if "parent" in message else None,
        children=child_ids(message.get("children")),
        time=time or 0.0,
    )
    if message.get("type") == "root":
        return node
    role = parse_role(message.get("role"), role_map)
    if role is None:
        return replace(node, skipped=(unknown_role(message.get("role")),))
    if role is Role.TOOL:
        return replace(node, role=role, skipped=(Skipped(reason="tool message"),))
    text, skipped = parse_content(message.get("content"))
    if role is Role.ASSISTANT:
        text, folded = _unfold(text)
        skipped += folded
    if any(message.get(name) for name in ("thinking", "reasoningContent", "reasoning_content")):
        skipped.append(Skipped(reason="reasoning"))
    if message.get("toolCalls") not in (None, "", [], "[]"):
        skipped.append(Skipped(reason="tool message"))
    pasted, files = _extra(message.get("extra"))
    turn, left_out = message_turn(
        role,
        "\n\n".join(part for part in (text, *pasted) if part.strip()),
        [*skipped, *files],
        time=time,
        external_id=text_or_empty(message.get("id")),
    )
    return replace(node, role=role, turn=turn, skipped=tuple(left_out))


def _unfold(text: str) -> tuple[str, list[Skipped]]:
    """An answer without what is folded into it; a block without an end runs to the end of the answer."""
    skipped = []
    for start, end, reason in _FOLDED:
        kept = []
        place = 0
        while (opening := text.find(start, place)) >= 0:
            kept.append(text[place:opening].rstrip("\n"))
            closing = text.find(end, opening)
            place = closing + len(end) if closing >= 0 else len(text)
            skipped.append(Skipped(reason=reason))
        if kept:
            kept.append(text[place:].lstrip("\n"))
            text = "\n\n".join(part for part in kept if part)
    return text, skipped


def _extra(extra: object) -> tuple[list[str], list[Skipped]]:
    """The texts that were pasted or attached, each below its name, and the other attachments."""
    pasted = []
    skipped = []
    for item in extra if isinstance(extra, list) else []:
        kind = str(item.get("type") or "").lower() if isinstance(item, dict) else ""
        content = item.get("content") if isinstance(item, dict) else None
        if isinstance(content, str) and content.strip() and not kind.startswith(_NOT_TYPED):
            name = text_or_empty(item.get("name")).strip()
            pasted.append(f"{name}\n{content}" if name else content)
        else:
            skipped.append(Skipped(reason="image" if kind.startswith("image") else "attachment"))
    return pasted, skipped
