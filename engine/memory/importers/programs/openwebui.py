"""Open WebUI since 0.3: the JSON of "Export chats" (one or all), and its database `webui.db`.

Both hold the same `chat`: `history.messages` is a tree of messages with `parentId` and `childrenIds`,
`history.currentId` its current leaf; `messages`, the current branch as a list, is the fallback. Since 0.10 an answer
may stand in `output`, a list of items as in OpenAI's Responses, while its `content` is empty. Upward links and roles
are missing now and then (open-webui issues 29216 and 21648).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
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
    strip_reasoning,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.message_tree import MessageNode, child_ids, current_branch
from engine.memory.importers.programs.openwebui_database import chat_entries, is_open_webui_database
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.readers.sqlite import is_sqlite
from engine.memory.records import Conversation, Skipped

NAME = "openwebui"

_PASTED = "Pasted_Text_"


def detect(path: Path, value: Any) -> bool:
    if is_sqlite(path):
        return is_open_webui_database(path)
    chat = _chat(value)
    return chat is not None and ("history" in chat or "messages" in chat)


def _chat(entry: Any) -> dict[str, Any] | None:
    """The chat of an entry, which may be the bare chat; None for anything else."""
    if not isinstance(entry, dict):
        return None
    if "chat" in entry:
        return entry["chat"] if isinstance(entry["chat"], dict) else None
    history = entry.get("history")
    is_bare = isinstance(history, dict) and isinstance(history.get("messages"), dict)
    return entry if is_bare else None


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per chat. Raises BadInput, also for an unsupported schema version."""
    for entry in chat_entries(path, on_bytes) if is_sqlite(path) else _from_json(path, on_bytes):
        chat = _chat(entry)
        if chat is None:
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        nodes, current = _nodes(chat, options.roles)
        yield from build_conversation(
            current_branch(nodes, current or entry.get("current_message_id"), to_leaf=True),
            source=NAME,
            external_id=text_or_empty(entry.get("id")) or text_or_empty(chat.get("id")),
            title=text_or_empty(entry.get("title")) or text_or_empty(chat.get("title")),
            started_at=parse_time(entry.get("created_at")) or parse_time(chat.get("timestamp")),
            updated_at=parse_time(entry.get("updated_at")),
        )


def _from_json(path: Path, on_bytes: OnBytes) -> Iterator[Any]:
    for _line, entry in json_values(path, on_bytes):
        yield entry


def _nodes(chat: dict[str, Any], role_map: RoleMap) -> tuple[dict[str, MessageNode], object]:
    history = chat.get("history")
    messages = history.get("messages") if isinstance(history, dict) else None
    listed = chat.get("messages") if isinstance(chat.get("messages"), list) else []
    if isinstance(messages, dict) and messages:
        nodes = {key: _node(message, role_map) for key, message in messages.items()}
        # The list of the current branch repairs upward links as well as `childrenIds` does.
        ids = [message.get("id") for message in listed or [] if isinstance(message, dict)]
        for before, after in pairwise(id_ for id_ in ids if isinstance(id_, str) and id_ in nodes):
            nodes[before] = replace(nodes[before], children=(*nodes[before].children, after))
        return nodes, history.get("currentId") if isinstance(history, dict) else None
    chain = {
        str(position): replace(
            _node(message, role_map), parent=str(position - 1) if position else "", children=()
        )
        for position, message in enumerate(listed or [])
    }
    return chain, next(reversed(chain), None)


def _node(message: object, role_map: RoleMap) -> MessageNode:
    if not isinstance(message, dict):
        return MessageNode(parent=None, skipped=(Skipped(reason="message of another shape"),))
    node = MessageNode(
        parent=text_or_empty(message["parentId"]) if "parentId" in message else None,
        children=child_ids(message.get("childrenIds")),
        time=parse_time(message.get("timestamp")) or 0.0,
    )
    name = message.get("role") or _output_role(message.get("output"))
    role = parse_role(name, role_map)
    if role is None:
        return replace(node, skipped=(unknown_role(name),))
    if role is Role.TOOL:
        return replace(node, role=role, skipped=(Skipped(reason="tool message"),))
    text, skipped = parse_content(message.get("content"))
    if isinstance(message.get("output"), list):
        words, folded = strip_reasoning(text, role)
        answer, items = _output(message["output"])
        # `content` repeats the output with its reasoning and tool calls folded in, where it is not empty or cut short.
        text = answer if words.strip() in answer else text
        skipped += items if words.strip() in answer or not folded else []
    pasted, files = _files(message.get("files"))
    turn, left_out = message_turn(
        role,
        "\n\n".join(part for part in (text, *pasted) if part.strip()),
        [*skipped, *files],
        time=node.time or None,
        external_id=text_or_empty(message.get("id")),
        reason="failed answer" if message.get("error") else "empty message",
    )
    return replace(node, role=role, turn=turn, skipped=tuple(left_out))


def _files(files: object) -> tuple[list[str], list[Skipped]]:
    """The long texts that the person pasted, which the program turns into files, and the other files."""
    pasted: list[str] = []
    others: list[object] = []
    for item in files if isinstance(files, list) else []:
        file = item.get("file") if isinstance(item, dict) else None
        data = file.get("data") if isinstance(file, dict) else None
        text = data.get("content") if isinstance(data, dict) else None
        if isinstance(text, str) and text.strip() and str(item.get("name")).startswith(_PASTED):
            pasted.append(text)
        else:
            others.append(item)
    return pasted, skip_attached(others)


def _output_role(items: object) -> object:
    """The role in the output of a message that has lost its own."""
    roles = [item.get("role") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return next(filter(None, roles), None)


def _output(items: list[Any]) -> tuple[str, list[Skipped]]:
    """The text of the messages among the items of an `output`, and the other items."""
    texts: list[str] = []
    skipped: list[Skipped] = []
    for item in items:
        kind = item.get("type") if isinstance(item, dict) else None
        if isinstance(item, dict) and kind in ("message", "text", "output_text", None):
            text, parts = parse_content(item["content"] if "content" in item else item.get("text"))
            texts.append(text)
            skipped += parts
        elif isinstance(kind, str) and ("_call" in kind or kind.startswith("open_webui:")):
            skipped.append(Skipped(reason="tool message"))
        else:
            skipped.append(Skipped(reason=skip_reason(kind)))
    return "\n\n".join(text.strip("\n") for text in texts if text.strip()), skipped
