"""ShareGPT: rows of `conversations`, each message with `from` and `value`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    RoleMap,
    parse_role,
    parse_time,
    strip_reasoning,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.records import Conversation, Skipped, Turn

NAME = "sharegpt"


def detect(path: Path, value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("conversations"), list)


def read(path: Path, role_map: RoleMap, on_bytes: OnBytes = ignore_bytes) -> Iterator[Conversation | Skipped]:
    """One conversation for each row. Tool calls and their results have the role `tool`. Raises BadInput."""
    for _line, row in json_values(path, on_bytes):
        messages = row.get("conversations") if isinstance(row, dict) else None
        if not isinstance(messages, list):
            yield Skipped(reason="row of another shape", whole=True)
            continue
        turns = []
        system = row.get("system")
        if isinstance(system, str) and system:
            turns.append(Turn(role=Role.SYSTEM, text=system))
        if row.get("tools"):
            yield Skipped(reason="tool description")
        for message in messages:
            for made in _turn(message, role_map):
                if isinstance(made, Skipped):
                    yield made
                else:
                    turns.append(made)
        if not any(turn.role in (Role.USER, Role.ASSISTANT) for turn in turns):
            yield Skipped(reason="empty conversation", whole=True)
            continue
        yield Conversation.of(
            turns,
            source=NAME,
            external_id=text_or_empty(row.get("id")),
            title=text_or_empty(row.get("title")),
            started_at=parse_time(row.get("create_time")),
            updated_at=parse_time(row.get("update_time")),
        )


def _turn(message: object, role_map: RoleMap) -> list[Turn | Skipped]:
    if not isinstance(message, dict):
        return [Skipped(reason="message of another shape")]
    name = message.get("from", message.get("role"))
    text = message.get("value", message.get("content"))
    role = parse_role(name, role_map)
    if role is None:
        return [unknown_role(name)]
    if not isinstance(text, str):
        return [Skipped(reason="message of another shape")]
    said, thought = strip_reasoning(text, role)
    return [*thought, Turn(role=role, text=said) if said else Skipped(reason="empty message")]
