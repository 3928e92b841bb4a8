"""text-generation-webui: its chat logs, `{"internal": [[user, answer], …], "visible", "metadata"}`.

Older logs call the lists `data` and `data_visible`. The first pair may be a greeting, with a mark in place of the
user's words. Shape as written by an old version of its source (`modules/chat.py`); `metadata` with the versions of an
answer is not verified. A file has no times but those of `metadata` and of its name.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from engine.core.chat import Role
from engine.memory.importers.fields import ImportOptions, build_conversation, parse_time
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.turns import text_turn, with_alternatives
from engine.memory.records import Conversation, Skipped, Turn

NAME = "textgen"

_GREETING = "<|BEGIN-VISIBLE-CHAT|>"
_NAME_TIME = re.compile(r"(\d{8})-(\d{2})-?(\d{2})-?(\d{2})", re.ASCII)
_TIME = "%b %d, %Y %H:%M"


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return (isinstance(value.get("internal"), list) and "visible" in value) or (
        isinstance(value.get("data"), list) and "data_visible" in value
    )


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """The chat of the file. Raises BadInput."""
    for _line, value in json_values(path, on_bytes):
        if not detect(path, value):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        pairs = value.get("internal", value.get("data"))
        visible = value.get("visible", value.get("data_visible"))
        named = _NAME_TIME.search(path.stem)
        yield from build_conversation(
            _turns(pairs, visible if isinstance(visible, list) else [], value.get("metadata")),
            source=NAME,
            external_id=path.stem if named else "",
            started_at=_time("".join(named.groups()), "%Y%m%d%H%M%S") if named else None,
        )


def _time(text: object, spelling: str) -> float | None:
    try:
        moment = datetime.strptime(text, spelling) if isinstance(text, str) else None
    except ValueError:
        return parse_time(text)
    return parse_time(moment.replace(tzinfo=UTC).timestamp()) if moment else None


def _turns(pairs: list[Any], visible: list[Any], metadata: object) -> Iterator[Turn | Skipped]:
    for number, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            yield Skipped(reason="message of another shape")
            continue
        shown = visible[number] if number < len(visible) else None
        words = [
            _plain(text, shown[n] if isinstance(shown, list) and len(shown) == 2 else None)
            for n, text in enumerate(pair)
        ]
        about = [_about(metadata, f"{who}_{number}") for who in ("user", "assistant")]
        is_greeting = pair[0] == _GREETING
        if not is_greeting and (words[0] or words[1]):
            yield from text_turn(Role.USER, words[0], time=_time(about[0].get("timestamp"), _TIME))
        versions = about[1].get("versions")
        texts = (
            [
                _plain(version.get("content"), version.get("visible_content"))
                for version in versions
                if isinstance(version, dict)
            ]
            if isinstance(versions, list)
            else []
        )
        answer = text_turn(Role.ASSISTANT, words[1], time=_time(about[1].get("timestamp"), _TIME))
        for item in with_alternatives(answer, texts):
            yield msgspec.structs.replace(item, masked=is_greeting) if isinstance(item, Turn) else item


def _about(metadata: object, key: str) -> dict[str, Any]:
    about = metadata.get(key) if isinstance(metadata, dict) else None
    return about if isinstance(about, dict) else {}


def _plain(text: object, shown: object) -> str:
    """The text, unescaped where it is the same as the HTML that was shown: only then is it HTML itself."""
    if not isinstance(text, str):
        return ""
    return html.unescape(text) if text == shown and "&" in text else text
