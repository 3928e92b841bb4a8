"""WhatsApp's exported chats: `[02.01.26, 10:11:12] Ann: hi` (iOS) or `1/4/23, 7:02 PM - Ann: hi` (Android).

The form of date and time is that of the phone's language, one in a file; whether the day or the month comes first is
decided over the whole file. On iOS a U+200E begins what the program wrote. Nothing says who exported the file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import msgspec

from engine.memory.importers.chats.people import NOTICE, PeopleChat, PersonMessage, dialogues
from engine.memory.importers.fields import ImportOptions, are_roles
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, is_zip, text_lines
from engine.memory.importers.readers.sqlite import is_sqlite
from engine.memory.records import AssumedDates, ImportItem, Skipped

NAME = "whatsapp"

_DATE = r"(\d{1,4})(?:[./-] ?|年)(\d{1,2})(?:[./-] ?|月)(\d{1,4})[.日]?"
_AM = r"a\.? ?m\.?|上午|凌晨|早上|오전|午前|ص"
_PM = r"p\.? ?m\.?|下午|中午|晚上|오후|午後|م"
_CLOCK = rf"({_AM}|{_PM})? ?(\d{{1,2}})[:.](\d{{2}})(?:[:.](\d{{2}}))? ?({_AM}|{_PM})?"
_AT = rf"(?:(?!{_AM}|{_PM})[^\W\d_]{{1,3}}\.? )?"
"""Some languages have a word before the time: `klo 14.08`."""
_STAMP = re.compile(
    rf"(?:\[{_DATE}[,，،]? {{0,2}}{_AT}{_CLOCK}\] ?|{_DATE}[,，،]? {{1,2}}{_AT}{_CLOCK} [-–] )", re.IGNORECASE
)
_IS_PM = re.compile(_PM, re.IGNORECASE)
_MARKS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
_CLEAN = str.maketrans(dict.fromkeys("\u202f\u2009\u00a0", " ") | dict.fromkeys(_MARKS, ""))
_STAMP_LENGTH = 80
_SPEAKER = re.compile(r"(?P<name>[^:：\n]{1,80})(?::(?: |\Z)|：|(?<!\d):)(?P<text>.*)", re.DOTALL)
"""A time in a notice is no speaker: `Missed voice call at 6:02 PM`."""
_EDITED = re.compile(
    r"(?<=\S)\s?(?:\u200e<[^<>\n:]{4,60}>|<(?:This message was edited|此消息已编辑|此訊息已編輯|Diese Nachricht wurde bearbeitet)\.?>)\Z"
)
_ATTACHED = re.compile(r"<[^<>\n]{1,40}: [^<>\n]{1,200}>|.{1,200}\.\w{2,5} \([^()\n]{4,40}\)")
_PLACEHOLDER = re.compile(r"<[^<>\n:]{2,40}[ \u3000][^<>\n]{2,40}>|<[^\x00-\x7f<>]{4,20}>")
_DELETED = re.compile(
    r"(?:this message was deleted|you deleted this message|(?:此|该|這|这)?(?:条|則)?(?:消息|訊息)已(?:被)?(?:删除|刪除)"
    r"|(?:你|您)已?(?:删除|刪除)了?(?:此|这条|這則)(?:消息|訊息)|diese nachricht wurde gelöscht|du hast diese nachricht gelöscht|(?:esta )?mensagem (?:foi )?apagada|você apagou esta mensagem"
    r"|se eliminó este mensaje|eliminaste este mensaje|este mensaje fue eliminado|ce message a été supprimé|vous avez supprimé ce message"
    r"|questo messaggio è stato eliminato|hai eliminato questo messaggio|dit bericht (?:is|werd) verwijderd|je hebt dit bericht verwijderd"
    r"|(?:данное|это) сообщение удалено|вы удалили (?:данное|это) сообщение|bu mesaj silindi|bu mesajı sildiniz|ta wiadomość została usunięta"
    r"|pesan ini telah dihapus|anda menghapus pesan ini|このメッセージは削除されました|(?:이 )?(?:메시지가 삭제되었습니다|삭제된 메시지입니다)"
    r"|تم حذف هذه الرسالة|यह मैसेज डिलीट किया गया)[.。]?",
    re.IGNORECASE,
)
_MEDIA = (
    ("image", "image"),
    ("photo", "image"),
    ("图片", "image"),
    ("圖片", "image"),
    ("sticker", "sticker"),
    ("贴图", "sticker"),
    ("audio", "voice message"),
    ("ptt", "voice message"),
    ("语音", "voice message"),
    ("gif", "video"),
    ("video", "video"),
    ("视频", "video"),
    ("contact", "contact card"),
    (".jpg", "image"),
    (".opus", "voice message"),
    (".webp", "sticker"),
    (".mp4", "video"),
    (".vcf", "contact card"),
    ("call", "call"),
    ("通话", "call"),
)
_LOCATION = re.compile(r"\S{2,20}: https://(?:maps\.google\.com|foursquare\.com)/\S{1,300}")
_LOG_LEVELS = frozenset(("trace", "debug", "info", "notice", "warn", "warning", "error", "critical", "fatal"))
_DETECTION_LINES = 40
_SENTENCE_SPACES = 3
_NOTICE_LENGTH = 40
"""What the program writes for an attachment is shorter, its notices are longer."""


class _Stamped(msgspec.Struct):
    """A message before its date is understood."""

    day_first: bool
    """Whether the signs between the numbers say so: only with slashes the month may come first."""
    date: tuple[int, int, int]
    clock: tuple[int, int, int]
    rest: str


def detect(path: Path, value: Any) -> bool:
    if value is not None or is_zip(path) or is_sqlite(path):
        return False
    lines = [line for _number, line in islice(text_lines(path), _DETECTION_LINES) if line.strip()]
    if not lines or _stamp(lines[0]) is None:
        # Other transcripts quote such lines.
        return False
    rests = [found[1] for line in lines if (found := _stamp(line))]
    names = {match["name"].strip(_MARKS).lower() for rest in rests if (match := _SPEAKER.match(rest))}
    return bool(names - _LOG_LEVELS) and not names & _LOG_LEVELS and not are_roles(names)


def read(path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes) -> Iterator[ImportItem]:
    """The dialogues of a chat of two, which is held in memory. Raises BadInput."""
    stamped: list[_Stamped] = []
    lines: list[list[str]] = []
    outside = 0
    for _number, line in text_lines(path, on_bytes):
        if found := _stamp(line):
            stamped.append(_stamped(*found))
            lines.append([])
        elif lines:
            lines[-1].append(line)
        elif line.strip():
            outside += 1
    if outside:
        yield Skipped(reason="line before the first speaker", count=outside)
    order, is_assumed = _date_order(stamped)
    if is_assumed:
        yield AssumedDates(order=order)
    messages = [
        _message(message.rest, more, _time(message, order))
        for message, more in zip(stamped, lines, strict=True)
    ]
    messages = _without_sentences(messages)
    yield from dialogues([PeopleChat(messages=messages)], source=NAME, path=path, options=options)


def _stamp(line: str) -> tuple[re.Match[str], str] | None:
    """The time at the beginning of a line, and what follows it with its signs of direction; None without a time."""
    match = _STAMP.match(line[:_STAMP_LENGTH].translate(_CLEAN))
    if match is None:
        return None
    end = kept = 0
    while kept < match.end():
        kept += line[end] not in _MARKS
        end += 1
    return match, line[end:]


def _stamped(match: re.Match[str], rest: str) -> _Stamped:
    first, second, third, before, hour, minute, seconds, after = (
        match.groups()[:8] if match[1] is not None else match.groups()[8:]
    )
    day_first = "/" not in match[0]
    half = before or after or ""
    hours = int(hour)
    if half:
        hours = hours % 12 + (12 if _IS_PM.fullmatch(half) else 0)
    date, clock = (int(first), int(second), int(third)), (hours, int(minute), int(seconds or 0))
    return _Stamped(day_first, date, clock, rest)


def _date_order(stamped: list[_Stamped]) -> tuple[str, bool]:
    """`ymd`, `dmy` or `mdy`, and whether it is only assumed.

    A part that can be no month decides, or dots and hyphens, or that time would run backwards; else the shorter chat is
    assumed.
    """
    dates = [message.date for message in stamped]
    if any(date[0] > 31 for date in dates):
        return "ymd", False
    if any(date[0] > 12 for date in dates):
        return "dmy", False
    if any(date[1] > 12 for date in dates):
        return "mdy", False
    if any(message.day_first for message in stamped) or all(date[0] == date[1] for date in dates):
        return "dmy", False
    day_first, month_first = (_implausibility(dates, order) for order in ("dmy", "mdy"))
    order = "dmy" if day_first <= month_first else "mdy"
    return order, day_first[0] == month_first[0]


def _implausibility(dates: list[tuple[int, int, int]], order: str) -> tuple[int, int]:
    """How often time would run backwards, and how many days the chat would last."""
    days = [
        sum(part * days for part, days in zip(_sortable(date, order), (372, 31, 1), strict=True))
        for date in dates
    ]
    return sum(a > b for a, b in pairwise(days)), max(days, default=0) - min(days, default=0)


def _sortable(date: tuple[int, int, int], order: str) -> tuple[int, ...]:
    return tuple(date[order.index(part)] for part in "ymd")


def _time(message: _Stamped, order: str) -> float | None:
    year, month, day = _sortable(message.date, order)
    try:
        moment = datetime(year if year > 99 else 2000 + year, month, day, *message.clock, tzinfo=UTC)
    except ValueError:
        return None
    return moment.timestamp()


def _message(rest: str, more: list[str], time: float | None) -> PersonMessage:
    match = _SPEAKER.match(rest)
    if match is None:
        return PersonMessage(omitted=NOTICE, time=time)
    name = match["name"].strip(_MARKS + " ~")
    written = "\n".join((match["text"], *more)).rstrip()
    text = _EDITED.sub("", written)
    omitted = _reason(text)
    return PersonMessage(sender=name, text=text.strip(_MARKS), omitted=omitted, time=time)


def _without_sentences(messages: list[PersonMessage]) -> list[PersonMessage]:
    """The messages, with notices that have a colon told from a third speaker: they occur once and are sentences."""
    counts = Counter(message.sender for message in messages if not message.omitted)
    sentences = {name for name, count in counts.items() if count == 1 and name.count(" ") >= _SENTENCE_SPACES}
    if len(counts) < 3:
        return messages
    return [
        PersonMessage(omitted=NOTICE, time=message.time) if message.sender in sentences else message
        for message in messages
    ]


def _reason(text: str) -> str:
    """Why a message is left out; "" for words."""
    by_program = text.startswith("\u200e") or "\u200e" in text[-60:]
    bare = text.strip(_MARKS + " \n")
    if not bare or bare == "null":
        return "empty message"
    if _DELETED.fullmatch(bare):
        return "deleted message"
    if _LOCATION.fullmatch(bare):
        return "location"
    if not (by_program or _ATTACHED.fullmatch(bare) or _PLACEHOLDER.fullmatch(bare)):
        return ""
    lower = bare.lower()
    if by_program and len(bare) > _NOTICE_LENGTH and not _ATTACHED.match(bare) and "\u200e" not in text[1:]:
        return NOTICE
    return next((reason for word, reason in _MEDIA if word in lower), "attachment")
