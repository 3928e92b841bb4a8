"""CrossWOZ JSON (`train.json`, `val.json`, `test.json`): one object of dialogues by number.

Each has `messages` with the roles `usr` and `sys`; dialogue acts and states are ignored. Also reads a file
with a single dialogue, and JSONL of dialogues.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    build_conversation,
    parse_role,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import (
    OnBytes,
    first_value,
    ignore_bytes,
    json_members,
    json_values,
)
from engine.memory.records import Conversation, Skipped, Turn

NAME = "crosswoz"

_ROLES = {"usr": Role.USER, "sys": Role.ASSISTANT}


def detect(path: Path, value: Any) -> bool:
    return _is_dialogue(value) or (isinstance(value, dict) and _is_dialogue(next(iter(value.values()), None)))


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per dialogue. Raises BadInput."""
    first = first_value(path)
    by_number = isinstance(first, dict) and "messages" not in first
    for number, dialogue in json_members(path, on_bytes) if by_number else json_values(path, on_bytes):
        messages = dialogue.get("messages") if isinstance(dialogue, dict) else None
        if not isinstance(messages, list):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        id_ = text_or_empty(number if by_number else dialogue.get("id"))
        yield from build_conversation(_turns(messages, options.roles), source=NAME, external_id=id_)


def _is_dialogue(value: object) -> bool:
    messages = value.get("messages") if isinstance(value, dict) else None
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, dict) and first.get("role") in ("usr", "sys")


def _turns(messages: list[Any], role_map: RoleMap) -> Iterator[Turn | Skipped]:
    for message in messages:
        name = message.get("role") if isinstance(message, dict) else None
        text = message.get("content") if isinstance(message, dict) else None
        role = (_ROLES.get(name) if isinstance(name, str) else None) or parse_role(name, role_map)
        if role is None:
            yield unknown_role(name)
        elif not isinstance(text, str):
            yield Skipped(reason="message of another shape")
        elif not text.strip():
            yield Skipped(reason="empty message")
        else:
            yield Turn(role=role, text=text)
