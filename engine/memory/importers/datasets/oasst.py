"""OpenAssistant: trees of messages, `{"message_tree_id", "prompt": {"text", "replies"}}`, and their flat rows.

The best-ranked branch is read; the other answers to a question on it are its alternatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine.core.chat import Role
from engine.memory.importers.datasets.data_columns import Items, is_masked
from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    build_conversation,
    parse_role,
    parse_time,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.turns import text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "oasst"

_LAST_RANK = float("inf")


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return _is_tree(value) or _is_flat(value)


def _is_tree(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("prompt"), dict) and isinstance(value["prompt"].get("replies"), list)


def _is_flat(value: object) -> bool:
    return isinstance(value, dict) and value.keys() >= {"message_id", "parent_id", "text", "role"}


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per tree. Flat rows are held in memory until the end: parents may follow. Raises BadInput."""
    rows: dict[str, dict[str, Any]] = {}
    for _line, row in json_values(path, on_bytes):
        if _is_tree(row):
            yield from _conversation(row["prompt"], text_or_empty(row.get("message_tree_id")), options.roles)
        elif not _is_flat(row) or not (id_ := text_or_empty(row["message_id"])):
            yield Skipped(reason="row of another shape", is_conversation=True)
        elif id_ in rows:
            yield Skipped(reason="repeated message")
        else:
            rows[id_] = {**row, "replies": []}
    for root in _roots(rows):
        tree = text_or_empty(root.get("message_tree_id")) or text_or_empty(root["message_id"])
        yield from _conversation(root, tree, options.roles)


def _roots(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The first messages, with the others below them; a message of a cycle, or without its parent, is a first one."""
    above: dict[str, str] = {}
    roots = []
    for id_, row in rows.items():
        parent = text_or_empty(row["parent_id"])
        place = parent
        while place and place != id_:
            place = above.get(place, "")
        if parent in rows and place != id_:
            above[id_] = parent
            rows[parent]["replies"].append(row)
        else:
            roots.append(row)
    return roots


def _conversation(root: dict[str, Any], tree: str, role_map: RoleMap) -> Iterator[Conversation | Skipped]:
    return build_conversation(_branch(root, role_map), source=NAME, external_id=tree)


def _branch(root: dict[str, Any], role_map: RoleMap) -> Items:
    items: Items = []
    siblings: list[dict[str, Any]] = [root]
    while siblings:
        siblings.sort(key=_preference)
        best, *others = siblings
        found = _message(best, role_map)
        answers: list[str] = []
        left_out = 0
        for other in others:
            turn = next((item for item in _message(other, role_map) if isinstance(item, Turn)), None)
            is_answer = turn is not None and turn.role is Role.ASSISTANT
            if turn is not None and is_answer:
                answers.append(turn.text)
            left_out += _size(other) - is_answer
        for item in found:
            if isinstance(item, Turn) and item.role is Role.ASSISTANT:
                distinct = tuple(dict.fromkeys(text for text in answers if text != item.text))
                left_out += len(answers) - len(distinct)
                item = msgspec.structs.replace(item, alternatives=distinct)
                answers = []
            items.append(item)
        if left_out + len(answers):
            items.append(Skipped(reason="message of another branch", count=left_out + len(answers)))
        siblings = _replies(best)
    return items


def _preference(message: dict[str, Any]) -> tuple[bool, bool, float]:
    """Kept messages before deleted ones, questions with an answer before others, then by rank."""
    rank = message.get("rank")
    is_open = parse_role(message.get("role"), {}) is not Role.ASSISTANT and not _replies(message)
    is_ranked = isinstance(rank, int | float) and rank == rank
    return message.get("deleted") is True, is_open, float(rank or 0) if is_ranked else _LAST_RANK


def _replies(message: dict[str, Any]) -> list[dict[str, Any]]:
    replies = message.get("replies")
    return [reply for reply in replies if isinstance(reply, dict)] if isinstance(replies, list) else []


def _message(message: dict[str, Any], role_map: RoleMap) -> Items:
    role = parse_role(message.get("role"), role_map)
    if role is None:
        return [unknown_role(message.get("role"))]
    if message.get("deleted") is True:
        return [Skipped(reason="deleted message")]
    items = text_turn(
        role,
        message.get("text"),
        time=parse_time(message.get("created_date")),
        external_id=text_or_empty(message.get("message_id")),
    )
    masked = is_masked(message)
    return [
        msgspec.structs.replace(item, masked=masked) if isinstance(item, Turn) else item for item in items
    ]


def _size(message: dict[str, Any]) -> int:
    """The messages at and below one."""
    found = [message]
    for one in found:
        found += _replies(one)
    return len(found)
