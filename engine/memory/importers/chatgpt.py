"""The ChatGPT export: `conversations.json` or its zip, one tree of messages per conversation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    build_conversation,
    parse_role,
    parse_time,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.records import Conversation, Skipped, Turn

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
        _turns(entry, role_map),
        source=NAME,
        external_id=text_or_empty(entry.get("conversation_id")) or text_or_empty(entry.get("id")),
        title=text_or_empty(entry.get("title")),
        started_at=parse_time(entry.get("create_time")),
        updated_at=parse_time(entry.get("update_time")),
    )


def _turns(entry: dict[str, Any], role_map: RoleMap) -> Iterator[Turn | Skipped]:
    nodes = {key: node for key, node in entry["mapping"].items() if isinstance(node, dict)}
    path = _path(nodes, entry.get("current_node"))
    on_path = set(path)
    texts: list[str] = []
    """Answers off the branch since its last turn: reasoning and tool calls may precede the answer on the branch."""
    for key in path:
        turn, skipped = _turn(nodes[key], role_map)
        yield from skipped
        alternatives, others = _alternatives(nodes, key, on_path, role_map)
        texts += alternatives
        if turn is not None and turn.role is not Role.ASSISTANT:
            others, texts = others + len(texts), []
        if others:
            yield Skipped(reason="message of another branch", count=others)
        if turn is None:
            continue
        distinct = tuple(text for text in dict.fromkeys(texts) if text != turn.text)
        yield msgspec.structs.replace(turn, alternatives=distinct) if distinct else turn
        texts = []
    if texts:
        yield Skipped(reason="message of another branch", count=len(texts))


def _path(nodes: dict[str, Any], current: object) -> list[str]:
    """Keys from the root to the current node; without a valid one, to the newest leaf."""
    if not isinstance(current, str) or current not in nodes:
        parents = {node.get("parent") for node in nodes.values() if isinstance(node.get("parent"), str)}
        leaves = [key for key in nodes if key not in parents]
        current = max(leaves, key=lambda key: _message_time(nodes[key]), default=None)
    path: list[str] = []
    seen: set[str] = set()
    while isinstance(current, str) and current in nodes and current not in seen:
        seen.add(current)
        path.append(current)
        current = nodes[current].get("parent")
    return path[::-1]


def _message_time(node: dict[str, Any]) -> float:
    message = node.get("message")
    return (parse_time(message.get("create_time")) if isinstance(message, dict) else None) or 0.0


def _turn(node: dict[str, Any], role_map: RoleMap) -> tuple[Turn | None, list[Skipped]]:
    message = node.get("message")
    if not isinstance(message, dict):
        return None, []
    author = message.get("author")
    name = author.get("role") if isinstance(author, dict) else None
    role = parse_role(name, role_map)
    metadata = message.get("metadata")
    content = message.get("content")
    if not isinstance(content, dict):
        return None, [Skipped(reason="message of another shape")]
    text, skipped = _text(content)
    if role is None:
        return None, [unknown_role(name)]
    if role is Role.SYSTEM and not text:
        return None, []
    if (
        isinstance(metadata, dict) and metadata.get("is_visually_hidden_from_conversation") is True
    ) or message.get("weight") == 0:
        return None, [Skipped(reason="hidden message")]
    if role is Role.TOOL or message.get("recipient") not in (None, "all"):
        return None, [Skipped(reason="tool message")]
    if role is Role.ASSISTANT:
        text, marks = strip_markup(text)
        skipped += marks
    skipped += _skip_files(metadata)
    if not text:
        return None, skipped or [Skipped(reason="empty message")]
    id_ = text_or_empty(message.get("id")) or text_or_empty(node.get("id"))
    return Turn(role=role, text=text, time=parse_time(message.get("create_time")), external_id=id_), skipped


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


def _text(content: dict[str, Any]) -> tuple[str, list[Skipped]]:
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


def _alternatives(
    nodes: dict[str, Any], key: str, on_path: set[str], role_map: RoleMap
) -> tuple[list[str], int]:
    """The other answers to the same question, and the number of siblings of `key` that are no answers."""
    parent = nodes[key].get("parent")
    siblings = nodes[parent].get("children") if isinstance(parent, str) and parent in nodes else None
    texts = []
    others = 0
    for sibling in siblings if isinstance(siblings, list) else []:
        if not isinstance(sibling, str) or sibling in on_path or sibling not in nodes:
            continue
        answer = _first_answer(nodes, sibling, role_map)
        if answer:
            texts.append(answer)
        else:
            others += 1
    return list(dict.fromkeys(texts)), others


def _first_answer(nodes: dict[str, Any], key: str, role_map: RoleMap) -> str:
    """The first visible answer of the branch that begins at `key`: tool calls may precede it."""
    seen: set[str] = set()
    while key in nodes and key not in seen:
        seen.add(key)
        turn, _skipped = _turn(nodes[key], role_map)
        if turn is not None:
            return turn.text if turn.role is Role.ASSISTANT else ""
        children = nodes[key].get("children")
        if not isinstance(children, list) or not children or not isinstance(children[-1], str):
            break
        key = children[-1]
    return ""


def strip_markup(text: str) -> tuple[str, list[Skipped]]:
    """`text` as ChatGPT's page shows it, without citations and inline markup, and how many were removed."""
    if "\ue200" not in text and "†" not in text:
        return text, []
    text, marks = _MARKUP.subn(lambda match: _visible_text(match[1]), text)
    text, citations = _CITATION.subn("", text)
    return text, [Skipped(reason="citation", count=marks + citations)] if marks + citations else []


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
