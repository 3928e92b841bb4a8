"""Open WebUI's `webui.db`: the chats of the table `chat`, completed from `chat_message`.

`chat.chat` is the JSON that an export holds. Since 0.8 each message is also a row of `chat_message`, which the program
itself prefers: it has links and texts that the JSON has lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from engine.memory.importers.readers.files import OnBytes
from engine.memory.importers.readers.sqlite import query_rows, table_columns

_COLUMNS = ("id", "title", "chat", "created_at", "updated_at")
_CHATS = "SELECT id, title, chat, created_at, updated_at, {current} FROM chat ORDER BY created_at, id"
_ROW = ("chat_id", "id", "role", "parent_id", "content", "created_at")
_ROWS = """
    SELECT m.chat_id, m.id, m.role, m.parent_id, m.content, m.created_at, {output}, {error}, {files}
    FROM chat c JOIN chat_message m ON m.chat_id = c.id
    ORDER BY c.created_at, c.id, m.created_at, m.rowid
"""


def is_open_webui_database(path: Path) -> bool:
    """Whether an SQLite file has the tables of Open WebUI."""
    return {"chat", "user", "auth"} <= set(table_columns(path))


def chat_entries(path: Path, on_bytes: OnBytes) -> Iterator[dict[str, Any]]:
    """The chats as an export holds them; `chat` is None where it cannot be read. Raises BadInput."""
    columns = table_columns(path)
    current = "current_message_id" if "current_message_id" in columns.get("chat", ()) else "NULL"
    rows = groupby(_message_rows(path, columns.get("chat_message", frozenset())), key=lambda row: row[0])
    waiting = next(rows, None)
    for row in query_rows(path, {"chat": _COLUMNS}, _CHATS.format(current=current)):
        entry = dict(zip((*_COLUMNS, "current_message_id"), row, strict=True))
        on_bytes(len(entry["chat"]) if isinstance(entry["chat"], str | bytes) else 0)
        entry["chat"] = _json(entry["chat"])
        if waiting is not None and waiting[0] == entry["id"]:
            messages = dict(_message(entry["id"], *values) for _chat, *values in waiting[1])
            entry["chat"] = _completed(entry["chat"], messages)
            waiting = next(rows, None)
        yield entry


def _message_rows(path: Path, columns: frozenset[str]) -> Iterator[tuple[Any, ...]]:
    if not set(_ROW) <= columns:
        return
    others = {name: f"m.{name}" if name in columns else "NULL" for name in ("output", "error", "files")}
    yield from query_rows(path, {}, _ROWS.format(**others))


def _message(
    chat: str,
    id_: object,
    role: object,
    parent: object,
    content: object,
    time: object,
    output: object,
    error: object,
    files: object,
) -> tuple[str, dict[str, Any]]:
    """A row as a message of the JSON. Ids of rows begin with the chat's."""
    own = str(id_).removeprefix(f"{chat}-")
    return own, {
        "id": own,
        "role": role,
        "parentId": parent,
        "timestamp": time,
        "content": _json(content),
        "output": _json(output),
        "error": _json(error),
        "files": _json(files),
    }


def _completed(chat: object, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The chat with what its messages lack. Messages of a chat without any are the rows: one that is missing among
    others was deleted."""
    whole: dict[str, Any] = dict(chat) if isinstance(chat, dict) else {}
    history = whole.get("history") if isinstance(whole.get("history"), dict) else {}
    messages = history.get("messages") if isinstance(history, dict) else None
    if isinstance(messages, dict) and messages:
        messages = {
            id_: {
                **message,
                **{key: value for key, value in rows.get(id_, {}).items() if not message.get(key)},
            }
            if isinstance(message, dict)
            else rows.get(id_, message)
            for id_, message in messages.items()
        }
    elif whole.get("messages"):
        return whole
    else:
        messages = rows
    whole["history"] = {**(history or {}), "messages": messages}
    return whole


def _json(text: object) -> Any:
    try:
        return json.loads(text) if isinstance(text, str | bytes) else None
    except (ValueError, RecursionError):
        return None
