"""WeChat as CSV: the tables of PyWxDump (which WeClone reads) and of MemoTrace (WeChatMsg).

Both say who sent a row (`is_sender`, `IsSender`). Times of PyWxDump are wall clock times, after a trip through Excel only
minutes: the order of the file decides then. A quote holds what its author wrote as the title of an XML text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.memory.importers.chats.people import NOTICE, PeopleChat, PersonMessage, dialogues
from engine.memory.importers.fields import ImportOptions, parse_time, text_or_empty
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.records import ImportItem, Skipped

NAME = "wechat"

_DUMP = {"type_name", "is_sender", "talker", "room_name", "CreateTime"}
_MEMO = {"TalkerId", "Type", "IsSender", "CreateTime", "StrContent"}
_GROUP = "@chatroom"
_TITLE, _TITLE_END = "<title>", "</title>"
_SLASHED = re.compile(r"(\d{4})/(\d{1,2})/(\d{1,2}) (\d{1,2}):(\d{2})(?::(\d{2}))?")
_RECALLED = re.compile(r"撤回|recalled a message")
_WORDS = (
    ("文本", ""),
    ("引用", ""),
    ("图片", "image"),
    ("表情", "sticker"),
    ("语音通话", "call"),
    ("视频通话", "call"),
    ("通话", "call"),
    ("语音", "voice message"),
    ("视频", "video"),
    ("位置", "location"),
    ("文件", "attachment"),
    ("名片", "contact card"),
    ("转账", "transfer or red packet"),
    ("红包", "transfer or red packet"),
    ("合并转发", "forwarded message"),
    ("聊天记录", "forwarded message"),
    ("撤回", "recalled message"),
    ("系统", NOTICE),
    ("拍一拍", NOTICE),
    ("链接", "link card"),
    ("卡片", "link card"),
    ("小程序", "link card"),
    ("分享", "link card"),
)
"""What a type in words means, the first that occurs in it; "" for words."""
_MEMO_TYPES = {3: "image", 34: "voice message", 42: "contact card", 43: "video", 47: "sticker"}
_MEMO_TYPES |= {48: "location", 50: "call"}
_APP_TYPES = {6: "attachment", 8: "sticker", 19: "forwarded message", 62: NOTICE}
_APP_TYPES |= {2000: "transfer or red packet", 2001: "transfer or red packet"}


def detect(path: Path, value: Any) -> bool:
    return isinstance(value, dict) and (value.keys() >= _DUMP or value.keys() >= _MEMO)


def read(path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes) -> Iterator[ImportItem]:
    """The dialogues with each contact. All rows are held in memory. Raises BadInput."""
    chats: dict[str, list[PersonMessage]] = {}
    groups: set[str] = set()
    seen: set[tuple[str, ...]] = set()
    for _line, row in json_values(path, on_bytes):
        if not detect(path, row):
            yield Skipped(reason="row of another shape")
            continue
        is_dump = "is_sender" in row
        contact = text_or_empty(row["room_name" if is_dump else "TalkerId"])
        message = _dump_message(row, contact) if is_dump else _memo_message(row)
        id_ = text_or_empty(row.get("MsgSvrID"))
        key = (contact, id_, str(message.is_me), str(message.time), message.text)
        # Excel rounds long numbers.
        if id_.isdigit() and key in seen:
            yield Skipped(reason="repeated message")
            continue
        seen.add(key)
        chats.setdefault(contact, []).append(message)
        if _GROUP in contact or _GROUP in message.sender_id:
            groups.add(contact)
    yield from dialogues(
        (_chat(contact, messages, contact in groups) for contact, messages in chats.items()),
        source=NAME,
        path=path,
        options=options,
    )


def _chat(contact: str, messages: list[PersonMessage], is_group: bool) -> PeopleChat:
    # The number of a contact in MemoTrace is another one in another database.
    ids = {message.sender_id for message in messages if message.is_me is False and message.sender_id}
    contact = ids.pop() if len(ids) == 1 else contact
    return PeopleChat(messages=messages, contact=contact, is_group=is_group)


def _dump_message(row: dict[str, Any], contact: str) -> PersonMessage:
    content = row.get("msg", row.get("content"))
    text, omitted = content_of(row.get("type_name"), content if isinstance(content, str) else "")
    talker = text_or_empty(row.get("talker"))
    is_me = str(row["is_sender"]).strip() in ("1", "True", "true")
    is_notice = omitted in (NOTICE, "recalled message")
    return PersonMessage(
        sender="" if is_notice else talker or contact,
        sender_id="" if is_notice or is_me else talker or contact,
        is_me=None if is_notice else is_me,
        text=text,
        omitted=omitted,
        time=_wall_time(row["CreateTime"]),
    )


def content_of(kind: object, content: str) -> tuple[str, str]:
    """The words of a row by its type in Chinese words, and why it is left out. A row without a type is of words."""
    name = kind if isinstance(kind, str) else ""
    reason = next((reason for word, reason in _WORDS if word in name), "attachment" if name else "")
    if reason == NOTICE and _RECALLED.search(content):
        reason = "recalled message"
    if reason:
        return "", reason
    text = quoting_text(content) if "引用" in name else content
    return text, "" if text.strip() else "empty message"


def quoting_text(content: str) -> str:
    """What the author of a quote wrote: the title of its XML, or the text itself."""
    if not content.lstrip().startswith("<"):
        return content
    _before, _mark, rest = content.partition(_TITLE)
    title, end, _after = rest.partition(_TITLE_END)
    return html.unescape(title).strip() if end else ""


def _memo_message(row: dict[str, Any]) -> PersonMessage:
    kind, sub = _number(row["Type"]), _number(row.get("SubType"))
    content = row["StrContent"] if isinstance(row["StrContent"], str) else ""
    text, omitted = "", ""
    if kind == 1:
        text = content
    elif kind == 49 and sub == 57:
        text = quoting_text(content)
    elif kind == 49:
        omitted = _APP_TYPES.get(sub, "link card")
    elif kind == 10000:
        omitted = "recalled message" if _RECALLED.search(content) else NOTICE
    else:
        omitted = _MEMO_TYPES.get(kind, "message of another shape")
    if not omitted and not text.strip():
        omitted = "empty message"
    is_notice = omitted in (NOTICE, "recalled message")
    name = text_or_empty(row.get("Remark")) or text_or_empty(row.get("NickName"))
    is_me = _number(row["IsSender"]) == 1
    return PersonMessage(
        sender="" if is_notice else name or text_or_empty(row.get("Sender")),
        sender_id="" if is_notice or is_me else text_or_empty(row.get("Sender")),
        is_me=None if is_notice else is_me,
        text=text,
        omitted=omitted,
        time=parse_time(_number(row["CreateTime"])) or _wall_time(row.get("StrTime")),
    )


def _number(value: object) -> int:
    try:
        return int(float(str(value)))
    except (ValueError, OverflowError):
        return -1


def _wall_time(value: object) -> float | None:
    text = str(value).strip()
    if match := _SLASHED.fullmatch(text):
        year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
        text = f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"
    return parse_time(text)
