"""Gemini in Workspace: Takeout's "Conversation History", one JSON document per file (`conversation_<n>.txt`).

`conversation_turns` are `user_turn` or `system_turn`; the latter is the model's. `turn_index` counts both sides and
repeats where a turn was edited or regenerated: the last one counts, the others of an answer are alternatives.
Shape as a third-party reader describes it from a real export; the order of repeated turns is not verified.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    build_conversation,
    parse_time,
    skip_attached,
    text_or_empty,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.turns import text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "gemini_workspace"


def detect(path: Path, value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("conversation_turns"), list)


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per document. Raises BadInput."""
    for _line, value in json_values(path, on_bytes):
        if not detect(path, value):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        began = parse_time(value.get("creation_time"))
        yield from build_conversation(
            _turns(value["conversation_turns"]),
            source=NAME,
            # The export names no id; the moment of creation is one.
            external_id=text_or_empty(value.get("creation_time")),
            title=text_or_empty(value.get("title")),
            started_at=began,
            updated_at=parse_time(value.get("last_modification_time")),
        )


def _turns(entries: list[Any]) -> Iterator[Turn | Skipped]:
    found = [turn for entry in entries if (turn := _side(entry)) is not None]
    if len(found) < len(entries):
        yield Skipped(reason="message of another shape", count=len(entries) - len(found))
    ordered = sorted(found, key=lambda turn: turn[0])
    for _index, repeated in groupby(ordered, key=lambda turn: turn[0]):
        messages = [list(_message(role, turn)) for _index, role, turn in repeated]
        yield from (item for message in messages for item in message if isinstance(item, Skipped))
        spoken = [item for message in messages for item in message if isinstance(item, Turn)]
        if not spoken:
            continue
        shown = spoken[-1]
        others = spoken[:-1]
        if shown.role is Role.ASSISTANT:
            same = [turn for turn in others if turn.role is Role.ASSISTANT]
            texts = tuple(text for text in dict.fromkeys(turn.text for turn in same) if text != shown.text)
            shown = msgspec.structs.replace(shown, alternatives=texts)
            others = [turn for turn in others if turn.role is not Role.ASSISTANT]
        if others:
            yield Skipped(reason="message of another branch", count=len(others))
        yield shown


def _side(entry: object) -> tuple[int, Role, dict[str, Any]] | None:
    for name, role in (("user_turn", Role.USER), ("system_turn", Role.ASSISTANT)):
        turn = entry.get(name) if isinstance(entry, dict) else None
        index = turn.get("turn_index") if isinstance(turn, dict) else None
        if isinstance(turn, dict) and isinstance(index, int | float | str):
            try:
                return int(index), role, turn
            except (ValueError, OverflowError):
                return None
    return None


def _message(role: Role, turn: dict[str, Any]) -> Iterator[Turn | Skipped]:
    if turn.get("turn_deleted_time"):
        yield Skipped(reason="deleted message")
        return
    skipped = skip_attached(turn.get("images"), "image")
    if turn.get("model_thoughts"):
        skipped.append(Skipped(reason="reasoning"))
    text = turn.get("prompt")
    if role is Role.ASSISTANT:
        parts = turn.get("text")
        text = "\n".join(
            part for entry in (parts if isinstance(parts, list) else [parts]) for part in _parts(entry)
        )
    yield from text_turn(role, text, time=parse_time(turn.get("turn_last_modified")), skipped=skipped)


def _parts(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        cards = entry.get("cards")
        contents = (
            [card.get("content") for card in cards if isinstance(card, dict)]
            if isinstance(cards, list)
            else []
        )
        yield from (part for part in (entry.get("data"), *contents) if isinstance(part, str) and part)
