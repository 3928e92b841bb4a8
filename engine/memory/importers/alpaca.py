"""Alpaca: rows of `instruction`, `input`, `output`, `system` and `history`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import RoleMap, parse_time, text_or_empty
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.records import Conversation, Skipped, Turn

NAME = "alpaca"


def detect(path: Path, value: Any) -> bool:
    return isinstance(value, dict) and "instruction" in value and "output" in value


def read(path: Path, role_map: RoleMap, on_bytes: OnBytes = ignore_bytes) -> Iterator[Conversation | Skipped]:
    """One conversation for each row: system, history, question with its input, answer. Raises BadInput."""
    for _line, row in json_values(path, on_bytes):
        if not detect(path, row):
            yield Skipped(reason="row of another shape", whole=True)
            continue
        question, answer = _plain(row["instruction"]), _plain(row["output"])
        if question is None or not answer:
            yield Skipped(reason="row without an answer", whole=True)
            continue
        turns = list(_history(row.get("history")))
        if None in turns:
            yield Skipped(reason="history of another shape", whole=True)
            continue
        system = _plain(row.get("system"))
        extra = _plain(row.get("input"))
        head = [Turn(role=Role.SYSTEM, text=system)] if system else []
        asked = f"{question}\n{extra}" if question and extra else question or extra or ""
        yield Conversation.of(
            [*head, *(turn for turn in turns if turn), *_pair(asked, answer)],
            source=NAME,
            external_id=text_or_empty(row.get("id")),
            started_at=parse_time(row.get("timestamp")),
        )


def _plain(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _pair(question: str, answer: str) -> Iterator[Turn]:
    yield Turn(role=Role.USER, text=question)
    yield Turn(role=Role.ASSISTANT, text=answer)


def _history(history: object) -> Iterator[Turn | None]:
    """The turns before; one None when the history cannot be understood."""
    if history is None:
        return
    if not isinstance(history, list):
        yield None
        return
    for pair in history:
        if isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair):
            yield from _pair(*pair)
        else:
            yield None
