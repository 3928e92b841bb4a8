"""Cherry Studio 2: `cherrystudio.sqlite` of its backups (version 7).

`topic` holds the conversations, `message` a tree of messages for each: `parentId`, and `activeNodeId` of the topic is
the leaf that is shown. The text is in `data.parts`, or in `data.blocks` of messages from version 1. Only these two
tables are read: the database also holds the keys of services.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from engine.core.chat import Role
from engine.memory.importers.fields import (
    RoleMap,
    build_conversation,
    message_turn,
    parse_role,
    parse_time,
    skip_reason,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.message_tree import MessageNode, NodesById, current_branch
from engine.memory.importers.readers.files import OnBytes
from engine.memory.importers.readers.sqlite import query_rows, table_columns
from engine.memory.records import Conversation, Skipped

_TOPIC = ("id", "name", "activeNodeId", "createdAt", "updatedAt")
_MESSAGE = ("topicId", "id", "parentId", "role", "data", "status", "createdAt", "deletedAt")
_REQUIRED = {"topic": ("id", "name"), "message": ("id", "parentId", "topicId", "role", "data")}
_IGNORED_PARTS = frozenset(
    ("step-start", "source-url", "source-document", "data-translation", "data-citation")
)
_IGNORED_BLOCKS = frozenset(("unknown", "citation", "translation"))


def is_cherry_database(path: Path) -> bool:
    """Whether an SQLite file has the tables of Cherry Studio."""
    columns = table_columns(path)
    return all(
        {_plain(name) for name in names} <= {_plain(name) for name in columns.get(table, ())}
        for table, names in _REQUIRED.items()
    )


def _plain(name: str) -> str:
    """A column name without its spelling: `topicId` and `topic_id` were both in use."""
    return name.replace("_", "").lower()


def conversations(
    path: Path, source: str, role_map: RoleMap, on_bytes: OnBytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per topic that was not deleted, along its shown branch. Raises BadInput."""
    columns = table_columns(path)
    topics = {}
    for row in _rows(path, columns, "topic", (*_TOPIC, "deletedAt"), "id"):
        if row["deletedAt"] is None:
            topics[row["id"]] = row
    for id_, rows in groupby(
        _rows(path, columns, "message", _MESSAGE, "topicId", "createdAt", "id"),
        key=lambda row: row["topicId"],
    ):
        topic = topics.get(id_)
        if topic is None:
            continue
        nodes = NodesById()
        for row in rows:
            on_bytes(len(row["data"]) if isinstance(row["data"], str | bytes) else 0)
            if row["deletedAt"] is None:
                nodes.add(text_or_empty(row["id"]), _node(row, role_map))
        yield from build_conversation(
            current_branch(nodes.nodes, nodes.key_of(topic["activeNodeId"])),
            source=source,
            external_id=text_or_empty(id_),
            title=text_or_empty(topic["name"]),
            started_at=parse_time(topic["createdAt"]),
            updated_at=parse_time(topic["updatedAt"]),
        )


def _rows(
    path: Path, columns: dict[str, frozenset[str]], table: str, names: tuple[str, ...], *order: str
) -> Iterator[dict[str, Any]]:
    """The rows of a table by the names above; None for a column that it lacks."""
    real = {_plain(name): f'"{name}"' for name in columns.get(table, ())}
    select = ", ".join(real.get(_plain(name), "NULL") for name in names)
    by = ", ".join(real[_plain(name)] for name in order if _plain(name) in real)
    # The names come from the constants above.
    query = f'SELECT {select} FROM "{table}" ORDER BY {by}'  # noqa: S608
    for row in query_rows(path, {table: ()}, query):
        yield dict(zip(names, row, strict=True))


def _node(row: dict[str, Any], role_map: RoleMap) -> MessageNode:
    time = parse_time(row["createdAt"])
    # Deleting a message sets the link of the next one to NULL.
    node = MessageNode(parent=text_or_empty(row["parentId"]), time=time or 0.0)
    role = parse_role(row["role"], role_map)
    if role is None:
        return node if row["role"] in ("root", None) else replace(node, skipped=(unknown_role(row["role"]),))
    if role is Role.TOOL:
        return replace(node, role=role, skipped=(Skipped(reason="tool message"),))
    data = _json(row["data"])
    text, skipped = _text(data)
    # The root of a topic, and a branch whose question is not written yet, are rows without words.
    if not text and not skipped and (data.get("isBranchDraft") or role is Role.SYSTEM or not node.parent):
        return node
    turn, left_out = message_turn(
        role,
        text,
        skipped,
        time=time,
        external_id=text_or_empty(row["id"]),
        reason="failed answer" if row["status"] == "error" else "empty message",
    )
    return replace(node, role=role, turn=turn, skipped=tuple(left_out))


def _json(text: object) -> dict[str, Any]:
    try:
        value = json.loads(text) if isinstance(text, str | bytes) else None
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {}


def _text(data: dict[str, Any]) -> tuple[str, list[Skipped]]:
    parts = data.get("parts")
    if isinstance(parts, list) and parts:
        return read_parts(parts)
    blocks = data.get("blocks")
    return read_blocks(blocks if isinstance(blocks, list) else [])


def read_parts(parts: list[Any]) -> tuple[str, list[Skipped]]:
    """The text of the parts of a message in the AI SDK's form, and the others."""
    texts: list[str] = []
    skipped: list[Skipped] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        content = part.get("data") if isinstance(part, dict) else None
        if isinstance(part, dict) and kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "data-code" and isinstance(content, dict) and isinstance(content.get("content"), str):
            texts.append(f"```{text_or_empty(content.get('language'))}\n{content['content']}\n```")
        elif kind == "data-error":
            skipped.append(Skipped(reason="failed answer"))
        elif isinstance(kind, str) and (kind.startswith("tool-") or kind == "dynamic-tool"):
            skipped.append(Skipped(reason="tool message"))
        elif kind == "file" and isinstance(part, dict) and "image" in str(part.get("mediaType")):
            skipped.append(Skipped(reason="image"))
        elif kind not in _IGNORED_PARTS:
            skipped.append(Skipped(reason=skip_reason(kind)))
    return "\n\n".join(text for text in texts if text), skipped


def read_blocks(blocks: list[Any]) -> tuple[str, list[Skipped]]:
    """The text of the blocks of a message, and the others; a block that is missing (None) counts as an attachment."""
    texts: list[str] = []
    skipped: list[Skipped] = []
    for block in blocks:
        kind = block.get("type") if isinstance(block, dict) else None
        content = block.get("content") if isinstance(block, dict) else None
        if kind == "main_text" and isinstance(content, str):
            texts.append(content)
        elif isinstance(block, dict) and kind == "code" and isinstance(content, str):
            texts.append(f"```{text_or_empty(block.get('language'))}\n{content}\n```")
        elif kind == "error":
            skipped.append(Skipped(reason="failed answer"))
        elif kind not in _IGNORED_BLOCKS:
            skipped.append(Skipped(reason=skip_reason(kind)))
    return "\n\n".join(text for text in texts if text), skipped
