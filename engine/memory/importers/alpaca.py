"""Alpaca: rows of `instruction`, `input`, `output` and `history`; also `prompt` and `completion`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.memory.importers.files import OnBytes, first_value, ignore_bytes, json_values
from engine.memory.importers.roles import RoleMap, text_or_empty, time_of
from engine.memory.points import Conversation, Role, Skipped, Turn

NAME = "alpaca"

_KEYS = (("instruction", "output"), ("prompt", "completion"))
_LABEL = re.compile(r"\A(?:用户|助手): ")
"""MindX writes its training rows as {"prompt": "用户: …", "completion": "助手: …"}."""


def recognise(path: Path) -> bool:
    value = first_value(path)
    return isinstance(value, dict) and any(a in value and b in value for a, b in _KEYS)


def read(path: Path, role_map: RoleMap, on_bytes: OnBytes = ignore_bytes) -> Iterator[Conversation | Skipped]:
    """One conversation for each row: system, history, question with its input, answer. Raises BadInput."""
    for _line, row in json_values(path, on_bytes):
        keys = next(((a, b) for a, b in _KEYS if isinstance(row, dict) and a in row and b in row), None)
        if keys is None:
            yield Skipped(reason="row of another shape", whole=True)
            continue
        question, answer = _plain(row[keys[0]]), _plain(row[keys[1]])
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
            started_at=time_of(row.get("timestamp")),
        )


def _plain(value: Any) -> str | None:
    return _LABEL.sub("", value) if isinstance(value, str) else None


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
