"""Rows of `{"prompt", "completion"}`, each a text or, in TRL's form, a list of messages.

Also MindX's training rows, `{"prompt": "用户: …", "completion": "助手: …"}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    parse_content,
    parse_role,
    parse_time,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.records import Conversation, Skipped, Turn

NAME = "completion"

_LABEL = re.compile(r"\A(?:用户|助手): ")


def detect(path: Path, value: Any) -> bool:
    return isinstance(value, dict) and "prompt" in value and "completion" in value


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per row. Raises BadInput."""
    for _line, row in json_values(path, on_bytes):
        if not detect(path, row):
            yield Skipped(reason="row of another shape", is_conversation=True)
            continue
        turns: list[Turn] = []
        system = row.get("system")
        if isinstance(system, str) and system:
            turns.append(Turn(role=Role.SYSTEM, text=system))
        for side, role in (("prompt", Role.USER), ("completion", Role.ASSISTANT)):
            for item in _turns(row[side], role, options.roles):
                if isinstance(item, Turn):
                    turns.append(item)
                else:
                    yield item
        if not turns or turns[-1].role is not Role.ASSISTANT:
            yield Skipped(reason="row without an answer", is_conversation=True)
            continue
        yield Conversation.of(
            turns,
            source=NAME,
            external_id=text_or_empty(row.get("id")),
            started_at=parse_time(row.get("timestamp")),
        )


def _turns(side: object, role: Role, role_map: RoleMap) -> Iterator[Turn | Skipped]:
    if isinstance(side, str):
        text = _LABEL.sub("", side)
        if text or role is Role.USER:
            yield Turn(role=role, text=text)
        return
    for message in side if isinstance(side, list) else []:
        name = message.get("role") if isinstance(message, dict) else None
        speaker = parse_role(name, role_map)
        if speaker is None:
            yield unknown_role(name)
            continue
        text, skipped = parse_content(message.get("content"))
        yield from skipped
        if text:
            yield Turn(role=speaker, text=text)
        elif not skipped:
            yield Skipped(reason="empty message")
