"""Cherry Studio: the backup zip or its `data.json`, format versions 2 to 5; `cherry_database` reads version 7.

`indexedDB.topics` holds the messages; since version 4 their texts are in `indexedDB.message_blocks`. Topic
names and assistants' instructions are in `localStorage`, as JSON inside JSON. Answers of several models to one
question share its `askId`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    build_conversation,
    message_turn,
    parse_role,
    parse_time,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.programs.cherry_database import conversations, is_cherry_database, read_blocks
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_members
from engine.memory.importers.readers.sqlite import is_sqlite
from engine.memory.records import Conversation, Skipped, Turn

NAME = "cherry"

_DATABASE = "indexedDB"
_TOPICS, _BLOCKS = f"{_DATABASE}.topics", f"{_DATABASE}.message_blocks"
_EXPANDED = (_DATABASE, f"{_DATABASE}.*")


def detect(path: Path, value: Any) -> bool:
    if is_sqlite(path):
        return is_cherry_database(path)
    if not isinstance(value, dict):
        return False
    database, local = value.get("indexedDB"), value.get("localStorage")
    return (isinstance(database, dict) and "topics" in database) or (
        isinstance(local, dict) and "persist:cherry-studio" in local
    )


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per topic. Raises BadInput.

    The texts come after the topics: the file is read twice, and texts are stored in a temporary database.
    """
    if is_sqlite(path):
        yield from conversations(path, NAME, options.roles, on_bytes)
        return
    names: dict[str, str] = {}
    with _block_store() as blocks:
        for key, value in json_members(path, expand=_EXPANDED):
            if key == "localStorage":
                names = _topic_names(value)
            elif key == _BLOCKS:
                blocks.put(value)
        for key, topic in json_members(path, on_bytes, expand=_EXPANDED):
            if key != _TOPICS:
                continue
            if not isinstance(topic, dict) or not isinstance(topic.get("messages"), list):
                yield Skipped(reason="entry of another shape", is_conversation=True)
                continue
            id_ = text_or_empty(topic.get("id"))
            yield from build_conversation(
                _turns(topic["messages"], blocks, options.roles),
                source=NAME,
                external_id=id_,
                title=text_or_empty(topic.get("name")) or names.get(id_, ""),
            )


class _BlockStore:
    """Message blocks by id in a temporary SQLite file: they may not fit into memory."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("CREATE TABLE blocks (id TEXT PRIMARY KEY, block TEXT) WITHOUT ROWID")

    def put(self, block: object) -> None:
        if isinstance(block, dict) and isinstance(block.get("id"), str):
            # Escaped: a lone surrogate is not valid UTF-8.
            row = (ascii(block["id"]), json.dumps(block))
            self._connection.execute("INSERT OR REPLACE INTO blocks VALUES (?, ?)", row)

    def get(self, id_: object) -> dict[str, Any] | None:
        if not isinstance(id_, str):
            return None
        row = self._connection.execute("SELECT block FROM blocks WHERE id = ?", (ascii(id_),)).fetchone()
        return json.loads(row[0]) if row else None


@contextmanager
def _block_store() -> Iterator[_BlockStore]:
    with closing(sqlite3.connect("")) as connection:
        connection.execute("PRAGMA journal_mode=OFF")
        yield _BlockStore(connection)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _topic_names(local: object) -> dict[str, str]:
    """Names of topics by id, from the app's persisted state."""
    try:
        state = json.loads(local["persist:cherry-studio"]) if isinstance(local, dict) else {}
        state = json.loads(state["assistants"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    assistants = (
        [*_list(state.get("assistants")), state.get("defaultAssistant")] if isinstance(state, dict) else []
    )
    topics = [
        topic
        for assistant in assistants
        if isinstance(assistant, dict)
        for topic in _list(assistant.get("topics"))
    ]
    return {
        text_or_empty(topic.get("id")): text_or_empty(topic.get("name"))
        for topic in topics
        if isinstance(topic, dict)
    }


def _turns(messages: list[Any], blocks: _BlockStore, role_map: RoleMap) -> Iterator[Turn | Skipped]:
    for ask_id, group in groupby(messages, key=_ask_id):
        answers = []
        for message in group:
            turn, skipped = _turn(message, blocks, role_map)
            yield from skipped
            if turn is not None and ask_id:
                answers.append((bool(message.get("foldSelected")), bool(message.get("useful")), turn))
            elif turn is not None:
                yield turn
        if answers:
            shown = max(answers, key=lambda answer: answer[:2])[2]
            others = dict.fromkeys(turn.text for *_flags, turn in answers if turn.text != shown.text)
            if len(answers) > 1 + len(others):
                yield Skipped(reason="message of another branch", count=len(answers) - 1 - len(others))
            yield msgspec.structs.replace(shown, alternatives=tuple(others))


def _ask_id(message: object) -> str:
    """Id of the question that an assistant message answers; "" for other messages."""
    if not isinstance(message, dict) or message.get("role") != "assistant":
        return ""
    return text_or_empty(message.get("askId"))


def _turn(message: object, blocks: _BlockStore, role_map: RoleMap) -> tuple[Turn | None, list[Skipped]]:
    if not isinstance(message, dict):
        return None, [Skipped(reason="message of another shape")]
    if message.get("type") == "clear":
        return None, []
    role = parse_role(message.get("role"), role_map)
    if role is None:
        return None, [unknown_role(message.get("role"))]
    text, skipped = read_blocks([blocks.get(id_) for id_ in _list(message.get("blocks"))])
    if not text and isinstance(message.get("content"), str):
        text = message["content"]
    if message.get("reasoning_content"):
        skipped.append(Skipped(reason="reasoning"))
    return message_turn(
        role,
        text,
        skipped,
        time=parse_time(message.get("createdAt")),
        external_id=text_or_empty(message.get("id")),
    )
