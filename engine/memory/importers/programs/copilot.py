"""Microsoft Copilot: the CSV of the activity history, from the privacy dashboard.

A row is one message, `Conversation,Time,Author,Message`; the conversation is named by its title only, so rows of one
title in a row are one conversation. Files run backwards or forwards, and a question and its answer often have the
same second. Shape as users of other converters describe it; the zone of `Time` is not known and read as UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    build_conversation,
    parse_role,
    parse_time,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.turns import text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "copilot"

_COLUMNS = {"Conversation", "Time", "Author", "Message"}


def detect(path: Path, value: Any) -> bool:
    return isinstance(value, dict) and value.keys() >= _COLUMNS


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """The conversations, the oldest first. All rows are held in memory: most files run backwards. Raises BadInput."""
    rows: list[dict[str, Any]] = []
    for _line, row in json_values(path, on_bytes):
        if detect(path, row) and isinstance(row["Message"], str):
            rows.append(row)
        else:
            yield Skipped(reason="row of another shape")
    if _runs_backwards(rows):
        rows.reverse()
    for title, group in groupby(rows, key=lambda row: row["Conversation"]):
        # Stable: rows of one second keep their order.
        messages = sorted(group, key=lambda row: parse_time(row["Time"]) or 0)
        yield from build_conversation(
            [item for row in messages for item in _turns(row, options)],
            source=NAME,
            external_id=text_or_empty(messages[0]["Time"]),
            title=text_or_empty(title),
        )


def _runs_backwards(rows: list[dict[str, Any]]) -> bool:
    times = [time for row in rows if (time := parse_time(row["Time"])) is not None]
    if times and times[0] != times[-1]:
        return times[0] > times[-1]
    return bool(rows) and parse_role(rows[0]["Author"], {}) is Role.ASSISTANT


def _turns(row: dict[str, Any], options: ImportOptions) -> list[Turn | Skipped]:
    role = parse_role(row["Author"], options.roles)
    if role is None:
        return [unknown_role(row["Author"])]
    return text_turn(role, row["Message"], time=parse_time(row["Time"]))
