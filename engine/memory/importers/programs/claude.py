"""The claude.ai export (2024 to 2026): `conversations.json` or its zip.

Each conversation has `chat_messages` with `sender` and, since 2025, typed `content` parts; `text`, which mixes
thinking into the answer, is the fallback. Messages may stand in any order: each names its `parent_message_uuid`, and
`current_leaf_message_uuid` is the last one that the person saw. claude.ai turns a long pasted text into an attachment,
whose `extracted_content` is part of the message.
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
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.message_tree import MessageNode, current_branch
from engine.memory.importers.programs.artifacts import Documents, inline_artifacts
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.records import Conversation, Skipped

NAME = "claude"

_PLACEHOLDER = "```\nThis block is not supported on your current device yet.\n```"
"""Replaces a tool call in the text."""


def detect(path: Path, value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("chat_messages"), list)


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per entry, along the branch that the person saw last. Raises BadInput."""
    for _line, entry in json_values(path, on_bytes):
        if not isinstance(entry, dict) or not isinstance(entry.get("chat_messages"), list):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        nodes = _nodes(entry["chat_messages"], options.roles)
        yield from build_conversation(
            current_branch(nodes, entry.get("current_leaf_message_uuid")),
            source=NAME,
            external_id=text_or_empty(entry.get("uuid")),
            title=text_or_empty(entry.get("name")),
            started_at=parse_time(entry.get("created_at")),
            updated_at=parse_time(entry.get("updated_at")),
        )


def _nodes(messages: list[Any], role_map: RoleMap) -> dict[str, MessageNode]:
    """Messages by id, by position where it is missing or not the first of that id."""
    keyed: dict[str, object] = {}
    last: dict[str, str] = {}
    """Of an id that several messages have, the key of the last one so far."""
    for position, message in enumerate(messages):
        id_ = text_or_empty(message.get("uuid")) if isinstance(message, dict) else ""
        parent = _parent(message)
        if isinstance(message, dict) and parent and last.get(parent, parent) != parent:
            message = {**message, "parent_message_uuid": last[parent]}
        key = id_ if id_ and id_ not in keyed else f"#{position}"
        keyed[key] = message
        last[id_] = key
    documents: dict[str, Documents] = {}
    """The documents as each message leaves them."""
    nodes: dict[str, MessageNode] = {}
    for start in keyed:
        chain: dict[str, None] = {}
        key = start
        while key in keyed and key not in documents and key not in chain:
            chain[key] = None
            key = _parent(keyed[key]) or ""
        for key in reversed(chain):
            known = documents.get(_parent(keyed[key]) or "", Documents())
            documents[key] = known.copy()
            nodes[key] = _node(keyed[key], role_map, documents[key])
    return {key: nodes[key] for key in keyed}


def _parent(message: object) -> str | None:
    parent = message.get("parent_message_uuid") if isinstance(message, dict) else None
    return parent if isinstance(parent, str) else None


def _node(message: object, role_map: RoleMap, documents: Documents) -> MessageNode:
    if not isinstance(message, dict):
        return MessageNode(parent=None, skipped=(Skipped(reason="message of another shape"),))
    time = parse_time(message.get("created_at"))
    node = MessageNode(parent=_parent(message), time=time or 0.0)
    role = parse_role(message.get("sender"), role_map)
    if role is None:
        return replace(node, skipped=(unknown_role(message.get("sender")),))
    text, skipped = _text(message, role, documents)
    pasted, files = _attachments(message)
    turn, left_out = message_turn(
        role,
        "\n\n".join(part for part in (text, *pasted) if part.strip()),
        [*skipped, *files],
        time=time,
        external_id=text_or_empty(message.get("uuid")),
    )
    return replace(node, role=role, turn=turn, skipped=tuple(left_out))


def _text(message: dict[str, Any], role: Role, documents: Documents) -> tuple[str, list[Skipped]]:
    content = message.get("content")
    text, skipped = _parts(content, documents) if isinstance(content, list) else parse_content(content)
    if not text.strip() and not skipped:
        text, skipped = parse_content(message.get("text"))
    if role is Role.ASSISTANT:
        text = inline_artifacts(text.replace(_PLACEHOLDER, "").strip("\n") if _PLACEHOLDER in text else text)
    return text, skipped


def _parts(content: list[Any], documents: Documents) -> tuple[str, list[Skipped]]:
    """The text of the parts; a document that the answer wrote stands where it was written, in its last form."""
    texts: list[str] = []
    places: dict[str, int] = {}
    """Of the documents in `texts`, by id."""
    skipped: list[Skipped] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, dict) and kind == "voice_note":
            spoken = part.get("text") or part.get("transcript")
            texts += [spoken] if isinstance(spoken, str) else []
            skipped += [] if isinstance(spoken, str) else [Skipped(reason="attachment")]
            continue
        if isinstance(part, dict) and kind == "tool_use":
            written = documents.written_by(part.get("name"), part.get("input"))
            if written is not None:
                id_ = text_or_empty(part["input"].get("id")) or f"#{len(texts)}"
                if id_ in places:
                    texts[places[id_]] = f"\n{written}\n"
                else:
                    places[id_] = len(texts)
                    texts.append(f"\n{written}\n")
                continue
        text, others = parse_content([part])
        texts.append(text)
        # A budget is the program's, not content.
        skipped += others if kind not in ("token_budget", "flag") else []
    return "\n".join(text for text in texts if text).strip("\n"), skipped


def _attachments(message: dict[str, Any]) -> tuple[list[str], list[Skipped]]:
    """The pasted texts, each below the name of its file, and the attachments without a text."""
    attached = message.get("attachments")
    pasted: list[str] = []
    others: list[object] = []
    for attachment in attached if isinstance(attached, list) else []:
        text = attachment.get("extracted_content") if isinstance(attachment, dict) else None
        if isinstance(text, str) and text.strip():
            name = text_or_empty(attachment.get("file_name")).strip()
            pasted.append(f"{name}\n{text}" if name else text)
        else:
            others.append(attachment)
    return pasted, skip_attached(others) + skip_attached(message.get("files"))
