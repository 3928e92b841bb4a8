"""AnythingLLM: the workspace chats as JSON, JSON lines or CSV, where a row is a question with its answer.

The rows of all threads and users stand together without a thread id: those of one workspace and user that are less
than half an hour apart are read as one conversation. Shape as written by AnythingLLM's source (`convertTo.js`); CSV
has spaces in place of line ends. Its `jsonl` of `messages` is read as OpenAI's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from engine.memory.records import Conversation, Skipped

NAME = "anythingllm"

_SILENCE_S = 30 * 60


def detect(path: Path, value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() >= {"prompt", "response"}
        and ("sent_at" in value or {"workspace", "rating"} <= value.keys())
    )


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """The conversations of each workspace and user. All rows are held in memory: they may be mixed. Raises BadInput."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _line, row in json_values(path, on_bytes):
        if detect(path, row):
            owner = (
                text_or_empty(row.get("workspace") or row.get("embed")),
                text_or_empty(row.get("username")),
            )
            rows.setdefault(owner, []).append(row)
        else:
            yield Skipped(reason="row of another shape", is_conversation=True)
    for (workspace, _user), listed in rows.items():
        listed.sort(key=lambda row: (parse_time(row.get("sent_at")) or 0, _number(row)))
        for group in _by_silence(listed):
            items = [item for row in group for item in _turns(row)]
            yield from build_conversation(
                items, source=NAME, external_id=text_or_empty(group[0].get("id")), title=workspace
            )


def _number(row: dict[str, Any]) -> int:
    id_ = text_or_empty(row.get("id"))
    return int(id_) if id_.isdecimal() and len(id_) < 18 else 0


def _by_silence(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    last: float | None = None
    for row in rows:
        time = parse_time(row.get("sent_at"))
        if group and (time is None or last is None or time - last > _SILENCE_S):
            yield group
            group = []
        group.append(row)
        last = time
    if group:
        yield group


def _turns(row: dict[str, Any]) -> list[Any]:
    time = parse_time(row.get("sent_at"))
    files = skip_attached(row.get("attachments"))
    id_ = text_or_empty(row.get("id"))
    question = text_turn(Role.USER, row["prompt"], time=time, external_id=id_, skipped=files)
    return [*question, *text_turn(Role.ASSISTANT, row["response"], time=time)]
