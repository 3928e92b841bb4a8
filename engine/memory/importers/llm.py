"""simonw's `llm`: its `logs.db`, in the two forms that it has had.

Until 0.2x a row of `responses` is a question with its answer, `conversations` holds their names; in 0.36
`messages` is a tree by hashes, `threads` points at the newest message of each. A database that was brought up
to date has both, each with conversations of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
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

_RESPONSES = ("id", "prompt", "system", "response", "conversation_id", "datetime_utc")
_ASKED = """
    SELECT r.id, r.prompt, r.system, r.response, COALESCE(r.conversation_id, r.id), r.datetime_utc, c.name
    FROM responses r LEFT JOIN conversations c ON c.id = r.conversation_id
    ORDER BY COALESCE(r.conversation_id, r.id), r.datetime_utc, r.id
"""
_THREADED = """
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


def read(path: Path, role_map: RoleMap, on_bytes: OnBytes = ignore_bytes) -> Iterator[Conversation | Skipped]:
    """One conversation for each thread or conversation. Raises BadInput, also for another version."""
    there = table_columns(path) if is_sqlite(path) else {}
    if "threads" in there:
        yield from _threads(path, role_map, on_bytes)
    if "responses" in there or "threads" not in there:
        yield from _responses(path, on_bytes)


def _responses(path: Path, on_bytes: OnBytes) -> Iterator[Conversation | Skipped]:
    needed = {"responses": _RESPONSES, "conversations": ("id", "name")}
    for id_, group in groupby(query_rows(path, needed, _ASKED), key=lambda row: row[4]):
        made: list[Turn | Skipped] = []
        title = ""
        instructed = ""
        for response, prompt, system, answer, _id, asked_at, name in group:
            on_bytes(sum(len(text) for text in (prompt, answer) if isinstance(text, str)))
            time = parse_time(asked_at)
            title = title or text_or_empty(name)
            if isinstance(system, str) and system and system != instructed:
                instructed = system
                made.append(Turn(role=Role.SYSTEM, text=system, time=time))
            for role, text in ((Role.USER, prompt), (Role.ASSISTANT, answer)):
                made += _turn(role, text, time, text_or_empty(response))
        yield from build_conversation(iter(made), source=NAME, external_id=text_or_empty(id_), title=title)


def _threads(path: Path, role_map: RoleMap, on_bytes: OnBytes) -> Iterator[Conversation | Skipped]:
    needed = {
        "threads": ("id", "name", "tip_message_hash", "datetime_utc"),
        "turns": ("thread_id", "tip_message_hash", "datetime_utc"),
        "messages": ("hash", "parent_hash", "role"),
        "parts": ("message_hash", "position", "type", "text"),
    }
    for (id_, name, began), thread in groupby(query_rows(path, needed, _THREADED), key=lambda row: row[:3]):
        made: list[Turn | Skipped] = []
        for (hash_, role_name, answered), parts in groupby(thread, key=lambda row: (row[3], row[4], row[7])):
            role = parse_role(role_name, role_map)
            if role is None:
                made.append(unknown_role(role_name))
                continue
            texts = []
            for *_thread, kind, text, _answered in parts:
                if kind == "text" and isinstance(text, str):
                    texts.append(text)
                elif kind is not None:
                    made.append(Skipped(reason=skip_reason(kind)))
            on_bytes(sum(map(len, texts)))
            time = parse_time(answered)
            if role is Role.TOOL:
                made.append(Skipped(reason="tool message"))
            else:
                made += _turn(role, "\n".join(texts), time, text_or_empty(hash_)) if texts else []
        yield from build_conversation(
            iter(made),
            source=NAME,
            external_id=text_or_empty(id_),
            title=text_or_empty(name),
            started_at=parse_time(began),
        )


def _turn(role: Role, text: object, time: float | None, id_: str) -> list[Turn | Skipped]:
    said, thought = strip_reasoning(text, role) if isinstance(text, str) else ("", ())
    if not said.strip():
        return list(thought) or [Skipped(reason="empty message")]
    return [*thought, Turn(role=role, text=said, time=time, external_id=id_)]
