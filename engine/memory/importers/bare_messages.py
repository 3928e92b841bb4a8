"""Files of bare messages, `{"role", "content"}` each: which of them belong to one conversation, and in what order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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


def is_bare_message(value: object) -> bool:
    """Whether a value is a message of a list that stands in order: role and content, no place in a tree."""
    return (
        isinstance(value, dict)
        and "role" in value
        and "content" in value
        and not any(isinstance(key, str) and _LINK_KEY.fullmatch(key) for key in value)
    )


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
