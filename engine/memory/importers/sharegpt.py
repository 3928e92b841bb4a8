"""ShareGPT: rows of `conversations`, each message with `from` and `value`."""

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


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per row. Tool calls and their results have the role `tool`. Raises BadInput."""
    for _line, row in json_values(path, on_bytes):
        if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
            yield Skipped(reason="row of another shape", is_conversation=True)
            continue
        yield from build_conversation(
            _turns(row, options.roles),
            source=NAME,
            external_id=text_or_empty(row.get("id")),
            title=text_or_empty(row.get("title")),
            started_at=parse_time(row.get("create_time")),
            updated_at=parse_time(row.get("update_time")),
        )


def _turns(row: dict[str, Any], role_map: RoleMap) -> Iterator[Turn | Skipped]:
    system = row.get("system")
    if isinstance(system, str) and system:
        yield Turn(role=Role.SYSTEM, text=system)
    if row.get("tools"):
        yield Skipped(reason="tool description")
    for message in row["conversations"]:
        yield from _turn(message, role_map)


def _turn(message: object, role_map: RoleMap) -> Iterator[Turn | Skipped]:
    if not isinstance(message, dict):
        yield Skipped(reason="message of another shape")
        return
    name = message.get("from", message.get("role"))
    value = message.get("value", message.get("content"))
    role = parse_role(name, role_map)
    if role is None:
        yield unknown_role(name)
    elif not isinstance(value, str):
        yield Skipped(reason="message of another shape")
    else:
        text, skipped = strip_reasoning(value, role)
        yield from skipped
        yield Turn(role=role, text=text) if text else Skipped(reason="empty message")
