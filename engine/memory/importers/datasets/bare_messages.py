"""Messages of programs without an importer of their own: which of them belong to one conversation, and in what order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.memory.importers.fields import parse_time, text_or_empty

_CONVERSATION_KEY = re.compile(
    r"(?:session|conv|conversation|chat|thread|dialog|dialogue|room|topic)_?(?:id|uuid)?", re.I
)
"""Keys of the conversation that a message belongs to, in any spelling: `session_id`, `threadId`."""
_LINK_KEY = re.compile(
    r"(?:parent|child|children|reply|prev|previous|next|sibling)(?:s|_?(?:message_?)?(?:id|uuid)s?)?|tree",
    re.I,
)
"""Keys of a message's place in a tree, whose order an importer of that program must follow."""
_TIME_KEYS = ("time", "timestamp", "created_at", "createdAt", "create_time", "date", "datetime")


_ID_KEYS = ("id", "uuid", "messageId", "message_id", "_id")
_PARENT_KEYS = (
    "parentId",
    "parent_id",
    "parent",
    "parentMessageId",
    "parent_message_id",
    "parent_message_uuid",
    "parentUuid",
)
_CHILDREN_KEYS = ("childrenIds", "children_ids", "children", "childIds")
_CURRENT_KEYS = ("currentId", "current_id", "currentNode", "current_node", "currNode", "current_message_id")


def is_bare_message(value: object) -> bool:
    """Whether a value is a message that can be put in its place: role and content, and an id if it stands in a tree."""
    if not isinstance(value, dict) or "role" not in value or "content" not in value:
        return False
    linked = any(isinstance(key, str) and _LINK_KEY.fullmatch(key) for key in value)
    return not linked or bool(message_id(value))


def message_id(message: Mapping[str, Any]) -> str:
    """The id of a message; "" without one."""
    return _first(message, _ID_KEYS)


def is_tree(messages: Sequence[object]) -> bool:
    """Whether the messages name each other as parents."""
    listed = [message for message in messages if isinstance(message, dict)]
    ids = {message_id(message) for message in listed} - {""}
    return any(_first(message, _PARENT_KEYS) in ids for message in listed)


def links(message: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """The parent of a message, "" for a first one, None where nothing is said, and its children."""
    children: list[object] = next(
        (message[key] for key in _CHILDREN_KEYS if isinstance(message.get(key), list)), []
    )
    parent = _first(message, _PARENT_KEYS)
    known = any(key in message for key in _PARENT_KEYS)
    return (parent or "" if known else None), tuple(id_ for id_ in map(text_or_empty, children) if id_)


def current_message(row: Mapping[str, Any]) -> str:
    """The id of the message that a conversation shows last; "" when it does not say."""
    return _first(row, _CURRENT_KEYS)


def _first(value: Mapping[str, Any], keys: Sequence[str]) -> str:
    return next((text for key in keys if (text := text_or_empty(value.get(key)))), "")


def grouped(messages: Iterable[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """The messages of each conversation with its id, in the order of their first messages; "" without an id.

    The messages of one conversation stand by time when each has one, else as in the file.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for message in messages:
        groups.setdefault(_conversation(message), []).append(message)
    return [(key, _by_time(group)) for key, group in groups.items()]


def message_time(message: Mapping[str, Any]) -> float | None:
    """Seconds since the epoch, from the first time that the message has."""
    return next((time for key in _TIME_KEYS if (time := parse_time(message.get(key))) is not None), None)


def _conversation(message: Mapping[str, Any]) -> str:
    for key, value in message.items():
        if isinstance(key, str) and _CONVERSATION_KEY.fullmatch(key) and (id_ := text_or_empty(value)):
            return id_
    return ""


def _by_time(messages: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    times = [message_time(message) for message in messages]
    if any(time is None for time in times):
        return messages
    return [
        message for _time, message in sorted(zip(times, messages, strict=True), key=lambda pair: pair[0] or 0)
    ]
