"""OpenAI `messages`: JSONL of `{"messages": [{"role", "content"}]}`, a JSON list of them, or one conversation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.datasets.bare_messages import (
    current_message,
    grouped,
    is_bare_message,
    is_tree,
    links,
    message_id,
    message_time,
)
from engine.memory.importers.datasets.data_columns import BAD_EXAMPLE, columns, is_bad_example, is_masked
from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    build_conversation,
    omitted_question,
    parse_content,
    parse_role,
    parse_time,
    strip_reasoning,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.message_tree import NodesById, current_branch
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.turns import tree_node
from engine.memory.records import Conversation, Skipped, Turn

NAME = "openai"

_TEXT_KEYS = ("content", "text", "value", "say")
"""Other programs that keep `messages` name the text differently."""


def detect(path: Path, value: Any) -> bool:
    return isinstance(value, dict) and (isinstance(value.get("messages"), list) or is_bare_message(value))


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per row; of bare messages, one for each conversation that they name. Raises BadInput."""
    bare: list[Any] = []
    for _line, row in json_values(path, on_bytes):
        if isinstance(row, dict) and isinstance(row.get("messages"), list):
            yield from [BAD_EXAMPLE] if is_bad_example(columns(row)) else _conversation(row, options.roles)
        elif is_bare_message(row):
            bare.append(row)
        else:
            yield Skipped(reason="row of another shape", is_conversation=True)
    for id_, messages in grouped(bare):
        yield from _conversation({"id": id_, "messages": messages}, options.roles)


def _conversation(row: dict[str, Any], role_map: RoleMap) -> Iterator[Conversation | Skipped]:
    messages = row["messages"]
    return build_conversation(
        _branch(row, role_map)
        if is_tree(messages)
        else (item for message in messages for item in _turns(message, role_map)),
        source=NAME,
        external_id=text_or_empty(row.get("id")),
        title=text_or_empty(row.get("title")),
        started_at=parse_time(row.get("created_at", row.get("create_time"))),
        updated_at=parse_time(row.get("updated_at", row.get("update_time"))),
    )


def _branch(row: dict[str, Any], role_map: RoleMap) -> Iterator[Turn | Skipped]:
    """The branch that a person saw, of messages that name their parents."""
    nodes = NodesById()
    for message in row["messages"]:
        fields = message if isinstance(message, dict) else {}
        parent, children = links(fields)
        node = tree_node(
            _turns(message, role_map),
            parse_role(fields.get("role"), role_map),
            parent,
            children,
            message_time(fields),
        )
        nodes.add(message_id(fields), node)
    return current_branch(nodes.nodes, nodes.key_of(current_message(row)))


def _turns(message: object, role_map: RoleMap) -> Iterator[Turn | Skipped]:
    if not isinstance(message, dict):
        yield Skipped(reason="message of another shape")
        return
    role = parse_role(message.get("role"), role_map)
    if role is None:
        yield unknown_role(message.get("role"))
        return
    if role is Role.ASSISTANT and message.get("channel") == "analysis":
        yield Skipped(reason="reasoning")
        return
    content = next((message[key] for key in _TEXT_KEYS if message.get(key) is not None), None)
    text, skipped = parse_content(content)
    text, stripped = strip_reasoning(text, role)
    skipped += stripped
    if message.get("reasoning_content") or message.get("reasoning"):
        skipped.append(Skipped(reason="reasoning"))
    yield from skipped
    calls = message.get("tool_calls") or message.get("function_call")
    time = message_time(message)
    id_ = text_or_empty(message.get("id"))
    if text.strip():
        yield Turn(role=role, text=text, time=time, external_id=id_, masked=is_masked(message))
    elif not skipped and not calls:
        yield Skipped(reason="empty message")
    if role is Role.USER and not text.strip():
        yield omitted_question(time, id_)
    if calls:
        yield Turn(role=Role.TOOL, text=json.dumps(calls, ensure_ascii=False), time=time)
