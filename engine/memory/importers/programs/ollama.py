"""Ollama's desktop app: its `db.sqlite`.

Messages stand in the order of their ids, which change whenever a chat is saved; thinking has a column of its own, and
an answer that only calls tools has no text. There are no branches: editing a message deletes those after it. Shape as
written by the source of ollama (`app/store`, schema version 18); older versions lack columns.
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
from engine.memory.importers.readers.files import OnBytes, ignore_bytes
from engine.memory.importers.readers.sqlite import has_tables, is_sqlite, query_rows, table_columns
from engine.memory.importers.turns import join_answers, text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "ollama"

_REQUIRED = {
    "chats": ("id", "title", "created_at"),
    "messages": ("id", "chat_id", "role", "content", "created_at"),
}
_COUNTED = {
    "tool_calls": "(SELECT COUNT(*) FROM tool_calls t WHERE t.message_id = m.id)",
    "attachments": "(SELECT COUNT(*) FROM attachments t WHERE t.message_id = m.id)",
}


def detect(path: Path, value: Any) -> bool:
    return is_sqlite(path) and has_tables(path, ("chats", "messages", "tool_calls", "settings"))


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per chat. Raises BadInput, also for an unsupported schema version."""
    tables = table_columns(path)
    thinking = "m.thinking" if "thinking" in tables.get("messages", ()) else "NULL"
    counted = {name: sql if "message_id" in tables.get(name, ()) else "0" for name, sql in _COUNTED.items()}
    query = f"""
        SELECT m.chat_id, c.id, c.title, c.created_at, m.role, m.content, m.created_at, {thinking},
            {counted["tool_calls"]}, {counted["attachments"]}
        FROM messages m LEFT JOIN chats c ON c.id = m.chat_id ORDER BY c.created_at, m.chat_id, m.id
    """  # noqa: S608 - the parts are names from this function
    for (_chat, id_, title, began), rows in groupby(
        query_rows(path, _REQUIRED, query), key=lambda row: row[:4]
    ):
        if id_ is None:
            # Chats that were deleted by versions that left their messages behind.
            yield Skipped(reason="message without a conversation", count=len(list(rows)))
            continue
        items: list[Turn | Skipped] = []
        for row in rows:
            on_bytes(len(row[5]) if isinstance(row[5], str) else 0)
            items += _turns(row[4:], options)
        yield from build_conversation(
            join_answers(items),
            source=NAME,
            external_id=text_or_empty(id_),
            title=text_or_empty(title),
            started_at=parse_time(began),
        )


def _turns(row: tuple[Any, ...], options: ImportOptions) -> list[Turn | Skipped]:
    name, content, created_at, thinking, calls, attachments = row
    role = parse_role(name, options.roles)
    if role is None:
        return [unknown_role(name)]
    if role is Role.TOOL:
        return [Skipped(reason="tool message")]
    skipped = [Skipped(reason="reasoning")] if isinstance(thinking, str) and thinking.strip() else []
    skipped += [Skipped(reason="tool message", count=calls)] if calls else []
    skipped += [Skipped(reason="attachment", count=attachments)] if attachments else []
    return text_turn(role, content, time=parse_time(created_at), skipped=skipped)
