"""Chat logs of WeFlow and echotrace (WeChat) and of ChatLab, an interchange format that such tools also write.

WeFlow: `{"session", "messages": [{"createTime", "type" in Chinese words, "content", "isSend"}]}`. ChatLab: `{"chatlab",
"meta", "members", "messages": [{"sender", "accountName", "timestamp", "type", "content"}]}` or JSONL with `_type`; its
`meta.ownerId` is who exported it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.memory.importers.chats.people import NOTICE, PeopleChat, PersonMessage, dialogues
from engine.memory.importers.chats.wechat import content_of
from engine.memory.importers.fields import ImportOptions, parse_time, text_or_empty
from engine.memory.importers.readers.files import (
    OnBytes,
    first_value,
    ignore_bytes,
    json_members,
    json_values,
)
from engine.memory.records import ImportItem

NAME = "chatlab"

_TYPES = {
    **{0: "", 25: "", 1: "image", 2: "voice message", 3: "video", 4: "attachment", 5: "sticker"},
    **{7: "link card", 8: "location", 20: "transfer or red packet", 21: "transfer or red packet"},
    **{22: NOTICE, 23: "call", 24: "link card", 26: "forwarded message", 27: "contact card"},
    **{80: NOTICE, 81: "recalled message"},
}


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("chatlab"), dict) or _is_weflow(value)


def _is_weflow(value: dict[str, Any]) -> bool:
    session = value.get("session")
    return isinstance(session, dict) and "wxid" in session and ("messages" in value or "weflow" in value)


def read(path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes) -> Iterator[ImportItem]:
    """The dialogues of a chat of two, which is held in memory. Raises BadInput."""
    return dialogues([_chat(path, on_bytes)], source=NAME, path=path, options=options)


def _chat(path: Path, on_bytes: OnBytes) -> PeopleChat:
    head: dict[str, Any] = {}
    members: dict[str, str] = {}
    messages: list[Any] = []
    for key, value in _members(path, on_bytes):
        if key in ("session", "meta") and isinstance(value, dict):
            head = value
        elif key == "members" and isinstance(value, dict):
            members[text_or_empty(value.get("platformId"))] = text_or_empty(value.get("accountName"))
        elif key == "messages":
            messages.append(value)
    if "wxid" in head:
        contact = text_or_empty(head["wxid"])
        title = next(
            (name for key in ("remark", "displayName", "nickname") if (name := text_or_empty(head.get(key)))),
            "",
        )
        is_group = head.get("type") == "群聊" or "@chatroom" in contact
        return PeopleChat(
            messages=[_weflow_message(message) for message in messages],
            contact=contact,
            title=title,
            is_group=is_group,
        )
    owner = text_or_empty(head.get("ownerId"))
    return PeopleChat(
        messages=[_message(message, members, owner) for message in messages],
        title=text_or_empty(head.get("name")),
        is_group=head.get("type") == "group",
    )


def _members(path: Path, on_bytes: OnBytes) -> Iterator[tuple[str, Any]]:
    """The members of the object, or of the lines of JSONL."""
    first = first_value(path)
    if not isinstance(first, dict) or "_type" not in first:
        yield from json_members(path, on_bytes, expand=("messages", "members"))
        return
    for _line, row in json_values(path, on_bytes):
        kind = row.get("_type") if isinstance(row, dict) else None
        if kind == "header":
            yield "meta", row.get("meta")
        else:
            yield "members" if kind == "member" else "messages", row


def _message(message: Any, members: dict[str, str], owner: str) -> PersonMessage:
    if not isinstance(message, dict):
        return PersonMessage(omitted="message of another shape")
    kind, content = message.get("type"), message.get("content")
    omitted = (
        _TYPES.get(kind, "message of another shape") if isinstance(kind, int) else "message of another shape"
    )
    text = content if isinstance(content, str) else ""
    if not omitted and not text.strip():
        omitted = "empty message"
    sender = text_or_empty(message.get("sender"))
    is_notice = omitted in (NOTICE, "recalled message")
    return PersonMessage(
        sender=""
        if is_notice
        else text_or_empty(message.get("accountName")) or members.get(sender, "") or sender,
        sender_id="" if is_notice else sender,
        is_me=sender == owner if owner and not is_notice else None,
        text=text,
        omitted=omitted,
        time=parse_time(message.get("timestamp")),
    )


def _weflow_message(message: Any) -> PersonMessage:
    if not isinstance(message, dict):
        return PersonMessage(omitted="message of another shape")
    content = message.get("content")
    text, omitted = content_of(message.get("type"), content if isinstance(content, str) else "")
    sent = message.get("isSend")
    is_notice = sent not in (0, 1) or omitted in (NOTICE, "recalled message")
    return PersonMessage(
        sender="" if is_notice else text_or_empty(message.get("senderDisplayName")),
        sender_id="" if is_notice or sent == 1 else text_or_empty(message.get("senderUsername")),
        is_me=None if is_notice else sent == 1,
        text=text,
        omitted=omitted or (NOTICE if is_notice else ""),
        time=parse_time(message.get("createTime")),
    )
