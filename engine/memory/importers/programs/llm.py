"""simonw's `llm`: its `logs.db`, in both of its schemas.

Until 0.2x a row of `responses` is a question with its answer and `conversations` holds the names; in 0.36
`messages` is a tree by hashes and `threads` points at the newest message of each. A migrated database has
both schemas, each with its own conversations. Fragments (`llm -f`, `--sf`) are part of the question and of the system
prompt; they are stored apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    build_conversation,
    message_turn,
    parse_role,
    parse_time,
    skip_reason,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes
from engine.memory.importers.readers.sqlite import is_sqlite, query_rows, table_columns
from engine.memory.records import Conversation, Skipped, Turn

NAME = "llm"

_RESPONSE_COLUMNS = ("id", "prompt", "system", "response", "conversation_id", "datetime_utc")
_RESPONSES_QUERY = """
    SELECT r.id, {prompt_fragments}, r.prompt, {system_fragments}, r.system, r.response, {attachments}, {reasoning},
        COALESCE(r.conversation_id, r.id), r.datetime_utc, c.name
    FROM responses r LEFT JOIN conversations c ON c.id = r.conversation_id
    ORDER BY COALESCE(r.conversation_id, r.id), r.datetime_utc, r.id
"""
_FRAGMENTS = """
    (SELECT group_concat(content, char(10)) FROM (
        SELECT f.content FROM {table} x JOIN fragments f ON f.id = x.fragment_id
        WHERE x.response_id = r.id ORDER BY x."order"))
"""
"""The texts of `llm -f` of a response, joined as the program joins them."""
_ATTACHMENTS = "(SELECT COUNT(*) FROM prompt_attachments x WHERE x.response_id = r.id)"
_THREADS_QUERY = """
    WITH RECURSIVE chain(thread, hash, depth) AS (
        SELECT id, tip_message_hash, 0 FROM threads
        UNION ALL
        SELECT chain.thread, m.parent_hash, chain.depth + 1 FROM chain JOIN messages m ON m.hash = chain.hash
        WHERE m.parent_hash IS NOT NULL AND chain.depth < 100000
    )
    SELECT t.id, t.name, t.datetime_utc, m.hash, m.role,
        (SELECT MIN(datetime_utc) FROM turns WHERE thread_id = t.id AND tip_message_hash = m.hash),
        p.position, p.type, p.text, {piece}
    FROM threads t JOIN chain ON chain.thread = t.id JOIN messages m ON m.hash = chain.hash
    LEFT JOIN parts p ON p.message_hash = m.hash {pieces}
    ORDER BY t.id, chain.depth DESC, p.position {order}
"""
_PIECES = """
    LEFT JOIN json_each(CASE WHEN p.text IS NULL AND json_valid(p.payload) THEN p.payload ELSE '{}' END, '$.text_ref') x
    LEFT JOIN fragments f ON x.type = 'object' AND f.id = json_extract(x.value, '$.fragment')
"""
"""A text with fragments is a list of literal texts and fragments (`text_ref`)."""
_PIECE = "CASE WHEN x.type = 'object' THEN COALESCE(f.content, json_extract(x.value, '$.literal')) END"


def detect(path: Path, value: Any) -> bool:
    return is_sqlite(path) and "_llm_migrations" in table_columns(path)


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per thread or conversation. Raises BadInput, also for an unsupported schema version."""
    columns = table_columns(path) if is_sqlite(path) else {}
    if "threads" in columns:
        yield from _threads(path, columns, options.roles, on_bytes)
    if "responses" in columns or "threads" not in columns:
        yield from _responses(path, columns, on_bytes)


def _responses(
    path: Path, columns: Mapping[str, frozenset[str]], on_bytes: OnBytes
) -> Iterator[Conversation | Skipped]:
    has_fragments = "fragments" in columns
    query = _RESPONSES_QUERY.format(
        prompt_fragments=_FRAGMENTS.format(table="prompt_fragments") if has_fragments else "NULL",
        system_fragments=_FRAGMENTS.format(table="system_fragments") if has_fragments else "NULL",
        attachments=_ATTACHMENTS if "prompt_attachments" in columns else "0",
        reasoning="r.reasoning" if "reasoning" in columns.get("responses", ()) else "NULL",
    )
    required = {"responses": _RESPONSE_COLUMNS, "conversations": ("id", "name")}
    for id_, group in groupby(query_rows(path, required, query), key=lambda row: row[8]):
        items: list[Turn | Skipped] = []
        title = ""
        previous_system = ""
        for (
            response,
            before,
            prompt,
            system_before,
            system,
            answer,
            files,
            reasoning,
            *_id,
            when,
            name,
        ) in group:
            time = parse_time(when)
            title = title or text_or_empty(name)
            question = _joined(before, prompt)
            instructions = _joined(system_before, system)
            on_bytes(len(question) + len(instructions) + len(answer if isinstance(answer, str) else ""))
            if instructions and instructions != previous_system:
                previous_system = instructions
                items.append(Turn(role=Role.SYSTEM, text=instructions, time=time))
            attached = [Skipped(reason="attachment", count=files)] if files else []
            thought = [Skipped(reason="reasoning")] if reasoning else []
            key = text_or_empty(response)
            items += _turn(Role.USER, question, attached, time, key)
            items += _turn(Role.ASSISTANT, _joined(answer), thought, time, key)
        yield from build_conversation(items, source=NAME, external_id=text_or_empty(id_), title=title)


def _joined(*texts: object) -> str:
    return "\n".join(text for text in texts if isinstance(text, str) and text)


def _threads(
    path: Path, columns: Mapping[str, frozenset[str]], role_map: RoleMap, on_bytes: OnBytes
) -> Iterator[Conversation | Skipped]:
    required = {
        "threads": ("id", "name", "tip_message_hash", "datetime_utc"),
        "turns": ("thread_id", "tip_message_hash", "datetime_utc"),
        "messages": ("hash", "parent_hash", "role"),
        "parts": ("message_hash", "position", "type", "text"),
    }
    has_pieces = "payload" in columns.get("parts", ()) and "fragments" in columns
    query = _THREADS_QUERY.format(
        piece=_PIECE if has_pieces else "NULL",
        pieces=_PIECES if has_pieces else "",
        order=", x.key" if has_pieces else "",
    )
    for (id_, name, began), thread in groupby(query_rows(path, required, query), key=lambda row: row[:3]):
        items: list[Turn | Skipped] = []
        for (hash_, role_name, answered), rows in groupby(thread, key=lambda row: row[3:6]):
            role = parse_role(role_name, role_map)
            text, skipped = _message(rows)
            on_bytes(len(text))
            if role is None:
                items.append(unknown_role(role_name))
            elif role is Role.TOOL:
                items.append(Skipped(reason="tool message"))
            else:
                items += _turn(role, text, skipped, parse_time(answered), text_or_empty(hash_))
        yield from build_conversation(
            items,
            source=NAME,
            external_id=text_or_empty(id_),
            title=text_or_empty(name),
            started_at=parse_time(began),
        )


def _message(rows: Iterable[tuple[Any, ...]]) -> tuple[str, list[Skipped]]:
    """The text of a message from the rows of its parts, and its other parts."""
    texts: list[str] = []
    skipped: list[Skipped] = []
    for (_position, kind), pieces in groupby(rows, key=lambda row: row[6:8]):
        found = [text if isinstance(text, str) else piece for *_part, text, piece in pieces]
        words = [text for text in found if isinstance(text, str)]
        if kind == "text" and words:
            texts.append("".join(words))
        if kind is not None and (kind != "text" or len(words) < len(found)):
            skipped.append(Skipped(reason="attachment" if kind == "text" else skip_reason(kind)))
    return "\n".join(texts), skipped


def _turn(
    role: Role, text: str, skipped: list[Skipped], time: float | None, id_: str
) -> list[Turn | Skipped]:
    turn, left_out = message_turn(role, text, skipped, time=time, external_id=id_)
    return [*left_out, turn] if turn is not None else [*left_out]
