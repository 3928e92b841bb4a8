"""SillyTavern: the chats `<character>/<name>.jsonl`, whose first line names the user and the character.

`swipes` are the versions of a message, of which `mes` is shown. Messages before the first one of the user are the
greeting of the character's card: no model wrote them, and they bear no loss. Shape as written by SillyTavern's
source (`chats.js`), with the fields of third-party type notes; spellings of `send_date` partly not verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from engine.core.chat import Role
from engine.memory.importers.fields import ImportOptions, build_conversation, parse_time, text_or_empty
from engine.memory.importers.readers.files import OnBytes, ignore_bytes
from engine.memory.importers.readers.logs import log_values
from engine.memory.importers.turns import text_turn, with_alternatives
from engine.memory.records import Conversation, Skipped, Turn

NAME = "sillytavern"

_MACRO = re.compile(r"\{\{(user|char)\}\}", re.IGNORECASE)
_CLOCK = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})\s*@\s*(\d{1,2})h\s*(\d{1,2})m\s*(\d{1,2})s(?:\s*(\d{1,3})ms)?", re.ASCII
)
_WORDS = "%B %d, %Y %I:%M%p"


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return ("user_name" in value and ("character_name" in value or "chat_metadata" in value)) or (
        isinstance(value.get("mes"), str) and "is_user" in value
    )


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """The chat of the file. Raises BadInput."""
    names = {"user": "", "char": ""}
    items: list[Turn | Skipped] = []
    began: float | None = None
    asked = False
    for _line, value in log_values(path, on_bytes):
        if not isinstance(value, dict) or not detect(path, value):
            items.append(Skipped(reason="message of another shape"))
        elif "mes" not in value:
            names = {
                "user": text_or_empty(value.get("user_name")),
                "char": text_or_empty(value.get("character_name")),
            }
            began = parse_send_date(value.get("create_date"))
        else:
            for item in _turns(value, names):
                if isinstance(item, Turn):
                    asked = asked or item.role is Role.USER
                    item = item if asked else msgspec.structs.replace(item, masked=True)
                items.append(item)
    yield from build_conversation(items, source=NAME, title=names["char"], started_at=began)


def parse_send_date(value: object) -> float | None:
    """Seconds since the epoch of the program's spellings of a time; local times are read as UTC."""
    time = parse_time(value)
    if time is not None or not isinstance(value, str):
        return time
    try:
        if found := _CLOCK.fullmatch(value.strip()):
            year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
            moment = datetime(year, month, day, hour, minute, second, int(found[7] or 0) * 1000, tzinfo=UTC)
        else:
            moment = datetime.strptime(value.strip(), _WORDS).replace(tzinfo=UTC)
        return parse_time(moment.timestamp())
    except (ValueError, OverflowError):
        return None


def _turns(message: dict[str, Any], names: dict[str, str]) -> Iterator[Turn | Skipped]:
    if message.get("is_system"):
        yield Skipped(reason="hidden message")
        return
    role = Role.USER if message.get("is_user") else Role.ASSISTANT
    extra = message.get("extra")
    skipped = [Skipped(reason="reasoning")] if isinstance(extra, dict) and extra.get("reasoning") else []
    swipes = message.get("swipes")
    versions = (
        [_filled(text, names) for text in swipes if isinstance(text, str)] if isinstance(swipes, list) else []
    )
    time = parse_send_date(message.get("send_date"))
    yield from with_alternatives(
        text_turn(role, _filled(message["mes"], names), time=time, skipped=skipped), versions
    )


def _filled(text: str, names: dict[str, str]) -> str:
    """The text with the names in place of their macros."""
    return _MACRO.sub(lambda macro: names[macro[1].lower()] or macro[0], text) if "{{" in text else text
