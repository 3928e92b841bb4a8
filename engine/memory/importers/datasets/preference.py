"""Preference data (DPO, ORPO, reward models): the chosen answer is taken, the rejected one counted.

`prompt` with `chosen` and `rejected` as texts, messages or whole dialogues (TRL, UltraFeedback, Anthropic's HH), after
`messages` or `conversations` (ms-swift, LLaMA-Factory), and OpenAI's `preferred_output` after `input.messages`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.datasets.data_columns import (
    INSTRUCTION,
    QUESTION,
    Items,
    Row,
    answer_items,
    columns,
    ends_with_answer,
    first_of,
    has_column,
    listed,
    question_items,
    read_rows,
    spoken,
)
from engine.memory.importers.fields import ImportOptions, RoleMap
from engine.memory.importers.readers.files import OnBytes, ignore_bytes
from engine.memory.records import Conversation, Skipped, Turn

NAME = "preference"

_CHOSEN = ("chosen", "chosenresponse", "responsechosen", "preferredoutput", "preferred", "responsej", "优选")
_REJECTED = (
    *("rejected", "rejectedresponse", "responserejected", "nonpreferredoutput", "dispreferred", "responsek"),
    "劣选",
)
_BEFORE = ("messages", "conversations", "conversation")


def detect(path: Path, value: Any) -> bool:
    row = columns(value)
    return has_column(row, _REJECTED) and has_column(row, (*_CHOSEN, *_BEFORE))


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per row. Raises BadInput."""
    return read_rows(path, options, on_bytes, NAME, _items)


def _items(value: Any, role_map: RoleMap) -> Items | Skipped:
    if not detect(Path(), value):
        return Skipped(reason="row of another shape", is_conversation=True)
    row = columns(value)
    try:
        before = _before(row, role_map)
    except ValueError:
        return Skipped(reason="history of another shape", is_conversation=True)
    chosen = _with_context(first_of(row, _CHOSEN), before, role_map)
    if not ends_with_answer(chosen):
        return Skipped(reason="row without an answer", is_conversation=True)
    rejected = _with_context(first_of(row, _REJECTED), before, role_map)
    if has_column(row, _CHOSEN):
        count = _turns_after_common(chosen, rejected)
    else:
        # The talk ends with the chosen answer.
        count = len(_turns(rejected)) - len(_turns(before))
    return chosen + ([Skipped(reason="answer that its source rejects", count=count)] if count > 0 else [])


def _before(row: Row, role_map: RoleMap) -> Items:
    """The turns before the answers."""
    given = row.get("input")
    messages = given.get("messages") if isinstance(given, dict) else None
    talk = spoken(messages if messages is not None else listed(first_of(row, _BEFORE)), role_map)
    if talk is None:
        names = INSTRUCTION if has_column(row, INSTRUCTION) else QUESTION
        return question_items(row, names, role_map)
    system = row.get("system")
    opening = [Turn(role=Role.SYSTEM, text=system)] if isinstance(system, str) and system.strip() else []
    return [*opening, *talk]


def _with_context(value: object, before: Items, role_map: RoleMap) -> Items:
    """The whole talk with this answer: `before` is left away where the answer repeats it."""
    talk = spoken(value, role_map)
    if talk is None:
        return before + answer_items(value, role_map)
    if not any(turn.role is Role.USER for turn in _turns(talk)):
        return before + talk
    systems = [turn for turn in _turns(before) if turn.role is Role.SYSTEM]
    return talk if any(turn.role is Role.SYSTEM for turn in _turns(talk)) else [*systems, *talk]


def _turns(items: Items) -> list[Turn]:
    return [item for item in items if isinstance(item, Turn)]


def _turns_after_common(chosen: Items, rejected: Items) -> int:
    """How many turns of the rejected talk differ from the chosen one."""
    kept, others = _turns(chosen), _turns(rejected)
    same = 0
    for one, other in zip(kept, others, strict=False):
        if (one.role, one.text) != (other.role, other.text):
            break
        same += 1
    return len(others) - same
