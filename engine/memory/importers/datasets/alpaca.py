"""Alpaca and Dolly: rows of an instruction, what it is about, and the answer.

`instruction`, `input` or `context`, `output` or `response`, with `system` and `history`; see `data_columns` for other
names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.memory.importers.datasets.data_columns import (
    ANSWER,
    INSTRUCTION,
    Items,
    answer_items,
    columns,
    ends_with_answer,
    first_of,
    has_column,
    has_talk,
    question_items,
    read_rows,
)
from engine.memory.importers.fields import ImportOptions, RoleMap
from engine.memory.importers.readers.files import OnBytes, ignore_bytes
from engine.memory.records import Conversation, Skipped

NAME = "alpaca"


def detect(path: Path, value: Any) -> bool:
    row = columns(value)
    return has_column(row, INSTRUCTION) and has_column(row, ANSWER) and not has_talk(row)


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per row: system prompt, history, question with its input, answer. Raises BadInput."""
    return read_rows(path, options, on_bytes, NAME, _items)


def _items(value: Any, role_map: RoleMap) -> Items | Skipped:
    if not detect(Path(), value):
        return Skipped(reason="row of another shape", is_conversation=True)
    row = columns(value)
    if not any(isinstance(row.get(name), str) for name in INSTRUCTION):
        return Skipped(reason="row without an answer", is_conversation=True)
    try:
        items = question_items(row, INSTRUCTION, role_map)
    except ValueError:
        return Skipped(reason="history of another shape", is_conversation=True)
    answer = answer_items(first_of(row, ANSWER), role_map)
    if not ends_with_answer(answer):
        return Skipped(reason="row without an answer", is_conversation=True)
    return items + answer
