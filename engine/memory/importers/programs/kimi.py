"""Kimi: the message list of its page, as userscripts save it; Kimi has no export.

`{"messages": [{role, createTime, blocks}]}`, where a block holds text, or a document or slides. Shape as one
userscript reads it; the roles beside `user` and `assistant`, and the order, are not verified.
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
from engine.memory.importers.turns import text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "kimi"


def detect(path: Path, value: Any) -> bool:
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list):
        return False
    blocks = [
        message.get("blocks") for message in messages[:50] if isinstance(message, dict) and "role" in message
    ]
    return any(
        isinstance(block, dict) and isinstance(block.get("text"), dict)
        for listed in blocks
        if isinstance(listed, list)
        for block in listed
    )


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per list. Raises BadInput."""
    for _line, value in json_values(path, on_bytes):
        if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        messages = sorted(
            value["messages"],
            key=lambda message: (
                (parse_time(message.get("createTime")) or 0) if isinstance(message, dict) else 0
            ),
        )
        yield from build_conversation(
            (item for message in messages for item in _turns(message, options)),
            source=NAME,
            external_id=text_or_empty(value.get("chatId") or value.get("id")),
            title=text_or_empty(value.get("title") or value.get("name")),
        )


def _turns(message: object, options: ImportOptions) -> list[Turn | Skipped]:
    if not isinstance(message, dict):
        return [Skipped(reason="message of another shape")]
    role = parse_role(message.get("role"), options.roles)
    if role is None:
        return [unknown_role(message.get("role"))]
    if role is Role.TOOL:
        return [Skipped(reason="tool message")]
    texts, skipped = [], []
    blocks = message.get("blocks")
    for block in blocks if isinstance(blocks, list) else []:
        part = block.get("text") if isinstance(block, dict) else None
        content = part.get("content") if isinstance(part, dict) else None
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(block, dict) and ("think" in block or "thinking" in block):
            skipped.append(Skipped(reason="reasoning"))
        else:
            is_tool = isinstance(block, dict) and any("tool" in name or "search" in name for name in block)
            skipped.append(Skipped(reason="tool message" if is_tool else "attachment"))
    return text_turn(
        role,
        "\n".join(texts),
        time=parse_time(message.get("createTime")),
        external_id=text_or_empty(message.get("id")),
        skipped=skipped,
    )
