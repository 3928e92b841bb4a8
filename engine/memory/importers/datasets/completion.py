"""Rows of one question and its answer, `{"prompt", "completion"}` under any of the names in `data_columns`.

Each is a text or, in TRL's form, a list of messages. Also MindX's training rows, `{"prompt": "用户: …", "completion":
"助手: …"}`; rows of a `text` with marks of the speakers; and lists of texts, of which the first is
the question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine.core.chat import Role
from engine.memory.importers.datasets.data_columns import (
    ANSWER,
    QUESTION,
    Items,
    answer_items,
    columns,
    ends_with_answer,
    first_of,
    is_header,
    is_pair,
    question_items,
    read_rows,
    spoken,
)
from engine.memory.importers.fields import ImportOptions, RoleMap
from engine.memory.importers.readers.files import OnBytes, ignore_bytes
from engine.memory.importers.turns import text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "completion"

_LABEL = re.compile(r"\A(?:用户|助手): ")
_TEXT = ("text", "content", "conversation", "dialogue", "prompt")
"""Columns of a whole dialogue."""


def detect(path: Path, value: Any) -> bool:
    return is_pair(value) or _is_text_list(value) or bool(_whole_dialogue(value, {}))


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per row. Raises BadInput."""
    return read_rows(path, options, on_bytes, NAME, _items)


def _items(value: Any, role_map: RoleMap) -> Items | Skipped:
    if whole := _whole_dialogue(value, role_map):
        return whole
    if _is_text_list(value) and not is_header(value):
        return [
            item
            for place, text in enumerate(value)
            for item in text_turn(Role.ASSISTANT if place % 2 else Role.USER, text)
        ]
    if not is_pair(value):
        return Skipped(reason="row of another shape", is_conversation=True)
    row = columns(value)
    try:
        items = question_items(row, QUESTION, role_map)
    except ValueError:
        return Skipped(reason="history of another shape", is_conversation=True)
    items += answer_items(first_of(row, ANSWER), role_map)
    if not ends_with_answer(items):
        return Skipped(reason="row without an answer", is_conversation=True)
    return [_without_label(item) for item in items]


def _is_text_list(value: object) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(text, str) for text in value)


def _whole_dialogue(value: object, role_map: RoleMap) -> Items | None:
    row = columns(value)
    # A message by itself may quote a dialogue.
    text = None if "role" in row or "from" in row else first_of(row, _TEXT)
    items = spoken(text, role_map) if isinstance(text, str) else None
    roles = {item.role for item in items or () if isinstance(item, Turn)}
    return items if roles >= {Role.USER, Role.ASSISTANT} else None


def _without_label(item: Turn | Skipped) -> Turn | Skipped:
    if isinstance(item, Turn) and (label := _LABEL.match(item.text)):
        return msgspec.structs.replace(item, text=item.text[label.end() :])
    return item
