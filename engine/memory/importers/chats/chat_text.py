"""Chat logs as text whose messages begin with a line of time and name: QQ's own `.txt`, and MemoTrace's.

`2019-07-16 18:15:05 Bo(12345)`, the words on the lines below. `消息对象:Bo` begins the messages with a contact. The times are
wall clock times; nothing says who exported the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from engine.memory.importers.chats.people import NOTICE, PeopleChat, PersonMessage, dialogues
from engine.memory.importers.fields import ImportOptions, are_roles, parse_time
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, is_zip, text_lines
from engine.memory.importers.readers.sqlite import is_sqlite
from engine.memory.records import ImportItem, Skipped

NAME = "chat_text"

_HEAD = re.compile(
    r"(?P<date>\d{4}-\d{1,2}-\d{1,2}) (?P<hour>\d{1,2}):(?P<minute>\d{2}):(?P<second>\d{2}) "
    r"(?P<name>\S[^\n]{0,80}?)(?:\((?P<number>\d{1,12})\)|<(?P<mail>[^<>\s]{3,80})>)?"
)
_CONTACT = re.compile(r"消息对象[:：]\s?(.{1,100})")
_RULE = re.compile(r"={5,}|-{5,}|消息分组[:：].{0,100}|消息记录.{0,60}")
_MARK = re.compile(r"\[(图片|表情|语音|视频|文件|动画表情|QQ红包|闪照)\]")
_MARKS = {
    **{"图片": "image", "闪照": "image", "表情": "sticker", "动画表情": "sticker", "语音": "voice message"},
    **{"视频": "video", "文件": "attachment", "QQ红包": "transfer or red packet"},
}
_DETECTION_LINES = 200


def detect(path: Path, value: Any) -> bool:
    """Without QQ's own head line, two names must alternate over lines of words: logs have such lines, too."""
    if value is not None or is_zip(path) or is_sqlite(path):
        return False
    lines = [line.strip() for _number, line in islice(text_lines(path), _DETECTION_LINES)]
    heads = [place for place, line in enumerate(lines) if _HEAD.fullmatch(line)]
    if not heads:
        return False
    if any(_CONTACT.fullmatch(line) for line in lines):
        return True
    names = {match["name"] for place in heads if (match := _HEAD.fullmatch(lines[place]))}
    has_words = all(
        place + 1 == len(lines) or (lines[place + 1] and not _HEAD.fullmatch(lines[place + 1]))
        for place in heads
    )
    return len(names) == 2 and has_words and not are_roles(names)


def read(path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes) -> Iterator[ImportItem]:
    """The dialogues with each contact; all messages are held in memory. Raises BadInput."""
    chats: dict[str, list[PersonMessage]] = {}
    contact = ""
    head: re.Match[str] | None = None
    words: list[str] = []
    outside = 0

    def end_message() -> None:
        if head is not None:
            chats.setdefault(contact, []).append(_message(head, words))

    for _number, line in text_lines(path, on_bytes):
        bare = line.strip()
        match = _HEAD.fullmatch(bare)
        named = _CONTACT.fullmatch(bare)
        if match or named:
            end_message()
            head, words = match, []
            contact = named[1] if named else contact
        elif head is not None and not _RULE.fullmatch(bare):
            words.append(line.rstrip())
        elif head is None and bare and not _RULE.fullmatch(bare):
            outside += 1
    end_message()
    if outside:
        yield Skipped(reason="line before the first speaker", count=outside)
    yield from dialogues(
        (PeopleChat(messages=messages, title=name) for name, messages in chats.items()),
        source=NAME,
        path=path,
        options=options,
    )


def _message(head: re.Match[str], lines: list[str]) -> PersonMessage:
    text = "\n".join(lines).strip("\n")
    marks = _MARK.findall(text)
    words = _MARK.sub("", text).strip() if marks else text.strip()
    year, month, day = (int(part) for part in head["date"].split("-"))
    time = parse_time(
        f"{year:04}-{month:02}-{day:02} {int(head['hour']):02}:{head['minute']}:{head['second']}"
    )
    name, id_ = head["name"].strip(), head["number"] or head["mail"] or ""
    if id_ == "10000" or name in ("系统消息", "系统"):
        return PersonMessage(omitted=NOTICE, time=time)
    reasons = tuple(_MARKS[mark] for mark in marks)
    omitted = "" if words else reasons[0] if reasons else "empty message"
    return PersonMessage(
        sender=name,
        sender_id=id_,
        text=words,
        omitted=omitted,
        parts=reasons if words else reasons[1:],
        time=time,
    )
