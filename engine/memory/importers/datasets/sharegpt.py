"""ShareGPT and its variants: rows of a list of messages with `from` and `value`, of pairs, or of texts in turn.

The list is `conversations`, `conversation`, `items`, `dialogue` …; its elements may be `{"human", "assistant"}` or
`["question", "answer"]` pairs, or texts of which the first is the user's (UltraChat). A file may be one list of
`{"user": …}` and `{"assistant": …}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.datasets.data_columns import (
    SYSTEM,
    Items,
    columns,
    exchange_items,
    first_of,
    listed,
    message_items,
    read_rows,
)
from engine.memory.importers.fields import ImportOptions, RoleMap, build_conversation, parse_role
from engine.memory.importers.readers.files import OnBytes, first_value, ignore_bytes, json_values
from engine.memory.importers.turns import text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "sharegpt"

_LISTS = (
    *("conversations", "conversation", "items", "dialog", "dialogue", "dialogs", "chat", "turns", "data"),
    *("utterances", "rounds", "对话", "多轮对话"),
)


def detect(path: Path, value: Any) -> bool:
    return _talk(value) is not None or _is_lone_message(value)


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per row. Tool calls and their results have the role `tool`. Raises BadInput."""
    if _is_lone_message(first_value(path)):
        items = [item for _line, row in json_values(path, on_bytes) for item in _element(row, options.roles)]
        yield from build_conversation(items, source=NAME)
        return
    yield from read_rows(path, options, on_bytes, NAME, _items)


def _talk(value: Any) -> list[Any] | None:
    """The list of a row's messages; None when the row has none."""
    if isinstance(value, list):
        return value if value and not isinstance(value[0], str) and _is_talk(value) else None
    row = columns(value)
    for name in _LISTS:
        messages = listed(row.get(name))
        if isinstance(messages, list) and (name == "conversations" or _is_talk(messages)):
            return messages
    messages = listed(row.get("messages"))
    if isinstance(messages, list) and _is_talk(messages):
        # With roles they are OpenAI's, which a table holds as text.
        is_openai = isinstance(messages[0], dict) and "role" in messages[0]
        return None if is_openai and isinstance(row["messages"], list) else messages
    return None


def _is_talk(messages: list[Any]) -> bool:
    first = next((message for message in messages if message), None)
    if isinstance(first, str):
        return len(messages) > 1 and all(isinstance(text, str) for text in messages)
    items = exchange_items(first, {})
    return items is not None and any(isinstance(item, Turn) for item in items)


def _is_lone_message(value: object) -> bool:
    """Whether a value is a message whose only key is its speaker."""
    if not isinstance(value, dict) or len(value) != 1:
        return False
    ((name, text),) = value.items()
    return isinstance(text, str) and parse_role(name, {}) in (Role.USER, Role.ASSISTANT, Role.SYSTEM)


def _items(value: Any, role_map: RoleMap) -> Items | Skipped:
    messages = _talk(value)
    if messages is None:
        return Skipped(reason="row of another shape", is_conversation=True)
    row = columns(value)
    items: Items = []
    system = first_of(row, SYSTEM)
    if isinstance(system, str):
        items.append(Turn(role=Role.SYSTEM, text=system))
    if row.get("tools"):
        items.append(Skipped(reason="tool description"))
    if messages and all(isinstance(message, str) for message in messages):
        for place, text in enumerate(messages):
            items += text_turn(Role.ASSISTANT if place % 2 else Role.USER, text)
        return items
    for message in messages:
        items += _element(message, role_map)
    return items


def _element(message: object, role_map: RoleMap) -> Items:
    if _is_lone_message(message):
        assert isinstance(message, dict)
        ((name, text),) = message.items()
        return text_turn(parse_role(name, role_map) or Role.USER, text)
    found = exchange_items(message, role_map)
    return message_items(message, role_map) if found is None else found
