"""QQ: the files of shuakami/qq-chat-exporter, JSON with `chatInfo` and `messages` or the lines of its chunks.

`chatInfo.selfUid` is who exported it; the chunks (`chunks/chunk_0001.jsonl`) have it in the `manifest.json` beside their
folder. The text of recalled messages is still there; it is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.core.errors import BadInput
from engine.memory.importers.chats.people import NOTICE, PeopleChat, PersonMessage, dialogues
from engine.memory.importers.fields import ImportOptions, parse_time, text_or_empty
from engine.memory.importers.readers.files import (
    OnBytes,
    first_value,
    ignore_bytes,
    json_members,
    json_values,
)
from engine.memory.records import ImportItem

NAME = "qq"

_KINDS = (
    ("image", "image"),
    ("pic", "image"),
    ("market_face", "sticker"),
    ("sticker", "sticker"),
    ("audio", "voice message"),
    ("ptt", "voice message"),
    ("voice", "voice message"),
    ("video", "video"),
    ("file", "attachment"),
    ("location", "location"),
    ("forward", "forwarded message"),
    ("json", "link card"),
    ("ark", "link card"),
    ("call", "call"),
)
"""What a resource or a message without words is, by a part of its type."""


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("chatInfo"), dict) and "messages" in value:
        return True
    return _is_message(value)


def _is_message(value: Any) -> bool:
    sender = value.get("sender") if isinstance(value, dict) else None
    return (
        isinstance(sender, dict)
        and ("uid" in sender or "uin" in sender)
        and isinstance(value.get("content"), dict)
    )


def read(path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes) -> Iterator[ImportItem]:
    """The dialogues of a chat of two, which is held in memory. Raises BadInput."""
    return dialogues([_chat(path, on_bytes)], source=NAME, path=path, options=options)


def _chat(path: Path, on_bytes: OnBytes) -> PeopleChat:
    info: dict[str, Any] = {}
    rows: list[Any] = []
    if _is_message(first_value(path)):
        info = _manifest(path)
        rows = [row for _line, row in json_values(path, on_bytes)]
    else:
        for key, value in json_members(path, on_bytes, expand=("messages",)):
            if key == "chatInfo" and isinstance(value, dict):
                info = value
            elif key == "messages":
                rows.append(value)
    own = {text_or_empty(info.get(key)) for key in ("selfUid", "selfUin")} - {""}
    kind = str(info.get("type", "")).lower()
    return PeopleChat(
        messages=[_message(row, own) for row in rows],
        title=text_or_empty(info.get("name")),
        is_group="group" in kind,
    )


def _manifest(path: Path) -> dict[str, Any]:
    for folder in (path.parent.parent, path.parent):
        file = folder / "manifest.json"
        if file.is_file():
            with suppress(BadInput):
                value = first_value(file)
                info = value.get("chatInfo") if isinstance(value, dict) else None
                if isinstance(info, dict):
                    return info
    return {}


def _message(row: Any, own: set[str]) -> PersonMessage:
    if not _is_message(row):
        return PersonMessage(omitted="message of another shape")
    sender, content = row["sender"], row["content"]
    ids = [text_or_empty(sender.get(key)) for key in ("uin", "uid")]
    name = next(
        (text for key in ("remark", "name", "nickname") if (text := text_or_empty(sender.get(key)))), ""
    )
    time = parse_time(row.get("timestamp")) or parse_time(row.get("time"))
    text = content.get("text") if isinstance(content.get("text"), str) else ""
    media = _media(row, content)
    if row.get("isSystemMessage") or row.get("system"):
        return PersonMessage(omitted=NOTICE, time=time)
    omitted = ""
    if row.get("isRecalled") or row.get("recalled"):
        omitted = "recalled message"
    elif not text.strip() or (media and text.strip().startswith("[") and text.strip().endswith("]")):
        omitted = media or "empty message"
    id_ = next((text for text in ids if text and text != "0"), "")
    return PersonMessage(
        sender=name or id_,
        sender_id=id_,
        is_me=not own.isdisjoint(ids) if own else None,
        text=text,
        omitted=omitted,
        parts=(media,) if media and not omitted else (),
        time=time,
    )


def _media(row: dict[str, Any], content: dict[str, Any]) -> str:
    resources = content.get("resources")
    kinds = (
        [part.get("type") for part in resources if isinstance(part, dict)]
        if isinstance(resources, list)
        else []
    )
    for kind in (*kinds, row.get("type"), row.get("messageType")):
        name = kind.lower() if isinstance(kind, str) else ""
        for word, reason in _KINDS:
            if word in name:
                return reason
    return "attachment" if kinds else ""
