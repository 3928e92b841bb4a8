"""simonw's `llm`: its `logs.db`, in both of its schemas.

Until 0.2x a row of `responses` is a question with its answer and `conversations` holds the names; in 0.36
`messages` is a tree by hashes and `threads` points at the newest message of each. A migrated database has
both schemas, each with its own conversations.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    build_conversation,
    parse_role,
    parse_time,
    skip_reason,
    strip_reasoning,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes
from engine.memory.importers.readers.sqlite import is_sqlite, query_rows, table_columns
from engine.memory.records import Conversation, Skipped, Turn

NAME = "llm"

_RESPONSE_COLUMNS = ("id", "prompt", "system", "response", "conversation_id", "datetime_utc")
_RESPONSES_QUERY = """
    SELECT r.id, r.prompt, r.system, r.response, COALESCE(r.conversation_id, r.id), r.datetime_utc, c.name
    FROM responses r LEFT JOIN conversations c ON c.id = r.conversation_id
    ORDER BY COALESCE(r.conversation_id, r.id), r.datetime_utc, r.id
"""
_THREADS_QUERY = """
    WITH RECURSIVE chain(thread, hash, depth) AS (
        SELECT id, tip_message_hash, 0 FROM threads
        UNION ALL
        SELECT chain.thread, m.parent_hash, chain.depth + 1 FROM chain JOIN messages m ON m.hash = chain.hash
        WHERE m.parent_hash IS NOT NULL AND chain.depth < 100000
    )
    SELECT t.id, t.name, t.datetime_utc, m.hash, m.role, p.type, p.text,
        (SELECT MIN(datetime_utc) FROM turns WHERE thread_id = t.id AND tip_message_hash = m.hash)
    FROM threads t JOIN chain ON chain.thread = t.id JOIN messages m ON m.hash = chain.hash
    LEFT JOIN parts p ON p.message_hash = m.hash
    ORDER BY t.id, chain.depth DESC, p.position
"""


def detect(path: Path, value: Any) -> bool:
    return is_sqlite(path) and "_llm_migrations" in table_columns(path)


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per thread or conversation. Raises BadInput, also for an unsupported schema version."""
    columns = table_columns(path) if is_sqlite(path) else {}
    if "threads" in columns:
        yield from _threads(path, options.roles, on_bytes)
    if "responses" in columns or "threads" not in columns:
        yield from _responses(path, on_bytes)


def _responses(path: Path, on_bytes: OnBytes) -> Iterator[Conversation | Skipped]:
    required = {"responses": _RESPONSE_COLUMNS, "conversations": ("id", "name")}
    for id_, group in groupby(query_rows(path, required, _RESPONSES_QUERY), key=lambda row: row[4]):
        items: list[Turn | Skipped] = []
        title = ""
        previous_system = ""
        for response, prompt, system, answer, _id, time_text, name in group:
            on_bytes(sum(len(text) for text in (prompt, answer) if isinstance(text, str)))
            time = parse_time(time_text)
            title = title or text_or_empty(name)
            if isinstance(system, str) and system and system != previous_system:
                previous_system = system
                items.append(Turn(role=Role.SYSTEM, text=system, time=time))
            for role, text in ((Role.USER, prompt), (Role.ASSISTANT, answer)):
                items += _turn(role, text, time, text_or_empty(response))
        yield from build_conversation(items, source=NAME, external_id=text_or_empty(id_), title=title)


def _threads(path: Path, role_map: RoleMap, on_bytes: OnBytes) -> Iterator[Conversation | Skipped]:
    required = {
        "threads": ("id", "name", "tip_message_hash", "datetime_utc"),
        "turns": ("thread_id", "tip_message_hash", "datetime_utc"),
        "messages": ("hash", "parent_hash", "role"),
        "parts": ("message_hash", "position", "type", "text"),
    }
    for (id_, name, began), thread in groupby(
        query_rows(path, required, _THREADS_QUERY), key=lambda row: row[:3]
    ):
        items: list[Turn | Skipped] = []
        for (hash_, role_name, answered), parts in groupby(thread, key=lambda row: (row[3], row[4], row[7])):
            role = parse_role(role_name, role_map)
            if role is None:
                items.append(unknown_role(role_name))
                continue
            texts = []
            for *_thread, kind, text, _answered in parts:
                if kind == "text" and isinstance(text, str):
                    texts.append(text)
                elif kind is not None:
                    items.append(Skipped(reason=skip_reason(kind)))
            on_bytes(sum(map(len, texts)))
            time = parse_time(answered)
            if role is Role.TOOL:
                items.append(Skipped(reason="tool message"))
            else:
                items += _turn(role, "\n".join(texts), time, text_or_empty(hash_)) if texts else []
        yield from build_conversation(
            items,
            source=NAME,
            external_id=text_or_empty(id_),
            title=text_or_empty(name),
            started_at=parse_time(began),
        )


def _turn(role: Role, content: object, time: float | None, id_: str) -> list[Turn | Skipped]:
    text, skipped = strip_reasoning(content, role) if isinstance(content, str) else ("", ())
    if not text.strip():
        return list(skipped) or [Skipped(reason="empty message")]
    return [*skipped, Turn(role=role, text=text, time=time, external_id=id_)]
