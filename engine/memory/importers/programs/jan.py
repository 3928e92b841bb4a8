"""Jan: the `messages.jsonl` of a thread in its data folder, with the `thread.json` beside it.

Text stands in `content[].text.value`; the title and the instructions of the assistant in `thread.json`. Shape as
written by Jan's source (`messageEntity.ts`); `thread.json` as reports show it. There are no branches.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.core.errors import BadInput
from engine.memory.importers.fields import (
    ImportOptions,
    build_conversation,
    parse_role,
    parse_time,
    skip_attached,
    skip_reason,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, first_value, ignore_bytes
from engine.memory.importers.readers.logs import log_values
from engine.memory.importers.turns import text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "jan"


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if _is_thread(value) or value.get("object") == "thread.message":
        return True
    parts = value.get("content")
    return "role" in value and isinstance(parts, list) and any(_value(part) is not None for part in parts)


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per thread; a `thread.json` alone holds none. Raises BadInput."""
    threads: dict[str, list[dict[str, Any]]] = {}
    for _line, value in log_values(path, on_bytes):
        listed = value.get("messages") if isinstance(value, dict) else None
        for message in listed if isinstance(listed, list) else [value]:
            if _is_thread(message):
                continue
            if isinstance(message, dict) and "content" in message:
                threads.setdefault(text_or_empty(message.get("thread_id")), []).append(message)
            else:
                yield Skipped(reason="message of another shape")
    about = _thread_beside(path) if len(threads) == 1 else {}
    for id_, messages in threads.items():
        yield from build_conversation(
            [*_instructions(about), *(item for message in messages for item in _turns(message, options))],
            source=NAME,
            external_id=id_ or text_or_empty(about.get("id")),
            title=text_or_empty(about.get("title")),
            started_at=parse_time(about.get("created")),
        )


def _is_thread(value: object) -> bool:
    return isinstance(value, dict) and (
        value.get("object") == "thread"
        or ("assistants" in value and "title" in value and "messages" not in value)
    )


def _thread_beside(path: Path) -> dict[str, Any]:
    beside = path.with_name("thread.json")
    try:
        thread = first_value(beside) if beside.is_file() else None
    except BadInput:
        return {}
    return thread if isinstance(thread, dict) else {}


def _instructions(thread: dict[str, Any]) -> list[Turn | Skipped]:
    assistants = thread.get("assistants")
    first = assistants[0] if isinstance(assistants, list) and assistants else None
    text = first.get("instructions") if isinstance(first, dict) else None
    return text_turn(Role.SYSTEM, text) if isinstance(text, str) and text.strip() else []


def _value(part: object) -> str | None:
    text = part.get("text") if isinstance(part, dict) else None
    value = text.get("value") if isinstance(text, dict) else None
    return value if isinstance(value, str) else None


def _turns(message: dict[str, Any], options: ImportOptions) -> list[Turn | Skipped]:
    role = parse_role(message.get("role"), options.roles)
    if role is None:
        return [unknown_role(message.get("role"))]
    if role is Role.TOOL:
        return [Skipped(reason="tool message")]
    if message.get("status") == "error":
        return [Skipped(reason="failed answer")]
    texts, skipped = [], skip_attached(message.get("attachments"))
    content = message["content"]
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part if isinstance(part, str) else _value(part)
        if kind in ("text", None) and text is not None:
            texts.append(text)
        else:
            skipped.append(Skipped(reason=skip_reason(kind)))
    return text_turn(
        role,
        "\n".join(texts),
        time=parse_time(message.get("created_at")),
        external_id=text_or_empty(message.get("id")),
        skipped=skipped,
    )
