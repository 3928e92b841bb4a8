"""Alpaca: rows of `instruction`, `input`, `output`, `system` and `history`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import ImportOptions, parse_time, text_or_empty
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.records import Conversation, Skipped, Turn

NAME = "alpaca"


def detect(path: Path, value: Any) -> bool:
    return isinstance(value, dict) and "instruction" in value and "output" in value


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per row: system prompt, history, question with its input, answer. Raises BadInput."""
    for _line, row in json_values(path, on_bytes):
        if not detect(path, row):
            yield Skipped(reason="row of another shape", is_conversation=True)
            continue
        instruction, answer = _text(row["instruction"]), _text(row["output"])
        if instruction is None or not answer:
            yield Skipped(reason="row without an answer", is_conversation=True)
            continue
        history = _history(row.get("history"))
        if history is None:
            yield Skipped(reason="history of another shape", is_conversation=True)
            continue
        system = _text(row.get("system"))
        extra = _text(row.get("input"))
        question = f"{instruction}\n{extra}" if instruction and extra else instruction or extra or ""
        yield Conversation.of(
            [*([Turn(role=Role.SYSTEM, text=system)] if system else []), *history, *_pair(question, answer)],
            source=NAME,
            external_id=text_or_empty(row.get("id")),
            started_at=parse_time(row.get("timestamp")),
        )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _pair(question: str, answer: str) -> list[Turn]:
    return [Turn(role=Role.USER, text=question), Turn(role=Role.ASSISTANT, text=answer)]


def _history(history: object) -> list[Turn] | None:
    """The earlier turns, from a list of pairs; None when it is malformed."""
    if history is None:
        return []
    if not isinstance(history, list):
        return None
    turns: list[Turn] = []
    for pair in history:
        if not (
            isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        ):
            return None
        turns += _pair(*pair)
    return turns
