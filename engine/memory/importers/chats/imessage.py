"""Apple's Messages: `chat.db` of a Mac (`~/Library/Messages`), `sms.db` of a phone's backup.

Times count from 2001, in seconds or nanoseconds. The words of many rows stand only in `attributedBody`, an archived
NSAttributedString. Reactions and notices of groups are rows of their own. Shape as several readers describe it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.memory.importers.chats.people import NOTICE, PeopleChat, PersonMessage, dialogues
from engine.memory.importers.fields import ImportOptions, parse_time
from engine.memory.importers.readers.files import OnBytes, ignore_bytes
from engine.memory.importers.readers.sqlite import has_tables, is_sqlite, query_rows, table_columns
from engine.memory.records import ImportItem, Skipped

NAME = "imessage"

_TABLES = ("message", "handle", "chat", "chat_message_join")
_REQUIRED = {"message": ("guid", "text", "handle_id", "date", "is_from_me"), "handle": ("id",)}
_OPTIONAL = (
    "attributedBody",
    "item_type",
    "associated_message_type",
    "date_retracted",
    "cache_has_attachments",
)
_EPOCH = 978_307_200
"""2001-01-01 in seconds since 1970."""
_OBJECT = "\ufffc"
"""Stands for an attachment in the text."""
_GROUP_STYLE = 43


def detect(path: Path, value: Any) -> bool:
    return is_sqlite(path) and has_tables(path, _TABLES)


def read(path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes) -> Iterator[ImportItem]:
    """The dialogues with each contact; all messages are held in memory. Raises BadInput."""
    known = table_columns(path)
    columns = known.get("message", frozenset())
    optional = [f"m.{name}" if name in columns else "NULL" for name in _OPTIONAL]
    chat_columns = known.get("chat", frozenset())
    style = "c.style" if "style" in chat_columns else "NULL"
    query = (
        "SELECT m.guid, m.is_from_me, m.text, m.date, h.id, "  # noqa: S608
        f"COALESCE(c.chat_identifier, h.id, ''), {style}, {', '.join(optional)} FROM message m "
        "LEFT JOIN chat_message_join j ON j.message_id = m.ROWID LEFT JOIN chat c ON c.ROWID = j.chat_id "
        "LEFT JOIN handle h ON h.ROWID = m.handle_id ORDER BY m.date, m.ROWID"
    )
    chats: dict[str, list[PersonMessage]] = {}
    groups: set[str] = set()
    seen: set[str] = set()
    for guid, is_from_me, text, date, handle, chat, chat_style, *rest in query_rows(path, _REQUIRED, query):
        if guid in seen:
            # One message may stand in two chats with the same person.
            yield Skipped(reason="repeated message")
            continue
        seen.add(guid)
        chats.setdefault(chat, []).append(_message(is_from_me, text, date, handle or chat, rest))
        if chat_style == _GROUP_STYLE:
            groups.add(chat)
    on_bytes(path.stat().st_size)
    yield from dialogues(
        (
            PeopleChat(messages=messages, contact=contact, title=contact, is_group=contact in groups)
            for contact, messages in chats.items()
        ),
        source=NAME,
        path=path,
        options=options,
    )


def _message(is_from_me: object, text: object, date: object, handle: str, rest: list[Any]) -> PersonMessage:
    body, item_type, associated, retracted, attachments = rest
    words = (
        text if isinstance(text, str) and text else attributed_text(body) if isinstance(body, bytes) else ""
    )
    time = _time(date)
    if item_type:
        return PersonMessage(omitted=NOTICE, time=time)
    has_object = _OBJECT in words or bool(attachments)
    words = words.replace(_OBJECT, "").strip()
    omitted = ""
    if associated:
        omitted = "reaction"
    elif retracted:
        omitted = "recalled message"
    elif not words:
        omitted = "attachment" if has_object else "empty message"
    return PersonMessage(
        sender="" if is_from_me else handle,
        sender_id="" if is_from_me else handle,
        is_me=bool(is_from_me),
        text=words,
        omitted=omitted,
        parts=("attachment",) if has_object and not omitted else (),
        time=time,
    )


def _time(value: object) -> float | None:
    if not isinstance(value, int | float) or not value:
        return None
    seconds = value / 1e9 if abs(value) > 1e12 else float(value)
    return parse_time(seconds + _EPOCH)


def attributed_text(data: bytes) -> str:
    """The string of an archived NSAttributedString (a typedstream); "" when it is not found.

    Behind the class name and a `+` stands the length in bytes: one byte, or 0x81 and two, 0x82 and four, the lowest first.
    """
    at = data.find(b"NSString")
    at = data.find(b"+", at) + 1 if at >= 0 else 0
    if not at or at >= len(data):
        return ""
    size = {0x81: 2, 0x82: 4}.get(data[at], 0)
    length = int.from_bytes(data[at + 1 : at + 1 + size], "little") if size else data[at]
    start = at + 1 + size
    return data[start : start + length].decode("utf-8", "replace")
