"""The entries inside generic wrappers: `{"data": [...]}`, `{"success": …, "conversations": [...]}`, lists of messages.

A row of a data set has such keys too (`{"conversations": [{"from", "value"}]}` is one conversation), so a list
is unwrapped only when its elements are conversations or rows of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ROW_LISTS = frozenset(("data", "rows", "records", "results", "result", "examples", "samples", "entries"))
"""Keys of lists of anything."""
CHAT_LISTS = frozenset(
    (
        "conversations",
        "chats",
        "items",
        "list",
        "dialogs",
        "dialogues",
        "threads",
        "sessions",
        "chat_sessions",
        "conversation_list",
    )
)
"""Keys of lists of conversations; in a row of a data set, of messages."""
SPLITS = frozenset(("train", "test", "validation", "valid", "val", "dev", "eval"))
"""Keys of the parts of one data set, which are lists beside each other."""
_SPEAKERS = ("role", "from", "sender", "speaker", "author")
_LINKS = 40
"""Elements of a list that are looked at."""


def is_wrapped_list(key: str, first: object) -> bool:
    """Whether the list `key`, which begins with `first`, holds the entries of the file."""
    if key in ROW_LISTS or key in SPLITS:
        return isinstance(first, dict) and not is_message(first)
    if key not in CHAT_LISTS or is_message(first):
        return False
    if isinstance(first, dict):
        return any(isinstance(value, list | dict) for value in first.values())
    return isinstance(first, list) and bool(first) and isinstance(first[0], dict)


def is_message(value: object) -> bool:
    """Whether a value is one message rather than a conversation or a row."""
    if not isinstance(value, dict):
        return False
    return any(isinstance(value.get(key), str) for key in _SPEAKERS) or (
        isinstance(value.get("author"), dict) and "content" in value
    )


def entries(value: Any) -> Iterator[Any]:
    """The entries of one JSON value: a list of messages is one conversation, a list of others is its elements."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value[:_LINKS]):
        if not is_message(value[0]):
            yield from value
        elif "from" in value[0] and "role" not in value[0]:
            yield {"conversations": value}
        else:
            yield {"messages": value}
        return
    yield from _row_of_messages(value)


def _row_of_messages(value: Any) -> Iterator[Any]:
    """A row whose messages are under a key of `ROW_LISTS` has them under `messages`."""
    if isinstance(value, dict) and "messages" not in value:
        for key in ROW_LISTS & value.keys():
            listed = value[key]
            if isinstance(listed, list) and listed and is_message(listed[0]):
                rest = {name: part for name, part in value.items() if name != key}
                yield from ({**rest, **entry} for entry in entries(listed))
                return
    yield value
