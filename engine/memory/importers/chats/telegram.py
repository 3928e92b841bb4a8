"""Telegram Desktop's `result.json`: one chat, or a whole account with its `chats.list`.

The shape is that of `export_output_json.cpp`. A whole account names its owner; in a chat of two, `id` is the other person.
Forwarded messages are not the sender's words.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.memory.importers.chats.people import NOTICE, PeopleChat, PersonMessage, dialogues
from engine.memory.importers.fields import ImportOptions, parse_time, text_or_empty
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_members
from engine.memory.records import ImportItem

NAME = "telegram"

_TYPES = frozenset(
    (
        *("personal_chat", "bot_chat", "saved_messages", "replies", "verify_codes", "private_group"),
        *("private_supergroup", "public_supergroup", "private_channel", "public_channel"),
    )
)
_EXPAND = ("messages", "chats", "chats.list", "left_chats", "left_chats.list")
_MEDIA = {
    "sticker": "sticker",
    "voice_message": "voice message",
    "video_message": "video",
    "video_file": "video",
    "animation": "video",
    "audio_file": "attachment",
}


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    kind = value.get("type")
    if isinstance(kind, str) and kind in _TYPES and isinstance(value.get("messages"), list | dict):
        return True
    about = value.get("about")
    owner = value.get("personal_information")
    return (isinstance(about, str) and "Telegram" in about) or (
        isinstance(owner, dict) and "user_id" in owner
    )


def read(path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes) -> Iterator[ImportItem]:
    """The dialogues of each chat of two. One chat is held in memory. Raises BadInput."""
    return dialogues(_chats(path, on_bytes), source=NAME, path=path, options=options)


def _chats(path: Path, on_bytes: OnBytes) -> Iterator[PeopleChat]:
    owner = ""
    single: dict[str, Any] = {}
    messages: list[Any] = []
    for key, value in json_members(path, on_bytes, expand=_EXPAND):
        if key == "personal_information" and isinstance(value, dict):
            owner = f"user{text_or_empty(value.get('user_id'))}"
        elif key in ("chats.list", "left_chats.list"):
            if isinstance(value, dict) and isinstance(value.get("messages"), list):
                yield _chat(value, value["messages"], owner)
        elif key == "messages":
            messages.append(value)
        elif key in ("name", "type", "id"):
            single[key] = value
    if messages:
        yield _chat(single, messages, owner)


def _chat(chat: dict[str, Any], messages: list[Any], owner: str) -> PeopleChat:
    kind = chat.get("type")
    id_ = text_or_empty(chat.get("id"))
    is_group = isinstance(kind, str) and ("group" in kind or "channel" in kind)
    is_bot = kind == "bot_chat" and bool(id_)
    other = f"user{id_}" if (kind == "personal_chat" or is_bot) and id_ else ""
    return PeopleChat(
        messages=[_message(message, owner, other) for message in messages],
        contact=id_,
        title=text_or_empty(chat.get("name")),
        is_group=is_group,
        bot=other if is_bot else "",
    )


def _message(message: Any, owner: str, other: str) -> PersonMessage:
    if not isinstance(message, dict):
        return PersonMessage(omitted="message of another shape")
    time = parse_time(message.get("date_unixtime")) or parse_time(message.get("date"))
    if message.get("type") == "service":
        is_call = message.get("action") == "phone_call"
        return PersonMessage(omitted="call" if is_call else NOTICE, time=time)
    if message.get("type") != "message":
        return PersonMessage(omitted="message of another shape", time=time)
    text = _text(message.get("text")) or _text(message.get("text_entities"))
    media = _media(message)
    omitted = ""
    if message.get("forwarded_from") or message.get("forwarded_from_id") or message.get("via_bot"):
        omitted = "forwarded message"
    elif not text.strip():
        omitted = media or "empty message"
    sender_id = text_or_empty(message.get("from_id"))
    sender_id = f"user{sender_id}" if sender_id.isdigit() else sender_id
    return PersonMessage(
        sender=text_or_empty(message.get("from")) or sender_id,
        sender_id=sender_id,
        is_me=_is_me(sender_id, owner, other),
        text=text,
        omitted=omitted,
        parts=(media,) if media and not omitted else (),
        time=time,
    )


def _is_me(sender: str, owner: str, other: str) -> bool | None:
    if not sender:
        return None
    if owner:
        return sender == owner
    return sender != other if other else None


def _text(value: object) -> str:
    """The text of a string or of a list of strings and formatted parts, which follow each other directly."""
    if isinstance(value, str):
        return value
    parts = []
    for part in value if isinstance(value, list) else []:
        text = part.get("text") if isinstance(part, dict) else part
        parts.append(text if isinstance(text, str) else "")
    return "".join(parts)


def _media(message: dict[str, Any]) -> str:
    kind = message.get("media_type")
    if isinstance(kind, str):
        return _MEDIA.get(kind, "attachment")
    if "photo" in message:
        return "image"
    if "contact_information" in message:
        return "contact card"
    if "location_information" in message:
        return "location"
    return "attachment" if "file" in message or "poll" in message else ""
