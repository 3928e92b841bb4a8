"""Tencent Yuanbao: the detail of a conversation on its site, as userscripts save it; Yuanbao has no export.

`convs` are the messages by `index`; the words of each stand in `speechesV2[].content`, beside searches and thinking.
Shape as several third-party readers describe it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    build_conversation,
    parse_role,
    parse_time,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.turns import text_turn, without_citations
from engine.memory.records import Conversation, Skipped, Turn

NAME = "yuanbao"

_SKIPPED = {
    **dict.fromkeys(("think", "deepSearch"), "reasoning"),
    **dict.fromkeys(("searchGuid", "step", "toolCall"), "tool message"),
    "image": "image",
}


def detect(path: Path, value: Any) -> bool:
    messages = value.get("convs") if isinstance(value, dict) else None
    return isinstance(messages, list) and any(isinstance(m, dict) and "speaker" in m for m in messages[:50])


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per detail. Raises BadInput."""
    for _line, value in json_values(path, on_bytes):
        if not isinstance(value, dict) or not isinstance(value.get("convs"), list):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        yield from build_conversation(
            (item for message in sorted(value["convs"], key=_index) for item in _turns(message, options)),
            source=NAME,
            external_id=text_or_empty(value.get("id") or value.get("conversationId")),
            title=text_or_empty(value.get("sessionTitle") or value.get("title")),
        )


def _index(message: object) -> float:
    index = message.get("index") if isinstance(message, dict) else None
    return index if isinstance(index, int | float) and index == index else 0.0


def _turns(message: object, options: ImportOptions) -> list[Turn | Skipped]:
    if not isinstance(message, dict):
        return [Skipped(reason="message of another shape")]
    role = parse_role(message.get("speaker"), options.roles)
    if role is None:
        return [unknown_role(message.get("speaker"))]
    texts, skipped = [], []
    speeches = message.get("speechesV2")
    for speech in speeches if isinstance(speeches, list) else []:
        content = speech.get("content") if isinstance(speech, dict) else None
        for part in content if isinstance(content, list) else []:
            kind = part.get("type") if isinstance(part, dict) else None
            text = (part.get("msg") or part.get("content")) if isinstance(part, dict) else None
            if kind == "text" and isinstance(text, str):
                texts.append(text)
            else:
                skipped.append(
                    Skipped(
                        reason=_SKIPPED.get(kind, "attachment") if isinstance(kind, str) else "attachment"
                    )
                )
    text = "\n".join(texts)
    if not text:
        spoken = message.get("speech") or (message.get("displayPrompt") if role is Role.USER else "")
        text = spoken if isinstance(spoken, str) else ""
    if role is Role.ASSISTANT:
        text, marks = without_citations(text)
        skipped += marks
    return text_turn(
        role,
        text,
        time=parse_time(message.get("createTime")),
        external_id=text_or_empty(message.get("id")),
        skipped=skipped,
    )
