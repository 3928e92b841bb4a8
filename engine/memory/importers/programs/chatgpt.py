"""The ChatGPT export: `conversations.json` or its zip, one tree of messages per conversation."""

from __future__ import annotations

import json
import re
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
    parse_role,
    parse_time,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.message_tree import MessageNode, child_ids, current_branch
from engine.memory.importers.programs.artifacts import canvas_document
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.records import Conversation, Skipped

NAME = "chatgpt"

_SKIPPED_TYPES = {
    "execution_output": "tool message",
    "tether_browsing_display": "tool message",
    "tether_quote": "tool message",
    "system_error": "tool message",
    "thoughts": "reasoning",
    "reasoning_recap": "reasoning",
    "user_editable_context": "hidden message",
    "model_editable_context": "hidden message",
}


_MARKUP = re.compile("\ue200([^\ue200\ue201]*)(?:\ue201|\\Z|(?=\ue200))")
"""ChatGPT's inline markup between private-use characters: a kind and its fields, each after U+E202."""
_DIRECTIVE = re.compile(r"[ \t]{0,3}:::[a-z_]{1,40}\{.*\}[ \t\r]*")
"""Opens a block that the page shows as an e-mail or a document: `:::writing{variant="email" id="58142"}`."""
_CITATION = re.compile(r" ?【\d+(?::\d+)?†[^】]{0,200}】")


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict) or "mapping" not in value:
        return False
    # An export may begin with a deleted entry.
    return value["mapping"] is None or isinstance(value["mapping"], dict)


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per entry: the branch from the root to `current_node`.

    Regenerated answers become alternatives of the answer on the branch. Raises BadInput.
    """
    for _line, entry in json_values(path, on_bytes):
        if not isinstance(entry, dict) or not isinstance(entry.get("mapping"), dict):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        yield from _conversation(entry, options.roles)


def _conversation(entry: dict[str, Any], role_map: RoleMap) -> Iterator[Conversation | Skipped]:
    return build_conversation(
        current_branch(_nodes(entry["mapping"], role_map), entry.get("current_node")),
        source=NAME,
        external_id=text_or_empty(entry.get("conversation_id")) or text_or_empty(entry.get("id")),
        title=text_or_empty(entry.get("title")),
        started_at=parse_time(entry.get("create_time")),
        updated_at=parse_time(entry.get("update_time")),
    )


def _nodes(mapping: dict[str, Any], role_map: RoleMap) -> dict[str, MessageNode]:
    return {key: _node(value, role_map) for key, value in mapping.items()}


def _node(value: object, role_map: RoleMap) -> MessageNode:
    if not isinstance(value, dict):
        return MessageNode(parent=None, skipped=(Skipped(reason="message of another shape"),))
    node = MessageNode(
        parent=text_or_empty(value["parent"]) if "parent" in value else None,
        children=child_ids(value.get("children")),
    )
    message = value.get("message")
    if not isinstance(message, dict):
        return node
    author = message.get("author")
    name = author.get("role") if isinstance(author, dict) else None
    role = parse_role(name, role_map)
    time = parse_time(message.get("create_time"))
    node = replace(node, role=role, time=time or 0.0)
    content = message.get("content")
    metadata = message.get("metadata")
    text, skipped = _text(content)
    if role is None:
        return replace(node, skipped=(unknown_role(name),))
    if role is Role.SYSTEM and not text and isinstance(content, dict):
        return node
    if (
        isinstance(metadata, dict) and metadata.get("is_visually_hidden_from_conversation") is True
    ) or message.get("weight") == 0:
        return replace(node, skipped=(Skipped(reason="hidden message"),))
    if role is Role.ASSISTANT and message.get("channel") == "analysis":
        return replace(node, skipped=(Skipped(reason="reasoning"),))
    recipient = message.get("recipient")
    if role is Role.ASSISTANT and isinstance(recipient, str) and recipient.startswith("canmore."):
        # The person asked for the text in the canvas: it is the answer.
        document = canvas_document(recipient, text)
        text, recipient = (document, "all") if document is not None else (text, recipient)
    if role is Role.TOOL or recipient not in (None, "all"):
        return replace(node, skipped=(Skipped(reason="tool message"),))
    if role is Role.ASSISTANT:
        text, marks = strip_markup(text)
        skipped += marks
    turn, left_out = message_turn(
        role,
        text,
        [*skipped, *_skip_files(metadata)],
        time=time,
        external_id=text_or_empty(message.get("id")) or text_or_empty(value.get("id")),
    )
    if turn is not None and not turn.text and _is_context(content):
        turn = None
    return replace(node, turn=turn, skipped=tuple(left_out))


def _is_context(content: object) -> bool:
    """Whether a message of the user holds what the program added, and no question."""
    return isinstance(content, dict) and content.get("content_type") in _SKIPPED_TYPES


def _skip_files(metadata: object) -> list[Skipped]:
    """The attached files of a message; images are among its parts already."""
    listed = metadata.get("attachments") if isinstance(metadata, dict) else None
    files = [
        file
        for file in (listed if isinstance(listed, list) else [])
        if isinstance(file, dict)
        and not str(file.get("mime_type") or file.get("mimeType") or "").startswith("image/")
    ]
    return [Skipped(reason="attachment", count=len(files))] if files else []


def _text(content: object) -> tuple[str, list[Skipped]]:
    if not isinstance(content, dict):
        return "", [Skipped(reason="message of another shape")]
    kind = content.get("content_type")
    if isinstance(kind, str) and kind in _SKIPPED_TYPES:
        return "", [Skipped(reason=_SKIPPED_TYPES[kind])]
    parts = content.get("parts")
    if not isinstance(parts, list):
        text = content.get("text")
        return (text, []) if isinstance(text, str) else ("", [Skipped(reason="message of another shape")])
    texts = []
    skipped = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            # A voice message carries its transcript.
            texts.append(part["text"])
        else:
            kind = part.get("content_type") if isinstance(part, dict) else None
            skipped.append(Skipped(reason="image" if kind == "image_asset_pointer" else "attachment"))
    return "\n".join(text for text in texts if text), skipped


def strip_markup(text: str) -> tuple[str, list[Skipped]]:
    """`text` as ChatGPT's page shows it, without citations and inline markup, and how many were removed."""
    if ":::" in text:
        text = _strip_directives(text)
    if "\ue200" not in text and "†" not in text:
        return text, []
    text, marks = _MARKUP.subn(lambda match: _visible_text(match[1]), text)
    text, citations = _CITATION.subn("", text)
    return text, [Skipped(reason="citation", count=marks + citations)] if marks + citations else []


def _strip_directives(text: str) -> str:
    """`text` without the lines that open and close a writing block, outside of code."""
    kept = []
    fence = ""
    is_open = False
    for line in text.split("\n"):
        mark = line.lstrip()[:3]
        if mark in ("```", "~~~") and fence in ("", mark):
            fence = "" if fence else mark
        if not fence and (_DIRECTIVE.fullmatch(line) or (is_open and line.strip() == ":::")):
            is_open = line.strip() != ":::"
            continue
        kept.append(line)
    return "\n".join(kept)


def _visible_text(mark: str) -> str:
    """What the page shows for a mark: the name of an entity, the text of a link."""
    kind, _separator, rest = mark.partition("\ue202")
    fields = rest.split("\ue202")
    if kind == "url":
        return fields[0]
    if kind == "entity":
        try:
            entity = json.loads(rest)
        except ValueError:
            return ""
        return (
            entity[1] if isinstance(entity, list) and len(entity) > 1 and isinstance(entity[1], str) else ""
        )
    return ""
